/** What is left to say when everybody has said goodbye: it arrives whole, or visibly not. */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { flush } from '#tunnel'
import { HandClock } from '../support/clock.ts'

/** Both ends of a connection. */
async function connected(): Promise<readonly [ours: Socket, peer: Socket]> {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const peer = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' })
  await once(peer, 'connect')
  const [ours] = await accepted
  ours.on('error', () => {})
  onTestFinished(() => {
    for (const one of [ours, peer, server]) if ('destroy' in one) one.destroy()
    server.close()
  })
  return [ours, peer]
}

const MUCH = 32 * 1024 * 1024

test('a peer that never reads the rest does not keep the socket for ever, and hears of the loss', async () => {
  const [ours, peer] = await connected()
  const clock = new HandClock()
  ours.write(Buffer.alloc(MUCH))
  flush(ours, clock)
  clock.pass(29_000)
  expect(ours.destroyed).toBe(false)
  clock.pass(1000)
  await once(ours, 'close')
  const failed = once(peer, 'error') as Promise<[NodeJS.ErrnoException]>
  peer.resume()
  const [error] = await failed
  expect(error.code).toBe('ECONNRESET')
})

test('a peer that reads has all of it, and nothing waits any more', async () => {
  const [ours, peer] = await connected()
  const clock = new HandClock()
  let got = 0
  peer.on('data', (chunk: Buffer) => (got += chunk.length))
  ours.write(Buffer.alloc(MUCH))
  flush(ours, clock)
  await once(ours, 'close')
  expect(got).toBe(MUCH)
  expect(clock.waiting).toBe(0)
})
