/** Two sessions on a fake wire: what a peer may not do too often. docs/protocol.md section 8. */
import { describe, expect, test } from 'vitest'
import { Pair } from '../support/pair.ts'

const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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

  test.for([
    { name: 'FIN', type: 0x08 },
    { name: 'ACCEPT', type: 0x03 },
    { name: 'REFUSE', type: 0x04, payload: '0178' },
    { name: 'RESET', type: 0x09, payload: '0178' },
  ])(
    '$name again and again on a stream that was reset here: rate.empty',
    ({ type, payload = '' }) => {
      const pair = Pair.ready({ acceptor: { emptyFramesPerSecond: 10 } })
      const [, theirs] = pair.stream()
      pair.acceptor.session.reset(theirs, 'x.y', '', pair.acceptor.now)
      const body = Buffer.from(payload, 'hex')
      const frame = Buffer.concat([Buffer.from([type, 0, 0, body.length, 0, 0, 0, 1]), body])
      for (let at = 0; at < 20; at++) pair.acceptor.hear(frame)
      pair.acceptor.deliver()
      expect(pair.acceptor.failure).toBeUndefined()
      for (let at = 0; at < 2; at++) pair.acceptor.hear(frame)
      pair.acceptor.deliver()
      expect(pair.acceptor.failure).toBe('rate.empty')
    },
  )

  test('a peer that asks and does not read: backlog.exceeded', () => {
    const pair = Pair.ready({ acceptor: { maxBacklog: 10_000, pingsPerSecond: 1_000_000 } })
    const ping = Buffer.from('0b00000800000000000000000000000000', 'hex').subarray(0, 16)
    pair.acceptor.session.output(pair.acceptor.now)
    for (let at = 0; at < 700; at++) pair.acceptor.hear(ping)
    pair.acceptor.deliver()
    expect(pair.acceptor.failure).toBe('backlog.exceeded')
  })
})
