/** A session that went on from one epoch of a log into the next, which prunes what it has. */
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openingEvent } from '../../audit/epoch.ts'
import { planPrune } from '../../audit/prune-plan.ts'
import { beginning, ending, first, second, writeEpoch } from './epoch-fixture.ts'
import { end, temporary } from './fixture.ts'
import { Month } from './month.ts'

test('the event that names a session from the epoch before is not pruned while that is open', async () => {
  const at = temporary()
  const [old, log, archive] = ['1', '2', 'archive'].map((name) => join(at, name))
  writeEpoch(old ?? '', first, { closing: ending(second) })
  const opening = { ...beginning(first, old ?? ''), carried: ['s_1'] }
  rmSync(old ?? '', { recursive: true })
  const month = new Month(log ?? '', 12_000, second)
  month.every = 10
  month.write(openingEvent(opening))
  month.open()
  month.pass(300)
  const plan = async (): ReturnType<typeof planPrune> => {
    rmSync(archive ?? '', { recursive: true, force: true })
    cpSync(log ?? '', archive ?? '', { recursive: true })
    const asked = { directory: log ?? '', archive: archive ?? '', before: month.time }
    return await planPrune({ ...asked, verifierKeys: second.vkeys, running: true })
  }
  month.one.sign(month.time)
  expect((await plan()).pruned).toMatchObject({
    segments: 0,
    held: 'session s_1 began with event 0 and has not ended',
  })
  month.write({ ...end, session: 's_1' })
  month.one.sign(month.time)
  expect((await plan()).pruned.segments).toBeGreaterThan(0)
  month.one.close()
})
