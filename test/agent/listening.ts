/** A target in this very process: the server of a test, and who is seen to own it. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { ProcessScope } from '../../agent-tunnel/agent/scope/owner.ts'

/** One for a file: Node's own executable is hashed once. */
export const scope = new ProcessScope()

export async function listening(
  onSocket: (socket: Socket) => void,
): Promise<Server & AsyncDisposable & { port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined)
    onSocket(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return Object.assign(server, {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => void server.close(),
  })
}
