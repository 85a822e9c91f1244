/**
 * One TLS connection to the gateway, dialled outward, that has proven to be the gateway before it is
 * given to anybody. EST and tunnel go through the same one door, by the same proxy.
 */
import { once } from 'node:events'
import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import {
  driveTunnel,
  dialWebSocket,
  MuxError,
  printAddress,
  ProxyError,
  reach,
  WEBSOCKET_PATH,
} from '#tunnel'
import type { Tunnel, TunnelOptions } from '#tunnel'
import type { AgentConfig, Gateway } from './config.ts'
import type { Instant } from './clock.ts'
import { AgentError, messageOf, systemCode } from './errors.ts'
import type { Pair } from './identity.ts'
import { isOfToken, tokenError } from './pkcs11.ts'
import { assertGateway } from './trust.ts'
import type { Anchors } from './trust.ts'
import { openProxy } from './way.ts'

export interface Dialled {
  readonly socket: TLSSocket
  readonly tls: { readonly version: string; readonly cipher: string; readonly group: string | null }
}

export interface Dial {
  readonly config: Pick<AgentConfig, 'gateway' | 'keyExchange' | 'carrier' | 'proxy'>
  /** What it is for; a tunnel in WebSocket begins with HTTP. */
  readonly use: 'tunnel' | 'est'
  /** Null: the peer is not checked. Only for fetching what the pin will check. */
  readonly anchors: Anchors | null
  readonly now: () => Instant
  /** What the device's own clock says, epoch ms; for the words of an error. */
  readonly system: () => number
  /** Our own certificate, where we have one. */
  readonly pair?: Pair | undefined
  readonly signal?: AbortSignal | undefined
}

const TIMEOUT_MS = 15_000
/** TLS 1.3 groups in order of preference; OpenSSL's names. */
const GROUPS = {
  hybrid: 'X25519MLKEM768:X25519:prime256v1',
  classical: 'X25519:prime256v1',
} as const

/**
 * Dials, shakes hands, checks. Rejects with AgentError: `gateway.name_unknown`, `gateway.unreachable`,
 * `gateway.tls`, `gateway.alpn`, `identity.token`, and those of `assertGateway`; with the signal's reason when aborted.
 */
export async function dialGateway(dial: Dial): Promise<Dialled> {
  const limit = AbortSignal.timeout(TIMEOUT_MS)
  const signal = dial.signal === undefined ? limit : AbortSignal.any([limit, dial.signal])
  const raw = await dialTcp(dial, signal)
  const socket = secured(dial, raw)
  // Errors after this function has returned are for whoever uses the socket; none may be unheard.
  socket.on('error', () => {})
  try {
    await once(socket, 'secureConnect', { signal })
    if (socket.alpnProtocol !== alpnOf(dial)) throw alpnError(dial, socket.alpnProtocol)
    if (dial.anchors !== null)
      assertGateway(socket, dial.anchors, dial.config.gateway.host, dial.now(), dial.system())
  } catch (error) {
    socket.destroy()
    raw.destroy()
    dial.signal?.throwIfAborted()
    if (error instanceof AgentError) throw error
    throw isOfToken(error) ? tokenError(messageOf(error).trim(), error) : tlsError(dial, error)
  }
  return { socket, tls: negotiated(socket) }
}

/** Where the key is in a token, that may be gone by now: it is asked when the handshake is prepared. */
function secured(dial: Dial, raw: Socket): TLSSocket {
  try {
    return connectTls(optionsFor(dial, raw))
  } catch (error) {
    raw.destroy()
    if (dial.pair?.tls.privateKeyIdentifier === undefined) throw error
    throw tokenError(messageOf(error).trim(), error)
  }
}

async function dialTcp(dial: Dial, signal: AbortSignal): Promise<Socket> {
  const { gateway, proxy } = dial.config
  try {
    return await reach(gateway, openProxy(proxy), signal)
  } catch (error) {
    dial.signal?.throwIfAborted()
    if (error instanceof AgentError) throw error
    throw error instanceof ProxyError
      ? new AgentError(error.code, error.message, error.next, { cause: error })
      : tcpError(gateway, error)
  }
}

function optionsFor(dial: Dial, socket: Socket): ConnectionOptions {
  const { host } = dial.config.gateway
  return {
    socket,
    host,
    ...(isIP(host) > 0 ? {} : { servername: host }),
    minVersion: 'TLSv1.3',
    ecdhCurve: GROUPS[dial.config.keyExchange],
    ALPNProtocols: [alpnOf(dial)],
    // trust.ts decides: OpenSSL alone would refuse every gateway while the clock stands at 1970.
    rejectUnauthorized: false,
    ...(dial.anchors === null ? {} : { ca: dial.anchors.root.toString() }),
    ...(dial.pair === undefined ? {} : { ...dial.pair.tls, cert: dial.pair.chainPem }),
  }
}

function alpnOf({ use, config }: Dial): 'sallyport/1' | 'http/1.1' {
  return use === 'tunnel' && config.carrier === 'tls' ? 'sallyport/1' : 'http/1.1'
}

/**
 * The tunnel on a connection that was dialled for one. Rejects as `driveTunnel`, and with AgentError
 * `gateway.websocket` where the gateway, or what stands before it, does not take the upgrade.
 */
export async function carry(
  { carrier, gateway }: Pick<AgentConfig, 'carrier' | 'gateway'>,
  socket: TLSSocket,
  options: Omit<TunnelOptions, 'side'>,
): Promise<Tunnel> {
  if (carrier === 'tls') return await driveTunnel(socket, { ...options, side: 'dialler' })
  const url = `wss://${printAddress(gateway)}${WEBSOCKET_PATH}`
  try {
    return await dialWebSocket(url, { createConnection: () => socket }, options)
  } catch (error) {
    if (error instanceof MuxError && error.code !== 'carrier.failed') throw error
    throw new AgentError(
      'gateway.websocket',
      `${gateway.host} did not take the WebSocket of the tunnel: ${messageOf(error)}.`,
      'Check that nothing on the way, such as a balancer that speaks HTTP itself, drops the upgrade; or use "carrier": "tls".',
      { cause: error },
    )
  }
}

function negotiated(socket: TLSSocket): Dialled['tls'] {
  const ephemeral = socket.getEphemeralKeyInfo()
  const group = ephemeral !== null && 'name' in ephemeral ? ephemeral.name : undefined
  return {
    version: socket.getProtocol() ?? 'unknown',
    cipher: socket.getCipher().standardName,
    group: group ?? null,
  }
}

/** gateway/listen/admission.ts, from the other side: the reset may come before or during the handshake. */
const BUSY =
  'A gateway resets connections that come too often, or with too many others (source.rate, strangers.rate in its log); the agent tries again by itself.'

function tcpError({ host, port }: Gateway, error: unknown): AgentError {
  const code = systemCode(error)
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return new AgentError(
      'gateway.name_unknown',
      `The name ${host} could not be looked up (${code}).`,
      "Check the gateway's name in agent.json and the name servers of this device.",
      { cause: error },
    )
  }
  const timedOut = code === 'ABORT_ERR' || code === 'ETIMEDOUT'
  const why = timedOut ? 'nothing answered in time' : messageOf(error) || code
  return new AgentError(
    'gateway.unreachable',
    `No TCP connection to ${host} port ${port}: ${why}.`,
    timedOut
      ? 'A firewall on the way may drop it: allow outgoing TCP from this device to that address.'
      : code === 'ECONNRESET'
        ? BUSY
        : 'Check that the gateway runs and listens there.',
    { cause: error },
  )
}

function tlsError(dial: Dial, error: unknown): AgentError {
  const { host } = dial.config.gateway
  const code = systemCode(error)
  if (code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL') return alpnError(dial, false)
  const next = adviceFor(code, dial.config.keyExchange === 'hybrid')
  const why = code === 'ABORT_ERR' ? 'no answer in time' : messageOf(error)
  return new AgentError('gateway.tls', `The TLS handshake with ${host} failed: ${why}.`, next, {
    cause: error,
  })
}

/** What may be behind a handshake that was cut. */
function adviceFor(code: string, hybrid: boolean): string {
  const longHello =
    'Old middleboxes drop the longer hello of a post-quantum handshake: try "key_exchange": "classical" in agent.json.'
  if (code === 'ECONNRESET') return hybrid ? `${BUSY} If it stays so: ${longHello}` : BUSY
  if (code === 'ABORT_ERR' && hybrid) return longHello
  return 'Check that a Sallyport gateway, and not something else, answers at that address.'
}

function alpnError(dial: Dial, spoken: string | false | null): AgentError {
  return new AgentError(
    'gateway.alpn',
    `${dial.config.gateway.host} does not speak ${alpnOf(dial)} (it chose ${spoken === false || spoken === null ? 'nothing' : spoken}).`,
    'Check that the address is the gateway itself, or a balancer that passes TLS through unopened. Where only HTTPS may pass: "carrier": "websocket" in agent.json.',
  )
}
