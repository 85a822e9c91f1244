/** A session that is held: nothing passes, nothing is lost, nothing comes out of order, and nobody is late for it. */
import { Duplex, PassThrough } from 'node:stream'
import { expect, test, vi } from 'vitest'
import { driveTunnel, memoryPair, type Tunnel, type TunnelStream } from '#tunnel'
import { Metered } from '../../../gateway/access/metered.ts'
import { modbusFilter } from '../../../gateway/access/modbus.ts'
import { splice, type Filter, type Filtered } from '../../../gateway/access/splice.ts'
import { Hold } from '../../../gateway/sessions/hold.ts'
import { Pace } from '../../../gateway/sessions/pace.ts'
import { until } from '../../support/node.ts'
import { Line } from '../../support/tunnels.ts'

type Kind = TunnelStream['kind']
const free = () => ({ in: new Pace(1e12, 0), out: new Pace(1e12, 0) })

async function tunnels(): Promise<[Tunnel, Tunnel]> {
  const [near, far] = memoryPair()
  const options = { role: 'client', instance: 'x', epoch: 1 } as const
  return await Promise.all([
    driveTunnel(near, { ...options, side: 'acceptor' }),
    driveTunnel(far, { ...options, side: 'dialler' }),
  ])
}

async function pair(
  from: Tunnel,
  to: Tunnel,
  kind: Kind = 'tcp',
): Promise<[TunnelStream, TunnelStream]> {
  const { promise, resolve } = Promise.withResolvers<TunnelStream>()
  to.onOpen = (offer) => resolve(offer.accept(new Uint8Array()))
  return [await from.open(kind, new Uint8Array()), await promise]
}

/** A person and a device whose connection goes through a session that can be held. */
async function joined({ kind = 'tcp', filter }: { kind?: Kind; filter?: Filter } = {}) {
  const all = [...(await tunnels()), ...(await tunnels())] as const
  const [gatewayEnd, vendorEnd, gatewaySide, deviceEnd] = all
  const [client, atVendor] = await pair(gatewayEnd, vendorEnd, kind)
  const [device, atDevice] = await pair(gatewaySide, deviceEnd, kind)
  const hold = new Hold()
  const counted = { in: 0, out: 0 }
  const ended = Promise.withResolvers<string>()
  splice({
    client,
    device,
    pace: free(),
    hold,
    meter: (direction, bytes) => {
      counted[direction] += bytes
      return true
    },
    signals: { fromClient: (payload) => payload, fromDevice: (payload) => payload },
    ...(filter === undefined ? {} : { filter }),
    onEnd: ({ code }) => ended.resolve(code),
  })
  const close = (): void => all.forEach((tunnel) => tunnel.close('done'))
  const lines = { vendor: new Line(atVendor), target: new Line(atDevice) }
  return { hold, counted, ended: ended.promise, close, ...lines }
}
/** Everything that is under way in memory has arrived. */
async function still(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
}

test('both ways bytes, ends and signals wait while it is held, and come in their order', async () => {
  const one = await joined()
  one.vendor.write('a')
  await one.target.until('what came before', ({ text }) => text === 'a')
  one.hold.set('operator', true)
  for (const piece of ['b', 'c', 'd']) one.vendor.write(piece)
  one.target.write('answer')
  one.target.stream.signal(Buffer.from('{"t":"exit"}'))
  one.vendor.stream.end()
  await still()
  expect([one.target.text, one.vendor.text, one.target.ended]).toEqual(['a', '', false])
  expect([one.vendor.signals, one.counted]).toEqual([[], { in: 1, out: 0 }])
  one.hold.set('supervisor', true)
  one.hold.set('operator', false)
  await still()
  expect(one.target.text).toBe('a')
  one.hold.set('supervisor', false)
  await one.target.until('all of it', ({ text, ended }) => text === 'abcd' && ended)
  await one.vendor.until('the answer', ({ text }) => text === 'answer')
  expect(one.vendor.signals).toEqual([{ t: 'exit' }])
  one.target.stream.end()
  expect(await one.ended).toBe('done')
  one.close()
})

test('what a sender may have under way is bounded: it gets no credit while nothing passes', async () => {
  const one = await joined()
  one.hold.set('operator', true)
  let taken = 0
  const piece = Buffer.alloc(64 * 1024)
  while (taken < 4096 && one.vendor.write(piece)) taken++
  await still()
  expect(taken).toBeLessThan(4096)
  expect(one.target.total).toBe(0)
  one.hold.set('operator', false)
  await one.target.until('all of it', ({ total }) => total === (taken + 1) * piece.length)
  one.close()
})

test('cut while it is held, what waited goes nowhere', async () => {
  const one = await joined()
  one.hold.set('operator', true)
  one.vendor.write('never')
  await still()
  one.vendor.stream.reset('client.gone', '')
  expect(await one.ended).toBe('client.gone')
  one.hold.set('operator', false)
  await still()
  expect(one.target.text).toBe('')
  expect(one.counted.in).toBe(0)
  one.close()
})

test('paused and let go in one breath from within what passes, order and number hold', async () => {
  const one = await joined()
  one.hold.set('operator', true)
  const sent = Array.from({ length: 500 }, (_, n) => String.fromCharCode(97 + (n % 26)))
  for (const piece of sent) one.vendor.write(piece)
  await still()
  for (let turn = 0; turn < 40; turn++) {
    one.hold.set('operator', turn % 2 === 1)
    one.vendor.write(String(turn % 10))
    sent.push(String(turn % 10))
    if (turn % 7 === 0) await still()
  }
  one.hold.set('operator', false)
  await one.target.until('all of it', ({ total }) => total === sent.length)
  expect(one.target.text).toBe(sent.join(''))
  one.close()
})

test('datagrams are dropped while it is held, not sent later', async () => {
  const one = await joined({ kind: 'udp' })
  one.hold.set('operator', true)
  one.vendor.write('old')
  await still()
  one.hold.set('operator', false)
  one.vendor.write('new')
  await one.target.until('the later one', ({ text }) => text.length > 0)
  expect(one.target.text).toBe('new')
  one.close()
})

test('what a filter lets through only later waits too: a write whose record lasted into the pause', async () => {
  let act: (made: Filtered) => void = () => undefined
  const filter: Filter = {
    attach: (given) => (act = given),
    fromClient: () => ({ onward: [], back: [] }),
    fromDevice: (chunk) => ({ onward: [chunk], back: [] }),
    ended: (passed) => passed(),
    stop: () => undefined,
  }
  const one = await joined({ filter })
  one.vendor.write('write')
  await until('it was counted', () => one.counted.in === 5)
  one.hold.set('operator', true)
  act({ onward: [Buffer.from('write')], back: [] })
  await still()
  expect(one.target.text).toBe('')
  one.hold.set('operator', false)
  await one.target.until('it', ({ text }) => text === 'write')
  one.close()
})

test('a Modbus frame that is half there when the session is held is not late when it goes on', async () => {
  vi.useFakeTimers()
  try {
    const session = {
      obligations: { ot_each: false },
      verdicts: { passed: 0, refused: 0, writes: 0 },
      state: 'open',
    }
    const room = {
      log: { append: async () => ({}) },
      now: () => Date.now(),
      report: () => undefined,
    }
    const made: Filtered[] = []
    const filter = modbusFilter(room as never, session as never, {} as never, {
      level: 1,
      windows: [],
    })
    filter.attach((one) => made.push(one))
    const frame = Buffer.from('000100000006010300000001', 'hex')
    expect(filter.fromClient(frame.subarray(0, 7))).toMatchObject({ onward: [], cut: undefined })
    filter.held?.(true)
    await vi.advanceTimersByTimeAsync(3_600_000)
    filter.held?.(false)
    expect(made.filter(({ cut }) => cut !== undefined)).toEqual([])
    const rest = filter.fromClient(frame.subarray(7))
    expect(rest.cut).toBeUndefined()
    expect(Buffer.concat([...rest.onward]).toString('hex')).toBe(frame.toString('hex'))
    // And an answer that is owed for that long is not, either.
    filter.held?.(true)
    await vi.advanceTimersByTimeAsync(3_600_000)
    filter.held?.(false)
    const answer = Buffer.from('0001000000050103020007', 'hex')
    expect(Buffer.concat([...filter.fromDevice(answer).onward]).toString('hex')).toBe(
      answer.toString('hex'),
    )
    expect(session.verdicts).toEqual({ passed: 1, refused: 0, writes: 0 })
    filter.stop()
  } finally {
    vi.useRealTimers()
  }
})

/** What is written goes into one, what is read comes out of the other. */
function joinedStreams(into: PassThrough, from: PassThrough): Duplex {
  const inner = new Duplex({
    read: () => from.resume(),
    write: (chunk, _encoding, done) => void into.write(chunk, done),
    final: (done) => void into.end(done),
  })
  from.on('data', (chunk) => {
    if (!inner.push(chunk)) from.pause()
  })
  from.once('end', () => inner.push(null))
  return inner
}

test('a web connection waits both ways, and ends as it would have', async () => {
  const toTarget = new PassThrough()
  const fromTarget = new PassThrough()
  const inner = joinedStreams(toTarget, fromTarget)
  const hold = new Hold()
  const counted = { in: 0, out: 0 }
  const metered = new Metered(inner, {
    pace: free(),
    hold,
    meter: (direction, bytes) => {
      counted[direction] += bytes
      return true
    },
  })
  const got = { target: '', person: '' }
  toTarget.on('data', (chunk: Buffer) => (got.target += chunk.toString()))
  metered.on('data', (chunk: Buffer) => (got.person += chunk.toString()))
  metered.write('one')
  await until('the first passed', () => got.target === 'one')
  hold.set('operator', true)
  metered.write('two')
  metered.end('three')
  fromTarget.write('page')
  fromTarget.end()
  await still()
  expect([got, counted]).toEqual([
    { target: 'one', person: '' },
    { in: 3, out: 0 },
  ])
  hold.set('operator', false)
  await until('all passed', () => got.target === 'onetwothree' && got.person === 'page')
  expect(counted).toEqual({ in: 11, out: 4 })
})
