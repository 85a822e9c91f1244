/**
 * The PROXY protocol, version 2: what a TCP balancer says, before anything else, of the connection that it
 * passes on. Only the balancers that the configuration names are read so; they must say it each time.
 * https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2.
 */
import { SocketAddress, type Socket } from 'node:net'
import { plainAddress } from '../facts.ts'

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
/** Signature, version and command, family and protocol, length of the rest. */
const HEAD_BYTES = 16
/** The longest of addresses that are no paths is 36; the rest is what balancers add, and nobody here reads it. */
const MAX_REST_BYTES = 1024
const PATIENCE_MS = 5_000

/** Who made the connection, as the balancer saw them. */
export interface Announced {
  readonly address: string
  readonly port: number
}

/** `own`: the balancer's own connection, as to ask whether anybody is here. */
export type Announcement = Announced | 'own' | 'broken'

/** Octets behind the head; undefined for what is no head of this protocol and version. */
export function restOf(head: Uint8Array): number | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length)
  if (bytes.length !== HEAD_BYTES || !bytes.subarray(0, 12).equals(SIGNATURE)) return undefined
  const length = bytes.readUInt16BE(14)
  return (bytes[12] ?? 0) >> 4 === 2 && length <= MAX_REST_BYTES ? length : undefined
}

/** What head and rest, both whole, say. */
export function readAnnouncement(head: Uint8Array, rest: Uint8Array): Announcement {
  const command = (head[12] ?? 0) & 0x0f
  if (command === 0) return 'own'
  if (command !== 1) return 'broken'
  const bytes = Buffer.from(rest.buffer, rest.byteOffset, rest.length)
  // The protocol is a stream (1): a datagram or an unknown family is nothing that a TCP port is given.
  if (head[13] === 0x11 && bytes.length >= 12)
    return { address: [...bytes.subarray(0, 4)].join('.'), port: bytes.readUInt16BE(8) }
  if (head[13] === 0x21 && bytes.length >= 36)
    return { address: sixOf(bytes.subarray(0, 16)), port: bytes.readUInt16BE(32) }
  return 'broken'
}

/** As a socket says it. */
function sixOf(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, at) => bytes.readUInt16BE(2 * at).toString(16))
  return plainAddress(new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address)
}

/**
 * Reads what the balancer says at the beginning of `socket`, and not an octet more: what follows is left
 * in it. `heard` is called once; `broken` also where it is not all there within five seconds, or the
 * connection ends before.
 */
export function hearBalancer(socket: Socket, heard: (said: Announcement) => void): void {
  let head: Buffer | undefined
  const take = (length: number): Buffer | undefined => {
    const bytes: unknown = length === 0 ? Buffer.alloc(0) : socket.read(length)
    return Buffer.isBuffer(bytes) && bytes.length === length ? bytes : undefined
  }
  const done = (said: Announcement): void => {
    clearTimeout(timer)
    socket.off('readable', look)
    socket.off('close', broken)
    heard(said)
  }
  const broken = (): void => done('broken')
  const look = (): void => {
    head ??= take(HEAD_BYTES)
    if (head === undefined) return
    const length = restOf(head)
    if (length === undefined) return broken()
    const rest = take(length)
    if (rest !== undefined) done(readAnnouncement(head, rest))
  }
  const timer = setTimeout(broken, PATIENCE_MS)
  timer.unref()
  socket.on('readable', look)
  socket.on('close', broken)
}
