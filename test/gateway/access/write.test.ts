/**
 * Writing to a controller, as the gateway lets it happen: a second grant, a new connection, an event on disk before
 * each frame, and an end at once. The device is a fake that shows when it got what.
 */
import { createHash } from 'node:crypto'
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFinished,
  test,
  vi,
} from 'vitest'
import type { EndedGrant, Grant, OpenedSession, Problem } from '#api'
import type { EventInput } from '#audit'
import { modbusFilter } from '../../../gateway/access/modbus.ts'
import type { Filtered } from '../../../gateway/access/splice.ts'
import { Decisions } from '../../../gateway/decisions.ts'
import type { LiveSession, LiveStream } from '../../../gateway/sessions/live.ts'
import { Allowance } from '../../../gateway/sessions/pace.ts'
import type { SessionRoom } from '../../../gateway/sessions/room.ts'
import { setBefore, setForward } from '../../support/clock.ts'
import {
  openSession,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { answer as decideAs } from '../../support/policy.ts'
import {
  attach,
  Client,
  expecting,
  PLC,
  refusalOf,
  seen,
  serve,
  type FakeAgent,
  type Line,
} from '../../support/tunnels.ts'

const WINDOW = { unit: 1, from: 0, to: 9 }
const NEVER_SAID = 'dead'

let node: TestNode
let vendor: Person
let other: Person
let identity: DeviceIdentity
let agent: FakeAgent
/** What the device got, and how many events there were in the log by then. */
let got: { readonly frame: string; readonly events: number }[] = []
let open: { readonly grants: string[]; readonly sessions: OpenedSession[] }

beforeAll(async () => {
  node = await startNode()
  identity = await node.device('press-07', {
    plc: expecting(undefined, 'modbus'),
    shell: expecting(),
  })
  ;[vendor, other, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, {
      listeners: { plc: seen(PLC, 'listener'), shell: seen(PLC, 'listener') },
    }),
  ])
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => {
  got = []
  open = { grants: [], sessions: [] }
  agent.target = (stream) => {
    stream.onEnd = () => stream.end()
    stream.onData = (chunk) => {
      stream.consumed(chunk.length)
      // Every request here has twelve octets, but the one for its name, which has eight and gets no answer.
      for (let at = 0; at + 12 <= chunk.length; at += 12) {
        const frame = Buffer.from(chunk.subarray(at, at + 12))
        got.push({ frame: frame.toString('hex'), events: node.size() })
        stream.write(
          frame[7] === 3 ? hex(`${frame.toString('hex', 0, 4)}00050103` + '02002a') : frame,
        )
      }
    }
  }
})
afterEach(async () => {
  for (const { id } of open.sessions) await vendor.call('POST', `/sessions/${id}/end`)
  for (const id of open.grants)
    await node.admin.call('POST', `/grants/${id}/revoke`, { reason: 'the test is over' })
})

async function asked(who: Person, body: object): Promise<Grant> {
  const grant = await who.ask<Grant>('POST', '/grants', {
    device: 'press-07',
    processes: ['plc'],
    duration_s: 600,
    reason: 'service',
    ...body,
  })
  open.grants.push(grant.id)
  return grant
}
const approved = async ({ id, hash }: Grant): Promise<Grant> =>
  await node.admin.ask<Grant>('POST', `/grants/${id}/approve`, { hash })
const reading = async (who = vendor) => await approved(await asked(who, { duration_s: 3600 }))
const writing = async (body: object = {}, who = vendor) =>
  await approved(await asked(who, { ot_level: 2, ot_windows: [WINDOW], ...body }))
async function session(): Promise<OpenedSession> {
  const opened = await openSession(vendor, 'press-07', 'plc')
  open.sessions.push(opened)
  return opened
}

const hex = (text: string) => Buffer.from(text, 'hex')
const READ = hex('000100000006010300640001')
const WRITE = hex(`00020000000601060005${NEVER_SAID}`)

/** Sends a frame and gives what comes back. */
async function exchange(line: Line, frame: Buffer): Promise<string> {
  const before = line.total
  line.write(frame)
  await line.until('an answer', ({ total }) => total > before)
  return line.bytes.subarray(before).toString('hex')
}
const writes = (from: number) => node.events(from).filter(({ code }) => code === 'ot.write')

describe('asking', () => {
  test('the addresses are signed, shown in the grant, and in words in the log', async () => {
    await reading()
    const from = node.size()
    const grant = await asked(vendor, { ot_level: 2, ot_windows: [WINDOW] })
    expect(grant).toMatchObject({ ot_level: 2, ot_windows: [WINDOW], state: 'requested' })
    // Nobody chooses from a day when the grant writes: its window is the time that was asked for.
    expect(grant.not_after - grant.not_before).toBe(600)
    const [event] = node.events(from).filter(({ code }) => code === 'grant.request')
    expect(event?.text).toContain('"addresses":"unit 1, registers and coils 0–9"')
    expect(event?.text).toContain('"verbs":["write"]')
    const { statement } = await vendor.ask<{ statement: object }>(
      'GET',
      `/grants/${grant.id}/signed`,
    )
    expect(statement).toMatchObject({ ot_level: 2, ot_windows: [WINDOW] })
  })

  test.for([
    { name: 'to write without addresses', body: { ot_level: 2 }, code: 'grant.addresses' },
    {
      name: 'unit 0',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 0 }] },
      code: 'body.invalid',
    },
    {
      name: 'unit 250',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 250 }] },
      code: 'grant.addresses',
    },
    {
      name: 'backwards',
      body: { ot_level: 2, ot_windows: [{ ...WINDOW, from: 10 }] },
      code: 'grant.addresses',
    },
    { name: 'no list at all', body: { ot_level: 2, ot_windows: [] }, code: 'body.invalid' },
    {
      name: 'seventeen windows',
      body: { ot_level: 2, ot_windows: Array.from({ length: 17 }, () => WINDOW) },
      code: 'body.invalid',
    },
    { name: 'level 3', body: { ot_level: 3, ot_windows: [WINDOW] }, code: 'body.invalid' },
    {
      name: 'addresses of a shell',
      body: { processes: ['shell'], ot_level: 2, ot_windows: [WINDOW] },
      code: 'grant.addresses',
    },
    {
      name: 'longer than the zone lets anybody write',
      body: { duration_s: 14_401, ot_level: 2, ot_windows: [WINDOW] },
      code: 'request.duration',
    },
    {
      name: 'a window longer than that',
      body: {
        not_after: Math.floor(Date.now() / 1000) + 20_000,
        ot_level: 2,
        ot_windows: [WINDOW],
      },
      code: 'grant.window',
    },
    {
      name: 'longer than what it adds to',
      body: { duration_s: 14_000, ot_level: 2, ot_windows: [WINDOW] },
      code: 'grant.window',
      held: { duration_s: 60, not_after: Math.floor(Date.now() / 1000) + 3600 },
    },
  ])('$name: $code', async ({ body, code, held }) => {
    if (held !== undefined) await approved(await asked(vendor, held))
    const reply = await vendor.call<Problem>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 600,
      reason: 'service',
      ...body,
    })
    expect(reply.body.code).toBe(code)
  })
})

describe('a session', () => {
  test('reads only, is given a grant to write, and writes over a new connection; each write is in the log before the device has it', async () => {
    await reading()
    const opened = await session()
    await using client = await Client.dial(node)
    const before = await client.line(opened)
    expect(await exchange(before, WRITE)).toBe('000200000003018601')
    const from = node.size()
    const grant = await writing()
    expect((await vendor.ask<Grant>('GET', `/grants/${grant.id}`)).first_used_at).toBeNull()
    // Who only reads goes on reading, everywhere, and may not write: it was opened to read.
    expect(await exchange(before, READ)).toContain('0302002a')
    expect(await exchange(before, WRITE)).toBe('000200000003018601')

    const line = await client.line(opened)
    expect(agent.opened.at(-1)).toMatchObject({
      obligations: { ot_level: 2, ot_windows: [[WINDOW]] },
    })
    const used = await vendor.ask<Grant>('GET', `/grants/${grant.id}`)
    expect([used.state, typeof used.first_used_at]).toEqual(['active', 'number'])
    expect(
      node.events(from).filter(({ code, text }) => code === 'grant.use' && text.includes(grant.id)),
    ).toHaveLength(1)
    got = []
    expect(await exchange(line, WRITE)).toBe(WRITE.toString('hex'))
    expect(got.map(({ frame }) => frame)).toEqual([WRITE.toString('hex')])
    const [event, ...more] = writes(from)
    expect(more).toEqual([])
    expect(event?.event).toMatchObject({
      unmapped: {
        sallyport: {
          grant: grant.id,
          session: opened.id,
          device: 'press-07',
          process: 'plc',
          unit: 1,
          function_code: 6,
          address: 5,
          quantity: 1,
        },
      },
    })
    expect(event?.text).toMatch(/"decisions":\[\{"id":"d_[0-9a-z]{26}"/)
    // What was written is nobody's to read here.
    expect(event?.text).not.toContain(NEVER_SAID)
    expect(event?.text).not.toContain(String(0xdead))
    expect(event?.text).not.toContain(createHash('sha256').update(hex(NEVER_SAID)).digest('hex'))
    expect(event?.idx).toBeLessThan(got[0]?.events ?? 0)

    expect(await exchange(line, hex('000300000006010600' + '0a0001'))).toBe('000300000003018602')
    expect(await exchange(line, hex('0004000000060006000500' + '01'))).toBe(
      '000400000003' + '00860b',
    )
    expect(await exchange(line, hex('000500000006020600050001'))).toBe('000500000003' + '02860b')
    expect(writes(from)).toHaveLength(1)
    expect(got).toHaveLength(1)
  })

  test('many writes at once: as many events, all before their frames, in the order they came', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    const from = node.size()
    const frames = Array.from({ length: 12 }, (_, at) =>
      at % 3 === 2
        ? hex(`${(at + 1).toString(16).padStart(4, '0')}00000006010300050001`)
        : hex(
            `${(at + 1).toString(16).padStart(4, '0')}0000000601060005${at.toString(16).padStart(4, '0')}`,
          ),
    )
    line.write(Buffer.concat(frames))
    const length = frames.reduce((sum, _, at) => sum + (at % 3 === 2 ? 11 : 12), 0)
    await line.until('all are answered', ({ total }) => total === length)
    expect(got.map(({ frame }) => frame).join('')).toBe(Buffer.concat(frames).toString('hex'))
    expect(writes(from)).toHaveLength(8)
    for (const { idx } of writes(from)) expect(idx).toBeLessThan(got[0]?.events ?? 0)
  })

  test('a client that ends its side after a write is not cut short', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    line.write(WRITE)
    line.stream.end()
    await line.until('the answer', ({ bytes }) => bytes.equals(WRITE))
    await line.gone()
    expect(got).toHaveLength(1)
  })

  test('opened after the approval writes at once, and ends with the grant to write', async () => {
    await reading()
    const grant = await writing()
    const opened = await session()
    expect(opened.expires_at).toBe(grant.not_after)
    await using client = await Client.dial(node)
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
  })

  test('is opened under one to read that will end first: it is not announced as one that writes', async () => {
    const write = await writing({ duration_s: 700 })
    const own = await approved(await asked(vendor, { duration_s: 600 }))
    const body = { device: 'press-07', process: 'plc', grant: own.id }
    const from = node.size()
    const opened = await vendor.ask<OpenedSession>('POST', '/sessions', body)
    open.sessions.push(opened)
    const start = node.events(from).find(({ code }) => code === 'session.start')
    expect(start?.text).toContain('"ot_level":1')
    await using client = await Client.dial(node)
    expect(await exchange(await client.line(opened), READ)).toContain('0302002a')
    const kept = await vendor.ask<Grant>('GET', `/grants/${write.id}`)
    expect(kept.first_used_at).toBeNull()
    // Nor can one be asked for that could never count.
    const refused = await vendor.call<Problem>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 700,
      reason: 'service',
      ot_level: 2,
      ot_windows: [WINDOW],
    })
    expect(refused.body.code).toBe('grant.window')
  })

  test('of somebody else gains nothing', async () => {
    await reading()
    await reading(other)
    await writing({}, other)
    const opened = await session()
    await using client = await Client.dial(node)
    expect(await exchange(await client.line(opened), WRITE)).toBe('000200000003018601')
    expect(agent.opened.at(-1)?.['obligations']).toMatchObject({ ot_level: 1 })
  })

  test('a grant to write alone reads its addresses, and writes nothing', async () => {
    await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(line, READ)).toBe('000100000003018302')
  })

  test('a grant that names what may be read is held to it', async () => {
    await approved(await asked(vendor, { ot_windows: [WINDOW] }))
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    expect(await exchange(line, READ)).toBe('000100000003018302')
    expect(await exchange(line, hex('000100000006010300050001'))).toBe('000100000005010302002a')
  })

  test('a grant that names addresses opens nothing that is registered as tcp by now', async () => {
    await writing()
    const body = { device: 'press-07', process: 'plc' }
    onTestFinished(
      async () =>
        void (await node.admin.ask(
          'PUT',
          '/devices/press-07/processes/plc',
          expecting(undefined, 'modbus'),
        )),
    )
    await node.admin.ask('PUT', '/devices/press-07/processes/plc', expecting(undefined, 'tcp'))
    const refused = await vendor.call<Problem>('POST', '/sessions', body)
    expect([refused.status, refused.body.denials?.[0]?.code]).toEqual([
      403,
      'obligation.unsupported',
    ])
    expect(refused.body.detail).toContain('ot_windows')
    // One that names none is as good as before.
    await reading()
    await session()
  })

  test('two grants to write: each has its own addresses, and each write names its own grant', async () => {
    await reading()
    const first = await writing()
    const second = await writing({ ot_windows: [{ unit: 2, from: 100, to: 109 }], duration_s: 500 })
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    const from = node.size()
    await exchange(line, WRITE)
    await exchange(line, hex('000300000006020600640001'))
    const grants = writes(from).map(
      ({ text }) => [first, second].find(({ id }) => text.includes(id))?.id,
    )
    expect(grants).toEqual([first.id, second.id])
  })
})

describe('what ends it', () => {
  async function elevated() {
    const base = await reading()
    const opened = await session()
    const client = await Client.dial(node)
    onTestFinished(() => client[Symbol.asyncDispose]())
    const reader = await client.line(opened)
    const grant = await writing()
    const line = await client.line(opened)
    await exchange(line, WRITE)
    return { base, grant, opened, client, reader, line }
  }

  test.for(['revoke', 'done'] as const)(
    '%s: the connection that may write is cut, measured and recorded; who reads goes on',
    async (how) => {
      const { grant, opened, client, reader, line } = await elevated()
      const from = node.size()
      const who = how === 'done' ? vendor : node.admin
      const ended = await who.ask<EndedGrant>(
        'POST',
        `/grants/${grant.id}/${how}`,
        how === 'done' ? undefined : { reason: 'enough' },
      )
      expect((await line.gone()).code).toBe('grant.narrowed')
      // Of the session, which goes on, no end is told: a client would give up all of it.
      expect(line.signals).toEqual([])
      expect(ended.cut.sessions).toEqual([])
      expect(ended.cut.connections).toMatchObject([{ session: opened.id }])
      expect(ended.cut.slowest_ms).toBeGreaterThan(0)
      const [cut] = node.events(from).filter(({ code }) => code === 'session.kill')
      expect(cut?.text).toContain('"scope":"connection"')
      expect(cut?.text).toMatch(/"time_to_cut_ms":\d/)
      expect(await exchange(reader, READ)).toContain('0302002a')
      const again = await client.line(opened)
      expect(await exchange(again, WRITE)).toBe('000200000003018601')
      expect(await exchange(again, READ)).toContain('0302002a')
    },
  )

  test('the grant of the session is revoked: all of it ends, the grant to write keeps nobody in', async () => {
    const { base, opened, reader, line } = await elevated()
    const ended = await node.admin.ask<EndedGrant>('POST', `/grants/${base.id}/revoke`, {
      reason: 'x',
    })
    expect(ended.cut.sessions.map(({ id }) => id)).toEqual([opened.id])
    await Promise.all([line.gone(), reader.gone()])
  })

  test('its time is over: the session ends to the second, and nothing is written after', async () => {
    await reading()
    const from = node.size()
    const grant = await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    await exchange(line, WRITE)
    setBefore(grant.not_after, 1000)
    await line.gone()
    expect(Date.now()).toBeGreaterThanOrEqual(grant.not_after * 1000)
    const end = await until('its end is in the log', () =>
      node
        .events(from)
        .find(({ code, text }) => code === 'session.end' && text.includes(opened.id)),
    )
    expect(end.text).toContain('window_end')
  })

  test('one of two is over: the connection that has its addresses is cut then, and a new one has the other’s', async () => {
    await reading()
    await writing()
    const short = await writing({ ot_windows: [{ unit: 2, from: 0, to: 9 }], duration_s: 300 })
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    setBefore(short.not_after, 1000)
    expect((await line.gone()).code).toBe('grant.narrowed')
    expect(Date.now()).toBeGreaterThanOrEqual(short.not_after * 1000)
    const again = await client.line(opened)
    expect(await exchange(again, hex('000500000006020600050001'))).toBe('000500000003' + '02860b')
    expect(await exchange(again, WRITE)).toBe(WRITE.toString('hex'))
  })

  test('one of two is over, and a connection is opened in that moment: the one that has its addresses is cut all the same', async () => {
    await reading()
    await writing()
    const short = await writing({ ot_windows: [{ unit: 2, from: 0, to: 9 }], duration_s: 300 })
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    setBefore(short.not_after, 0)
    // Refused or not: it was decided without the grant that is over.
    await client.line(opened).catch(() => undefined)
    expect((await line.gone()).code).toBe('grant.narrowed')
  })

  test('its grant is over: another for the same addresses, approved meanwhile and never used, lets it write nothing', async () => {
    // Each has an hour in which to begin, and from its first use on ten minutes.
    const begin = () => ({ not_after: Math.floor(Date.now() / 1000) + 3000 })
    await reading()
    const first = await writing(begin())
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    expect(await exchange(line, WRITE)).toBe(WRITE.toString('hex'))
    const second = await writing(begin())
    setForward(600_000)
    expect((await vendor.ask<Grant>('GET', `/grants/${first.id}`)).state).toBe('expired')
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect((await vendor.ask<Grant>('GET', `/grants/${second.id}`)).first_used_at).toBeNull()
    // A new connection is its first use, and from then on its time runs.
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
    expect((await vendor.ask<Grant>('GET', `/grants/${second.id}`)).first_used_at).not.toBeNull()
  })

  test('it begins later: a connection opened then may write', async () => {
    await reading()
    const opened = await session()
    const begins = Math.floor(Date.now() / 1000) + 300
    const grant = await writing({ not_before: begins })
    await using client = await Client.dial(node)
    expect(await exchange(await client.line(opened), WRITE)).toBe('000200000003018601')
    setBefore(begins, 0)
    await until('a new connection may write', async () => {
      const line = await client.line(opened)
      const reply = await exchange(line, WRITE)
      line.stream.end()
      await line.gone()
      return reply === WRITE.toString('hex')
    })
    expect((await vendor.ask<Grant>('GET', `/grants/${grant.id}`)).state).toBe('active')
  })

  test('reads under one and writes under another: the event names the one that it writes under', async () => {
    await reading()
    await writing()
    const second = await writing({ ot_windows: [{ unit: 1, from: 100, to: 109 }], duration_s: 500 })
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    const from = node.size()
    line.write(hex('00070000000d0117' + '00000001' + '00640001' + '02' + '1234'))
    const event = await until('it is in the log', () => writes(from)[0])
    expect(event.text).toContain(`"grant":"${second.id}"`)
  })

  test('approved while a connection is being opened: that one reads, and the next may write', async () => {
    await reading()
    const opened = await session()
    await using client = await Client.dial(node)
    const held = Promise.withResolvers<void>()
    onTestFinished(() => (agent.answer = undefined))
    agent.answer = (offer, metadata) => void held.promise.then(() => serve(agent, offer, metadata))
    const before = agent.opened.length
    const asking = client.line(opened)
    await until('the device is asked', () => agent.opened.length > before)
    await writing()
    held.resolve()
    const line = await asking
    expect(await exchange(line, READ)).toContain('0302002a')
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(await client.line(opened), WRITE)).toBe(WRITE.toString('hex'))
  })

  test('revoked while a connection is being opened: it never carries a byte', async () => {
    await reading()
    const grant = await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const normal = agent.observed
    onTestFinished(() => {
      agent.observed = normal
      agent.answer = undefined
    })
    const proceeded = agent.proceeded
    const held = Promise.withResolvers<void>()
    agent.answer = (offer) =>
      void held.promise.then(() =>
        offer.accept(Buffer.from(JSON.stringify({ v: 1, observed: seen(PLC) }))),
      )
    const asked = agent.opened.length
    const asking = client.stream(opened)
    await until('the device is asked', () => agent.opened.length > asked)
    await node.admin.ask('POST', `/grants/${grant.id}/revoke`, { reason: 'x' })
    held.resolve()
    expect((await refusalOf(asking)).code).toBe('grant.narrowed')
    expect(agent.proceeded).toBe(proceeded)
  })
})

describe('log before act', () => {
  test('a write whose decision is not on disk is answered 0Ah, and nothing reaches the device', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    const spy = vi.spyOn(Decisions.prototype, 'recorded').mockRejectedValue(new Error('no room'))
    onTestFinished(() => spy.mockRestore())
    expect(await exchange(line, WRITE)).toBe('00020000000301860a')
    expect(got).toEqual([])
    // Reads are counted and no events, so they go on.
    expect(await exchange(line, hex('000100000006010300050001'))).toContain('0302002a')
  })

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

describe('policy decides each write', () => {
  test('and what it denies is answered 01, with its decision in the log', async () => {
    await reading()
    await writing()
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    decideAs((decision, point, input) => {
      const { ot } = input as { ot: { address: number } | null }
      if (point !== 'ot.verb' || ot?.address !== 5) return decision
      const denials = [{ code: 'policy.no_match', msg: 'not this one' }] as typeof decision.denials
      return { ...decision, effect: 'deny', allow: false, reasons: [], denials }
    })
    const from = node.size()
    expect(await exchange(line, WRITE)).toBe('000200000003018601')
    expect(await exchange(line, hex('000300000006010600060001'))).toBe('000300000006010600060001')
    expect(got).toHaveLength(1)
    const denied = await until('it is in the log', () =>
      node.events(from).find(({ code }) => code === 'ot.deny'),
    )
    expect(denied.text).toContain('policy.no_match')
    expect(denied.text).toMatch(/"decisions":\[\{"id":"d_/)
  })

  test('under ot_each every read too, and a session is no longer refused for it', async () => {
    await reading()
    const points: string[] = []
    decideAs((decision, point, input) => {
      const { ot } = input as {
        ot: { op: string; address: number | null; count: number | null } | null
      }
      if (ot !== null) points.push(`${point} ${ot.op} ${ot.address} ${ot.count}`)
      return { ...decision, obligations: { ...decision.obligations, ot_each: true } }
    })
    const opened = await session()
    await using client = await Client.dial(node)
    const line = await client.line(opened)
    expect(await exchange(line, READ)).toContain('0302002a')
    line.write(hex('00040000000201' + '11'))
    await until('what a device is called was asked for', () => points.length > 1)
    expect(points).toEqual(['ot.verb read 100 1', 'ot.verb read null null'])
    expect(writes(0).some(({ text }) => text.includes(opened.id))).toBe(false)
  })
})
