/** A log that fills its own disk, of a gateway that is stopped: what was kept back pays for the prune that makes room. */
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { pruneLog, readLog, verifyLog } from '#audit'
import { realDisk } from '../../audit/disk.ts'
import { Reserve } from '../../audit/reserve.ts'
import { rounds } from '../support/patience.ts'
import { logOptions, origin, shared, vkeys } from './fixture.ts'
import { Month } from './month.ts'
import { fill, smallDisk } from './small-disk.ts'

const MIB = 1024 * 1024

const disks = [smallDisk(8), smallDisk(8)]

/** A log in many segments on that disk, with so much kept back there, and an archive of it elsewhere. */
function plant(path: string, kept: number): { log: string; archive: string; before: number } {
  const [log, archive] = [join(path, 'log'), join(shared(), 'archive')]
  const month = new Month(log, 12_000)
  month.every = 50
  month.open()
  month.pass(300)
  month.one.sign(month.time)
  month.one.close()
  cpSync(log, archive, { recursive: true })
  if (kept > 0) {
    const sizes = { closeoutBytes: kept, breakglassBytes: kept }
    const reserve = new Reserve(log, realDisk, sizes)
    for (const _ of rounds('the reserve is whole')) {
      if (reserve.missing === 0) break
      reserve.fill(() => 0)
    }
  }
  fill(path)
  return { log, archive, before: month.time }
}

const segments = (log: string): number => readdirSync(join(log, 'seg')).length

describe.skipIf(disks.includes(null))('on a full disk (needs a tmpfs to fill)', () => {
  test('a stopped gateway’s log is pruned out of what was kept back, and holds', async () => {
    const { log, archive, before } = plant(disks[0] ?? '', 2 * MIB)
    const there = segments(log)
    const pruned = await pruneLog({ ...logOptions(log), archive, before })
    expect(pruned.segments).toBeGreaterThan(0)
    expect(segments(log)).toBeLessThan(there)
    const texts = [...readLog(log, origin)].map(({ body }) => Buffer.from(body).toString())
    expect(texts.filter((text) => text.includes('"event_code":"log.prune"'))).toHaveLength(1)
    expect(await verifyLog({ directory: log, verifierKeys: vkeys })).toMatchObject({
      outcome: 'proven',
      pruned: pruned.first,
    })
  })
  test('with nothing kept back nothing goes, and with room again it does', async () => {
    const path = disks[1] ?? ''
    const { log, archive, before } = plant(path, 0)
    const there = segments(log)
    const asked = { ...logOptions(log), archive, before }
    await expect(pruneLog(asked)).rejects.toMatchObject({ code: 'log.write' })
    expect(segments(log)).toBe(there)
    rmSync(join(path, 'other'))
    expect((await pruneLog(asked)).segments).toBeGreaterThan(0)
    expect(await verifyLog({ directory: log, verifierKeys: vkeys })).toMatchObject({
      outcome: 'proven',
    })
  })
})
