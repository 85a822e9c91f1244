/** A page's socket as one side of a connection, without a page. */
import { EventEmitter } from 'node:events'
import { expect, test } from 'vitest'
import type { WebSocket } from 'ws'
import { SocketSide } from '../../../gateway/access/socket.ts'

test('more messages than any hand makes end it: so many at once, and so many a second', () => {
  class Silent extends EventEmitter {
    closed: readonly unknown[] = []
    pause(): void {}
    resume(): void {}
    close(...why: unknown[]): void {
      this.closed = why
    }
  }
  let now = 0
  const ws = new Silent()
  const side = new SocketSide(ws as unknown as WebSocket, 'stream', () => now)
  let came = 0
  side.onData = (bytes) => {
    came += bytes.length
    side.consumed(bytes.length)
  }
  const send = (count: number) => {
    for (let at = 0; at < count; at++) ws.emit('message', Buffer.of(1), true)
  }
  send(10_000)
  now += 1000
  send(5_000)
  expect([came, ws.closed]).toEqual([15_000, []])
  send(1)
  expect([came, ws.closed]).toEqual([15_000, [1008, 'client.pace']])
  ws.emit('close')
})
