/** Two sessions on a fake wire: every rule of docs/protocol.md that takes two to see. */
import { describe, expect, test } from 'vitest'
import { Session, SlabPool, defaultLimits } from '#mux'
import type { Monotonic } from '#mux'
import { Pair } from '../support/pair.ts'

const KiB = 1024
const MiB = 1024 * KiB
const bytes = (length: number, value = 7): Buffer => Buffer.alloc(length, value)

describe('opening', () => {
  test('HELLO both ways, then the dialler has odd ids and the acceptor even ones', () => {
    const pair = Pair.ready()
    expect(pair.dialler.session.peer?.role).toBe('gateway')
    expect(pair.acceptor.session.peer?.role).toBe('agent')
    const [a] = pair.stream(pair.dialler)
    const [b] = pair.stream(pair.acceptor)
    const [c] = pair.stream(pair.dialler)
    expect([a.id, b.id, c.id]).toEqual([1, 2, 3])
  })

  test('metadata and answer reach the other end', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    expect(Buffer.from(theirs.metadata).toString()).toBe('m')
    expect(Buffer.from(ours.answer).toString()).toBe('a')
  })

  test('a refusal carries code and message and leaves no stream', () => {
    const pair = Pair.ready()
    pair.dialler.session.open('tcp', bytes(1), pair.dialler.now)
    pair.settle()
    pair.acceptor.session.refuse(pair.acceptor.streams.get(1)!, 'target.unknown', 'no such process')
    pair.settle()
    expect(pair.dialler.told('refused')).toEqual([
      { type: 'refused', id: 1, code: 'target.unknown' },
    ])
    expect([...pair.dialler.session.streams, ...pair.acceptor.session.streams]).toEqual([])
  })

  test('an OPEN taken back before its answer cancels the offer; a late ACCEPT is dropped', () => {
    const pair = Pair.ready()
    const ours = pair.dialler.session.open('tcp', bytes(1), pair.dialler.now)
    if (typeof ours === 'string') throw new Error(ours)
    pair.settle()
    pair.dialler.session.reset(ours, 'open.aborted', '', pair.dialler.now)
    pair.acceptor.session.accept(pair.acceptor.streams.get(1)!, bytes(0))
    const theirs = pair.acceptor.streams.get(1)!
    pair.acceptor.session.write(theirs, bytes(100))
    pair.settle()
    expect(pair.acceptor.told('reset')).toEqual([{ type: 'reset', id: 1, code: 'open.aborted' }])
    expect(pair.dialler.failure ?? pair.acceptor.failure).toBeUndefined()
    expect(pair.dialler.told('accepted')).toEqual([])
  })

  test('streams over the limit are refused, and there is room again when one ends', () => {
    const pair = Pair.ready({ acceptor: { maxStreams: 2 } })
    const [first] = pair.stream()
    pair.stream()
    expect(pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)).toBe('tunnel.streams')
    pair.dialler.session.reset(first, 'x.y', '', pair.dialler.now)
    pair.settle()
    pair.stream()
  })

  test('the last ids: 2^31-1 is used, then there are none', () => {
    const pair = Pair.ready({}, 1, { firstId: 2 ** 31 - 3 })
    const [a] = pair.stream()
    const [b] = pair.stream()
    expect([a.id, b.id]).toEqual([2 ** 31 - 3, 2 ** 31 - 1])
    expect(pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)).toBe('tunnel.ids')
    pair.dialler.session.write(b, bytes(5))
    pair.settle()
    expect(pair.acceptor.text(b.id)).toHaveLength(5)
  })

  test('metadata over 4 KiB is refused where it is given', () => {
    const pair = Pair.ready()
    const open = () => pair.dialler.session.open('tcp', bytes(4097), pair.dialler.now)
    expect(open).toThrow(/metadata of 4097/)
    pair.stream()
  })

  test('options outside what HELLO can say are refused where they are given', () => {
    const make = (limits: object, instance = 'x', epoch = 0): (() => Session) => {
      return () =>
        new Session(
          {
            side: 'dialler',
            role: 'agent',
            instance,
            epoch,
            limits: { ...defaultLimits, ...limits },
            random: () => 0,
          },
          0 as Monotonic,
        )
    }
    expect(make({ maxStreams: 0 })).toThrow(/maxStreams 0/)
    expect(make({ maxFrame: 1 << 24 })).toThrow(/maxFrame/)
    expect(make({ initialWindow: 32 * MiB })).toThrow(/initialWindow/)
    expect(make({}, '')).toThrow(/instance/)
    expect(make({}, 'x'.repeat(65))).toThrow(/instance/)
    expect(make({}, 'x', -1)).toThrow(/epoch/)
  })
})

describe('data', () => {
  test('arrives whole whatever the size of the chunks', () => {
    for (const size of [1, 7, 1000, 65_536]) {
      const pair = Pair.ready()
      const [ours] = pair.stream()
      const sent = Buffer.from(Array.from({ length: 20_000 }, (_, at) => at % 251))
      pair.dialler.session.write(ours, sent)
      while (pair.send(pair.dialler) || pair.acceptor.deliver(size) > 0);
      expect(Buffer.concat(pair.acceptor.received.get(1)!).equals(sent)).toBe(true)
    }
  })

  test('the caller may change what it wrote at once', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    const buffer = Buffer.from('first')
    pair.dialler.session.write(ours, buffer)
    buffer.write('SECON')
    pair.settle()
    expect(pair.acceptor.text(1)).toBe('first')
  })

  test('writes of one stream are one frame until another stream comes between', () => {
    const pair = Pair.ready()
    const [a] = pair.stream()
    const [b] = pair.stream()
    const before = pair.acceptor.session.stats().framesIn
    for (const stream of [a, a, a, b, a]) pair.dialler.session.write(stream, bytes(10))
    pair.settle()
    expect(pair.acceptor.session.stats().framesIn - before).toBe(3)
  })

  test('frames are no longer than the receiver takes', () => {
    const pair = Pair.ready({ acceptor: { maxFrame: 16_384 } })
    const [ours] = pair.stream()
    const before = pair.acceptor.session.stats().framesIn
    pair.dialler.session.write(ours, bytes(200 * KiB))
    pair.settle()
    expect(pair.acceptor.text(1).length).toBe(200 * KiB)
    expect(pair.acceptor.session.stats().framesIn - before).toBeGreaterThanOrEqual(13)
  })

  test('half-close: after FIN one way the other way goes on, then the stream is gone', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    pair.dialler.session.write(ours, bytes(3))
    pair.dialler.session.end(ours)
    expect(() => pair.dialler.session.write(ours, bytes(1))).toThrow(/write after end/)
    pair.settle()
    expect(pair.acceptor.told('end')).toHaveLength(1)
    pair.acceptor.session.write(theirs, bytes(9))
    pair.settle()
    expect(pair.dialler.text(1)).toHaveLength(9)
    pair.acceptor.session.end(theirs)
    pair.settle(true)
    for (const end of [pair.dialler, pair.acceptor]) {
      expect(end.told('closed')).toHaveLength(1)
      expect([...end.session.streams]).toEqual([])
    }
  })

  test('FIN waits behind data that has no credit', () => {
    const pair = Pair.ready({ acceptor: { initialWindow: 16_384, maxWindow: 16_384 } })
    const [ours] = pair.stream()
    expect(pair.dialler.session.write(ours, bytes(100_000))).toBe(false)
    pair.dialler.session.end(ours)
    pair.settle()
    expect(pair.acceptor.told('end')).toEqual([])
    pair.settle(true)
    expect(pair.acceptor.text(1)).toHaveLength(100_000)
    expect(pair.acceptor.told('end')).toHaveLength(1)
  })

  test('simultaneous FIN, simultaneous RESET', () => {
    for (const way of ['end', 'reset'] as const) {
      const pair = Pair.ready()
      const [ours, theirs] = pair.stream()
      const [d, a] = [pair.dialler, pair.acceptor]
      if (way === 'end') {
        d.session.end(ours)
        a.session.end(theirs)
      } else {
        d.session.reset(ours, 'a.b', '', d.now)
        a.session.reset(theirs, 'c.d', '', a.now)
      }
      pair.settle()
      pair.pass(60_000)
      expect(d.failure ?? a.failure).toBeUndefined()
      expect([...d.session.streams, ...a.session.streams]).toEqual([])
    }
  })

  test('a reset drops what waits, but the signal that gives the reason arrives before it', () => {
    const pair = Pair.ready({ acceptor: { initialWindow: 16_384, maxWindow: 16_384 } })
    const [ours] = pair.stream()
    pair.dialler.session.write(ours, bytes(50_000))
    pair.dialler.session.signal(ours, Buffer.from('lease is over'))
    pair.settle()
    expect(pair.acceptor.told('signal')).toEqual([])
    pair.dialler.session.reset(ours, 'lease.spent', '', pair.dialler.now)
    pair.settle()
    const last = pair.acceptor.notes.slice(-2).map((note) => note.type)
    expect(last).toEqual(['signal', 'reset'])
    expect(pair.acceptor.text(1)).toHaveLength(16_384)
  })

  test('data of the peer that crosses our RESET is dropped, also much later than a round trip', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    pair.acceptor.session.write(theirs, bytes(100_000))
    pair.dialler.session.reset(ours, 'x.y', '', pair.dialler.now)
    pair.clock.now += 30_000
    pair.settle()
    expect(pair.dialler.failure).toBeUndefined()
    expect(pair.dialler.told('data')).toEqual([])
  })

  test('the grace ends with the PONG after the RESET: what comes then is stream.closed', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    pair.dialler.session.reset(ours, 'x.y', '', pair.dialler.now)
    pair.settle()
    const data = Buffer.from('050000010000000107', 'hex')
    pair.dialler.hear(data)
    pair.dialler.deliver()
    expect(pair.dialler.failure).toBeUndefined()
    pair.pass(1000)
    pair.dialler.hear(data)
    pair.dialler.deliver()
    expect(pair.dialler.failure).toBe('stream.closed')
  })

  test('a stream that is reset in the middle of a frame gives nothing of the rest', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    pair.dialler.session.write(ours, bytes(1000))
    pair.send(pair.dialler)
    pair.acceptor.deliver(500)
    pair.acceptor.session.reset(theirs, 'x.y', '', pair.acceptor.now)
    pair.settle()
    expect(pair.acceptor.text(1).length).toBeLessThan(500)
    expect(pair.acceptor.failure ?? pair.dialler.failure).toBeUndefined()
    const [again] = pair.stream()
    pair.dialler.session.write(again, bytes(2000))
    pair.settle()
    expect(pair.acceptor.text(again.id)).toHaveLength(2000)
  })

  test('no octet is lost where credit ends beside the end of a write', () => {
    for (let size = 16_370; size < 16_400; size++) {
      const pair = Pair.ready({ acceptor: { initialWindow: 16_384, maxWindow: 16_384 } })
      const [ours] = pair.stream()
      for (const length of [size, 3, 16_384 - 2]) pair.dialler.session.write(ours, bytes(length))
      pair.settle(true)
      expect(pair.acceptor.text(1)).toHaveLength(size + 3 + 16_384 - 2)
    }
  })

  test('signals keep their place between data', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    pair.dialler.session.write(ours, bytes(3))
    pair.dialler.session.signal(ours, Buffer.from('s'))
    pair.dialler.session.write(ours, bytes(4))
    pair.settle()
    expect(pair.acceptor.notes.slice(-3).map((note) => note.bytes?.length)).toEqual([3, 1, 4])
  })
})

describe('datagrams', () => {
  test('keep their boundaries, the empty one and the largest too', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream(pair.dialler, 'udp')
    for (const length of [0, 1, 1400, 65_507]) pair.dialler.session.write(ours, bytes(length))
    expect(() => pair.dialler.session.write(ours, bytes(65_508))).toThrow(/datagram of 65508/)
    pair.settle()
    expect(pair.acceptor.told('datagram').map((note) => note.bytes?.length)).toEqual([
      0, 1, 1400, 65_507,
    ])
  })

  test('over the budget they are dropped and counted, by the sender and by the receiver', () => {
    const pair = Pair.ready({
      dialler: { datagramBudget: 10_000 },
      acceptor: { datagramBudget: 3000 },
    })
    const [ours, theirs] = pair.stream(pair.dialler, 'udp')
    for (let at = 0; at < 15; at++) pair.dialler.session.write(ours, bytes(1000))
    expect(ours.dropped).toBe(5)
    pair.settle()
    expect(theirs.dropped).toBe(7)
    expect(pair.acceptor.told('datagram')).toHaveLength(3)
    pair.acceptor.consumeAll()
    pair.dialler.session.write(ours, bytes(1000))
    pair.settle()
    expect(pair.acceptor.told('datagram')).toHaveLength(4)
  })
})

describe('credit', () => {
  test('a reader that consumes nothing gets one window and nobody else is touched', () => {
    const pair = Pair.ready()
    const [slow] = pair.stream()
    const [quick] = pair.stream()
    for (let at = 0; at < 10 && !slow.wantsDrain; at++) {
      pair.dialler.session.write(slow, bytes(64 * KiB))
      pair.settle()
    }
    expect(pair.acceptor.text(slow.id)).toHaveLength(256 * KiB)
    for (let at = 0; at < 100; at++) {
      pair.dialler.session.write(quick, bytes(50_000))
      pair.settle()
      const theirs = pair.acceptor.streams.get(quick.id)!
      pair.acceptor.session.consumed(theirs, theirs.unconsumed, pair.acceptor.now)
    }
    expect(pair.acceptor.text(quick.id)).toHaveLength(5_000_000)
    expect(pair.acceptor.text(slow.id)).toHaveLength(256 * KiB)
  })

  test('writing on although false was said ends in call.overrun, not in memory', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    expect(() => {
      for (let at = 0; at < 1000; at++) pair.dialler.session.write(ours, bytes(64 * KiB))
    }).toThrow(/although write/)
  })

  test('octets written one by one wait one behind the other, not each in memory of its own', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    while (pair.dialler.session.write(ours, bytes(16 * KiB)));
    const before = ours.backlog?.length ?? 0
    for (let at = 0; at < 5000; at++) pair.dialler.session.write(ours, bytes(1))
    expect((ours.backlog?.length ?? 0) - before).toBeLessThanOrEqual(6)
    const sent = ours.bytesOut + ours.pendingBytes
    pair.settle(true)
    expect([ours.bytesOut, ours.pendingBytes]).toEqual([sent, 0])
  })

  test('many small blocks given back leave the large ones their place in the pool', () => {
    const pool = new SlabPool()
    const blocks = Array.from({ length: 2000 }, () => new Uint8Array(16 * KiB))
    for (const block of blocks) pool.give(block)
    const slab = new Uint8Array(512 * KiB)
    pool.give(slab)
    expect(pool.take(512 * KiB)).toBe(slab)
    const own = new Set<Uint8Array>(blocks)
    const again = blocks.filter(() => own.has(pool.take(16 * KiB)))
    expect(again).toHaveLength((8 * MiB) / (16 * KiB))
  })

  test('drain comes once what waited has left', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    while (pair.dialler.session.write(ours, bytes(64 * KiB)));
    expect(pair.dialler.told('drain')).toEqual([])
    pair.settle(true)
    expect(pair.dialler.told('drain')).toHaveLength(1)
  })

  test('consuming more than was handed out is a mistake', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    pair.dialler.session.write(ours, bytes(10))
    pair.settle()
    expect(() => pair.acceptor.session.consumed(theirs, 11, pair.acceptor.now)).toThrow(/consumed/)
  })

  test('a window that is used up within two round trips grows to its maximum, and decays when idle', () => {
    const pair = Pair.ready({}, 100)
    const [ours, theirs] = pair.stream()
    let sent = 0
    for (let rtt = 0; rtt < 40; rtt++) {
      do while (!ours.wantsDrain) pair.dialler.session.write(ours, bytes(64 * KiB))
      while (pair.send(pair.dialler))
      sent = ours.bytesOut
      pair.clock.now += 50
      pair.acceptor.deliver()
      pair.acceptor.consumeAll()
      while (pair.send(pair.acceptor));
      pair.clock.now += 50
      pair.dialler.deliver()
    }
    expect(theirs.window.target).toBe(16 * MiB)
    expect(sent / (40 * 0.1)).toBeGreaterThan(50 * MiB)
    pair.pass(60_000)
    expect(theirs.window.target).toBe(256 * KiB)
  })

  test('a window whose reader is behind does not grow: it would only be a longer queue', () => {
    const pair = Pair.ready({}, 100)
    const [ours, theirs] = pair.stream()
    for (let turn = 0; turn < 200; turn++) {
      while (!ours.wantsDrain && pair.dialler.session.write(ours, bytes(64 * KiB)));
      pair.exchange()
      pair.clock.now += 1
      // Fast, but always one window behind its peer.
      const part = Math.min(theirs.unconsumed, 32 * KiB)
      pair.acceptor.session.consumed(theirs, part, pair.acceptor.now)
    }
    expect(ours.bytesOut).toBeGreaterThan(5 * MiB)
    // Once: the first window came in one piece, before anybody could be behind.
    expect(theirs.window.target).toBeLessThanOrEqual(512 * KiB)
  })

  test('growth stops at the budget of the tunnel', () => {
    const pair = Pair.ready({ acceptor: { receiveBudget: MiB } }, 100)
    const streams = [pair.stream(), pair.stream(), pair.stream()]
    for (let rtt = 0; rtt < 30; rtt++) {
      for (const [ours] of streams) {
        while (!ours.wantsDrain && pair.dialler.session.write(ours, bytes(64 * KiB)));
      }
      pair.settle(true)
      pair.clock.now += 1
      expect(pair.acceptor.session.stats().grownBytes).toBeLessThanOrEqual(MiB)
    }
    expect(pair.acceptor.session.stats().grownBytes).toBeGreaterThan(MiB / 2)
    for (const [ours] of streams) pair.dialler.session.reset(ours, 'x.y', '', pair.dialler.now)
    pair.settle()
    expect(pair.acceptor.session.stats().grownBytes).toBe(0)
  })

  test('when all memory is held, the stream that holds most is reset', () => {
    const pair = Pair.ready({ acceptor: { receiveMemory: 300 * KiB } })
    const [a] = pair.stream()
    const [b] = pair.stream()
    pair.dialler.session.write(a, bytes(200 * KiB))
    pair.settle()
    pair.dialler.session.write(b, bytes(150 * KiB))
    pair.settle()
    expect(pair.dialler.told('reset')).toEqual([{ type: 'reset', id: a.id, code: 'tunnel.memory' }])
    expect(pair.acceptor.text(b.id)).toHaveLength(150 * KiB)
    expect(pair.acceptor.failure).toBeUndefined()
  })
})

describe('order of leaving', () => {
  const bulk = (pair: Pair, count: number) => {
    const streams = Array.from({ length: count }, () => pair.stream()[0])
    const fill = (): void => {
      for (const stream of streams) {
        while (!stream.wantsDrain && pair.dialler.session.write(stream, bytes(64 * KiB)));
      }
    }
    return { streams, fill }
  }

  test('sixteen equal streams get equal shares', () => {
    const pair = Pair.ready()
    const { streams, fill } = bulk(pair, 16)
    for (let turn = 0; turn < 400; turn++) {
      fill()
      pair.send(pair.dialler)
      pair.acceptor.deliver()
      pair.acceptor.consumeAll()
      while (pair.send(pair.acceptor));
      pair.dialler.deliver()
    }
    const shares = streams.map((stream) => stream.bytesOut)
    expect(Math.min(...shares) / Math.max(...shares)).toBeGreaterThan(0.9)
  })

  test('a key press overtakes what waits of a bulk stream, and cannot starve it', () => {
    const pair = Pair.ready()
    const [terminal] = pair.stream()
    const { streams, fill } = bulk(pair, 4)
    fill()
    pair.send(pair.dialler)
    fill()
    const sentBefore = streams.map((stream) => stream.bytesOut)
    pair.dialler.session.write(terminal, Buffer.from('k'))
    // At most the slab being filled is ahead of it.
    pair.send(pair.dialler)
    pair.send(pair.dialler)
    pair.acceptor.deliver()
    expect(pair.acceptor.text(terminal.id)).toBe('k')
    for (let turn = 0; turn < 50; turn++) {
      fill()
      pair.dialler.session.write(terminal, bytes(100))
      pair.settle(true)
    }
    for (const [at, stream] of streams.entries())
      expect(stream.bytesOut).toBeGreaterThan(sentBefore[at]!)
  })
})

describe('the end', () => {
  test('GOAWAY: open streams go on, new ones are refused on both sides, then close', () => {
    const pair = Pair.ready()
    const [ours, theirs] = pair.stream()
    // An OPEN that crosses the GOAWAY is refused by either reading of it.
    pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)
    pair.acceptor.session.goaway('gateway.draining', 'restart', 5000, ['b.example:8443'])
    pair.settle()
    expect(pair.dialler.told('goaway')).toEqual([
      { type: 'goaway', id: 0, code: 'gateway.draining' },
    ])
    expect(pair.dialler.told('refused')).toHaveLength(1)
    expect(pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)).toBe('tunnel.draining')
    pair.dialler.session.write(ours, bytes(5))
    pair.acceptor.session.write(theirs, bytes(6))
    pair.settle()
    expect([pair.acceptor.text(1).length, pair.dialler.text(1).length]).toEqual([5, 6])
    pair.acceptor.session.close('gateway.draining')
    pair.settle()
    pair.dialler.take(pair.dialler.session.ended())
    expect(pair.dialler.failure).toBe('peer.lost')
  })

  test('a dead peer is found after three silent intervals, not before', () => {
    const pair = Pair.ready()
    pair.pass(59_000, true)
    expect(pair.dialler.failure).toBeUndefined()
    pair.pass(22_000, true)
    expect(pair.dialler.failure).toBe('peer.silent')
    expect(pair.acceptor.failure).toBe('peer.silent')
  })

  test('an idle tunnel lives for a day', () => {
    const pair = Pair.ready()
    pair.pass(86_400_000)
    expect(pair.dialler.failure ?? pair.acceptor.failure).toBeUndefined()
    expect(pair.acceptor.session.stats().framesIn).toBeLessThan(12_000)
  })

  test('no HELLO in time', () => {
    const pair = new Pair()
    pair.pass(5000, true)
    expect(pair.dialler.failure).toBe('hello.timeout')
  })

  test('a wire lost at every octet leaves a named end and nothing else', () => {
    const whole = (): [Pair, number] => {
      const pair = Pair.ready()
      const [ours] = pair.stream()
      pair.dialler.session.write(ours, bytes(30))
      pair.dialler.session.signal(ours, bytes(3))
      pair.dialler.session.end(ours)
      while (pair.send(pair.dialler));
      return [pair, pair.acceptor.arriving]
    }
    const [, length] = whole()
    for (let at = 0; at <= length; at++) {
      const [pair] = whole()
      pair.acceptor.deliver(at)
      pair.acceptor.cut()
      pair.acceptor.take(pair.acceptor.session.ended())
      expect(['frame.truncated', 'peer.lost']).toContain(pair.acceptor.failure)
      expect(pair.acceptor.session.over).toBe(true)
    }
  })

  test('after the end calls do nothing, or say that it is closed', () => {
    const pair = Pair.ready()
    const [ours] = pair.stream()
    const { session } = pair.dialler
    session.close('x.y')
    expect(session.write(ours, bytes(1))).toBe(false)
    session.reset(ours, 'x.y', '', pair.dialler.now)
    session.end(ours)
    session.goaway('x.y')
    expect(() => session.open('tcp', bytes(0), pair.dialler.now)).toThrow(/closed/)
    expect(session.receive(bytes(100), pair.dialler.now)).toEqual([])
    expect(session.wakeAt).toBeUndefined()
  })
})

describe('floods', () => {
  test('tiny frames are counted, those that carry something are not', () => {
    const data = (length: number): Buffer =>
      Buffer.concat([Buffer.from([5, 0, 0, length, 0, 0, 0, 1]), bytes(length)])
    for (const [length, failure] of [
      [31, 'rate.empty'],
      [32, undefined],
    ] as const) {
      const pair = Pair.ready({ acceptor: { tinyFramesPerSecond: 10 } })
      pair.stream()
      for (let at = 0; at < 100; at++) pair.acceptor.hear(data(length))
      pair.acceptor.deliver()
      expect(pair.acceptor.failure).toBe(failure)
    }
  })

  test('rapid reset: first it costs delay, then the tunnel', () => {
    const pair = Pair.ready()
    const burst = (count: number): void => {
      for (let at = 0; at < count; at++) {
        const ours = pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)
        if (typeof ours === 'string') break
        pair.dialler.session.reset(ours, 'x.y', '', pair.dialler.now)
        if (at % 50 === 0) pair.settle()
      }
      pair.settle()
    }
    burst(300)
    expect(pair.acceptor.failure).toBeUndefined()
    const offers = pair.acceptor.told('offer').length
    pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)
    pair.settle()
    expect(pair.acceptor.told('offer')).toHaveLength(offers)
    pair.pass(1000)
    expect(pair.acceptor.told('offer')).toHaveLength(offers + 1)
    pair.pass(10_000)
    burst(1100)
    expect(pair.acceptor.failure).toBe('rate.reset')
    expect(pair.dialler.told('goaway').at(-1)?.code).toBe('rate.reset')
  })

  test('a peer that asks and does not read: backlog.exceeded', () => {
    const pair = Pair.ready({ acceptor: { maxBacklog: 10_000, pingsPerSecond: 1_000_000 } })
    const ping = Buffer.from('0b00000800000000000000000000000000', 'hex').subarray(0, 16)
    pair.acceptor.session.output(pair.acceptor.now)
    for (let at = 0; at < 700; at++) pair.acceptor.hear(ping)
    pair.acceptor.deliver()
    expect(pair.acceptor.failure).toBe('backlog.exceeded')
  })
})
