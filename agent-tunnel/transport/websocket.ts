/**
 * A tunnel inside WebSocket binary messages (RFC 6455), for networks that let nothing else pass. `ws` and
 * what it loads of Node are 7 MiB in a process that may never need them: they load with the first one.
 */
import { once } from 'node:events'
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ClientOptions, WebSocket } from 'ws'
import { defaultLimits, MuxError } from '#mux'
import { driveWire } from './drive.ts'
import type { Tunnel, TunnelOptions } from './tunnel.ts'
import type { Wire, WireEvents } from './wire.ts'

/** The WebSocket subprotocol. */
export const SUBPROTOCOL = 'sallyport.1'
/** Where a gateway's one port takes tunnels that come by WebSocket. */
export const WEBSOCKET_PATH = '/tunnel'
const MAX_MESSAGE = 1024 * 1024
/** The answer to an upgrade that is not a WebSocket handshake (RFC 6455 section 4.2.2). */
const REFUSAL = 'HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'

/** Listens from the moment it is made; what is heard before `start` waits. */
function webSocketWire(ws: WebSocket): Wire {
  let events: WireEvents | undefined
  let failure: Error | undefined
  const early: ((to: WireEvents) => void)[] = []
  const tell = (what: (to: WireEvents) => void): void => {
    if (events === undefined) early.push(what)
    else what(events)
  }
  ws.binaryType = 'nodebuffer'
  ws.on('message', (data, binary) => {
    if (!binary) tell((to) => to.broken(new MuxError('carrier.text', 'remote')))
    else if (data instanceof Uint8Array) tell((to) => to.bytes(data))
  })
  ws.on('error', (error) => (failure ??= error))
  ws.on('close', () => {
    if (failure === undefined) tell((to) => to.ended())
    tell((to) => to.gone(failure))
  })
  return {
    reads: 'plain',
    start(to) {
      events = to
      for (const what of early) what(to)
    },
    write(bytes, done) {
      if (ws.readyState !== ws.OPEN) queueMicrotask(done)
      else ws.send(bytes, { binary: true, compress: false }, () => done())
    },
    pause() {
      ws.pause()
    },
    resume() {
      ws.resume()
    },
    end() {
      ws.close(1000)
    },
    destroy() {
      ws.terminate()
    },
  }
}

/** Drives a tunnel over an open WebSocket. Message boundaries mean nothing. Rejects as `driveTunnel`. */
export async function driveWebSocket(ws: WebSocket, options: TunnelOptions): Promise<Tunnel> {
  return driveWire(webSocketWire(ws), options)
}

/** An HTTP request to upgrade, as Node's server gives it. */
export interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Duplex
  readonly head: Buffer
}

/**
 * Finishes the handshake of `upgrade` (RFC 6455 section 4.2.2). `protocol` chooses of what is offered; false: none.
 * Resolves with why not where it is no handshake, which its sender has been told with 400, or has gone.
 */
export async function shakeWebSocket(
  { request, socket, head }: Upgrade,
  protocol: (offered: ReadonlySet<string>) => string | false,
  maxMessage: number,
): Promise<WebSocket | Error> {
  const { WebSocketServer } = await import('ws')
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: maxMessage,
    perMessageDeflate: false,
    handleProtocols: protocol,
  })
  const { promise, resolve } = Promise.withResolvers<WebSocket | Error>()
  server.on('wsClientError', (error, peer) => {
    peer.end(REFUSAL, () => peer.destroy())
    resolve(error)
  })
  socket.once('close', () => resolve(new Error('the connection ended')))
  server.handleUpgrade(request, socket, head, resolve)
  return promise
}

/**
 * Finishes an HTTP upgrade and drives the tunnel as its acceptor. Rejects, the socket ended with an
 * HTTP error, when the request is not a WebSocket handshake for `sallyport.1`; else as `driveTunnel`.
 */
export async function acceptWebSocket(
  upgrade: Upgrade,
  options: Omit<TunnelOptions, 'side'>,
): Promise<Tunnel> {
  const choose = (offered: ReadonlySet<string>) => offered.has(SUBPROTOCOL) && SUBPROTOCOL
  const ws = await shakeWebSocket(upgrade, choose, MAX_MESSAGE)
  if (ws instanceof Error) throw new MuxError('carrier.failed', 'remote', ws.message, { cause: ws })
  if (ws.protocol !== SUBPROTOCOL) {
    ws.close(1002)
    throw new MuxError('carrier.failed', 'remote', 'no subprotocol')
  }
  return driveWebSocket(ws, { ...options, side: 'acceptor' })
}

/**
 * Dials `wss://…` and drives the tunnel; over a connection that there is already, where `client` makes
 * it (`createConnection`). Rejects with MuxError `carrier.failed` when the answer is another than 101
 * (its status is the message), with ws's error, or as `driveTunnel`.
 */
export async function dialWebSocket(
  url: string,
  client: ClientOptions,
  options: Omit<TunnelOptions, 'side'>,
): Promise<Tunnel> {
  const { WebSocket } = await import('ws')
  const ws = new WebSocket(url, SUBPROTOCOL, {
    handshakeTimeout: options.limits?.helloTimeoutMs ?? defaultLimits.helloTimeoutMs,
    ...client,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE,
  })
  // From the first moment: the acceptor's HELLO may be in the same packet as its HTTP answer.
  const wire = webSocketWire(ws)
  const refused = Promise.withResolvers<never>()
  ws.on('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
    request.destroy()
    refused.reject(new MuxError('carrier.failed', 'remote', `HTTP ${response.statusCode ?? 0}`))
  })
  await Promise.race([once(ws, 'open'), refused.promise])
  return driveWire(wire, { ...options, side: 'dialler' })
}
