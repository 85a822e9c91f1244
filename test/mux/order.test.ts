/** Two sessions on a fake wire: who leaves before whom. docs/protocol.md section 10. */
import { describe, expect, test } from 'vitest'
import { Pair } from '../support/pair.ts'

const KiB = 1024
const bytes = (length: number): Buffer => Buffer.alloc(length, 7)

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
