/** A proxy: how it is named, how we log in to it, and what can go wrong with it. */
import { X509Certificate } from 'node:crypto'

/** What went wrong on the way: before the proxy, at it, or behind it. */
export type ProxyCode =
  | 'proxy.name_unknown'
  | 'proxy.unreachable'
  | 'proxy.untrusted'
  | 'proxy.auth'
  | 'proxy.refused'
  | 'proxy.gateway_unreachable'
  | 'proxy.answer'

/** `message` says what happened, `next` what to do. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError'
  readonly code: ProxyCode
  readonly next: string
  constructor(code: ProxyCode, message: string, next: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.next = next
  }
}

export interface Address {
  /** A name or an IP address, IPv6 without brackets. */
  readonly host: string
  readonly port: number
}

export interface Proxy extends Address {
  /** `https`: HTTP CONNECT, asked for inside TLS to the proxy. */
  readonly scheme: 'http' | 'https' | 'socks5'
  /** Of an https proxy: PEM of the authority that signed its certificate; absent: those that Node brings. */
  readonly anchor?: string | undefined
  readonly login?: ProxyLogin | undefined
}

/** 1 to 255 octets each; no colon in `user`, no control characters. */
export interface ProxyLogin {
  readonly user: string
  readonly password: string
}

const DEFAULT_PORTS = { http: 3128, https: 443, socks5: 1080 } as const

const isScheme = (text: string | undefined): text is Proxy['scheme'] =>
  text !== undefined && Object.hasOwn(DEFAULT_PORTS, text)

/**
 * Reads `http://host:port`, `https://host:port` or `socks5://host:port`; ports 3128, 443 and 1080 where none is named. A user
 * or password in it is refused: a URL ends up in process lists and logs. Gives the sentence of what
 * is wrong with any other text.
 */
export function readProxy(text: string): Proxy | string {
  const url = URL.parse(text)
  const scheme = url?.protocol.slice(0, -1)
  if (url === null || url.hostname === '' || !isScheme(scheme))
    return 'a URL like "http://egress.example:3128", "https://egress.example" or "socks5://egress.example:1080" is expected'
  if (url.username !== '' || url.password !== '')
    return 'a URL must hold no user and no password; they come from a file'
  if (!['', '/'].includes(url.pathname) || url.search !== '' || url.hash !== '')
    return 'only host and port are expected, nothing after them'
  const host = url.hostname.replace(/^\[|\]$/g, '')
  // The parser drops the port 80 of an http URL, which somebody wrote on purpose.
  const named = /:80\/?$/.test(text) ? 80 : Number(url.port)
  return { scheme, host, port: named === 0 ? DEFAULT_PORTS[scheme] : named }
}

/** The text of a PEM file with one certificate at least, all of which can be read; undefined for any other text. */
export function readAnchor(text: string): string | undefined {
  const found = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g)
  if (found === null) return undefined
  try {
    for (const pem of found) new X509Certificate(pem)
  } catch {
    return undefined
  }
  return text
}

/** Reads `user:password`, one line. Gives the sentence of what is wrong with any other text. */
export function readProxyLogin(text: string): ProxyLogin | string {
  const line = text.replace(/\r?\n$/, '')
  const colon = line.indexOf(':')
  const user = line.slice(0, colon)
  const password = line.slice(colon + 1)
  const fits = (part: string) => part !== '' && Buffer.byteLength(part) <= 255
  // eslint-disable-next-line no-control-regex -- they are what must not be there
  if (colon < 1 || !fits(user) || !fits(password) || /[\u0000-\u001f\u007f]/.test(line))
    return 'one line "user:password" is expected, 1 to 255 octets each'
  return { user, password }
}

/** `host:port`, with brackets where the host needs them. */
export function printAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}
