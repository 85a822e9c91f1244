/** DER (X.690) to a tree, strictly and within limits; knows no certificate. */

export interface Limits {
  readonly depth: number
  readonly nodes: number
}
/** Enough for any PKCS#10 a device sends; a tree beyond it is an attack or a mistake. */
export const REQUEST_LIMITS: Limits = { depth: 16, nodes: 512 }
/** Certificates of foreign makers carry more. */
export const CERTIFICATE_LIMITS: Limits = { depth: 24, nodes: 2_048 }

/** A value where it stands in what it was read from. */
export interface DerPart {
  /** The identifier octet: class, constructed bit and number (below 31). */
  readonly tag: number
  /** What it was read from; its contents are the octets `from` to `to` of it. Cutting them out (`value`) costs more than most readings. */
  readonly source: Uint8Array
  readonly from: number
  readonly to: number
  /** Tag, length and value as they came. */
  readonly bytes: Uint8Array
  readonly value: Uint8Array
}
export interface DerNode extends DerPart {
  /** Of a constructed value; empty for a primitive one. */
  readonly children: readonly DerNode[]
}

export class DerError extends Error {
  override readonly name = 'DerError'
  /** Where in the input, in bytes; null when the structure, not an octet, is wrong. */
  readonly offset: number | null
  constructor(message: string, offset: number | null = null) {
    super(offset === null ? message : `${message} at byte ${offset}`)
    this.offset = offset
  }
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8: 0x0c,
  numeric: 0x12,
  printable: 0x13,
  teletex: 0x14,
  ia5: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  universal: 0x1c,
  bmp: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const

const CONSTRUCTED = 0x20
const NONE: readonly DerNode[] = []

/**
 * Reads one DER value that fills `bytes`: definite, minimal lengths, one-byte tags, canonical
 * BOOLEAN, INTEGER, NULL, BIT STRING and OID contents, nothing after the end. All of it is checked
 * here, once; a node cuts its parts out of `bytes` when it is asked for them, so `bytes` must not change.
 * Throws DerError with the offset of the first fault.
 */
export function readDer(bytes: Uint8Array, limits: Limits = REQUEST_LIMITS): DerNode {
  checkDer(bytes, limits)
  return new CheckedNode(bytes, 0)
}

/** All that `readDer` checks, without a tree of it. Throws DerError. */
export function checkDer(bytes: Uint8Array, limits: Limits = REQUEST_LIMITS): void {
  const walk = { bytes, depth: limits.depth, left: limits.nodes, valueStart: 0 }
  const end = check(walk, 0, bytes.length, 1)
  if (end !== bytes.length) throw new DerError('bytes after the value', end)
}

/** A value somewhere in bytes that `check` has passed. */
class CheckedNode implements DerNode {
  readonly tag: number
  readonly source: Uint8Array
  readonly from: number
  readonly to: number
  readonly #start: number
  #children: readonly DerNode[] | undefined

  constructor(source: Uint8Array, start: number) {
    const first = source[start + 1] ?? 0
    let from = start + 2
    let length = first
    if (first >= 0x80) {
      length = 0
      for (let left = first & 0x7f; left > 0; left--) length = length * 256 + (source[from++] ?? 0)
    }
    this.tag = source[start] ?? 0
    this.source = source
    this.from = from
    this.to = from + length
    this.#start = start
  }
  get bytes(): Uint8Array {
    return this.source.subarray(this.#start, this.to)
  }
  get value(): Uint8Array {
    return this.source.subarray(this.from, this.to)
  }
  get children(): readonly DerNode[] {
    this.#children ??=
      (this.tag & CONSTRUCTED) === 0 || this.from === this.to ? NONE : this.#inside()
    return this.#children
  }
  #inside(): readonly DerNode[] {
    const first = new CheckedNode(this.source, this.from)
    if (first.to === this.to) return [first]
    const second = new CheckedNode(this.source, first.to)
    if (second.to === this.to) return [first, second]
    // Most values end here: an array that grows takes room for many more than these.
    const children: DerNode[] = [first, second]
    for (let at = second.to; at < this.to;) {
      const child = new CheckedNode(this.source, at)
      children.push(child)
      at = child.to
    }
    return children
  }
}

interface Walk {
  readonly bytes: Uint8Array
  readonly depth: number
  /** How many more values there may be. */
  left: number
  /** Where the contents of the value last entered start. */
  valueStart: number
}

/** Checks the value at `start`, which must end by `end`; gives where it does. */
function check(walk: Walk, start: number, end: number, depth: number): number {
  if (depth > walk.depth) throw new DerError('nested too deeply', start)
  if (--walk.left < 0) throw new DerError('too many values', start)
  const { bytes } = walk
  const tag = bytes[start]
  if (tag === undefined || start >= end) throw new DerError('a value is missing', start)
  if ((tag & 0x1f) === 0x1f || tag === 0) throw new DerError('a tag out of range', start)
  const valueEnd = enter(walk, start + 1, end)
  const { valueStart } = walk
  if ((tag & CONSTRUCTED) !== 0)
    for (let at = valueStart; at < valueEnd;) at = check(walk, at, valueEnd, depth + 1)
  if (tag < 0x40) checkContents(bytes, start, valueStart, valueEnd)
  return valueEnd
}

/** Reads the length at `at` and sets `valueStart`; gives where the value ends. */
function enter(walk: Walk, at: number, end: number): number {
  const { bytes } = walk
  const first = bytes[at]
  if (first === undefined || at >= end) throw new DerError('a length is missing', at)
  let valueStart = at + 1
  let length = first
  if (first >= 0x80) {
    const count = first - 0x80
    // X.690 10.1: definite form only, in as few octets as hold it. Four hold 4 GiB.
    if (count === 0 || count > 4) throw new DerError('a length form DER does not have', at)
    valueStart += count
    if (valueStart > end) throw new DerError('a length is cut short', at)
    length = 0
    for (let i = at + 1; i < valueStart; i++) length = length * 256 + (bytes[i] ?? 0)
    if (length < 0x80 || length < 256 ** (count - 1))
      throw new DerError('a length is not minimal', at)
  }
  if (valueStart + length > end) throw new DerError('a value is cut short', at)
  walk.valueStart = valueStart
  return valueStart + length
}

/** Of the universal types: the form, and contents of which DER allows one encoding only. */
function checkContents(bytes: Uint8Array, start: number, from: number, to: number): void {
  const tag = bytes[start] ?? 0
  const constructed = (tag & CONSTRUCTED) !== 0
  const collection = tag === TAG.sequence || tag === TAG.set
  // X.690 8.9, 8.11, 10.2: of the universal types only SEQUENCE and SET are constructed in DER.
  if (constructed !== collection || tag === 0x10 || tag === 0x11)
    throw new DerError('a form DER does not have', start)
  if (!isCanonical(tag, bytes, from, to)) throw new DerError('a value is not canonical', start)
}

function isCanonical(tag: number, bytes: Uint8Array, from: number, to: number): boolean {
  switch (tag) {
    case TAG.boolean:
      return to === from + 1 && (bytes[from] === 0 || bytes[from] === 0xff)
    case TAG.integer:
    case TAG.enumerated:
      return minimalInteger(bytes, from, to)
    case TAG.bitString:
      return canonicalBits(bytes, from, to)
    case TAG.null:
      return to === from
    case TAG.oid:
      return wellFormedOid(bytes, from, to)
    // X.690 8.23.6, 8.23.8: two octets a character, and four.
    case TAG.bmp:
      return (to - from) % 2 === 0
    case TAG.universal:
      return (to - from) % 4 === 0
    default:
      return true
  }
}

function minimalInteger(bytes: Uint8Array, from: number, to: number): boolean {
  if (to === from) return false
  if (to === from + 1) return true
  const first = bytes[from] ?? 0
  const second = bytes[from + 1] ?? 0
  return !(first === 0 && second < 0x80) && !(first === 0xff && second >= 0x80)
}

function canonicalBits(bytes: Uint8Array, from: number, to: number): boolean {
  const unused = bytes[from] ?? 0
  if (to === from || unused > 7) return false
  if (to === from + 1) return unused === 0
  return ((bytes[to - 1] ?? 0) & ((1 << unused) - 1)) === 0
}

function wellFormedOid(bytes: Uint8Array, from: number, to: number): boolean {
  if (to === from || (bytes[to - 1] ?? 0x80) >= 0x80) return false
  for (let at = from, atStart = true; at < to; at++) {
    const byte = bytes[at] ?? 0
    if (atStart && byte === 0x80) return false
    atStart = byte < 0x80
  }
  return true
}

/** The children of a node with this tag, or a DerError that names `what`. */
export function childrenOf(
  node: DerNode | undefined,
  tag: number,
  what: string,
): readonly DerNode[] {
  return expect(node, tag, what).children
}

/** The node if it has this tag, or a DerError that names `what`. */
export function expect<T extends DerPart>(node: T | undefined, tag: number, what: string): T {
  if (node === undefined) throw new DerError(`${what} is missing`)
  if (node.tag !== tag) throw new DerError(`${what} is of another type`)
  return node
}

/** The octets of a BIT STRING that fills whole octets, as keys and signatures do. */
export function wholeBits(node: DerPart | undefined, what: string): Uint8Array {
  const { source, from, to } = expect(node, TAG.bitString, what)
  if (source[from] !== 0) throw new DerError(`${what} does not fill whole octets`)
  return source.subarray(from + 1, to)
}

/** Whether two byte strings are the same. Not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
