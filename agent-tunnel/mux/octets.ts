/** Numbers, codes and texts <-> octets, and the header of a frame. docs/protocol.md sections 3 and 4. */
import { MuxError } from './errors.ts'
import { fromUtf8, isCode, utf8 } from './text.ts'

export const HEADER = 8
export const MAX_CODE = 64
export const MAX_MESSAGE = 4096

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
  putU32(to, at + STREAM_AT, stream)
}

/** Where the stream's id is in a header. */
export const STREAM_AT = 4

export function putU32(to: Uint8Array, at: number, value: number): void {
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

/** What a payload holds, from its start; `frame.short` and `frame.malformed` where it does not. */
export class Reader {
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

/** A frame as it is made, payload first. */
export class Writer {
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
