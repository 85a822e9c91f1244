/** The gate that a connection’s writes pass, over a log that says when an event is on disk. */
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { EventInput } from '#audit'
import { modbusFilter } from '../../../gateway/access/modbus.ts'
import type { Filtered } from '../../../gateway/access/splice.ts'
import type { LiveSession, LiveStream } from '../../../gateway/sessions/live.ts'
import { Allowance } from '../../../gateway/sessions/pace.ts'
import type { SessionRoom } from '../../../gateway/sessions/room.ts'
import { until } from '../../support/node.ts'
import { hex, WINDOW, WRITE } from './writing.ts'

describe('log before act', () => {
  /** The gate of a connection over a log of the test's own: it says when an event is on disk. */
  function gate() {
    const appended: { event: EventInput; resolve: () => void; reject: () => void }[] = []
    const log = {
      append: (event: EventInput) =>
        new Promise<never>((resolve, reject) => {
          const fail = () => reject(new Error('poisoned'))
          appended.push({ event, resolve: resolve as () => void, reject: fail })
        }),
    }
    const allow = { allow: true, decision_id: 'd_1', revision: 'r', reasons: [], denials: [] }
    const decisions = { ask: () => allow, recorded: () => Promise.resolve() }
    const clock = { now: 1_000_000 }
    const room = {
      log,
      decisions,
      now: () => clock.now,
      report: () => undefined,
    } as unknown as SessionRoom
    const session = {
      id: 's_1',
      state: 'open',
      subject: { id: 'iss|vera', authn: { methods: [] } },
      obligations: { ot_each: false },
      footing: { target: { device: {}, process: { expect: {} } }, grants: [] },
      elevation: { grants: [] },
      decisions: [],
      denials: 0,
      verdicts: { passed: 0, refused: 0, writes: 0 },
      writes: new Allowance(50, 3, performance.now()),
    } as unknown as LiveSession
    const stream = { source: { ip: null, tls: null }, observed: null } as unknown as LiveStream
    const filter = modbusFilter(room, session, stream, { level: 2, windows: [[WINDOW]] })
    const onward: string[] = []
    const back: string[] = []
    const take = (made: Filtered) => {
      onward.push(...made.onward.map((one) => Buffer.from(one).toString('hex')))
      back.push(...made.back.map((one) => Buffer.from(one).toString('hex')))
    }
    filter.attach(take)
    onTestFinished(() => filter.stop())
    const send = (frame: Buffer) => take(filter.fromClient(frame))
    const told = async (count: number) =>
      await until('the log was asked', () => appended.length >= count)
    return { appended, clock, filter, onward, back, send, session, stream, told }
  }
  const INSIDE = hex('000300000006010300050001')
  const turn = () => new Promise(setImmediate)

  test('nothing goes on before the event is on disk, and what came behind waits with it', async () => {
    const { appended, onward, send, told } = gate()
    send(Buffer.concat([WRITE, INSIDE]))
    await told(1)
    await turn()
    expect([appended[0]?.event.code, onward]).toEqual(['ot.write', []])
    appended[0]?.resolve()
    await until('both go on', () => onward.length === 2)
    expect(onward).toEqual([WRITE.toString('hex'), INSIDE.toString('hex')])
  })

  test('the log fails: answered 0Ah, never passed, and told as refused', async () => {
    const { appended, onward, back, send, told, session } = gate()
    send(Buffer.concat([WRITE, INSIDE]))
    await told(1)
    appended[0]?.reject()
    await until('an answer', () => back.length === 1)
    expect([onward, back]).toEqual([[INSIDE.toString('hex')], ['00020000000301860a']])
    await told(2)
    expect(appended[1]?.event).toMatchObject({ code: 'ot.deny', data: { exception: 0x0a } })
    expect(session.denials).toBe(1)
  })

  test.for([
    { name: 'the session has ended', end: { state: 'ending' }, narrowed: undefined },
    { name: 'the connection may write no more', end: {}, narrowed: { code: 'grant.narrowed' } },
  ])('on disk when $name: it goes nowhere', async ({ end, narrowed }) => {
    const { appended, onward, back, send, told, session, stream } = gate()
    send(WRITE)
    await told(1)
    Object.assign(session, end)
    Object.assign(stream, { narrowed })
    appended[0]?.resolve()
    await until('an answer', () => back.length === 1)
    expect([onward, back]).toEqual([[], ['00020000000301860a']])
  })

  test('on disk when the grant is over that let it pass: it goes nowhere', async () => {
    const { appended, clock, filter, onward, back, send, told, session } = gate()
    const statement = { id: 'g_w', ot_windows: [WINDOW], not_after: 1010, max_duration_s: 5 }
    Object.assign(session, { elevation: { grants: [{ statement, first_used_at: 1000 }] } })
    send(Buffer.concat([WRITE, WRITE]))
    await told(2)
    expect(appended[0]?.event).toMatchObject({ grant: 'g_w' })
    clock.now = 1_004_999
    appended[0]?.resolve()
    await until('the first goes on', () => onward.length === 1)
    filter.fromDevice(WRITE)
    clock.now = 1_005_000
    appended[1]?.resolve()
    await until('an answer', () => back.length === 1)
    expect([onward.length, back]).toEqual([1, ['00020000000301860a']])
  })

  test('more than a session may write: answered 06, refused and counted, and policy is not asked', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const { appended, filter, onward, send, told, session } = gate()
    send(Buffer.concat([WRITE, WRITE, WRITE, WRITE]))
    await told(3)
    const codes = () => appended.map(({ event }) => event.code)
    expect(codes()).toEqual(['ot.write', 'ot.write', 'ot.write'])
    for (const { resolve } of appended) resolve()
    await until('the first three go on', () => onward.length === 3)
    expect([codes().at(-1), session.denials]).toEqual(['ot.deny', 1])
    const answers = [1, 2, 3].flatMap(() => filter.fromDevice(WRITE).onward)
    expect(answers.map((one) => Buffer.from(one).toString('hex')).at(-1)).toBe('000200000003018606')
    vi.advanceTimersByTime(20)
    send(Buffer.concat([WRITE, WRITE]))
    expect(codes().filter((code) => code === 'ot.write')).toHaveLength(4)
  })

  test('on disk after the connection is over: it goes nowhere', async () => {
    const { appended, filter, onward, back, send, told } = gate()
    send(WRITE)
    await told(1)
    filter.stop()
    appended[0]?.resolve()
    await turn()
    expect([onward, back]).toEqual([[], []])
  })

  test('half a frame is one violation in the log, and no more after the connection is over', () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const { appended, filter } = gate()
    filter.attach(({ cut }) => cut === undefined || filter.stop())
    filter.fromClient(WRITE.subarray(0, 3))
    vi.advanceTimersByTime(60_000)
    expect(appended.map(({ event }) => event.code)).toEqual(['ot.violation'])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('the client has ended its side: the device hears it after the last write', async () => {
    const { appended, filter, onward, send, told } = gate()
    let ended: number | undefined
    send(WRITE)
    filter.ended(() => (ended = onward.length))
    await told(1)
    expect(ended).toBeUndefined()
    appended[0]?.resolve()
    await until('the end passes', () => ended !== undefined)
    expect(ended).toBe(1)
  })
})
