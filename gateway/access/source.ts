/** Where a connection comes from, as far as it can be known here. */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { plainAddress, type Source } from '../facts.ts'

/** Of connections that were open when they were asked: nothing of it changes any more, since the port renegotiates with nobody. */
const known = new WeakMap<Socket, Source>()

export function sourceOf({ socket }: Pick<IncomingMessage, 'socket'>): Source {
  const before = known.get(socket)
  if (before !== undefined) return before
  const tls = socket instanceof TLSSocket ? tlsOf(socket) : null
  const ip = socket.remoteAddress === undefined ? null : plainAddress(socket.remoteAddress)
  const source = { ip, tls }
  if (ip !== null && tls?.cipher !== null) known.set(socket, source)
  return source
}

/** What was negotiated; nulls for a connection that has gone in the meantime, where Node knows it no more. */
export function tlsOf(
  socket: Pick<TLSSocket, 'getProtocol' | 'getCipher'>,
): NonNullable<Source['tls']> {
  // The types promise a cipher; a destroyed socket has none.
  const cipher = socket.getCipher() as { readonly standardName: string } | null | undefined
  return { version: socket.getProtocol(), cipher: cipher?.standardName ?? null }
}
