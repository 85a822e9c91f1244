/**
 * The kernel's sock_diag protocol as values: questions to bytes, bytes to socket rows; nothing is sent
 * here. sock_diag(7), linux/inet_diag.h, linux/netlink.h. Integers are in the machine's order, ports
 * and addresses in the network's.
 */
import { fromOctets, toOctets } from './address.ts'
import type { FourTuple } from './address.ts'
import type { ByteOrder, SocketRow } from './procfs.ts'
import { TCP_LISTEN } from './procfs.ts'

export const AF_INET = 2
export const AF_INET6 = 10

const SOCK_DIAG_BY_FAMILY = 20
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const NLM_F_REQUEST = 0x1
/** NLM_F_ROOT | NLM_F_MATCH. */
const NLM_F_DUMP = 0x300
const IPPROTO_TCP = 6
const IPPROTO_UDP = 17
const EVERY_STATE = 0xffff_ffff
const ENOENT = 2

/** nlmsghdr; inet_diag_req_v2; inet_diag_msg. */
const HEADER = 16
const REQUEST = HEADER + 56
const MESSAGE = 72
/** Within inet_diag_msg: inet_diag_sockid follows four octets; uid and inode end it. */
const ID = 4
const UID = 64
const INODE = 68

export interface Writing {
  readonly order: ByteOrder
  /** Echoed in every answer. */
  readonly sequence: number
}

function request(
  family: number,
  flags: number,
  states: number,
  { order, sequence }: Writing,
  protocol = IPPROTO_TCP,
): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(REQUEST)
  const view = new DataView(bytes.buffer)
  const little = order === 'LE'
  view.setUint32(0, REQUEST, little)
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, little)
  view.setUint16(6, NLM_F_REQUEST | flags, little)
  view.setUint32(8, sequence, little)
  bytes[HEADER] = family
  bytes[HEADER + 1] = protocol
  view.setUint32(HEADER + 4, states, little)
  // INET_DIAG_NOCOOKIE: whichever socket it is.
  bytes.fill(0xff, REQUEST - 8)
  return { bytes, view }
}

/** Asks for the socket at the other end of `dialled`. Answered by one row, a listener, or ENOENT. */
export function askOtherEnd(dialled: FourTuple, writing: Writing): Uint8Array {
  const { local, remote } = dialled
  const own = toOctets(remote.address)
  const { bytes, view } = request(own.length === 4 ? AF_INET : AF_INET6, 0, EVERY_STATE, writing)
  view.setUint16(HEADER + 8, remote.port)
  view.setUint16(HEADER + 10, local.port)
  bytes.set(own, HEADER + 12)
  bytes.set(toOctets(local.address), HEADER + 28)
  return bytes
}

/** Asks for every listening socket of one family. Answered by rows, then DONE. */
export function askListeners(family: number, writing: Writing): Uint8Array {
  return request(family, NLM_F_DUMP, 1 << TCP_LISTEN, writing).bytes
}

/** Asks for every UDP socket of one family that has the local `port`. Answered by rows, then DONE. */
export function askBound(family: number, port: number, writing: Writing): Uint8Array {
  const { bytes, view } = request(family, NLM_F_DUMP, EVERY_STATE, writing, IPPROTO_UDP)
  view.setUint16(HEADER + 8, port)
  return bytes
}

/** What one datagram of the kernel says to the question numbered `sequence`. */
export interface Said {
  readonly rows: readonly SocketRow[]
  /** There is no such socket, or nothing here that could tell. */
  readonly none: boolean
  /** Nothing more comes. */
  readonly done: boolean
}

/**
 * Reads one datagram. Undefined where it is not of the documented form, or an error other than ENOENT:
 * then nothing is known. Answers to other questions are left out.
 */
export function readSaid(datagram: Uint8Array, { order, sequence }: Writing): Said | undefined {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength)
  const little = order === 'LE'
  const rows: SocketRow[] = []
  let none = false
  let done = false
  for (let at = 0; at + HEADER <= datagram.length;) {
    const length = view.getUint32(at, little)
    if (length < HEADER || at + length > datagram.length) return undefined
    const type = view.getUint16(at + 4, little)
    if (view.getUint32(at + 8, little) === sequence) {
      if (type === NLMSG_DONE) done = true
      else if (type === NLMSG_ERROR) {
        if (length < HEADER + 4 || view.getInt32(at + HEADER, little) !== -ENOENT) return undefined
        none = true
      } else if (type === SOCK_DIAG_BY_FAMILY) {
        if (length < HEADER + MESSAGE) return undefined
        rows.push(rowOf(datagram, view, at + HEADER, little))
      } else return undefined
    }
    at += (length + 3) & ~3
  }
  return { rows, none, done }
}

function rowOf(bytes: Uint8Array, view: DataView, at: number, little: boolean): SocketRow {
  const width = bytes[at] === AF_INET6 ? 16 : 4
  const address = (from: number) => fromOctets(bytes.subarray(from, from + width))
  return {
    local: { address: address(at + ID + 4), port: view.getUint16(at + ID) },
    remote: { address: address(at + ID + 20), port: view.getUint16(at + ID + 2) },
    state: bytes[at + 1] ?? 0,
    uid: view.getUint32(at + UID, little),
    inode: view.getUint32(at + INODE, little),
  }
}
