/** Bytes <-> Frame, and the types, sizes and ids of the wire. docs/protocol.md sections 3 and 4. */
import { MuxError } from './errors.ts'
import { readHello, writeHello } from './hello.ts'
import type { Hello } from './hello.ts'
import type { StreamKind } from './limits.ts'
import { MAX_CODE, MAX_MESSAGE, Reader, Writer } from './octets.ts'
import { fromUtf8, utf8 } from './text.ts'

export const MAX_METADATA = 4096
export const MAX_SIGNAL = 4096
/** The most a UDP datagram over IPv4 can hold. */
export const MAX_DATAGRAM = 65_507
export const MAX_ID = 0x7fff_ffff
export const MAX_ALTERNATIVES = 8

/** Frame types; from 0x80 on they are extensions and skipped when unknown. */
export const TYPE = {
  hello: 0x01,
  open: 0x02,
  accept: 0x03,
  refuse: 0x04,
  data: 0x05,
  datagram: 0x06,
  window: 0x07,
  fin: 0x08,
  reset: 0x09,
  signal: 0x0a,
  ping: 0x0b,
  pong: 0x0c,
  goaway: 0x0d,
} as const
export const EXTENSION = 0x80
export const MAX_EXTENSION = 65_536

/** What a type's payload may measure, and whether it belongs to a stream. DATA ends at `maxFrame`. */
export interface Shape {
  readonly name: keyof typeof TYPE
  readonly least: number
  readonly most: number
  readonly onStream: boolean
}
const named = 1 + MAX_CODE + MAX_MESSAGE
/** One row per type, at the type's number. */
export const shapes: readonly (Shape | undefined)[] = [
  undefined,
  { name: 'hello', least: 4, most: 1024, onStream: false },
  { name: 'open', least: 1, most: 1 + MAX_METADATA, onStream: true },
  { name: 'accept', least: 0, most: MAX_METADATA, onStream: true },
  { name: 'refuse', least: 2, most: named, onStream: true },
  { name: 'data', least: 0, most: 0xff_ffff, onStream: true },
  { name: 'datagram', least: 0, most: MAX_DATAGRAM, onStream: true },
  { name: 'window', least: 4, most: 4, onStream: true },
  { name: 'fin', least: 0, most: 0, onStream: true },
  { name: 'reset', least: 2, most: named, onStream: true },
  { name: 'signal', least: 0, most: MAX_SIGNAL, onStream: true },
  { name: 'ping', least: 8, most: 8, onStream: false },
  { name: 'pong', least: 8, most: 8, onStream: false },
  { name: 'goaway', least: 13, most: 8192, onStream: false },
]

export interface Named {
  readonly code: string
  readonly message: string
}
/** The frames whose payload has a structure, or is small and comes whole. */
export type Frame =
  | Hello
  | {
      readonly type: 'open'
      readonly stream: number
      readonly kind: number
      readonly metadata: Uint8Array
    }
  | { readonly type: 'accept'; readonly stream: number; readonly metadata: Uint8Array }
  | ({ readonly type: 'refuse' | 'reset'; readonly stream: number } & Named)
  | {
      readonly type: 'data' | 'datagram' | 'signal'
      readonly stream: number
      readonly payload: Uint8Array
    }
  | { readonly type: 'window'; readonly stream: number; readonly credit: number }
  | { readonly type: 'fin'; readonly stream: number }
  | { readonly type: 'ping' | 'pong'; readonly token: bigint }
  | GoawayFrame
export interface GoawayFrame extends Named {
  readonly type: 'goaway'
  /** Highest stream id of the receiver that the sender has looked at. */
  readonly lastId: number
  readonly retryAfterMs: number
  /** Number of a protocol error, 0 for none. */
  readonly error: number
  readonly alternatives: readonly string[]
}

export const kinds: readonly StreamKind[] = ['tcp', 'udp', 'spawn', 'relay', 'control']

/** The number of a kind on the wire. */
export function kindNumber(kind: StreamKind): number {
  return kinds.indexOf(kind) + 1
}

/** One frame's bytes. What is given is trusted to be within the limits; `encode(parse(x))` is `x`. */
export function encode(frame: Frame): Uint8Array {
  const w = new Writer()
  const stream = 'stream' in frame ? frame.stream : 0
  switch (frame.type) {
    case 'hello':
      writeHello(w, frame)
      break
    case 'open':
      w.u8(frame.kind)
      w.bytes(frame.metadata)
      break
    case 'accept':
      w.bytes(frame.metadata)
      break
    case 'refuse':
    case 'reset':
      w.short(frame.code)
      w.bytes(utf8(frame.message))
      break
    case 'data':
    case 'datagram':
    case 'signal':
      w.bytes(frame.payload)
      break
    case 'window':
      w.u32(frame.credit)
      break
    case 'fin':
      break
    case 'ping':
    case 'pong':
      w.u64(frame.token)
      break
    case 'goaway':
      writeGoaway(w, frame)
  }
  return w.frame(TYPE[frame.type], stream)
}

function writeGoaway(w: Writer, frame: GoawayFrame): void {
  w.u32(frame.lastId)
  w.u32(frame.retryAfterMs)
  w.u16(frame.error)
  w.short(frame.code)
  w.u8(frame.alternatives.length)
  for (const alternative of frame.alternatives) w.short(alternative)
  w.bytes(utf8(frame.message))
}

/**
 * Reads a payload whose length the decoder has held against `shapes`. Throws MuxError: hello.*,
 * `frame.malformed`, `frame.short`. Byte fields are views into `payload`.
 */
export function parse(type: number, stream: number, payload: Uint8Array): Frame {
  const r = new Reader(payload)
  switch (type) {
    case TYPE.hello:
      return readHello(payload)
    case TYPE.open:
      return { type: 'open', stream, kind: r.u8(), metadata: r.rest() }
    case TYPE.accept:
      return { type: 'accept', stream, metadata: payload }
    case TYPE.refuse:
      return { type: 'refuse', stream, code: r.code(), message: r.message() }
    case TYPE.reset:
      return { type: 'reset', stream, code: r.code(), message: r.message() }
    case TYPE.data:
      return { type: 'data', stream, payload }
    case TYPE.datagram:
      return { type: 'datagram', stream, payload }
    case TYPE.signal:
      return { type: 'signal', stream, payload }
    case TYPE.window:
      return { type: 'window', stream, credit: r.u32() }
    case TYPE.fin:
      return { type: 'fin', stream }
    case TYPE.ping:
      return { type: 'ping', token: r.u64() }
    case TYPE.pong:
      return { type: 'pong', token: r.u64() }
    case TYPE.goaway:
      return readGoaway(r)
    default:
      throw new MuxError('frame.type', 'remote', `type ${type}`)
  }
}

function readGoaway(r: Reader): GoawayFrame {
  const lastId = r.u32()
  const retryAfterMs = r.u32()
  const error = r.u16()
  const code = r.code()
  const count = r.u8()
  if (lastId > MAX_ID || count > MAX_ALTERNATIVES) {
    throw new MuxError('frame.malformed', 'remote', 'GOAWAY')
  }
  const alternatives: string[] = []
  for (let at = 0; at < count; at++) alternatives.push(fromUtf8(r.short()))
  return { type: 'goaway', lastId, retryAfterMs, error, code, alternatives, message: r.message() }
}
