/** Two sessions on a fake wire: how a tunnel ends. docs/protocol.md sections 4 and 7. */
import { describe, expect, test } from 'vitest'
import { Pair } from '../support/pair.ts'

const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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

  test('a second GOAWAY has seen no more than the first, whatever was opened between them', () => {
    const pair = Pair.ready()
    pair.stream()
    pair.acceptor.session.goaway('gateway.draining')
    pair.dialler.session.open('tcp', bytes(0), pair.dialler.now)
    pair.settle()
    pair.acceptor.session.close('gateway.stopping')
    pair.settle()
    expect(pair.dialler.failure).toBeUndefined()
    expect(pair.dialler.told('goaway').map(({ code }) => code)).toEqual([
      'gateway.draining',
      'gateway.stopping',
    ])
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
