/** SOCKS5: the greeting, the login, the question (RFC 1928 sections 3 to 6, RFC 1929). */
import { isIP, isIPv4 } from 'node:net'
import type { Socket } from 'node:net'
import { take } from './early.ts'
import type { Question } from './http-connect.ts'
import { printAddress, ProxyError } from './proxy.ts'
import type { Address, Proxy, ProxyCode, ProxyLogin } from './proxy.ts'

const VERSION = 5
const NO_LOGIN = 0
const LOGIN = 2
const NONE_ACCEPTABLE = 0xff
const CONNECT = 1
const [IPV4, NAME, IPV6] = [1, 3, 4]

/** Asks; resolves when the connection is the gateway's. Rejects with ProxyError, or as the socket does. */
export async function askSocks(socket: Socket, { proxy, to, signal }: Question): Promise<void> {
  const asked = writeAddress(to)
  const methods = proxy.login === undefined ? [NO_LOGIN] : [NO_LOGIN, LOGIN]
  socket.write(Buffer.from([VERSION, methods.length, ...methods]))
  const [version, method] = await take(socket, 2, signal)
  if (version !== VERSION) throw noAnswer(proxy)
  if (method === LOGIN && proxy.login !== undefined) await logIn(socket, proxy, proxy.login, signal)
  else if (method === NONE_ACCEPTABLE) throw wantsLogin(proxy)
  else if (method !== NO_LOGIN) throw noAnswer(proxy)
  socket.write(Buffer.concat([Buffer.from([VERSION, CONNECT, 0]), asked]))
  const [again, reply, , kind] = await take(socket, 4, signal)
  if (again !== VERSION) throw noAnswer(proxy)
  if (reply !== 0) throw refusal(proxy, to, reply ?? 1)
  // The address it is bound to says nothing that we need, but it stands before the gateway's octets.
  const length =
    kind === IPV4 ? 4 : kind === IPV6 ? 16 : kind === NAME ? (await take(socket, 1, signal))[0] : 0
  if (length === undefined || length === 0) throw noAnswer(proxy)
  await take(socket, length + 2, signal)
}

async function logIn(
  socket: Socket,
  proxy: Proxy,
  { user, password }: ProxyLogin,
  signal: AbortSignal,
): Promise<void> {
  const [name, secret] = [Buffer.from(user), Buffer.from(password)]
  socket.write(
    Buffer.concat([Buffer.from([1, name.length]), name, Buffer.from([secret.length]), secret]),
  )
  const [, status] = await take(socket, 2, signal)
  if (status === 0) return
  throw new ProxyError(
    'proxy.auth',
    `The proxy ${printAddress(proxy)} does not accept the user ${user} with this password.`,
    "Correct the proxy's auth file, or have the account unlocked.",
  )
}

function writeAddress({ host, port }: Address): Buffer {
  const end = Buffer.from([port >> 8, port & 0xff])
  if (isIPv4(host)) return Buffer.concat([Buffer.from([IPV4, ...host.split('.').map(Number)]), end])
  if (isIP(host) === 6) return Buffer.concat([Buffer.from([IPV6]), ipv6(host), end])
  const name = Buffer.from(host)
  // Its length is one octet: a longer one would be read as another name, and what is left as a port.
  if (name.length > 255)
    throw new ProxyError(
      'proxy.gateway_unreachable',
      `A SOCKS5 proxy takes names of up to 255 octets, and ${host.slice(0, 32)}… has ${name.length}.`,
      'Check the name of the gateway; no DNS name is that long.',
    )
  return Buffer.concat([Buffer.from([NAME, name.length]), name, end])
}

/** The sixteen octets of an address that `isIP` has taken for one. */
function ipv6(host: string): Buffer {
  // The URL parser writes every form, an IPv4 tail too, as hexadecimal groups.
  const plain = new URL(`http://[${host.replace(/%.*$/, '')}]`).hostname.slice(1, -1)
  const [head = '', tail] = plain.split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  const [left, right] = [groups(head), groups(tail ?? '')]
  const gap = Array<string>(8 - left.length - right.length).fill('0')
  return Buffer.from(
    [...left, ...gap, ...right].map((group) => group.padStart(4, '0')).join(''),
    'hex',
  )
}

function noAnswer(proxy: Proxy): ProxyError {
  return new ProxyError(
    'proxy.answer',
    `What listens at ${printAddress(proxy)} does not answer like a SOCKS5 proxy.`,
    'Check the address, and whether it is an HTTP proxy: http://…',
  )
}

function wantsLogin(proxy: Proxy): ProxyError {
  const name = printAddress(proxy)
  return proxy.login === undefined
    ? new ProxyError(
        'proxy.auth',
        `The proxy ${name} wants a login.`,
        'Put "user:password" into a file and name it as the proxy\'s auth file.',
      )
    : new ProxyError(
        'proxy.auth',
        `The proxy ${name} takes neither no login nor one by user and password.`,
        'Ask whoever runs the proxy for a login by user and password (RFC 1929).',
      )
}

/** RFC 1928 section 6: REP. */
const REPLIES: Readonly<Record<number, readonly [ProxyCode, string]>> = {
  1: ['proxy.gateway_unreachable', 'it failed without saying why'],
  2: ['proxy.refused', 'its rules do not allow it'],
  3: ['proxy.gateway_unreachable', 'the network is unreachable from there'],
  4: ['proxy.gateway_unreachable', 'the host is unreachable from there'],
  5: ['proxy.gateway_unreachable', 'nothing listens there'],
  6: ['proxy.gateway_unreachable', 'the way is too long'],
  7: ['proxy.refused', 'it does not know this command'],
  8: ['proxy.refused', 'it does not know this kind of address'],
}

function refusal(proxy: Proxy, to: Address, reply: number): ProxyError {
  const [code, why] = REPLIES[reply] ?? ['proxy.refused', `it answered ${reply}`]
  const place = printAddress(to)
  return new ProxyError(
    code,
    `The proxy ${printAddress(proxy)} did not connect to ${place}: ${why}.`,
    code === 'proxy.refused'
      ? `Ask whoever runs the proxy to allow connections to ${place}.`
      : 'Check that the gateway runs, and that the proxy can look up its name and connect to it.',
  )
}
