/** Two sessions on a fake wire: how a stream begins, and what is refused. docs/protocol.md sections 4 and 5. */
import { describe, expect, test } from 'vitest'
import { Session, defaultLimits, TYPE } from '#mux'
import type { Monotonic } from '#mux'
import { Pair } from '../support/pair.ts'

const KiB = 1024
const MiB = 1024 * KiB
const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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

  test('until the other HELLO is here nothing but our own leaves, whatever is asked for', () => {
    const { dialler: end, clock } = new Pair()
    const hello = Buffer.from(end.session.output(end.now) ?? [])
    expect([hello[0], hello.length]).toEqual([TYPE.hello, 8 + hello.readUIntBE(1, 3)])
    end.session.sent()
    expect(() => end.session.open('tcp', bytes(0), end.now)).toThrow(
      expect.objectContaining({ code: 'call.closed' }),
    )
    clock.now += 4999
    end.take(end.session.tick(end.now))
    expect(end.session.output(end.now)).toBeUndefined()
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
