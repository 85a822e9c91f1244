/** Two sessions on a fake wire: who may send how much, and what waits meanwhile. docs/protocol.md section 6. */
import { describe, expect, test } from 'vitest'
import { SlabPool } from '#mux'
import { Pair } from '../support/pair.ts'

const KiB = 1024
const MiB = 1024 * KiB
const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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
