/** A session that is held: nothing passes, nothing is lost, nothing comes out of order, and nobody is late for it. */
import { expect, test, vi } from 'vitest'
import { driveTunnel, memoryPair, type Tunnel, type TunnelStream } from '#tunnel'
import { Kept } from '../../../gateway/access/kept.ts'
import { Latest } from '../../../gateway/access/latest.ts'
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
async function joined({
  kind = 'tcp',
  filter,
  metering = () => undefined,
}: { kind?: Kind; filter?: Filter; metering?: () => void } = {}) {
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
      metering()
      counted[direction] += bytes
      return true
    },
    signals: { fromClient: (payload) => payload, fromDevice: (payload) => payload },
    ...(filter === undefined ? {} : { filter }),
    onEnd: ({ code }) => ended.resolve(code),
  })
  const close = (): void => all.forEach((tunnel) => tunnel.close('done'))
  const lines = { vendor: new Line(atVendor), target: new Line(atDevice) }
  return { hold, client, device, counted, ended: ended.promise, close, ...lines }
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

/** All of it: a number of octets for bytes, a text for what was done. */
function drained(kept: Kept): (string | number)[] {
  const all: (string | number)[] = []
  for (let piece = kept.next(); piece !== undefined; piece = kept.next())
    if (piece instanceof Uint8Array) all.push(piece.length)
    else piece()
  return all
}

test('a frame of one byte costs a byte: 256 KiB of them are sixteen pieces, and not one is lost', () => {
  const kept = new Kept()
  const sent = Buffer.alloc(256 * 1024, 'from the first to the last ')
  for (let at = 0; at < sent.length; at++) kept.bytes(sent.subarray(at, at + 1))
  const pieces: Uint8Array[] = []
  for (let piece = kept.next(); piece !== undefined; piece = kept.next())
    if (piece instanceof Uint8Array) pieces.push(piece)
  expect(pieces).toHaveLength(16)
  expect(Buffer.concat(pieces).equals(sent)).toBe(true)
  expect(kept.empty).toBe(true)
})

test('bytes are joined only to bytes beside them, and what a sender still holds is not written to', () => {
  const kept = new Kept()
  const done: string[] = []
  const own = Buffer.from('ab')
  kept.bytes(own.subarray(0, 1))
  kept.bytes(Buffer.from('cd'))
  kept.act(() => done.push('end'))
  kept.bytes(Buffer.alloc(70_000))
  kept.bytes(Buffer.alloc(10))
  kept.bytes(Buffer.alloc(16 * 1024))
  expect(drained(kept)).toEqual([3, 70_000, 10, 16 * 1024])
  expect([done, own.toString()]).toEqual([['end'], 'ab'])
})

test('what is kept is not the memory that it came in, into which the next connection is read', async () => {
  const one = await joined()
  for (const side of [one.client, one.device]) {
    const take = side.onData
    side.onData = (chunk) => {
      const lent = Buffer.from(chunk)
      take?.(lent)
      lent.fill('x')
    }
  }
  one.hold.set('operator', true)
  one.vendor.write('set 7')
  one.target.write('is 7')
  await still()
  one.hold.set('operator', false)
  await one.target.until('what was sent', ({ total }) => total === 5)
  await one.vendor.until('the answer', ({ total }) => total === 4)
  expect([one.target.text, one.vendor.text]).toEqual(['set 7', 'is 7'])
  one.close()
})

test('of the signals a device sends while it is held sixteen are kept, and of the next pause as many', () => {
  const kept = new Kept()
  let passed = 0
  for (let round = 1; round <= 2; round++) {
    for (let at = 0; at < 1000; at++) {
      kept.bytes(Buffer.from('x'))
      kept.signal(() => passed++)
    }
    // The bytes behind the last of them are one piece.
    expect(drained(kept)).toEqual([...Array.from({ length: 16 }, () => 1), 984])
    expect(passed).toBe(16 * round)
  }
})

test('of the sizes a window has while it is held the last is told, and none before it goes on', async () => {
  vi.useFakeTimers()
  try {
    let held = false
    const told: string[] = []
    const latest = new Latest(
      (payload) => told.push(Buffer.from(payload).toString()),
      () => held,
    )
    const tell = (size: string) => latest.tell(Buffer.from(size))
    tell('1')
    tell('2')
    held = true
    for (let size = 3; size < 5000; size++) tell(String(size))
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect([told, vi.getTimerCount()]).toEqual([['1'], 0])
    held = false
    latest.freed()
    expect(told).toEqual(['1', '4999'])
  } finally {
    vi.useRealTimers()
  }
})

test('through a whole connection: held, many sizes and many signals are one and sixteen', async () => {
  const one = await joined()
  one.hold.set('operator', true)
  for (let n = 0; n < 200; n++) {
    one.vendor.stream.signal(Buffer.from(`{"rows":${n}}`))
    one.target.stream.signal(Buffer.from(`{"n":${n}}`))
    if (n % 10 === 0) await still()
  }
  one.vendor.write('behind them')
  one.target.write('behind them')
  await until('all is kept', () => one.client.bytesIn === 11 && one.device.bytesIn === 11)
  expect([one.target.signals, one.vendor.signals]).toEqual([[], []])
  one.hold.set('operator', false)
  await one.vendor.until('what comes after', ({ text }) => text === 'behind them')
  await until('the size', () => one.target.signals.length > 0)
  expect(one.target.signals).toEqual([{ rows: 199 }])
  expect(one.vendor.signals).toEqual(Array.from({ length: 16 }, (_, n) => ({ n })))
  one.close()
})

test('what was kept passes over many turns of the loop, so that one session holds up no other', async () => {
  let turn = 0
  let turning: NodeJS.Immediate | undefined
  const next = (): void => {
    turn++
    turning = setImmediate(next)
  }
  const turns: number[] = []
  // Each piece takes as long as one turn may.
  const metering = () => {
    turns.push(turn)
    const from = performance.now()
    while (performance.now() - from < 2);
  }
  const one = await joined({ metering })
  one.hold.set('operator', true)
  const piece = 16 * 1024
  for (let n = 1; n <= 8; n++) {
    one.vendor.write(Buffer.alloc(piece, n))
    await until('it is kept', () => one.client.bytesIn === n * piece)
  }
  next()
  one.hold.set('operator', false)
  await one.target.until('all of it', ({ total }) => total === 8 * piece)
  clearImmediate(turning)
  expect([turns.length, new Set(turns).size]).toEqual([8, 8])
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

test('a web connection waits both ways, and ends as it would have', async () => {
  const [stream, atDevice] = await pair(...(await tunnels()))
  const target = atDevice.duplex()
  const hold = new Hold()
  const counted = { in: 0, out: 0 }
  const metered = new Metered(stream, {
    pace: free(),
    hold,
    meter: (direction, bytes) => {
      counted[direction] += bytes
      return true
    },
  })
  const got = { target: '', person: '' }
  target.on('data', (chunk: Buffer) => (got.target += chunk.toString()))
  metered.on('data', (chunk: Buffer) => (got.person += chunk.toString()))
  metered.write('one')
  await until('the first passed', () => got.target === 'one')
  hold.set('operator', true)
  metered.write('two')
  metered.end('three')
  target.end('page')
  await still()
  expect([got, counted]).toEqual([
    { target: 'one', person: '' },
    { in: 3, out: 0 },
  ])
  hold.set('operator', false)
  await until('all passed', () => got.target === 'onetwothree' && got.person === 'page')
  expect(counted).toEqual({ in: 11, out: 4 })
})
