/** Two sessions on a fake wire: octets, ends and signals of one stream, and datagrams. docs/protocol.md sections 4 and 5. */
import { describe, expect, test } from 'vitest'
import { Pair } from '../support/pair.ts'

const KiB = 1024
const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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
