/**
 * A TCP connection, direct or by a proxy: HTTP CONNECT (RFC 9110 section 9.3.6) with Basic (RFC 7617),
 * SOCKS5 (RFC 1928) with user and password (RFC 1929), either in the clear or, of CONNECT, inside TLS to the proxy. Nothing a proxy says is trusted: what travels
 * through is TLS to the gateway, from end to end. Of a name's addresses the first that answers counts: eyeballs.ts.
 */
import { once } from 'node:events'
import { lookup } from 'node:dns'
import { connect as connectTcp, isIP } from 'node:net'
import type { Socket } from 'node:net'
import { systemClock } from './clock.ts'
import { firstOf } from './eyeballs.ts'
import { askConnect } from './http-connect.ts'
import { Names } from './names.ts'
import { printAddress, ProxyError } from './proxy.ts'
import type { Address, Proxy } from './proxy.ts'
import { sealed } from './proxy-tls.ts'
import { askSocks } from './socks5.ts'

/**
 * Connects to `to`, through `proxy` where one is given; the name of `to` is then looked up by the
 * proxy. Rejects with the system's error for a direct connection, with ProxyError for any other,
 * with the signal's reason when it is aborted before the proxy was reached.
 */
export async function reach(
  to: Address,
  proxy: Proxy | undefined,
  signal: AbortSignal,
): Promise<Socket> {
  if (proxy === undefined) return await connect(to, signal)
  let socket: Socket
  try {
    socket = await connect(proxy, signal)
  } catch (cause) {
    throw notReached(proxy, cause)
  }
  try {
    if (proxy.scheme === 'https') socket = await sealed(socket, proxy, signal)
    await (proxy.scheme === 'socks5' ? askSocks : askConnect)(socket, { proxy, to, signal })
    return socket
  } catch (error) {
    socket.destroy()
    throw error instanceof ProxyError ? error : brokenOff(proxy, error)
  }
}

/** Idle time before the kernel asks whether the other side is there. */
const KEEPALIVE_MS = 30_000

async function connect({ host, port }: Address, signal: AbortSignal): Promise<Socket> {
  return await firstOf({
    lookUp: async (family) => await addressesOf(host, family),
    begin: async (address, over) => await connectOne(address, port, over),
    discard: (late) => late.destroy(),
    clock: systemClock,
    signal,
  })
}

const names = new Names(async (host, family) => {
  const { promise, resolve, reject } = Promise.withResolvers<string[]>()
  // As the system looks it up, /etc/hosts and all; not with node:dns/promises, which an idle agent does without.
  lookup(host, { family, all: true }, (error, found) => {
    if (error === null) resolve(found.map(({ address }) => address))
    else reject(error)
  })
  return await promise
})

/** Those of one family. Rejects with the system's error (ENOTFOUND, EAI_AGAIN) where there are none. */
async function addressesOf(host: string, family: 4 | 6): Promise<readonly string[]> {
  const literal = isIP(host)
  if (literal !== 0) return literal === family ? [host] : []
  return await names.addressesOf(host, family)
}

async function connectOne(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const socket = connectTcp({
    host,
    port,
    noDelay: true,
    // The kernel's own look, for what holds no tunnel; docs/decisions/0006-keepalive.md.
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_MS,
  })
  // Whoever uses the socket hears of later errors; none may be unheard.
  socket.on('error', () => {})
  try {
    await once(socket, 'connect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** Node's names for "the signal said stop" and the system's for "nobody answered". */
const LATE: ReadonlySet<string> = new Set(['ABORT_ERR', 'AbortError', 'TimeoutError', 'ETIMEDOUT'])

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  if ('code' in error && typeof error.code === 'string') return error.code
  return error.name
}

function notReached(proxy: Proxy, cause: unknown): ProxyError {
  const code = codeOf(cause)
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return new ProxyError(
      'proxy.name_unknown',
      `The name of the proxy, ${proxy.host}, could not be looked up (${code}).`,
      "Check the proxy's name and the name servers of this machine.",
      { cause },
    )
  const late = LATE.has(code)
  return new ProxyError(
    'proxy.unreachable',
    `No TCP connection to the proxy ${printAddress(proxy)}: ${late ? 'nothing answered in time' : code}.`,
    'Check the address of the proxy, and that this machine may connect to it.',
    { cause },
  )
}

function brokenOff(proxy: Proxy, cause: unknown): ProxyError {
  const code = codeOf(cause)
  const why = LATE.has(code)
    ? 'it did not answer in time'
    : 'it ended the connection without an answer'
  return new ProxyError(
    'proxy.answer',
    `The proxy ${printAddress(proxy)} did not carry this out: ${why}.`,
    `Check that it is ${proxy.scheme === 'socks5' ? 'a SOCKS5' : 'an HTTP'} proxy and that it can reach the gateway.`,
    { cause },
  )
}
