/** A tunnel over TLS; both ends agree on it by ALPN. */
import { once } from 'node:events'
import tls from 'node:tls'
import { defaultLimits, MuxError } from '#mux'
import { driveTunnel } from './drive.ts'
import type { Tunnel, TunnelOptions } from './tunnel.ts'

/** The ALPN name of the protocol. */
export const ALPN = 'sallyport/1'

/**
 * Dials, finishes the TLS handshake within the HELLO timeout, then HELLO. Whether the server is the
 * right one is for `connection` to say (ca, checkServerIdentity). Rejects with the TLS error, with
 * MuxError `carrier.failed` when the server does not speak `sallyport/1`, or as `driveTunnel`.
 */
export async function dialTls(
  connection: tls.ConnectionOptions,
  options: Omit<TunnelOptions, 'side'>,
): Promise<Tunnel> {
  const socket = tls.connect({ ...connection, ALPNProtocols: [ALPN] })
  const patience = options.limits?.helloTimeoutMs ?? defaultLimits.helloTimeoutMs
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(patience) })
    if (socket.alpnProtocol !== ALPN) throw new MuxError('carrier.failed', 'remote', 'no ALPN')
    return await driveTunnel(socket, { ...options, side: 'dialler' })
  } catch (error) {
    socket.destroy()
    throw error
  }
}
