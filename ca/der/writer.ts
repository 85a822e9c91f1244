/** Values to DER (X.690). Every function gives a complete tag-length-value. */
import { DerError, TAG } from './reader.ts'
import { encodeAscii, encodeUtf8 } from './text.ts'

/** Tag, shortest definite length, the parts one after another. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = lengthOf(parts)
  const pen = new Pen(sized(length))
  pen.head(tag, length)
  for (const part of parts) pen.put(part)
  return pen.bytes
}

/** The parts one after another, under no tag. */
export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const pen = new Pen(lengthOf(parts))
  for (const part of parts) pen.put(part)
  return pen.bytes
}

export function lengthOf(parts: readonly Uint8Array[]): number {
  let length = 0
  for (const part of parts) length += part.length
  return length
}

/** The octets a value of this length takes with its tag and length. */
export function sized(length: number): number {
  return headLength(length) + length
}

/** How many octets tag and length take before a value this long. */
function headLength(length: number): number {
  if (length < 0x80) return 2
  let octets = 3
  // No array of ours is longer than 32 bits can say.
  for (let rest = length >>> 8; rest > 0; rest >>>= 8) octets++
  return octets
}

const SHORT = 128

/** One buffer whose length is known before the first octet, written from the front. */
export class Pen {
  readonly bytes: Uint8Array
  #at = 0
  constructor(length: number) {
    this.bytes = new Uint8Array(length)
  }
  /** Tag and shortest definite length of a value this long. */
  head(tag: number, length: number): void {
    this.bytes[this.#at++] = tag
    const octets = headLength(length) - 2
    if (octets === 0) {
      this.bytes[this.#at++] = length
      return
    }
    this.bytes[this.#at++] = 0x80 + octets
    for (let shift = (octets - 1) * 8; shift >= 0; shift -= 8)
      this.bytes[this.#at++] = (length >>> shift) & 0xff
  }
  put(part: Uint8Array): void {
    const { bytes } = this
    const length = part.length
    let at = this.#at
    this.#at = at + length
    // A call of `set` costs more than these few octets do.
    if (length > SHORT) bytes.set(part, at)
    else for (let i = 0; i < length; i++) bytes[at++] = part[i] ?? 0
  }
  /** ASCII. Throws DerError for any other text. */
  ascii(text: string): void {
    const { bytes } = this
    let at = this.#at
    this.#at = at + text.length
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i)
      if (code > 0x7f) throw new DerError('text is not ASCII')
      bytes[at++] = code
    }
  }
}

export function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(TAG.sequence, ...parts)
}

/** SET OF: X.690 11.6 sorts the encodings. */
export function setOf(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(TAG.set, ...(parts.length > 1 ? parts.toSorted(compareBytes) : parts))
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length)
  for (let i = 0; i < shared; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

/** A small non-negative INTEGER, below 128. */
export function smallInteger(value: number): Uint8Array {
  return Uint8Array.of(TAG.integer, 1, value & 0x7f)
}

const ZERO = Uint8Array.of(0)

/** A non-negative INTEGER from its big-endian magnitude. */
export function unsignedInteger(magnitude: Uint8Array): Uint8Array {
  let first = 0
  while (first < magnitude.length && magnitude[first] === 0) first++
  if (first === magnitude.length) return smallInteger(0)
  const rest = first === 0 ? magnitude : magnitude.subarray(first)
  return (rest[0] ?? 0) < 0x80 ? tlv(TAG.integer, rest) : tlv(TAG.integer, ZERO, rest)
}

export function boolean(value: boolean): Uint8Array {
  return Uint8Array.of(TAG.boolean, 1, value ? 0xff : 0)
}

export function octetString(...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(TAG.octetString, ...parts)
}

/** A BIT STRING of whole octets. */
export function bitString(octets: Uint8Array): Uint8Array {
  return tlv(TAG.bitString, ZERO, octets)
}

/** A named-bit BIT STRING (X.690 11.2.2: trailing zero bits removed), bits by number. */
export function namedBits(...bits: readonly number[]): Uint8Array {
  const last = Math.max(...bits)
  const octets = new Uint8Array(Math.floor(last / 8) + 1)
  for (const bit of bits) octets[bit >> 3] = (octets[bit >> 3] ?? 0) | (0x80 >> (bit & 7))
  return tlv(TAG.bitString, Uint8Array.of(7 - (last & 7)), octets)
}

export function utf8String(text: string): Uint8Array {
  return tlv(TAG.utf8, encodeUtf8(text))
}

/** Context-specific, constructed: explicit tagging, or an implicit SEQUENCE or SET. */
export function context(number: number, ...parts: readonly Uint8Array[]): Uint8Array {
  return tlv(0xa0 + number, ...parts)
}

/** Context-specific, primitive: an implicit OCTET STRING, IA5String or key identifier. */
export function contextPrimitive(number: number, value: Uint8Array): Uint8Array {
  return tlv(0x80 + number, value)
}

/** GeneralizedTime in whole seconds, whatever the year (RFC 6960 4.2.2.1 takes no other). */
export function generalizedTime(epochMs: number): Uint8Array {
  const digits = new Date(epochMs).toISOString().replace(/[-:T]/g, '').slice(0, 14)
  return tlv(TAG.generalizedTime, encodeAscii(`${digits}Z`))
}

/** Time, RFC 5280 4.1.2.5: UTCTime through 2049, GeneralizedTime after, whole seconds, Z. */
export function time(epochMs: number): Uint8Array {
  const date = new Date(epochMs)
  const digits = date.toISOString().replace(/[-:T]/g, '').slice(0, 14)
  const year = date.getUTCFullYear()
  return year >= 1950 && year < 2050
    ? tlv(TAG.utcTime, encodeAscii(`${digits.slice(2)}Z`))
    : tlv(TAG.generalizedTime, encodeAscii(`${digits}Z`))
}
