/** Connections of the command line: TCP by the way out that was taken, TLS to whom was pinned. */
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { isIP, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import {
  ProxyError,
  reach,
  readAnchor,
  readProxy,
  readProxyLogin,
  type Address,
  type Proxy,
} from '#tunnel'
import { CliError, usage } from './exit.ts'
import { wayOut } from './way.ts'

/**
 * The proxy of the way out, with the login in its file. Throws CliError: usage where it cannot be
 * read, `proxy.secret` and `proxy.ca_file` for its files.
 */
export function proxyOut(): Proxy | undefined {
  const { proxy: url, proxyAuthFile: file, proxyCaFile: ca } = wayOut()
  if (url === undefined) {
    if (file !== undefined) throw usage('there is an auth file for a proxy, and no proxy')
    if (ca !== undefined) throw usage('there is a CA file for a proxy, and no proxy')
    return undefined
  }
  const read = readProxy(url)
  if (typeof read === 'string') throw usage(`the proxy cannot be used: ${read}`)
  if (ca !== undefined && read.scheme !== 'https')
    throw usage('there is a CA file for a proxy that is not reached over TLS', 'https://… is')
  const proxy = ca === undefined ? read : { ...read, anchor: anchorIn(ca) }
  return file === undefined ? proxy : { ...proxy, login: loginIn(file) }
}

function anchorIn(file: string): string {
  let why = 'there is no certificate in it'
  try {
    const anchor = readAnchor(readFileSync(file, 'utf8'))
    if (anchor !== undefined) return anchor
  } catch (cause) {
    why = cause instanceof Error ? cause.message : String(cause)
  }
  throw new CliError("the proxy's CA file cannot be used", {
    code: 'proxy.ca_file',
    exit: 'usage',
    why: `${file}: ${why}`,
    next: 'make it the PEM of the authority that signs the certificate of the proxy',
  })
}

function loginIn(file: string) {
  const unusable = (why: string, cause?: unknown) =>
    new CliError(
      "the proxy's auth file cannot be used",
      {
        code: 'proxy.secret',
        exit: 'usage',
        why: `${file}: ${why}`,
        next: 'make it one line "user:password", readable by you alone (chmod 0600)',
      },
      { cause },
    )
  let text: string
  try {
    if ((statSync(file).mode & 0o007) !== 0)
      throw new Error('every user of this machine may use it')
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw unusable(cause instanceof Error ? cause.message : String(cause), cause)
  }
  const login = readProxyLogin(text)
  if (typeof login === 'string') throw unusable(login)
  return login
}

/** Whether a tunnel travels in WebSocket. Throws usage for a carrier that is none. */
export function inWebSocket(): boolean {
  const { carrier = 'tls' } = wayOut()
  if (carrier === 'tls' || carrier === 'websocket') return carrier === 'websocket'
  throw usage(`${JSON.stringify(carrier)} is not a carrier`, 'tls or websocket is expected')
}

/** A TCP connection by the way out. Rejects as `reach` of #tunnel, and as `proxyOut`. */
export async function dialTcp(to: Address, signal: AbortSignal): Promise<Socket> {
  return await reach(to, proxyOut(), signal)
}

/** TLS to `to` after its handshake, its name checked where `options` say `ca`. Rejects as `dialTcp`, or with the TLS error. */
export async function dialTls(
  to: Address,
  options: ConnectionOptions,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const raw = await dialTcp(to, signal)
  const { host } = to
  const socket = connectTls({
    minVersion: 'TLSv1.2',
    ...options,
    socket: raw,
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
  })
  try {
    await once(socket, 'secureConnect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    raw.destroy()
    throw error
  }
}

/** Host and port of an https URL. */
export function addressOf(url: URL): Address {
  return {
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? 443 : Number(url.port),
  }
}

/** A failure at the proxy, in whatever it is wrapped; undefined: it was none. */
export function proxyFault(error: unknown): CliError | undefined {
  if (error instanceof ProxyError)
    return new CliError(
      error.message.replace(/\.$/, ''),
      { code: error.code, exit: 'unreachable', next: error.next },
      { cause: error },
    )
  if (error instanceof CliError && error.code.startsWith('proxy.')) return error
  return error instanceof Error ? proxyFault(error.cause) : undefined
}
