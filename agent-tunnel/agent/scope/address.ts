/**
 * Addresses in one form, so that the same endpoint always compares equal: IPv4 as dotted quad,
 * IPv6 as RFC 5952 writes it, `::ffff:a.b.c.d` as the IPv4 address it stands for. Names are not
 * addresses here; nothing in the process scope ever resolves one.
 */
import { SocketAddress, isIPv4, isIPv6 } from 'node:net'

/** One end of a connection. `address` is canonical (see `canonicalAddress`). */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** How an endpoint is reached; where nothing is said, by TCP. */
export interface Reached {
  readonly transport?: 'udp'
}

/** The two ends of a connection, or of a connected UDP socket, as its own side sees them. */
export interface FourTuple extends Reached {
  readonly local: Endpoint
  readonly remote: Endpoint
}

const MAPPED = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/

/**
 * The canonical text of an IP address, or undefined when `text` is not one. A zone id is dropped:
 * the kernel's socket tables do not carry it.
 */
export function canonicalAddress(text: string): string | undefined {
  const bare = text.split('%', 1)[0] ?? ''
  if (isIPv4(bare)) return bare
  if (!isIPv6(bare)) return undefined
  return fromIPv6(bare)
}

function fromIPv6(text: string): string {
  const canonical = new SocketAddress({ address: text, family: 'ipv6' }).address
  return MAPPED.exec(canonical)?.[1] ?? canonical
}

/** Sixteen octets as IPv6 text, or as IPv4 when they are a mapped address. */
export function fromOctets(octets: Uint8Array): string {
  if (octets.length === 4) return octets.join('.')
  const groups: string[] = []
  for (let at = 0; at < 16; at += 2) {
    groups.push((((octets[at] ?? 0) << 8) | (octets[at + 1] ?? 0)).toString(16))
  }
  return fromIPv6(groups.join(':'))
}

/** The four or sixteen octets of a canonical address. */
export function toOctets(address: string): number[] {
  if (isIPv4(address)) return address.split('.').map(Number)
  const text = new SocketAddress({ address, family: 'ipv6' }).address
  const [head = '', tail] = text.split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const left = groups(head).flatMap(groupOctets)
  const right = tail === undefined ? [] : groups(tail).flatMap(groupOctets)
  return [...left, ...Array<number>(16 - left.length - right.length).fill(0), ...right]
}

/** A group of an IPv6 address; the last may be written as IPv4 (`::1.2.3.4`). */
function groupOctets(group: string): number[] {
  if (group.includes('.')) return group.split('.').map(Number)
  const word = Number.parseInt(group, 16)
  return [word >> 8, word & 255]
}

/** The endpoint, canonical; undefined when the address is not an IP address or the port not one. */
export function endpoint(address: string, port: number): Endpoint | undefined {
  const canonical = canonicalAddress(address)
  if (canonical === undefined || !Number.isInteger(port) || port < 1 || port > 65_535)
    return undefined
  return { address: canonical, port }
}

/** Whether packets to this address cannot leave the machine (127.0.0.0/8, ::1). */
export function isLoopback(address: string): boolean {
  const canonical = canonicalAddress(address)
  return canonical !== undefined && (canonical === '::1' || canonical.startsWith('127.'))
}

/** Whether the address means "every address of this machine" (0.0.0.0, ::). */
export function isWildcard(address: string): boolean {
  return address === '0.0.0.0' || address === '::'
}

/** `address:port` as people write it, IPv6 in brackets. */
export function printEndpoint(end: Endpoint): string {
  return end.address.includes(':') ? `[${end.address}]:${end.port}` : `${end.address}:${end.port}`
}
