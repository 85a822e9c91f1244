/** The codes of the tunnel protocol and their numbers on the wire; docs/protocol.md section 9. */

/** Which end broke the rule: `local` is this program, `remote` the peer. */
export type Fault = 'local' | 'remote'

/**
 * One row per code: its number in GOAWAY, and the sentence a person reads. Numbers are never given
 * twice; a code that goes out of use keeps its number.
 */
const rows = {
  'hello.missing': { wire: 1, says: 'the first frame is not a HELLO' },
  'hello.http': { wire: 2, says: 'the peer speaks HTTP on a tunnel connection' },
  'hello.tls': { wire: 3, says: 'the peer starts TLS inside the tunnel connection' },
  'hello.repeated': { wire: 4, says: 'a second HELLO arrived' },
  'hello.malformed': { wire: 5, says: 'the HELLO cannot be read' },
  'hello.version': { wire: 6, says: 'the two ends share no protocol version' },
  'hello.role': { wire: 7, says: 'the HELLO names an unknown role' },
  'hello.limits': { wire: 8, says: 'a limit in the HELLO is outside its range' },
  'hello.timeout': { wire: 9, says: 'no HELLO arrived in time' },
  'frame.type': { wire: 10, says: 'a frame has an unknown type below 0x80' },
  'frame.length': { wire: 11, says: 'a frame is longer than its type allows' },
  'frame.short': { wire: 12, says: 'a frame is shorter than its type needs' },
  'frame.stream': { wire: 13, says: 'a frame is on a stream id its type does not allow' },
  'frame.malformed': { wire: 14, says: 'the payload of a frame cannot be read' },
  'frame.truncated': { wire: 15, says: 'the connection ended inside a frame' },
  'stream.parity': { wire: 20, says: 'OPEN uses an id that belongs to the other side' },
  'stream.order': { wire: 21, says: 'OPEN uses an id that is not above all earlier ones' },
  'stream.unknown': { wire: 22, says: 'a frame names a stream that was never opened' },
  'stream.closed': { wire: 23, says: 'a frame is on a stream that has ended' },
  'stream.unaccepted': {
    wire: 24,
    says: 'a frame that needs an accepted stream came before ACCEPT',
  },
  'stream.answered': {
    wire: 25,
    says: 'a stream was answered twice, or by the side that opened it',
  },
  'stream.finished': { wire: 26, says: 'data came after FIN' },
  'stream.kind': { wire: 27, says: 'DATA on a datagram stream, or DATAGRAM on a byte stream' },
  'data.empty': { wire: 28, says: 'a DATA frame without payload' },
  'window.exceeded': { wire: 30, says: 'more data than there was credit for' },
  'window.zero': { wire: 31, says: 'a WINDOW that gives nothing' },
  'window.overflow': { wire: 32, says: 'the credit of a stream passed 2^31-1' },
  'ping.unsolicited': { wire: 40, says: 'a PONG that answers no PING' },
  'rate.ping': { wire: 41, says: 'too many PINGs' },
  'rate.open': { wire: 42, says: 'too many OPENs' },
  'rate.reset': { wire: 43, says: 'too many streams opened only to be reset' },
  'rate.signal': { wire: 44, says: 'too many SIGNALs or GOAWAYs' },
  'rate.empty': { wire: 45, says: 'too many frames that carry next to nothing' },
  'rate.extension': { wire: 46, says: 'too much in frames of unknown extension types' },
  'backlog.exceeded': { wire: 47, says: 'the peer asks for answers and does not read them' },
  'goaway.order': { wire: 50, says: 'a GOAWAY raises the last id of an earlier one' },
  'peer.silent': { wire: 60, says: 'nothing was heard for three keepalive intervals' },
  'peer.lost': { wire: 61, says: 'the connection ended without GOAWAY' },
  'carrier.text': { wire: 63, says: 'a WebSocket text message on a tunnel' },
  'carrier.failed': { wire: 64, says: 'the connection under the tunnel failed' },
  'call.closed': { wire: 70, says: 'the tunnel is closed' },
  'call.state': { wire: 71, says: 'the stream is not in a state for this call' },
  'call.range': { wire: 72, says: 'an argument is outside its limit' },
  'call.overrun': { wire: 73, says: 'written on although write() said to wait' },
} as const

/** What can be wrong with a tunnel. Closed: `docs/protocol.md` lists every one. */
export type MuxCode = keyof typeof rows

/** The codes in wire order, each with its number and its sentence. */
export const muxCodes: Readonly<Record<MuxCode, { readonly wire: number; readonly says: string }>> =
  rows

/** The tunnel protocol's error: a closed code, and which end is at fault. */
export class MuxError extends Error {
  override readonly name = 'MuxError'
  readonly code: MuxCode
  readonly fault: Fault
  /** What was found, for the log: lengths, ids, types. Never payload. */
  readonly detail: string

  constructor(code: MuxCode, fault: Fault, detail = '', options?: ErrorOptions) {
    super(detail === '' ? rows[code].says : `${rows[code].says} (${detail})`, options)
    this.code = code
    this.fault = fault
    this.detail = detail
  }
}

const byNumber = new Map<number, MuxCode>(
  (Object.keys(rows) as MuxCode[]).map((code) => [rows[code].wire, code]),
)

/** The code for a number read from GOAWAY; undefined for 0 and for numbers of later versions. */
export function muxCodeOf(wire: number): MuxCode | undefined {
  return byNumber.get(wire)
}
