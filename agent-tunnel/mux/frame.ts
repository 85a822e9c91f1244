/** Bytes <-> Frame, and every constant of the wire. docs/protocol.md sections 3 and 4. */
import { MuxError } from './errors.ts'
import type { Role, StreamKind, WireLimits } from './limits.ts'
import { fromUtf8, isCode, utf8 } from './text.ts'

/** The one version spoken here; HELLO carries a range. */
export const VERSION = 1
export const HEADER = 8
export const MAX_METADATA = 4096
export const MAX_MESSAGE = 4096
export const MAX_SIGNAL = 4096
/** The most a UDP datagram over IPv4 can hold. */
export const MAX_DATAGRAM = 65_507
export const MAX_ID = 0x7fff_ffff
export const MAX_CREDIT = 0x7fff_ffff
export const MAX_ALTERNATIVES = 8
const MAX_CODE = 64
const KiB16 = 16_384

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

export interface Hello {
  readonly type: 'hello'
  readonly minVersion: number
  readonly maxVersion: number
  readonly role: Role
  readonly limits: WireLimits
  /** Bits without a meaning yet; sent 0, ignored when received. */
  readonly features: number
  readonly epoch: number
  readonly instance: string
  /** What a later version added behind; kept, not understood. */
  readonly rest: Uint8Array
}
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
const roles: readonly Role[] = ['agent', 'client', 'gateway']

/** The number of a kind on the wire. */
export function kindNumber(kind: StreamKind): number {
  return kinds.indexOf(kind) + 1
}

/** Writes the eight octets of a header. */
export function putHeader(
  to: Uint8Array,
  at: number,
  type: number,
  length: number,
  stream: number,
): void {
  to[at] = type
  to[at + 1] = length >>> 16
  to[at + 2] = length >>> 8
  to[at + 3] = length
  putU32(to, at + 4, stream)
}

function putU32(to: Uint8Array, at: number, value: number): void {
  to[at] = value >>> 24
  to[at + 1] = value >>> 16
  to[at + 2] = value >>> 8
  to[at + 3] = value
}

export function getU32(from: Uint8Array, at: number): number {
  return (
    (((from[at] ?? 0) << 24) |
      ((from[at + 1] ?? 0) << 16) |
      ((from[at + 2] ?? 0) << 8) |
      (from[at + 3] ?? 0)) >>>
    0
  )
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

function writeHello(w: Writer, hello: Hello): void {
  w.u16(hello.minVersion)
  w.u16(hello.maxVersion)
  w.u8(roles.indexOf(hello.role) + 1)
  w.u32(hello.limits.maxStreams)
  w.u32(hello.limits.initialWindow)
  w.u32(hello.limits.maxFrame)
  w.u32(hello.limits.maxWindow)
  w.u32(hello.features)
  w.u64(BigInt(hello.epoch))
  w.short(hello.instance)
  w.bytes(hello.rest)
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

function readHello(payload: Uint8Array): Hello {
  try {
    return checkedHello(new Reader(payload))
  } catch (error) {
    if (error instanceof MuxError && !error.code.startsWith('hello.')) {
      throw new MuxError('hello.malformed', 'remote', error.detail, { cause: error })
    }
    throw error
  }
}

function checkedHello(r: Reader): Hello {
  const minVersion = r.u16()
  const maxVersion = r.u16()
  // The range comes first: what follows is only certain to be readable if it holds our version.
  if (minVersion > VERSION || maxVersion < VERSION) {
    throw new MuxError('hello.version', 'remote', `${minVersion} to ${maxVersion}`)
  }
  const number = r.u8()
  const role = roles[number - 1]
  if (role === undefined) throw new MuxError('hello.role', 'remote', `role ${number}`)
  const limits = {
    maxStreams: r.u32(),
    initialWindow: r.u32(),
    maxFrame: r.u32(),
    maxWindow: r.u32(),
  }
  const wrong = limitOutOfRange(limits)
  if (wrong !== undefined) throw new MuxError('hello.limits', 'remote', wrong)
  const features = r.u32()
  const epoch = r.u64()
  if (epoch > BigInt(Number.MAX_SAFE_INTEGER))
    throw new MuxError('hello.malformed', 'remote', 'epoch')
  const instance = fromUtf8(r.short())
  if (instance === '' || utf8(instance).length > 64) {
    throw new MuxError('hello.malformed', 'remote', 'instance')
  }
  const rest = r.rest()
  return {
    type: 'hello',
    minVersion,
    maxVersion,
    role,
    limits,
    features,
    epoch: Number(epoch),
    instance,
    rest,
  }
}

/** Which of the limits is outside what HELLO may say, with its value; undefined if none is. */
export function limitOutOfRange(limits: WireLimits): string | undefined {
  const ranges: readonly [keyof WireLimits, number, number][] = [
    ['maxStreams', 1, 1_048_576],
    ['maxFrame', KiB16, 0xff_ffff],
    ['maxWindow', KiB16, MAX_CREDIT],
    ['initialWindow', KiB16, limits.maxWindow],
  ]
  for (const [name, least, most] of ranges) {
    const value = limits[name]
    if (!Number.isInteger(value) || value < least || value > most) return `${name} ${value}`
  }
  return undefined
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

class Reader {
  readonly #from: Uint8Array
  #at = 0
  constructor(from: Uint8Array) {
    this.#from = from
  }
  #take(length: number): number {
    const at = this.#at
    this.#at += length
    if (this.#at > this.#from.length) throw new MuxError('frame.short', 'remote')
    return at
  }
  u8(): number {
    return this.#from[this.#take(1)] ?? 0
  }
  u16(): number {
    return (this.u8() << 8) | this.u8()
  }
  u32(): number {
    return getU32(this.#from, this.#take(4))
  }
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32())
  }
  short(): Uint8Array {
    const length = this.u8()
    const at = this.#take(length)
    return this.#from.subarray(at, at + length)
  }
  code(): string {
    const bytes = this.short()
    const code = bytes.length <= MAX_CODE ? fromUtf8(bytes) : ''
    if (!isCode(code)) throw new MuxError('frame.malformed', 'remote', 'code')
    return code
  }
  message(): string {
    const bytes = this.rest()
    if (bytes.length > MAX_MESSAGE) throw new MuxError('frame.malformed', 'remote', 'message')
    return fromUtf8(bytes)
  }
  rest(): Uint8Array {
    const at = this.#at
    this.#at = this.#from.length
    return this.#from.subarray(at)
  }
}

class Writer {
  #to = new Uint8Array(128)
  #at = HEADER
  #room(length: number): number {
    const at = this.#at
    this.#at += length
    if (this.#at > this.#to.length) {
      const larger = new Uint8Array(Math.max(this.#at, this.#to.length * 2))
      larger.set(this.#to)
      this.#to = larger
    }
    return at
  }
  u8(value: number): void {
    const at = this.#room(1)
    this.#to[at] = value
  }
  u16(value: number): void {
    this.u8(value >>> 8)
    this.u8(value)
  }
  u32(value: number): void {
    const at = this.#room(4)
    putU32(this.#to, at, value)
  }
  u64(value: bigint): void {
    this.u32(Number(value >> 32n))
    this.u32(Number(value & 0xffff_ffffn))
  }
  bytes(value: Uint8Array): void {
    const at = this.#room(value.length)
    this.#to.set(value, at)
  }
  short(text: string): void {
    const bytes = utf8(text)
    this.u8(bytes.length)
    this.bytes(bytes)
  }
  frame(type: number, stream: number): Uint8Array {
    putHeader(this.#to, 0, type, this.#at - HEADER, stream)
    return this.#to.subarray(0, this.#at)
  }
}
