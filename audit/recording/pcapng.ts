/**
 * pcapng of what a protocol said, without the wire under it: link type 252 (Wireshark's upper PDU), so that a reader
 * is told which dissector to use, who spoke to whom, and in a comment what the gateway made of it.
 * draft-ietf-opsawg-pcapng; draft-ietf-opsawg-pcaplinktype (252); Wireshark epan/exported_pdu.h.
 */
const SECTION = 0x0a0d0d0a
const INTERFACE = 1
const PACKET = 6
const BYTE_ORDER = 0x1a2b3c4d
const UPPER_PDU = 252
/** Of a packet's flags: where it was going, seen from the device. */
const INBOUND = 1
const OUTBOUND = 2
const MAX_COMMENT = 1_000

const encoder = new TextEncoder()

export interface PcapEnd {
  readonly ip: string
  readonly port: number
}

export interface Packet {
  /** Epoch milliseconds, fractions included. */
  readonly at: number
  /** A dissector's name, for instance `mbtcp`; `data` where nothing is known. */
  readonly protocol: string
  readonly transport?: 'tcp' | 'udp' | undefined
  readonly from: PcapEnd
  readonly to: PcapEnd
  /** `in`: from the person to the device. */
  readonly direction: 'in' | 'out'
  readonly bytes: Uint8Array
  readonly comment?: string | undefined
}

const padded = (bytes: number): number => (bytes + 3) & ~3

/** type, length, body padded to 32 bits, length. Little-endian, as the section says. */
function block(type: number, body: Uint8Array): Uint8Array {
  const length = 12 + padded(body.length)
  const out = Buffer.alloc(length)
  out.writeUInt32LE(type, 0)
  out.writeUInt32LE(length, 4)
  out.set(body, 8)
  out.writeUInt32LE(length, length - 4)
  return out
}

function option(code: number, value: Uint8Array): Uint8Array {
  const out = Buffer.alloc(4 + padded(value.length))
  out.writeUInt16LE(code, 0)
  out.writeUInt16LE(value.length, 2)
  out.set(value, 4)
  return out
}
const END = Buffer.alloc(4)

/** What a file begins with: the section, and one interface with times in microseconds. */
export function pcapHeader(application: string, comment: string): Uint8Array {
  const section = Buffer.alloc(16)
  section.writeUInt32LE(BYTE_ORDER, 0)
  section.writeUInt16LE(1, 4)
  section.writeBigInt64LE(-1n, 8)
  const about = [option(1, encoder.encode(comment)), option(4, encoder.encode(application)), END]
  const link = Buffer.alloc(8)
  link.writeUInt16LE(UPPER_PDU, 0)
  return Buffer.concat([
    block(SECTION, Buffer.concat([section, ...about])),
    block(INTERFACE, Buffer.concat([link, option(9, Uint8Array.of(6)), END])),
  ])
}

/** A tag of the exported PDU: big-endian, its value padded like everything else. */
function tag(code: number, value: Uint8Array): Uint8Array {
  const out = Buffer.alloc(4 + padded(value.length))
  out.writeUInt16BE(code, 0)
  out.writeUInt16BE(padded(value.length), 2)
  out.set(value, 4)
  return out
}

function port(value: number): Uint8Array {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}

/** Octets of an address; undefined where the text is none. */
function addressOf(ip: string): Uint8Array | undefined {
  const v4 = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(ip)
  if (v4 !== null) return Uint8Array.from(v4.slice(1).map(Number))
  const halves = (ip.split('%')[0] ?? '').split('::')
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')))
  const [head = [], tail = []] = groups
  const gap = halves.length === 2 ? 8 - head.length - tail.length : 0
  const all = [...head, ...Array.from({ length: Math.max(0, gap) }, () => '0'), ...tail]
  if (all.length !== 8 || all.some((group) => !/^[0-9a-f]{1,4}$/i.test(group))) return undefined
  const out = Buffer.alloc(16)
  for (const [at, group] of all.entries()) out.writeUInt16BE(Number.parseInt(group, 16), at * 2)
  return out
}

/** Source (20, 22) or destination (21, 23), by the family of each: a reader wants both of one family. */
function addresses(from: string, to: string): Uint8Array[] {
  const [source, target] = [addressOf(from), addressOf(to)]
  if (source === undefined || target === undefined || source.length !== target.length) return []
  return source.length === 4
    ? [tag(20, source), tag(21, target)]
    : [tag(22, source), tag(23, target)]
}

/** One message of the protocol. */
export function pcapPacket(packet: Packet): Uint8Array {
  const { at, protocol, transport, from, to, direction, bytes, comment } = packet
  const pdu = Buffer.concat([
    tag(12, encoder.encode(protocol)),
    ...addresses(from.ip, to.ip),
    tag(24, port(transport === 'udp' ? 3 : 2)),
    tag(25, port(from.port)),
    tag(26, port(to.port)),
    Buffer.alloc(4),
    bytes,
  ])
  const head = Buffer.alloc(20)
  const time = BigInt(Math.round(at * 1000))
  head.writeUInt32LE(Number(time >> 32n), 4)
  head.writeUInt32LE(Number(time & 0xffffffffn), 8)
  head.writeUInt32LE(pdu.length, 12)
  head.writeUInt32LE(pdu.length, 16)
  const flags = Buffer.alloc(4)
  flags.writeUInt32LE(direction === 'in' ? INBOUND : OUTBOUND)
  const data = Buffer.alloc(padded(pdu.length))
  data.set(pdu)
  const said =
    comment === undefined ? [] : [option(1, encoder.encode(comment.slice(0, MAX_COMMENT)))]
  return block(PACKET, Buffer.concat([head, data, ...said, option(2, flags), END]))
}
