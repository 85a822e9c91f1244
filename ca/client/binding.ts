/** The value that ties a CSR to the TLS connection it travels on (RFC 7030 3.5). */

/** The methods of node's TLSSocket that are needed. */
export interface BindingSocket {
  getProtocol(): string | null
  exportKeyingMaterial(length: number, label: string, context: Buffer): Uint8Array
  isSessionReused(): boolean
  getFinished(): Uint8Array | undefined
  getPeerFinished(): Uint8Array | undefined
}

/**
 * TLS 1.3: tls-exporter (RFC 9266 2; for EST by analogy with RFC 9148 3). TLS 1.2: tls-unique, the
 * handshake's first Finished (RFC 5929 3.1). Null when the connection has none.
 * Its base64 is the challengePassword.
 */
export function channelBinding(
  socket: BindingSocket,
  side: 'client' | 'server',
): Uint8Array | null {
  const protocol = socket.getProtocol()
  // An empty context, not an absent one: on TLS 1.2 exporters they differ.
  if (protocol === 'TLSv1.3')
    return socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
  if (protocol !== 'TLSv1.2') return null
  // A full handshake's first Finished is the client's, a resumed one's the server's.
  const clientsIsFirst = !socket.isSessionReused()
  const own = clientsIsFirst === (side === 'client')
  return (own ? socket.getFinished() : socket.getPeerFinished()) ?? null
}
