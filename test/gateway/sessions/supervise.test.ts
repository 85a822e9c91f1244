/** Who watches a session, who may hold it, and what becomes of one that must be watched and is not. */
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { OpenedSession, SessionWatch } from '#api'
import type { Input } from '#policy'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { credentialsDirectory, saveCredentials } from '../../../cli/login/index.ts'
import { LiveSession, type LiveSessionOptions } from '../../../gateway/sessions/live.ts'
import { ABSENT_MS, PRESENT_MS, Supervision } from '../../../gateway/sessions/supervise.ts'
import { run } from '../../cli/run.ts'
import { Plant } from '../recordings/plant.ts'
import { until, type Person } from '../../support/node.ts'
import { answer, oblige } from '../../support/policy.ts'
import { Client, echo, PLC, refusalOf, seen, type Line } from '../../support/tunnels.ts'

describe('by the clock', () => {
  beforeEach(() => {
    vi.useFakeTimers()
    return () => vi.useRealTimers()
  })

  /** A session whose policy wants a supervisor, and what is written and ended. */
  function waiting(supervise = true) {
    const session = new LiveSession({
      id: 's_1',
      grant: 'g_1',
      device: 'press-07',
      process: 'plc',
      kind: 'tcp',
      subject: { id: 'i|vera', email: 'vera@acme.test', vendor: 'acme', party: 'vendor' },
      obligations: { max_bandwidth_bps: 0, supervise },
      decision: { id: 'd_1', revision: 'r1', codes: [] },
      openedAt: 0,
      expiresAt: 1e9,
    } as unknown as LiveSessionOptions)
    session.advance('recorded')
    const log: string[] = []
    let broken = false
    let disk = Promise.resolve()
    const append = async (event: { code: string; reason?: string }) => {
      await disk
      if (broken) throw new Error('the disk failed')
      log.push(`${event.code} ${event.reason ?? ''}${session.hold.held ? ' held' : ' free'}`)
      return { idx: log.length, uid: 'u', leaf: '0' }
    }
    const ends: string[] = []
    const reports: string[] = []
    const told: number[] = []
    const supervision = new Supervision(
      {
        log: { append: append as never },
        now: () => Date.now(),
        report: (_, what) => reports.push(what),
      },
      async (_session, { code }) => ends.push(code),
      () => void told.push(supervision.waiting().length),
    )
    supervision.follow(session)
    const breaks = (): void => void (broken = true)
    /** Nothing is durable until what this gives is called. */
    const stalls = (): (() => void) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      disk = promise
      return resolve
    }
    return { session, supervision, log, ends, reports, breaks, stalls, told }
  }
  const watcher = (id: string, party = 'staff', kind = 'human') =>
    ({
      subject: {
        id,
        kind,
        email: `${id}@plant.test`,
        party,
        vendor: null,
        issuer: 'i',
        authn: { methods: [], acr: null, at: 0 },
      },
      source: { ip: '192.0.2.1', port: 1 },
      decision: { id: 'd_2', revision: 'r1', codes: [] },
    }) as never
  const strangers = async () => false

  test('a supervisor lets it go on once that is recorded, and it is held when they have left', async () => {
    const { session, supervision, log, ends } = waiting()
    expect(session.hold.by).toEqual(['supervisor'])
    await supervision.join(session, watcher('olga'), strangers)
    expect(session.hold.held).toBe(false)
    for (let i = 0; i < 20; i++) {
      await vi.advanceTimersByTimeAsync(PRESENT_MS - 1)
      await supervision.join(session, watcher('olga'), strangers)
    }
    expect(session.hold.held).toBe(false)
    await vi.advanceTimersByTimeAsync(PRESENT_MS)
    expect(session.hold.by).toEqual(['supervisor'])
    await supervision.join(session, watcher('olga'), strangers)
    expect(log).toEqual([
      'session.watch supervise held',
      'session.pause supervisor.left held',
      'session.watch supervise held',
    ])
    expect(ends).toEqual([])
  })
  test('that it waits is known, since when, and told each time it begins to', async () => {
    const { session, supervision, told } = waiting()
    const began = Date.now()
    expect(supervision.waiting()).toEqual([{ session, since: began }])
    await vi.advanceTimersByTimeAsync(5_000)
    expect(supervision.waiting()).toEqual([{ session, since: began }])
    await supervision.join(session, watcher('olga'), strangers)
    expect(supervision.waiting()).toEqual([])
    await vi.advanceTimersByTimeAsync(PRESENT_MS)
    expect(supervision.waiting()).toEqual([{ session, since: began + 5_000 + PRESENT_MS }])
    expect(told).toEqual([1, 1])
    supervision.forget(session)
    expect(supervision.waiting()).toEqual([])
  })
  test('nobody comes, or nobody comes back: it ends, and no sooner', async () => {
    for (const before of [false, true]) {
      const { session, supervision, ends } = waiting()
      if (before) {
        await supervision.join(session, watcher('olga'), strangers)
        await vi.advanceTimersByTimeAsync(PRESENT_MS)
      }
      await vi.advanceTimersByTimeAsync(ABSENT_MS - 1)
      expect(ends).toEqual([])
      await vi.advanceTimersByTimeAsync(1)
      expect(ends).toEqual(['supervisor.absent'])
    }
  })
  test('of two one may leave', async () => {
    const { session, supervision } = waiting()
    await supervision.join(session, watcher('olga'), strangers)
    await vi.advanceTimersByTimeAsync(PRESENT_MS / 2)
    await supervision.join(session, watcher('otto'), strangers)
    await vi.advanceTimersByTimeAsync(PRESENT_MS / 2)
    expect([...session.supervisors.keys()]).toEqual(['otto'])
    expect(session.hold.held).toBe(false)
  })
  test('what policy wants of an open session only later holds it, and what it wants no more lets it go', async () => {
    const { session, supervision, ends } = waiting(false)
    expect(session.hold.held).toBe(false)
    session.bind({ ...session.obligations, supervise: true })
    expect(session.hold.by).toEqual(['supervisor'])
    await vi.advanceTimersByTimeAsync(ABSENT_MS / 2)
    session.bind({ ...session.obligations, supervise: false })
    expect(session.hold.held).toBe(false)
    await vi.advanceTimersByTimeAsync(ABSENT_MS)
    expect(ends).toEqual([])
    supervision.forget(session)
  })
  test('what an operator holds no supervisor lets go, and the other way round', async () => {
    const { session, supervision } = waiting()
    await supervision.pause(session, watcher('otto'), 'look at that')
    await supervision.join(session, watcher('olga'), strangers)
    expect(session.hold.by).toEqual(['operator'])
    await vi.advanceTimersByTimeAsync(PRESENT_MS)
    await supervision.resume(session, watcher('otto'), 'fine', strangers)
    expect(session.hold.by).toEqual(['supervisor'])
  })
  test('the person inside, under whatever name, vendors and programs supervise nothing', async () => {
    const { session, supervision, log } = waiting()
    const join = (who: never, same: () => Promise<boolean>) =>
      supervision.join(session, who, same).catch((error: { code: string }) => error.code)
    expect(await join(watcher('vera2'), async () => true)).toBe('session.supervisor')
    expect(await join(watcher('vic', 'vendor'), strangers)).toBe('session.supervisor')
    expect(await join(watcher('bot', 'service'), strangers)).toBe('session.supervisor')
    expect(await join(watcher('v_1', 'staff', 'service'), strangers)).toBe('session.supervisor')
    expect([log, session.hold.held]).toEqual([[], true])
  })
  test('the person inside, under whatever name, does not let it go on themselves', async () => {
    const { session, supervision, log } = waiting(false)
    await supervision.pause(session, watcher('otto'), 'who is that')
    const late = supervision.resume(session, watcher('vera2'), 'me', async () => true)
    await expect(late).rejects.toMatchObject({ code: 'session.supervisor' })
    expect(session.hold.by).toEqual(['operator'])
    await supervision.resume(session, watcher('otto'), 'ours', strangers)
    expect(log).toEqual(['session.pause  free', 'session.resume  held'])
    expect(session.hold.held).toBe(false)
  })
  test('a pause that is asked for while a resume is being written down holds, and is written down', async () => {
    const { session, supervision, log, stalls, breaks } = waiting(false)
    await supervision.pause(session, watcher('otto'), 'a')
    const goes = stalls()
    const acts = [
      supervision.resume(session, watcher('olga'), 'b', strangers),
      supervision.pause(session, watcher('otto'), 'c'),
      supervision.pause(session, watcher('olga'), 'd'),
    ]
    goes()
    await Promise.all(acts)
    expect(log).toEqual(['session.pause  free', 'session.resume  held', 'session.pause  free'])
    expect(session.hold.by).toEqual(['operator'])
    // One that fails keeps nobody off.
    breaks()
    for (const _ of [1, 2])
      await expect(supervision.resume(session, watcher('olga'), 'e', strangers)).rejects.toThrow(
        'disk',
      )
  })
  test('what cannot be recorded is not done: nobody is present, nothing is paused, nothing goes on', async () => {
    const { session, supervision, breaks } = waiting()
    await supervision.pause(session, watcher('otto'), 'x')
    breaks()
    await expect(supervision.join(session, watcher('olga'), strangers)).rejects.toThrow('disk')
    const resumed = supervision.resume(session, watcher('otto'), 'x', strangers)
    await expect(resumed).rejects.toThrow('disk')
    expect(session.hold.by.toSorted()).toEqual(['operator', 'supervisor'])
    const other = waiting(false)
    other.breaks()
    await expect(other.supervision.pause(other.session, watcher('otto'), 'x')).rejects.toThrow(
      'disk',
    )
    expect(other.session.hold.held).toBe(false)
  })
  test('a supervisor whose going cannot be recorded holds it all the same', async () => {
    const { session, supervision, breaks, reports } = waiting()
    await supervision.join(session, watcher('olga'), strangers)
    breaks()
    await vi.advanceTimersByTimeAsync(PRESENT_MS)
    expect(session.hold.by).toEqual(['supervisor'])
    expect(reports).toHaveLength(1)
  })
  test('a session that has ended keeps no timer and takes no more', async () => {
    const { session, supervision, ends } = waiting()
    await supervision.join(session, watcher('olga'), strangers)
    session.advance('cut')
    supervision.forget(session)
    expect(vi.getTimerCount()).toBe(0)
    const late = supervision.pause(session, watcher('otto'), 'x')
    expect(await late.catch((error: { code: string }) => error.code)).toBe('session.ended')
    await vi.advanceTimersByTimeAsync(ABSENT_MS * 2)
    expect(ends).toEqual([])
  })
})

describe('on a node', () => {
  let plant: Plant
  let operator: Person
  const home = mkdtempSync(join(tmpdir(), 'sallyport-supervise-'))
  beforeAll(async () => {
    plant = await Plant.start({})
    operator = await plant.node.person('otto', { party: 'staff', roles: ['operator'] })
    await saveCredentials(credentialsDirectory({ SALLYPORT_HOME: home }), operator.credentials)
  })
  afterAll(async () => {
    await plant[Symbol.asyncDispose]()
    rmSync(home, { recursive: true })
  })
  beforeEach(() => {
    plant.agent.target = echo
  })
  const codes = (session: OpenedSession): string[] =>
    plant
      .events(session)
      .map(({ code, event }) => `${code} ${(event as { status_code?: string }).status_code ?? ''}`)
      .filter((text) => /^session\.(watch|pause|resume|kill)/.test(text))

  /** As a supervisor's program does: says again that they are there until it has happened, however long that takes. */
  async function supervised(
    session: OpenedSession,
    what: string,
    happened: (seen: SessionWatch) => boolean | Promise<boolean>,
  ): Promise<void> {
    await until(what, async () => {
      const path = `/sessions/${session.id}/supervise`
      return await happened(await operator.ask<SessionWatch>('POST', path))
    })
  }

  test('where policy wants somebody to watch nothing passes until they do, and the watcher sees who answers', async () => {
    oblige({ supervise: true })
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write('hello')
    await line.until('it is told', ({ signals }) => signals.length > 0)
    expect(line.signals[0]).toMatchObject({ t: 'paused', by: ['supervisor'] })
    const looked = await operator.ask<SessionWatch>('POST', `/sessions/${session.id}/watch`)
    expect(looked).toMatchObject({
      held_by: ['supervisor'],
      must_be_supervised: true,
      supervisors: [],
      connections: [{ exe: expect.stringContaining('/') }],
      session: { id: session.id, bytes_in: 0 },
    })
    expect(line.text).toBe('')
    const path = `/sessions/${session.id}/supervise`
    expect(await plant.vendor.call('POST', path)).toMatchObject({ status: 403 })
    expect(line.text).toBe('')
    await supervised(
      session,
      'it goes on',
      ({ held_by: by, supervisors }) =>
        by.length === 0 && supervisors.some(({ email }) => email === operator.email),
    )
    await supervised(session, 'the echo', () => line.text === 'hello' && line.signals.length > 1)
    expect(line.signals[1]).toEqual({ t: 'resumed' })
    // A word may have been late, and then they had left and came again.
    expect(codes(session).slice(0, 2)).toEqual(['session.watch watch', 'session.watch supervise'])
  })

  test('paused, let go and ended from the command line; each is in the log before it is done', async () => {
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write('a')
    await line.until('the echo', ({ text }) => text === 'a')
    const cli = (...args: string[]) => run(home, 'session', ...args)
    const paused = await cli('pause', session.id, '--reason', 'who is that')
    expect(paused, paused.err).toMatchObject({ code: 0 })
    expect(paused.out).toContain('is held by operator')
    line.write('b')
    const seen = await run(home, '--json', 'session', 'watch', session.id, '--once')
    expect(JSON.parse(seen.out)).toMatchObject({
      held_by: ['operator'],
      session: { bytes_in: 1, bytes_out: 1 },
    })
    expect(line.text).toBe('a')
    expect((await cli('resume', session.id, '--reason', 'ours')).out).toContain('goes on')
    await line.until('what waited', ({ text }) => text === 'ab')
    expect(await cli('kill', session.id, '--reason', 'enough')).toMatchObject({ code: 0 })
    expect((await line.gone()).code).toBe('session.killed')
    expect(codes(session)).toEqual([
      'session.pause ',
      'session.watch watch',
      'session.resume ',
      'session.kill ',
    ])
    const gone = await cli('watch', session.id, '--once')
    expect(gone.err).toContain('session.ended')
  })

  test('who may not is refused, and that is in the log; what is no session is none', async () => {
    const session = await plant.open('plc')
    const from = plant.node.events().length
    for (const act of ['watch', 'supervise', 'pause', 'resume'])
      expect(
        await plant.vendor.call(
          'POST',
          `/sessions/${session.id}/${act}`,
          act.endsWith('e') && act !== 'supervise' ? { reason: 'x' } : undefined,
        ),
        act,
      ).toMatchObject({ status: 403 })
    const refused = plant.node.events(from).filter(({ message }) => message.endsWith('refused'))
    expect(refused.map(({ message }) => message.split(' ')[0])).toEqual([
      'session:watch',
      'session:supervise',
      'session:pause',
      'session:resume',
    ])
    const none = `/sessions/s_${'0'.repeat(26)}/watch`
    expect(await operator.call('POST', none)).toMatchObject({ status: 404 })
    const auditor = plant.auditor
    expect(await auditor.call('POST', `/sessions/${session.id}/watch`)).toMatchObject({
      status: 200,
    })
    expect(await auditor.call('POST', `/sessions/${session.id}/supervise`)).toMatchObject({
      status: 403,
    })
  })

  test('a connection that begins while the session is held is opened, decided, and carries nothing', async () => {
    const session = await plant.open('plc')
    await operator.ask('POST', `/sessions/${session.id}/pause`, { reason: 'x' })
    await using client = await Client.dial(plant.node)
    const line = await client.line(session)
    line.write('later')
    await line.until('it is told', ({ signals }) => signals.length > 0)
    const seen = await operator.ask<SessionWatch>('POST', `/sessions/${session.id}/watch`)
    expect(seen.session).toMatchObject({ bytes_in: 0, connections: 1 })
    await operator.ask('POST', `/sessions/${session.id}/resume`, { reason: 'x' })
    await line.until('the echo', ({ text }) => text === 'later')
    oblige({ supervise: true })
    // Policy wants it only now: the next connection is refused until somebody watches.
    expect((await refusalOf(client.line(session))).code).toBe('obligation.supervise')
    let next: Line | undefined
    await supervised(session, 'a connection is let in', async () => {
      next = await client.line(session).catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'obligation.supervise' })
        return undefined
      })
      return next !== undefined
    })
    next?.write('x')
    await supervised(session, 'the echo', () => next?.text === 'x')
    await supervised(session, 'nothing is held', ({ held_by: by }) => by.length === 0)
  })

  /** Policy wants somebody to watch the connections that these programs answer; gives whom it was asked about. */
  function watched(...programs: number[]): number[] {
    const asked: number[] = []
    answer((decision, point, input) => {
      const pid = (input as Input).process?.observed?.pid ?? 0
      if (point === 'session.reevaluate') asked.push(pid)
      const supervise = programs.includes(pid)
      return { ...decision, obligations: { ...decision.obligations, supervise } }
    })
    return asked
  }
  const answered = (pid: number) => ({ ...seen(PLC), pid })
  /** The device reports another program, and the whole session is decided again. */
  async function again(session: OpenedSession, asked: readonly number[], pid: number) {
    plant.agent.report({ type: 'owner_changed', session: session.id, observed: answered(pid) })
    await until('it was decided again', () => asked.includes(pid))
  }

  test.for([11, 12])(
    'of two connections %i must be watched: the session is held once, and stays so when it is decided again',
    async (program) => {
      onTestFinished(() => void (plant.agent.observed = seen(PLC)))
      const session = await plant.open('plc')
      await using client = await Client.dial(plant.node)
      plant.agent.observed = answered(11)
      const line = await client.line(session)
      plant.agent.observed = answered(12)
      await client.line(session)
      const asked = watched(program)
      await again(session, asked, 21)
      await line.until('it is told', ({ signals }) => signals.length > 0)
      await again(session, asked, 22)
      // What was said on the first is there before the answer to a third.
      await client.line(session)
      expect(line.signals).toMatchObject([{ t: 'paused', by: ['supervisor'] }])
    },
  )

  test('let in because somebody watches, a connection makes its session one that must be watched', async () => {
    onTestFinished(() => void (plant.agent.observed = seen(PLC)))
    const session = await plant.open('plc')
    await using client = await Client.dial(plant.node)
    watched(12)
    plant.agent.observed = answered(12)
    expect((await refusalOf(client.line(session))).code).toBe('obligation.supervise')
    await supervised(session, 'it is let in', async ({ must_be_supervised: must }) => {
      expect(must).toBe(false)
      return await client.line(session).then(
        () => true,
        () => false,
      )
    })
    const now = await operator.ask<SessionWatch>('POST', `/sessions/${session.id}/watch`)
    expect(now.must_be_supervised).toBe(true)
  })
})
