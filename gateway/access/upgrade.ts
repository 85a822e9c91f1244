/**
 * A request that asks to speak another protocol behind it (RFC 9110, section 7.8; WebSocket, RFC 6455).
 * The application alone says 101; until it has, nothing of the browser's reaches it but the request, and
 * afterwards every byte belongs to the new protocol, metered and cut like any connection of the session.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { Client, type Dispatcher } from 'undici'
import { Refusal } from '../problem.ts'
import { requestHeaders, responseHeaders } from './headers.ts'
import { rawHeaders, relay } from './relay.ts'

/** What a browser may say before it was answered; more waits with the browser. */
const EARLY_BYTES = 64 * 1024
/** How long whoever was refused may take to hang up. */
const LINGER_MS = 2_000
/** How long one side may go on once the other has ended. */
const HALF_OPEN_MS = 30_000

export interface Upgrade {
  readonly request: IncomingMessage
  /** Of `takeSocket`: answers as long as nothing was upgraded. */
  readonly response: ServerResponse
  readonly socket: TLSSocket
  /** What came with the request's own head. */
  readonly head: Buffer
  /** Of `upgradeToken`. */
  readonly token: string
  /** A fresh connection to the application; it ends with the upgrade. */
  readonly target: Duplex
  /** How long the application may take to answer, in milliseconds. */
  readonly patienceMs: number
  /** Gives a handler that sees what the given one is told. */
  readonly watch?: ((handler: Dispatcher.DispatchHandler) => Dispatcher.DispatchHandler) | undefined
}

/**
 * The one protocol that is asked for. Throws Refusal `app.upgrade` for a request with a body, for a
 * choice of protocols, and for HTTP and TLS: requests in there would be decided by nobody.
 */
export function upgradeToken(request: IncomingMessage): string {
  const { headers, headersDistinct, method } = request
  const [token = '', ...more] = headersDistinct['upgrade'] ?? []
  const body = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
  if (method !== 'GET' || body)
    throw new Refusal('app.upgrade', 'only a GET without a body can be upgraded')
  if (more.length > 0 || !/^[\w!#$%&'*+.^`|~-]{1,64}(?:\/[\w.-]{1,16})?$/.test(token))
    throw new Refusal('app.upgrade', 'one protocol has to be named, and no other')
  if (/^(?:h2|h3|http|tls)/i.test(token))
    throw new Refusal('app.upgrade', `${token} is not carried, since it hides requests`)
  return token
}

/**
 * Makes `response` the answer on a socket that Node has let go of: the connection closes behind it.
 * False, and the socket is gone, where an earlier request of it has not been answered yet.
 */
export function takeSocket(response: ServerResponse, socket: TLSSocket): boolean {
  if (socket.destroyed) return false
  try {
    response.assignSocket(socket)
  } catch {
    // The two answers would run into each other.
    socket.destroy()
    return false
  }
  // What comes behind the request's head is nobody's request any more, whatever the answer is.
  response.shouldKeepAlive = false
  response.once('finish', () => {
    response.detachSocket(socket)
    socket.end()
    // Read on: closed over what was never read, the answer would be lost to a reset.
    socket.resume()
    const timer = setTimeout(() => socket.destroy(), LINGER_MS)
    socket.once('end', () => socket.destroy()).once('close', () => clearTimeout(timer))
  })
  socket.setTimeout(0)
  socket.allowHalfOpen = true
  return true
}

/**
 * Asks the application; resolves when its answer, whatever it is, has been passed on, and both sides
 * are joined where it was 101. Rejects as undici, and with Refusal `app.protocol`.
 */
export async function carryUpgrade(upgrade: Upgrade): Promise<void> {
  const { request, socket, token, target, patienceMs } = upgrade
  const early = hold(socket, upgrade.head)
  const client = new Client('http://target', {
    // Not in the same turn: undici does not take that for an answer.
    connect: (_options, done) => void setImmediate(done, null, target as never),
    headersTimeout: patienceMs,
    bodyTimeout: patienceMs,
    pipelining: 1,
  })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  // Half a browser that has not been answered yet is one that left.
  const left = (): void => void upgrade.response.destroy()
  socket.once('end', left)
  const answer = relay(request, upgrade.response, resolve, reject)
  const handler: Dispatcher.DispatchHandler = {
    ...answer,
    onRequestUpgrade(started, status, _headers, upstream) {
      socket.off('end', left)
      const raw = rawHeaders(started)
      const refusal = agreed(status, raw, token)
      if (refusal === undefined && !socket.destroyed) {
        switchOver(upgrade, raw, upstream, early())
        resolve()
        return
      }
      upstream.destroy()
      if (refusal === undefined) resolve()
      else reject(refusal)
    },
  }
  try {
    client.dispatch(
      {
        origin: 'http://target',
        method: 'GET',
        path: request.url ?? '/',
        headers: requestHeaders(request.rawHeaders, null),
        upgrade: token,
      },
      upgrade.watch?.(handler) ?? handler,
    )
    await promise
  } finally {
    // The upgraded connection is not the client's any more; every other one ends here.
    await client.destroy()
  }
}

/** Keeps what comes too early, and lets more wait with its sender; gives what was kept, and stops. */
function hold(socket: TLSSocket, head: Buffer): () => Buffer[] {
  const kept = head.length > 0 ? [head] : []
  let bytes = head.length
  const keep = (chunk: Buffer): void => {
    kept.push(chunk)
    bytes += chunk.length
    if (bytes >= EARLY_BYTES) socket.pause()
  }
  socket.on('data', keep)
  return () => {
    socket.off('data', keep)
    return kept
  }
}

function valueOf(raw: readonly string[], wanted: string): string[] {
  return raw.filter((_, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === wanted)
}

/** Whether the application switched to what it was asked for: else it speaks what nobody allowed. */
function agreed(status: number, raw: readonly string[], token: string): Refusal | undefined {
  const [answered, ...more] = valueOf(raw, 'upgrade')
  const same = answered?.toLowerCase() === token.toLowerCase() && more.length === 0
  return status === 101 && same
    ? undefined
    : new Refusal('app.protocol', 'the application switched to another protocol than it was asked')
}

function switchOver(
  { response, socket, token }: Upgrade,
  raw: readonly string[],
  upstream: Duplex,
  early: readonly Buffer[],
): void {
  response.detachSocket(socket)
  const headers = responseHeaders(raw)
  const lines = ['HTTP/1.1 101 Switching Protocols', 'connection: Upgrade', `upgrade: ${token}`]
  for (let at = 0; at + 1 < headers.length; at += 2)
    // RFC 9110, section 8.6: a 101 has no body, so a length would be a lie to whoever believes it.
    if (headers[at]?.toLowerCase() !== 'content-length')
      lines.push(`${headers[at] ?? ''}: ${headers[at + 1] ?? ''}`)
  socket.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  for (const chunk of early) upstream.write(chunk)
  join(socket, upstream)
}

/** Both directions, each with its own end; what breaks on one side breaks the other. */
function join(browser: Duplex, app: Duplex): void {
  let timer: NodeJS.Timeout | undefined
  const over = (): void => {
    browser.destroy()
    app.destroy()
  }
  for (const [from, to] of [
    [browser, app],
    [app, browser],
  ] as const) {
    from.pipe(to)
    from.on('error', over)
    from.once('end', () => {
      timer ??= setTimeout(over, HALF_OPEN_MS).unref()
    })
    from.once('close', () => {
      clearTimeout(timer)
      // All it said has been handed on: the other one may finish reading that, for a while.
      if (from.readableEnded && from.writableFinished)
        timer = setTimeout(over, HALF_OPEN_MS).unref()
      else to.destroy()
      if (to.closed) clearTimeout(timer)
    })
  }
}
