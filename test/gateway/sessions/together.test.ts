/** A session of several connections, of each of which policy says something else: it stands under the strictest of all. */
import { describe, expect, test } from 'vitest'
import type { Input, Obligations } from '#policy'
import {
  LiveSession,
  type LiveSessionOptions,
  type LiveStream,
} from '../../../gateway/sessions/live.ts'
import { until } from '../../support/node.ts'
import { answer } from '../../support/policy.ts'
import { expecting, PLC, refusalOf, seen } from '../../support/tunnels.ts'
import { carried, here, twoDevices } from './carried.ts'

twoDevices()

/** Until the row ends, policy says this beside of what `pid` answers for. */
function says(of: (pid: number) => Partial<Obligations>): void {
  answer((decision, point, given) => {
    if (point !== 'session.reevaluate' || !decision.allow) return decision
    const pid = (given as Input).process?.observed?.pid ?? 0
    return { ...decision, obligations: { ...decision.obligations, ...of(pid) } }
  })
}
/** What answers the first connection, and others. */
const FIRST = seen(PLC).pid
const answersAs = (pid: number) => void (here.agent.observed = { ...seen(PLC), pid })
/** Every session of the device is decided again on all that it stands on, before this comes back. */
const decidedAgain = () =>
  here.node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting())

test('what one connection adds binds at once, and is gone with it where all is decided again meanwhile', async () => {
  const { session, client } = await carried()
  says((pid) => (pid === 2 ? { max_streams: 2 } : {}))
  answersAs(2)
  const second = await client.line(session)
  answersAs(3)
  const third = await refusalOf(client.stream(session))
  expect([third.code, third.told?.msg]).toEqual([
    'session.limit',
    'the session allows 2 connections at once',
  ])
  second.stream.reset('bye', '')
  // The gateway may hear of its end after a first time: with what it added, there is room for one more and no other.
  let more = 0
  await until('two more are let in', async () => {
    await decidedAgain()
    more += await client.line(session).then(
      () => 1,
      () => 0,
    )
    return more === 2
  })
})

test('what one connection adds goes with it, though nothing is decided again', async () => {
  const { session, client } = await carried()
  says((pid) => (pid === 2 ? { max_streams: 2 } : {}))
  answersAs(2)
  const second = await client.line(session)
  answersAs(3)
  expect((await refusalOf(client.stream(session))).code).toBe('session.limit')
  second.stream.reset('bye', '')
  // One is let in as soon as the gateway has heard of its end, or before; two only without what it added.
  let more = 0
  await until('two more are let in', async () => {
    more += await client.line(session).then(
      () => 1,
      () => 0,
    )
    return more === 2
  })
})

test('decided again, the first of two connections binds the session as much as the last', async () => {
  const { session, client } = await carried()
  answersAs(2)
  await client.line(session)
  let strict = 0
  says((pid) => (pid === strict ? { max_streams: 2 } : {}))
  for (strict of [FIRST, 2]) {
    await decidedAgain()
    expect((await refusalOf(client.stream(session))).code).toBe('session.limit')
  }
})

test('a connection that may not be one of so many is refused itself, and binds nobody', async () => {
  const { session, client, line } = await carried()
  says((pid) => (pid === 2 ? { max_streams: 1 } : {}))
  answersAs(2)
  expect((await refusalOf(client.stream(session))).told?.msg).toBe(
    'this connection allows 1 connections at once',
  )
  answersAs(3)
  await client.line(session)
  line.write('more')
  await line.until('the first goes on', ({ text }) => text === 'pingmore')
})

describe('by the clock', () => {
  const bound = { idle_timeout_s: 900, reeval_after_s: 300, not_after: 9e6, max_bandwidth_bps: 8 }
  const session = () =>
    new LiveSession({
      id: 's_1',
      subject: { token_exp: 9e6 },
      presence: { peer: { notAfter: 9e9 } },
      obligations: {
        ...bound,
        max_streams: 8,
        ot_level: 2,
        ot_windows: [],
        processes: ['plc'],
        methods: [],
      },
      decision: { id: 'd_1', revision: 'r1', codes: [] },
      openedAt: 0,
      expiresAt: 9e9,
    } as unknown as LiveSessionOptions)

  test('however many connections come, what the others are due to be asked is not put off', () => {
    const one = session()
    one.lastActivityAt = 299_000
    one.note({ id: 'd_2', revision: 'r1', codes: [] })
    expect([one.deadline(), one.decisions.length]).toEqual([300_000, 2])
    one.decided({ id: 'd_3', revision: 'r1', codes: [] }, 299_000)
    expect(one.deadline()).toBe(599_000)
  })

  const connection = (pid: number) =>
    ({ source: { ip: '192.0.2.1' }, observed: { pid } }) as unknown as LiveStream
  const sightOf = ({ source, observed }: LiveStream) => ({ source, observed: observed ?? null })
  /** Open, with these connections. */
  function carrying(...streams: readonly LiveStream[]): LiveSession {
    const one = session()
    one.advance('recorded')
    for (const stream of streams) one.streams.add(stream)
    return one
  }

  test('one that must be asked about sooner makes all of it due sooner, and one later nothing later', () => {
    const [first, second, third] = [connection(1), connection(2), connection(3)]
    const one = carrying(first, second, third)
    let armed = 0
    one.rearm = () => void armed++
    one.bindAlso(first, { ...one.obligations, reeval_after_s: 60, not_after: 50 })
    expect([one.deadline(), armed]).toEqual([50_000, 1])
    one.bindAlso(second, { ...one.obligations, reeval_after_s: 3600, not_after: 8e6 })
    expect([one.obligations.reeval_after_s, one.deadline()]).toEqual([60, 50_000])
    // What one connection may read and write is its own.
    one.bindAlso(third, { ...one.obligations, ot_level: 0, ot_windows: [[]] })
    expect(one.obligations).toMatchObject({ ot_level: 2, ot_windows: [] })
    const all = { ...one.obligations, ...bound }
    one.rebind(
      [first, second, third].map((stream) => ({ sight: sightOf(stream), obligations: all })),
    )
    expect(one.deadline()).toBe(300_000)
  })

  test('the end of one connection is not the end of a session that goes on without it', () => {
    const [first, second] = [connection(1), connection(2)]
    const one = carrying(first, second)
    let armed = 0
    one.rearm = () => void armed++
    one.bindAlso(second, { ...one.obligations, not_after: 50, max_streams: 2 })
    expect([one.isOver(49_999), one.isOver(50_000)]).toEqual([false, true])
    one.leave(second)
    expect([one.isOver(50_000), one.end(), one.obligations.max_streams, armed]).toEqual([
      false,
      9e9,
      8,
      2,
    ])
    // Of one that nothing was decided about yet, and of one that is gone already, nothing is taken back.
    one.leave(first)
    one.leave(second)
    expect(armed).toBe(2)
  })

  test('also where all was decided again while both were there; and what the other says holds on', () => {
    const [first, second] = [connection(1), connection(2)]
    const one = carrying(first, second)
    one.rebind([
      { sight: sightOf(first), obligations: { ...one.obligations, not_after: 70 } },
      { sight: sightOf(second), obligations: { ...one.obligations, not_after: 50 } },
    ])
    expect(one.end()).toBe(50_000)
    one.leave(second)
    expect(one.end()).toBe(70_000)
  })

  test('one that came while all was decided again keeps what was decided of it', () => {
    const [first, second] = [connection(1), connection(2)]
    const one = carrying(first)
    one.streams.add(second)
    one.bindAlso(second, { ...one.obligations, not_after: 50 })
    one.rebind([{ sight: sightOf(first), obligations: { ...one.obligations, not_after: 70 } }])
    expect(one.end()).toBe(50_000)
  })
})
