/** How much is on its way: two sessions over a simulated link with a rate, a length and a queue. */
import { expect, test } from 'vitest'
import type { MuxStream, StreamKind } from '#mux'
import { encode } from '../../agent-tunnel/mux/frame.ts'
import { Pair, type End } from '../support/pair.ts'

const KiB = 1024
const MiB = 1024 * KiB

interface LinkShape {
  /** Octets per millisecond from the dialler to the acceptor; the way back is not limited. */
  readonly rate: number
  readonly rttMs: number
  /** What arrives at time `at` is read at the next multiple of this. */
  readonly clumpMs?: number
}

/** Octets on their way: when they arrive, and which. */
interface Piece {
  readonly at: number
  readonly bytes: Uint8Array
}

/** The sender's socket takes whatever it is given: all that is not bounded above lies in its queue. */
class SlowLink {
  readonly pair: Pair
  readonly shape: LinkShape
  #free = 0
  readonly #there: Piece[] = []
  readonly #back: Piece[] = []
  queued = 0
  mostQueuedMs = 0
  answers = true
  /** Whether there was ever room for part of an octet. */
  fractions = false

  constructor(shape: LinkShape) {
    this.pair = new Pair()
    this.shape = shape
    this.run(6 * this.#turnMs)
  }

  get #turnMs(): number {
    return this.shape.rttMs + (this.shape.clumpMs ?? 0)
  }

  /** An accepted stream. */
  stream(kind: StreamKind = 'tcp'): MuxStream {
    const { dialler, acceptor } = this.pair
    const ours = dialler.session.open(kind, Buffer.alloc(0), dialler.now)
    if (typeof ours === 'string') throw new Error(ours)
    this.run(2 * this.#turnMs)
    acceptor.session.accept(acceptor.streams.get(ours.id)!, Buffer.alloc(0))
    this.run(2 * this.#turnMs)
    return ours
  }

  #take(from: End, rate: number, pieces: Piece[]): void {
    const { clock } = this.pair
    const { rttMs, clumpMs = 0 } = this.shape
    for (;;) {
      const slab = from.session.output(from.now)
      if (slab === undefined) return
      // As a network carries it: in small packets, each at its own time.
      for (let at = 0; at < slab.length; at += 16 * KiB) {
        const bytes = Buffer.from(slab.subarray(at, at + 16 * KiB))
        let there = clock.now
        if (rate < Infinity) {
          this.#free = Math.max(this.#free, clock.now) + bytes.length / rate
          there = this.#free
        }
        there += rttMs / 2
        if (clumpMs > 0) there = Math.ceil(there / clumpMs) * clumpMs
        pieces.push({ at: there, bytes })
      }
      from.session.sent()
      from.take(from.session.poll())
    }
  }

  #deliver(to: End, pieces: Piece[]): void {
    for (;;) {
      const [first] = pieces
      if (first === undefined || first.at > this.pair.clock.now) return
      pieces.shift()
      to.hear(first.bytes)
      to.deliver()
      to.consumeAll()
    }
  }

  /** The dialler writes all it may on `stream` for `ms`, in steps of a quarter of a millisecond. */
  run(ms: number, stream?: MuxStream): void {
    const { pair } = this
    const { dialler, acceptor, clock } = pair
    const until = clock.now + ms
    const chunk = Buffer.alloc(64 * KiB, 7)
    for (; clock.now < until; clock.now += 0.25) {
      this.#deliver(acceptor, this.#there)
      this.#deliver(dialler, this.#back)
      if (stream !== undefined) while (!stream.wantsDrain && dialler.session.write(stream, chunk));
      this.#take(dialler, this.shape.rate, this.#there)
      if (this.answers) this.#take(acceptor, Infinity, this.#back)
      // Half an octet of room would make half an octet of a frame.
      this.fractions ||= !Number.isInteger(dialler.session.stats().inFlightCap)
      this.queued = Math.max(0, this.#free - clock.now)
      this.mostQueuedMs = Math.max(this.mostQueuedMs, this.queued)
    }
  }

  /** The share of the link that was used in `ms`, after `warmMs`. */
  share(stream: MuxStream, warmMs: number, ms: number): number {
    this.run(warmMs, stream)
    this.mostQueuedMs = 0
    const before = this.#received()
    this.run(ms, stream)
    return (this.#received() - before) / (ms * this.shape.rate)
  }

  #received(): number {
    return this.pair.acceptor.session.stats().bytesIn
  }
}

test.each([
  { what: 'a site on 10 Mbit/s, 40 ms', rate: 1250, rttMs: 40, queueMs: 90 },
  { what: '100 Mbit/s, 20 ms', rate: 12_500, rttMs: 20, queueMs: 50 },
  { what: '500 Mbit/s, 100 ms', rate: 62_500, rttMs: 100, queueMs: 220 },
  { what: '2 Gbit/s, 1 ms', rate: 250_000, rttMs: 1, queueMs: 4 },
])('$what: the queue is bounded, the link full', ({ rate, rttMs, queueMs }) => {
  const link = new SlowLink({ rate, rttMs })
  const ours = link.stream()
  const share = link.share(ours, Math.max(500, 20 * rttMs), Math.max(500, 10 * rttMs))
  expect(link.pair.dialler.failure ?? link.pair.acceptor.failure).toBeUndefined()
  expect(share).toBeGreaterThan(0.95)
  // Without a cap it grows for as long as windows do, to 16 MiB: 13 s on the first of these.
  expect(link.mostQueuedMs).toBeLessThan(queueMs)
})

test('where octets are read in clumps the link stays full', () => {
  const link = new SlowLink({ rate: 5000, rttMs: 10, clumpMs: 30 })
  const ours = link.stream()
  expect(link.share(ours, 3000, 2000)).toBeGreaterThan(0.9)
})

test('a stream that has been busy for long has no longer queue than at first', () => {
  const link = new SlowLink({ rate: 12_501.3, rttMs: 20 })
  const ours = link.stream()
  expect(link.share(ours, 1000, 25_000)).toBeGreaterThan(0.95)
  link.mostQueuedMs = 0
  link.run(2000, ours)
  expect(link.mostQueuedMs).toBeLessThan(60)
  expect(link.fractions).toBe(false)
  expect(link.pair.dialler.failure ?? link.pair.acceptor.failure).toBeUndefined()
})

test('a path that has become longer is known as such after a while', () => {
  // Short of what an initial window carries: windows have a longer memory of their own.
  const shape = { rate: 2000, rttMs: 10 }
  const link = new SlowLink(shape)
  const ours = link.stream()
  link.run(2000, ours)
  shape.rttMs = 60
  expect(link.share(ours, 12_000, 2000)).toBeGreaterThan(0.95)
})

test('an application that sends little does not talk the cap down', () => {
  const link = new SlowLink({ rate: 12_500, rttMs: 20 })
  const ours = link.stream()
  link.run(1000, ours)
  const before = link.pair.dialler.session.stats().inFlightCap
  for (let at = 0; at < 200; at++) {
    link.pair.dialler.session.write(ours, Buffer.alloc(4 * KiB))
    link.run(20)
  }
  expect(link.pair.dialler.session.stats().inFlightCap).toBeGreaterThan(before * 0.8)
})

test.each([
  { what: 'a site on 100 Mbit/s, 20 ms', rate: 12_500, rttMs: 20 },
  { what: '1 Gbit/s, 1 ms', rate: 125_000, rttMs: 1 },
])('$what: keys typed beside bulk find a shorter queue, and the link full', ({ rate, rttMs }) => {
  const link = new SlowLink({ rate, rttMs })
  const ours = link.stream()
  const keys = link.stream()
  link.share(ours, 1000, 500)
  const alone = link.mostQueuedMs
  const type = (strokes: number): void => {
    for (let at = 0; at < strokes; at++) {
      link.pair.dialler.session.write(keys, Buffer.from('k'))
      link.run(20, ours)
    }
  }
  type(20)
  link.mostQueuedMs = 0
  const { bytesIn } = link.pair.acceptor.session.stats()
  type(50)
  expect(link.mostQueuedMs).toBeLessThan(alone * 0.6)
  expect(link.pair.acceptor.session.stats().bytesIn - bytesIn).toBeGreaterThan(0.8 * 1000 * rate)
  // So does a key after a pause for thought, or a device that is polled every second.
  link.mostQueuedMs = 0
  link.run(600, ours)
  expect(link.mostQueuedMs).toBeLessThan(alone * 0.6)
  // And when nobody types any more it is as long as before.
  link.run(3000)
  link.share(ours, 500, 500)
  expect(link.mostQueuedMs).toBeGreaterThan(alone * 0.65)
})

test('a peer that answers no PING gets a bounded amount, and what is small still goes', () => {
  const link = new SlowLink({ rate: 12_500, rttMs: 20 })
  const ours = link.stream()
  const keys = link.stream()
  link.answers = false
  link.run(1000, ours)
  const { bytesIn } = link.pair.acceptor.session.stats()
  expect(bytesIn).toBeLessThan(256 * KiB)
  link.pair.dialler.session.write(keys, Buffer.from('key'))
  link.run(50, ours)
  expect(link.pair.acceptor.text(keys.id)).toBe('key')
})

test('both full at once: answers pass although neither side may send more', () => {
  const pair = Pair.ready()
  const [ours, theirs] = pair.stream()
  let sent = 0
  for (let turn = 0; turn < 200; turn++) {
    for (const [end, stream] of [
      [pair.dialler, ours],
      [pair.acceptor, theirs],
    ] as const) {
      while (!stream.wantsDrain && end.session.write(stream, Buffer.alloc(64 * KiB)));
    }
    pair.exchange()
    for (const end of [pair.dialler, pair.acceptor]) end.consumeAll()
    pair.clock.now += 1
    sent = Math.min(ours.bytesOut, theirs.bytesOut)
  }
  expect(sent).toBeGreaterThan(8 * MiB)
})

test('PINGs between octets are earned by them', () => {
  const link = new SlowLink({ rate: 62_500, rttMs: 1 })
  const ours = link.stream()
  link.run(1000, ours)
  expect(link.pair.acceptor.failure).toBeUndefined()
  // More than the 20 a second, and the burst, that everybody has.
  expect(link.pair.dialler.session.stats().framesOut).toBeGreaterThan(200)
})

test('PINGs without octets are not: rate.ping', () => {
  const pair = Pair.ready()
  const ping = encode({ type: 'ping', token: 7n })
  for (let at = 0; at < 38; at++) pair.acceptor.hear(ping)
  pair.acceptor.deliver()
  expect(pair.acceptor.failure).toBeUndefined()
  for (let at = 0; at < 4; at++) pair.acceptor.hear(ping)
  pair.acceptor.deliver()
  expect(pair.acceptor.failure).toBe('rate.ping')
})

test.each([
  {
    what: 'before bulk begins: it finds a short queue at once',
    size: 1,
    before: 0,
    kind: 'tcp',
    short: true,
  },
  { what: 'long before', size: 1, before: 4000, kind: 'tcp', short: false },
  { what: 'but on a control stream', size: 1, before: 0, kind: 'control', short: false },
  { what: 'and is bulk itself by now', size: 64 * KiB, before: 0, kind: 'tcp', short: false },
] as const)('somebody sent little, $what', ({ size, before, kind, short }) => {
  const link = new SlowLink({ rate: 80_000, rttMs: 1 })
  const [ours, other] = [link.stream(), link.stream(kind)]
  const alone = (link.share(ours, 1000, 500), link.mostQueuedMs)
  link.run(500)
  link.pair.dialler.session.write(other, Buffer.from('k'))
  link.run(10)
  link.pair.dialler.session.write(other, Buffer.alloc(size))
  link.run(before + 250)
  link.share(ours, 100, 200)
  if (short) expect(link.mostQueuedMs).toBeLessThan(alone * 0.6)
  else expect(link.mostQueuedMs).toBeGreaterThan(alone * 0.6)
})

test('the rest of what a sender of bulk had is nobody’s small request', () => {
  const link = new SlowLink({ rate: 80_000, rttMs: 1 })
  const [ours, other] = [link.stream(), link.stream()]
  const alone = (link.share(ours, 1000, 500), link.mostQueuedMs)
  link.mostQueuedMs = 0
  for (let at = 0; at < 20; at++) {
    // Its own turn is long over when the rest of a read comes.
    link.pair.dialler.session.write(other, Buffer.alloc(64 * KiB))
    link.run(15, ours)
    if (at === 10) link.mostQueuedMs = 0
    link.pair.dialler.session.write(other, Buffer.alloc(4 * KiB))
    link.run(15, ours)
  }
  expect(link.mostQueuedMs).toBeGreaterThan(alone * 0.6)
})
