/** Native clients: who holds a session is proven per connection, and what passes is held to what was granted. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OpenedSession, Session } from '#api'
import { driveTunnel, memoryPair, type Limits, type Tunnel, type TunnelStream } from '#tunnel'
import { spawnSignals } from '../../../gateway/access/spawn.ts'
import { splice } from '../../../gateway/access/splice.ts'
import { Pace } from '../../../gateway/sessions/pace.ts'
import {
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { oblige } from '../../support/policy.ts'
import {
  attach,
  Client,
  echo,
  expecting,
  Line,
  PLC,
  refusalOf,
  seen,
  serve,
  type FakeAgent,
} from '../../support/tunnels.ts'

const LISTENERS = { plc: seen(PLC, 'listener'), registers: seen(PLC, 'listener') }

let node: TestNode
let vendor: Person
let identity: DeviceIdentity
let agent: FakeAgent

beforeAll(async () => {
  node = await startNode()
  identity = await node.device('press-07', {
    plc: expecting(),
    registers: expecting(undefined, 'modbus'),
  })
  ;[vendor, agent] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    attach(node, identity, { listeners: LISTENERS }),
  ])
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'plc' })
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'registers' })
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await node[Symbol.asyncDispose]()
})
beforeEach(() => {
  agent.target = echo
  agent.answer = undefined
  agent.observed = seen(PLC)
})

async function end(session: { readonly id: string }): Promise<Session> {
  return await vendor.ask<Session>('POST', `/sessions/${session.id}/end`)
}
async function record(session: { readonly id: string }): Promise<Session> {
  return await vendor.ask<Session>('GET', `/sessions/${session.id}`)
}
async function nothingOpen(): Promise<void> {
  await until('no stream is left on the device', () => agent.open() === 0)
}

describe('a connection that does not hold the session', () => {
  let session: OpenedSession
  let client: Client
  beforeAll(async () => {
    session = await openSession(vendor, 'press-07', 'plc')
    client = await Client.dial(node)
  })
  afterAll(async () => {
    await client[Symbol.asyncDispose]()
    await end(session)
  })
  const rows: readonly {
    readonly name: string
    readonly stream: () => Promise<unknown>
  }[] = [
    {
      name: 'a guessed session id',
      stream: () => client.stream(session, { session: `s_${'0'.repeat(26)}` }),
    },
    {
      name: 'the proof of another secret',
      stream: () => client.stream(session, { proof: client.proof({ secret: 'A'.repeat(43) }) }),
    },
    { name: 'an empty proof', stream: () => client.stream(session, { proof: '' }) },
    { name: 'a proof of 64 KiB', stream: () => client.stream(session, { proof: 'A'.repeat(65) }) },
    { name: 'no proof', stream: () => client.stream(session, { proof: undefined }) },
    { name: 'another version', stream: () => client.stream(session, { v: 2 }) },
    { name: 'a session that is a number', stream: () => client.stream(session, { session: 7 }) },
    {
      name: 'metadata that is not JSON',
      stream: () => client.tunnel.open('tcp', Buffer.from('{"v":1')),
    },
    {
      name: 'metadata that is not UTF-8',
      stream: () => client.tunnel.open('tcp', Uint8Array.of(0xff, 0xfe, 0x7b)),
    },
    { name: 'no metadata', stream: () => client.tunnel.open('tcp', new Uint8Array()) },
    { name: 'a stream of another kind', stream: () => client.stream(session, {}, 'udp') },
    {
      name: 'a control stream, as agents open one',
      stream: () => client.tunnel.open('control', Buffer.from('{"v":1}')),
    },
    {
      name: 'a proof that was made on another connection',
      stream: async () => {
        await using other = await Client.dial(node)
        return await client.stream(session, { proof: other.proof(session) })
      },
    },
  ]
  test.for(rows)('$name', async ({ stream }) => {
    const before = agent.opened.length
    const { code, told } = await refusalOf(stream())
    expect(code).toBe('session.proof')
    expect(told?.code).toBe('session.proof')
    expect(agent.opened.length).toBe(before)
    expect((await record(session)).connections).toBe(0)
  })

  test('a wrong secret and an unknown session are told the same', async () => {
    const wrong = await refusalOf(client.stream(session, { proof: 'A'.repeat(43) }))
    const unknown = await refusalOf(client.stream(session, { session: `s_${'0'.repeat(26)}` }))
    expect(unknown.told).toEqual(wrong.told)
  })

  test('the session of another connection of the same client still serves', async () => {
    const line = await client.line(session)
    line.write('hello')
    await line.until('the echo', ({ text }) => text === 'hello')
    line.stream.reset('client.done')
    await nothingOpen()
  })
})

describe('a connection that holds the session', () => {
  let session: OpenedSession
  let client: Client
  beforeEach(async () => {
    session = await openSession(vendor, 'press-07', 'plc')
    client = await Client.dial(node)
    return async () => {
      await client[Symbol.asyncDispose]()
      await end(session)
      await nothingOpen()
    }
  })

  test('no byte reaches the device before the decision on what answered', async () => {
    let early = 0
    agent.answer = (offer, metadata) => {
      const stream = offer.accept(
        Buffer.from(JSON.stringify({ v: 1, observed: seen('/tmp/evil') })),
      )
      stream.onData = (chunk) => (early += chunk.length)
      stream.onClose = () => {}
      expect(metadata.session).toBe(session.id)
    }
    const proceeded = agent.proceeded
    const refusal = await refusalOf(client.stream(session))
    expect(refusal.code).toBe('process.mismatch')
    expect([early, agent.proceeded]).toEqual([0, proceeded])
  })

  test('the client ends, the device still answers', async () => {
    agent.target = (stream) => {
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.onEnd = () => {
        stream.write(Buffer.from('after your end'))
        stream.end()
      }
    }
    const line = await client.line(session)
    line.write('request')
    line.stream.end()
    expect((await line.gone()).code).toBe('done')
    expect(line.text).toBe('after your end')
  })

  test('the device ends, the client still sends', async () => {
    let got = ''
    agent.target = (stream) => {
      stream.onData = (chunk) => {
        got += Buffer.from(chunk).toString()
        stream.consumed(chunk.length)
      }
      stream.onEnd = () => {}
      stream.end()
    }
    const line = await client.line(session)
    await line.until('the end', ({ ended }) => ended)
    line.write('after your end')
    line.stream.end()
    expect((await line.gone()).code).toBe('done')
    await until('the device has it', () => got === 'after your end')
  })

  test('the client is gone: no stream is left on the device', async () => {
    const lines = [await client.line(session), await client.line(session)]
    for (const line of lines) line.write('x')
    await until('both are carried', () => agent.open() === 2)
    client.tunnel.close('client.gone')
    await nothingOpen()
    expect(await record(session)).toMatchObject({ state: 'open', connections: 0 })
  })

  test('the client is gone while the device still looks who answers', async () => {
    const { promise: asked, resolve } = Promise.withResolvers<void>()
    let answer: (() => void) | undefined
    agent.answer = (offer, metadata) => {
      answer = () => serve(agent, offer, metadata)
      resolve()
    }
    const attempt = refusalOf(client.stream(session))
    await soon('the device is asked', asked)
    client.tunnel.close('client.gone')
    await attempt
    answer?.()
    await nothingOpen()
    await until('nothing is counted', async () => (await record(session)).connections === 0)
  })

  test('more connections than allowed', async () => {
    oblige({ max_streams: 2 })
    const narrow = await openSession(vendor, 'press-07', 'plc')
    const first = await client.line(narrow)
    await client.line(narrow)
    const { code } = await refusalOf(client.stream(narrow))
    expect(code).toBe('session.limit')
    expect(agent.open()).toBe(2)
    first.stream.reset('client.done')
    await until('one is free again', () => agent.open() === 1)
    await client.line(narrow)
    await end(narrow)
  })

  test('more connections than allowed, all at once', async () => {
    oblige({ max_streams: 2 })
    const narrow = await openSession(vendor, 'press-07', 'plc')
    const attempts = Array.from({ length: 20 }, () => client.stream(narrow))
    const outcomes = await Promise.allSettled(attempts)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(2)
    expect(agent.open()).toBe(2)
    await end(narrow)
  })

  test('a tool that opens faster than a second allows hears when to come again, and keeps its tunnel', async () => {
    oblige({ max_streams: 2 })
    const narrow = await openSession(vendor, 'press-07', 'plc')
    await using hasty = await Client.dial(node)
    const outcomes = await Promise.allSettled(
      Array.from({ length: 300 }, () => hasty.stream(narrow)),
    )
    const told = outcomes.flatMap((one) =>
      one.status === 'rejected' ? [one.reason as Error & { code: string }] : [],
    )
    const paced = told.filter(({ code }) => code === 'tunnel.pace')
    expect(paced.length).toBeGreaterThan(0)
    expect(paced[0]?.message).toContain('try again in a second')
    expect(told).toHaveLength(298)
    expect(hasty.tunnel.draining).toBe(false)
    expect(await record(narrow)).toMatchObject({ state: 'open' })
    await end(narrow)
  })

  test('more bytes than allowed: the session ends, and says so', async () => {
    oblige({ max_bytes: 100_000, max_bandwidth_bps: 1_000_000_000 })
    const small = await openSession(vendor, 'press-07', 'plc')
    let arrived = 0
    agent.target = (stream) => {
      stream.onData = (chunk) => {
        arrived += chunk.length
        stream.consumed(chunk.length)
      }
    }
    const line = await client.line(small)
    line.write(new Uint8Array(300_000))
    expect((await line.gone()).code).toBe('byte.limit')
    expect(line.signals).toMatchObject([
      { t: 'ending', code: 'byte.limit', next_step: expect.stringMatching(/^connect again/) },
    ])
    await nothingOpen()
    expect(arrived).toBeLessThanOrEqual(100_000)
    const ended = await until('the session has ended', async () => {
      const now = await record(small)
      return now.state === 'ended' ? now : undefined
    })
    expect(ended.reason).toBe('byte_limit')
    expect((await refusalOf(client.stream(small))).code).toBe('session.proof')
  })

  const refusals = [
    'target.unknown',
    'target.unreachable',
    'target.unobserved',
    'lease.spent',
    'agent.draining',
    'something.new',
  ]
  test.for(refusals)('the device refuses: %s', async (code) => {
    agent.answer = (offer) => offer.refuse(code, 'no')
    const refusal = await refusalOf(client.stream(session))
    expect(refusal.code).toBe(code)
    expect(refusal.told?.msg).toContain(code)
    expect((await record(session)).connections).toBe(0)
  })

  const answers: readonly { readonly name: string; readonly answer: string }[] = [
    { name: 'what is not JSON', answer: '{"v":1,' },
    { name: 'facts of another form', answer: '{"v":1}' },
    { name: 'facts of another version', answer: '{"v":2,"observed":null}' },
    {
      name: 'a hash that is none',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), sha256: 'x' } }),
    },
    {
      name: 'an executable that is a number',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), exe: 7 } }),
    },
    {
      name: 'no list of others',
      answer: JSON.stringify({ v: 1, observed: { ...seen(PLC), others: undefined } }),
    },
    { name: 'nothing', answer: '' },
  ]
  test.for(answers)('the device answers with $name', async ({ answer }) => {
    agent.answer = (offer) => {
      offer.accept(Buffer.from(answer)).onClose = () => {}
    }
    const { code } = await refusalOf(client.stream(session))
    expect(code).toBe('device.report')
    await nothingOpen()
    expect((await record(session)).connections).toBe(0)
  })

  test('the device sees nothing although it should', async () => {
    agent.observed = null
    const from = node.size()
    expect((await refusalOf(client.stream(session))).code).toBe('process.unobserved')
    expect(node.acts(from).map(({ code }) => code)).toEqual(['session.deny'])
  })
})

describe('a reader who does not read', () => {
  test('costs bounded memory, and another session nothing', async () => {
    const session = await openSession(vendor, 'press-07', 'plc')
    await using client = await Client.dial(node)
    await using other = await Client.dial(node)
    let sent = 0
    agent.target = (stream) => {
      const piece = new Uint8Array(65_536)
      const pour = () => {
        do sent += piece.length
        while (stream.write(piece))
      }
      stream.onDrain = pour
      stream.onData = (chunk) => stream.consumed(chunk.length)
      pour()
    }
    const stalled = await client.line(session, { reading: false, keep: false })
    await until('something came', () => stalled.total > 0)
    agent.target = echo
    const line = await other.line(session)
    for (let at = 1; at <= 20; at++) {
      line.write('x')
      await line.until('each echo', ({ total }) => total === at)
    }
    expect(sent).toBeLessThan(8 * 1024 * 1024)
    await end(session)
    await nothingOpen()
  })

  test('read fast before: what is on its way finds room', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000, max_bytes: 2 ** 36 })
    const session = await openSession(vendor, 'press-07', 'plc')
    await using client = await Client.dial(node)
    let sent = 0
    agent.target = (stream) => {
      const piece = new Uint8Array(262_144)
      const pour = () => {
        do sent += piece.length
        while (stream.write(piece))
      }
      stream.onDrain = pour
      stream.onData = (chunk) => stream.consumed(chunk.length)
      pour()
    }
    const line = await client.line(session, { keep: false })
    await until('the windows have grown', () => line.total > 32 * 1024 * 1024)
    line.reading = false
    const stalledAt = line.total
    await until('nothing more comes', async () => {
      const before = sent
      await new Promise((resolve) => setTimeout(resolve, 200))
      return sent === before
    })
    expect(sent - stalledAt).toBeLessThan(96 * 1024 * 1024)
    expect((await record(session)).state).toBe('open')
    await end(session)
    await nothingOpen()
  })
})

describe('a device that goes away and comes back', () => {
  test('its streams end, its sessions wait for it', async () => {
    const session = await openSession(vendor, 'press-07', 'plc')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write('x')
    await line.until('it is carried', ({ text }) => text === 'x')
    agent.tunnel.close('agent.draining')
    expect((await line.gone()).fault).toBe('remote')
    await until('the node knows', async () => (await node.health()).devices === 0)
    expect((await refusalOf(client.stream(session))).code).toBe('device.offline')
    const opening = await vendor.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    expect([opening.status, opening.body.code]).toEqual([503, 'device.offline'])

    agent = await attach(node, identity, { listeners: LISTENERS })
    const again = await client.line(session)
    again.write('back')
    await again.until('it is carried again', ({ text }) => text === 'back')
    await end(session)
    await nothingOpen()
  })

  test('a newer tunnel takes over; sessions that were open go on over it', async () => {
    const session = await openSession(vendor, 'press-07', 'plc')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write('x')
    await line.until('it is carried', ({ text }) => text === 'x')
    const older = agent
    agent = await attach(node, identity, { listeners: LISTENERS })
    expect((await soon('the older one ends', older.tunnel.closed)).code).toBe('tunnel.replaced')
    expect((await line.gone()).code).toBe('tunnel.replaced')
    expect((await node.health()).devices).toBe(1)
    const again = await client.line(session)
    again.write('over the new one')
    await again.until('the new one carries', ({ text }) => text === 'over the new one')
    expect([older.opened.length > 0, agent.opened.length]).toEqual([true, 1])
    await end(session)
    await nothingOpen()
  })
})

describe('Modbus', () => {
  const read = '000100000006010300000002'
  const write = '000200000006010600010003'
  const registers = (stream: Parameters<FakeAgent['target']>[0], got: string[]) => {
    stream.onEnd = () => stream.end()
    stream.onData = (chunk) => {
      got.push(Buffer.from(chunk).toString('hex'))
      stream.consumed(chunk.length)
      stream.write(Buffer.from(`${got.at(-1)?.slice(0, 4)}000000070103040001000f`, 'hex'))
    }
  }

  test('reads pass; a write is answered with an exception and never reaches the device', async () => {
    const got: string[] = []
    agent.target = (stream) => registers(stream, got)
    const session = await openSession(vendor, 'press-07', 'registers')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    line.write(Buffer.from(read, 'hex'))
    await line.until('registers', ({ total }) => total === 13)
    expect(line.bytes.toString('hex')).toBe('0001000000070103040001000f')
    const from = node.size()
    line.write(Buffer.from(write, 'hex'))
    await line.until('an exception', ({ total }) => total === 22)
    expect(line.bytes.subarray(13).toString('hex')).toBe('000200000003018601')
    expect(got).toEqual([read])
    const [denied] = await until('the refusal is in the log', () => {
      const events = node.events(from).filter(({ code }) => code === 'ot.deny')
      return events.length > 0 ? events : undefined
    })
    expect(denied?.text).toContain('"function_code":6')
    expect(denied?.text).toContain(session.id)
    line.write(Buffer.from(read, 'hex'))
    await line.until('reads still pass', ({ total }) => total === 35)
    await end(session)
    await nothingOpen()
  })

  test('what is not Modbus ends the connection, and says nothing of the session', async () => {
    agent.target = (stream) => registers(stream, [])
    const session = await openSession(vendor, 'press-07', 'registers')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    const from = node.size()
    line.write('GET / HTTP/1.1\r\nHost: plc\r\n\r\n')
    expect((await line.gone()).code).toMatch(/^modbus\./)
    expect(line.signals).not.toContainEqual(expect.objectContaining({ t: 'ending' }))
    await nothingOpen()
    const next = await client.line(session)
    next.write(Buffer.from(read, 'hex'))
    await next.until('the next connection reads', ({ total }) => total === 13)
    next.stream.end()
    await until('it is in the log', () =>
      node.events(from).some(({ code }) => code === 'ot.violation'),
    )
    await end(session)
  })

  test('a write after the device has ended its side', async () => {
    agent.target = (stream) => {
      stream.onEnd = () => {}
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.end()
    }
    const session = await openSession(vendor, 'press-07', 'registers')
    await using client = await Client.dial(node)
    const line = await client.line(session)
    await line.until('the end', ({ ended }) => ended)
    const from = node.size()
    line.write(Buffer.from(write, 'hex'))
    await until('it is refused all the same', () =>
      node.events(from).some(({ code }) => code === 'ot.deny'),
    )
    line.stream.end()
    await line.gone()
    expect((await record(session)).state).toBe('open')
    await end(session)
    await nothingOpen()
  })
})

describe('two streams joined', () => {
  /** A device whose credit is larger than what a stream takes unasked, and a person who reads nothing. */
  test('what arrives while the other side is full waits, in order, and is not lost', async () => {
    const MiB = 1024 * 1024
    const limits = { initialWindow: 16 * MiB, maxWindow: 16 * MiB, receiveMemory: 256 * MiB }
    const [gatewayEnd, vendorEnd] = await tunnels({})
    const [gatewaySide, deviceEnd] = await tunnels(limits)
    const [toVendor, fromGateway] = await pair(gatewayEnd, vendorEnd)
    const [toDevice, atDevice] = await pair(gatewaySide, deviceEnd)
    const ended = Promise.withResolvers<void>()
    splice({
      client: toVendor,
      device: toDevice,
      pace: { in: new Pace(1e12, 0), out: new Pace(1e12, 0) },
      meter: () => true,
      onEnd: () => ended.resolve(),
    })
    const line = new Line(fromGateway, { reading: false, keep: false })
    const piece = new Uint8Array(MiB)
    for (let at = 0; at < 16; at++) {
      piece.fill(at)
      if (!atDevice.write(piece)) await new Promise<void>((resolve) => (atDevice.onDrain = resolve))
    }
    atDevice.end()
    await until('the first of it is there', () => line.total > 0)
    expect(toVendor.bytesOut).toBeLessThanOrEqual(16 * MiB)
    line.reading = true
    fromGateway.consumed(line.total)
    await line.until('all of it', ({ total }) => total === 16 * MiB)
    await line.until('its end', (one) => one.ended)
    fromGateway.end()
    await soon('both are over', ended.promise)
    for (const tunnel of [vendorEnd, gatewayEnd, gatewaySide, deviceEnd]) tunnel.close('done')
  })

  test('1,500 sizes of a window at once: the device hears few, the last among them, none twice in a row', async () => {
    const [gatewayEnd, vendorEnd] = await tunnels({})
    const [gatewaySide, deviceEnd] = await tunnels({})
    const [toVendor, fromGateway] = await pair(gatewayEnd, vendorEnd)
    const [toDevice, atDevice] = await pair(gatewaySide, deviceEnd)
    const ended = Promise.withResolvers<void>()
    splice({
      client: toVendor,
      device: toDevice,
      pace: { in: new Pace(1e12, 0), out: new Pace(1e12, 0) },
      meter: () => true,
      signals: spawnSignals,
      onEnd: () => ended.resolve(),
    })
    const heard: string[] = []
    atDevice.onData = () => {}
    atDevice.onSignal = (payload) => heard.push(Buffer.from(payload).toString())
    const size = (rows: number) => JSON.stringify({ t: 'winsize', rows, cols: 80 })
    const tell = (rows: number) => fromGateway.signal(Buffer.from(size(rows)))
    for (let at = 0; at < 1490; at++) {
      // A stream keeps few for somebody who does not listen yet.
      if (at % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
      tell(1 + (at % 900))
    }
    for (let at = 0; at < 10; at++) tell(999)
    await until('the last of them is there', () => heard.includes(size(999)))
    tell(999)
    tell(1000)
    await until('another is there', () => heard.includes(size(1000)))
    expect(heard[0]).toBe(size(1))
    expect(heard.slice(-2)).toEqual([size(999), size(1000)])
    expect(heard.length).toBeLessThan(100)
    atDevice.reset('target.closed')
    await soon('both are over', ended.promise)
    for (const tunnel of [vendorEnd, gatewayEnd, gatewaySide, deviceEnd]) tunnel.close('done')
  })
})

/** Two tunnels joined in memory; the first has these limits. */
async function tunnels(limits: Partial<Limits>): Promise<[Tunnel, Tunnel]> {
  const [near, far] = memoryPair()
  const options = { role: 'client', instance: 'x', epoch: 1 } as const
  return await Promise.all([
    driveTunnel(near, { ...options, side: 'acceptor', limits }),
    driveTunnel(far, { ...options, side: 'dialler' }),
  ])
}

async function pair(from: Tunnel, to: Tunnel): Promise<[TunnelStream, TunnelStream]> {
  const { promise, resolve } = Promise.withResolvers<TunnelStream>()
  to.onOpen = (offer) => resolve(offer.accept(new Uint8Array()))
  return [await from.open('tcp', new Uint8Array()), await promise]
}
