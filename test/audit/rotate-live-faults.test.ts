/** What goes wrong beside a rotation of a log that is written: who follows it fails, or the gateway stops. */
import { describe, expect, onTestFinished, test } from 'vitest'
import { openEpoched, type EpochedLog } from '#audit'
import type { EpochedOptions } from '../../audit/epoched.ts'
import { OpenSessions } from '../../audit/open-sessions.ts'
import { shipEpochs } from '../../audit/ship/epochs.ts'
import type { Shipper } from '../../audit/ship/sink.ts'
import { Rotation } from '../../gateway/rotation.ts'
import { failing, flagging } from './failing-rotation.ts'
import { end, eventually, start, stats, temporary } from './fixture.ts'
import { codeOf, node, stem, type Node } from './succession-fixture.ts'

const by = { uid: 'https://idp.test|olga', party: 'staff' } as const

async function going(one: Node, more: Partial<EpochedOptions> = {}): Promise<EpochedLog> {
  const log = await openEpoched({ ...one.options, ...more })
  onTestFinished(() => log.close())
  return log
}

describe('who follows the log to its next epoch and fails', () => {
  test('keeps nobody else from following, nothing that waits from being written, and is said', async () => {
    const log = await going(node())
    const followed: string[] = []
    log.onEpoch(() => {
      throw new Error('the witnesses cannot be read')
    })
    log.onEpoch(() => followed.push(log.origin))
    const rotation = log.rotate()
    const waiting = log.append(stats(1))
    const head = log.checkpoint()
    expect(await rotation).toMatchObject({
      epoch: 2,
      ended: { origin: `${stem}/1` },
      unfollowed: { message: 'the witnesses cannot be read' },
    })
    expect(followed).toEqual([`${stem}/2`])
    expect((await waiting).idx).toBeGreaterThan(0)
    expect((await head).origin).toBe(`${stem}/2`)
  })

  /** A sink that has everything; `closed` becomes of its close. */
  const sink = (closed = Promise.resolve()): Shipper => ({
    health: () => ({
      name: 'siem',
      state: 'OK',
      sent: 0,
      connects: 0,
      rewinds: 0,
      stubs: 0,
      next: 0,
      cursor: 0,
      owed: 0,
      lastError: null,
    }),
    lag: () => ({ events: 0 }),
    flush: async () => true,
    close: () => closed,
    [Symbol.asyncDispose]: () => closed,
  })

  test.for([
    { name: 'of the next epoch', fails: 2, unfollowed: true },
    { name: 'of the rest of the old', fails: 3, unfollowed: false },
  ])('a sink $name that cannot be begun is down, and says why', async ({ fails, unfollowed }) => {
    const log = await going(node())
    let begun = 0
    const shipper = shipEpochs(log, [], 'siem', () => {
      if (++begun === fails) throw new Error('ENOSPC: no cursor')
      return sink()
    })
    onTestFinished(() => shipper.close())
    expect(shipper.health()).toMatchObject({ state: 'OK', lastError: null })
    expect((await log.rotate()).unfollowed !== undefined).toBe(unfollowed)
    await eventually(() => begun === 3)
    expect(shipper.health()).toMatchObject({ state: 'DOWN', lastError: 'ENOSPC: no cursor' })
  })
})

test('a gateway that stops while its log waits for a disk does not wait for that', async () => {
  const one = node()
  const { flag, thread } = failing(one, true)
  const log = await going(one, { thread, keys: flagging(one, flag), limits: { drainMs: 1 } })
  const reports: unknown[] = []
  const rotation = new Rotation({
    log,
    data: temporary(),
    now: () => 5_000,
    report: (error) => reports.push(codeOf(error)),
    policy: { remember: async () => {} },
  })
  rotation.begin(by)
  await eventually(() => log.state === 'DRAIN')
  await rotation[Symbol.asyncDispose]()
  expect(rotation.status).toMatchObject({ state: 'failed', ended: null })
  expect(reports).toEqual(['log.closed'])
  expect(await log.append(stats(1)).then(() => 'done', codeOf)).toBe('log.write')
})

test('a second end that is refused opens no session anew, and one that both are refused of stays open', async () => {
  const open = new OpenSessions()
  const taken = Promise.resolve({ idx: 1, uid: '', leaf: '' })
  const refused = Promise.reject(new Error('log.full'))
  const session = start.session ?? ''
  open.follow(start, taken)
  for (const done of [refused, refused]) open.follow(end, done)
  await Promise.allSettled([refused])
  expect(open.ids).toEqual([session])
  for (const done of [taken, refused]) open.follow(end, done)
  await Promise.allSettled([refused])
  expect(open.ids).toEqual([])
  open.follow(start, refused)
  await Promise.allSettled([refused])
  expect(open.size).toBe(0)
})
