/** HTTP CONNECT: the question, and every answer to it in words. RFC 9110 sections 9.3.6 and 11.7. */
import type { Socket } from 'node:net'
import { takeUntil } from './early.ts'
import { printAddress, ProxyError } from './proxy.ts'
import type { Address, Proxy } from './proxy.ts'

export interface Question {
  readonly proxy: Proxy
  readonly to: Address
  readonly signal: AbortSignal
}

/** Proxies write pages into their answers, not into the heads of them. */
const MAX_HEAD = 16 * 1024

/** Asks; resolves when the connection is the gateway's. Rejects with ProxyError, or as the socket does. */
export async function askConnect(socket: Socket, { proxy, to, signal }: Question): Promise<void> {
  socket.write(requestFor(proxy, to), 'latin1')
  const head = await takeUntil(socket, '\r\n\r\n', MAX_HEAD, signal)
  const text = head?.toString('latin1') ?? ''
  const [, status] = /^HTTP\/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?(?:\r\n|$)/.exec(text) ?? []
  if (status === undefined) throw noAnswer(proxy)
  if (status.startsWith('2')) return
  throw refusal(proxy, to, Number(status), text)
}

function requestFor({ login }: Proxy, to: Address): string {
  const place = printAddress(to)
  const lines = [`CONNECT ${place} HTTP/1.1`, `Host: ${place}`]
  if (login !== undefined) {
    const basic = Buffer.from(`${login.user}:${login.password}`, 'utf8').toString('base64')
    lines.push(`Proxy-Authorization: Basic ${basic}`)
  }
  return `${lines.join('\r\n')}\r\n\r\n`
}

function noAnswer(proxy: Proxy): ProxyError {
  return new ProxyError(
    'proxy.answer',
    `What listens at ${printAddress(proxy)} does not answer like an HTTP proxy.`,
    'Check the address, and whether it is a SOCKS5 proxy: socks5://…',
  )
}

function refusal(proxy: Proxy, to: Address, status: number, head: string): ProxyError {
  const [name, place] = [printAddress(proxy), printAddress(to)]
  // 401 is an origin's answer, and still what tinyproxy says of a wrong password.
  if (status === 407 || status === 401) return wantsLogin(proxy, status, head)
  if (status === 502 || status === 503 || status === 504)
    return new ProxyError(
      'proxy.gateway_unreachable',
      `The proxy ${name} could not reach ${place} (${status}).`,
      'Check that the gateway runs, and that the proxy can look up its name and connect to it.',
    )
  return new ProxyError(
    'proxy.refused',
    `The proxy ${name} does not let this through to ${place} (${status}).`,
    status === 405 || status === 501
      ? 'It does not know CONNECT at all: ask for a proxy that does.'
      : `Ask whoever runs the proxy to allow CONNECT to ${place}.`,
  )
}

function wantsLogin(proxy: Proxy, status: number, head: string): ProxyError {
  const name = printAddress(proxy)
  const offers = [...head.matchAll(/^proxy-authenticate:[ \t]*([a-z0-9-]+)/gim)].map(
    ([, scheme]) => scheme ?? '',
  )
  if (offers.length > 0 && !offers.some((scheme) => scheme.toLowerCase() === 'basic'))
    return new ProxyError(
      'proxy.auth',
      `The proxy ${name} wants a login by ${offers.join(' or ')} (${status}); Sallyport knows Basic.`,
      'Ask whoever runs the proxy for a Basic login, or to let this machine through without one.',
    )
  return proxy.login === undefined
    ? new ProxyError(
        'proxy.auth',
        `The proxy ${name} wants a user and a password (${status}).`,
        'Put "user:password" into a file and name it as the proxy\'s auth file.',
      )
    : new ProxyError(
        'proxy.auth',
        `The proxy ${name} does not accept the user ${proxy.login.user} with this password (${status}).`,
        "Correct the proxy's auth file, or have the account unlocked.",
      )
}
