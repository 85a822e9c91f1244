/** From nothing to a tunnel of a client to the gateway's one port. */
import type { TLSSocket } from 'node:tls'
import {
  ALPN,
  dialWebSocket,
  driveTunnel,
  printAddress,
  WEBSOCKET_PATH,
  type Tunnel,
} from '#tunnel'
import { unreachable } from './anchor.ts'
import { dialTls, inWebSocket } from './dial.ts'
import { CliError } from './exit.ts'

/** Where the gateway's one port is. */
export interface GatewayPlace {
  readonly host: string
  readonly port: number
}

const CONNECT_TIMEOUT_MS = 15_000

/**
 * TLS to the gateway's port under its pinned root, with the tunnel protocol agreed on.
 * Throws CliError `gateway.unreachable`, `gateway.untrusted`, `gateway.protocol`.
 */
export async function dialGateway(to: GatewayPlace, anchor: string): Promise<TLSSocket> {
  const place = printAddress(to)
  const protocol = inWebSocket() ? 'http/1.1' : ALPN
  const signal = AbortSignal.timeout(CONNECT_TIMEOUT_MS)
  let socket: TLSSocket
  try {
    socket = await dialTls(to, { ca: anchor, ALPNProtocols: [protocol] }, signal)
  } catch (cause) {
    throw unreachable(new URL(`https://${place}`), cause)
  }
  socket.setNoDelay(true)
  if (socket.alpnProtocol === protocol) return socket
  socket.destroy()
  throw new CliError(`${place} does not offer the tunnel protocol`, {
    code: 'gateway.protocol',
    exit: 'unreachable',
    why: `its answer to ALPN ${protocol} was another protocol, or none`,
    next: 'something between here and the gateway ends TLS; ask for a direct path to this port, or try --carrier websocket',
  })
}

/**
 * The tunnel of a client over such a connection, in WebSocket where that was asked for; `instance` names this run. Throws
 * CliError with the code that the gateway refused it with, or `tunnel.failed`.
 */
export async function shakeHands(
  socket: TLSSocket,
  { gateway, instance }: { readonly gateway: GatewayPlace; readonly instance: string },
): Promise<Tunnel> {
  const options = { role: 'client', instance, epoch: 0 } as const
  try {
    if (!inWebSocket()) return await driveTunnel(socket, { ...options, side: 'dialler' })
    const url = `wss://${printAddress(gateway)}${WEBSOCKET_PATH}`
    return await dialWebSocket(url, { createConnection: () => socket }, options)
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'tunnel.failed'
    throw new CliError(
      'the gateway did not take the tunnel',
      { code, exit: 'unreachable', why: cause instanceof Error ? cause.message : String(cause) },
      { cause },
    )
  }
}
