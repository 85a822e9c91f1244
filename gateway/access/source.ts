/** Where a connection comes from, as far as it can be known here. */
import type { IncomingMessage } from 'node:http'
import { TLSSocket } from 'node:tls'
import { plainAddress, type Source } from '../facts.ts'

export function sourceOf(request: IncomingMessage): Source {
  const { socket } = request
  const tls = socket instanceof TLSSocket ? tlsOf(socket) : null
  return { ip: socket.remoteAddress === undefined ? null : plainAddress(socket.remoteAddress), tls }
}

/** What was negotiated; nulls for a connection that has gone in the meantime, where Node knows it no more. */
export function tlsOf(
  socket: Pick<TLSSocket, 'getProtocol' | 'getCipher'>,
): NonNullable<Source['tls']> {
  // The types promise a cipher; a destroyed socket has none.
  const cipher = socket.getCipher() as { readonly standardName: string } | null | undefined
  return { version: socket.getProtocol(), cipher: cipher?.standardName ?? null }
}
