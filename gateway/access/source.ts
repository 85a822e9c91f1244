/** Where a connection comes from, as far as it can be known here. */
import type { IncomingMessage } from 'node:http'
import { TLSSocket } from 'node:tls'
import { plainAddress, type Source } from '../facts.ts'

export function sourceOf(request: IncomingMessage): Source {
  const { socket } = request
  const tls =
    socket instanceof TLSSocket
      ? { version: socket.getProtocol(), cipher: socket.getCipher().standardName }
      : null
  return { ip: socket.remoteAddress === undefined ? null : plainAddress(socket.remoteAddress), tls }
}
