/** DER (X.690) to a tree, strictly and within limits; knows no certificate. */

export interface Limits {
  readonly depth: number
  readonly nodes: number
}
/** Enough for any PKCS#10 a device sends; a tree beyond it is an attack or a mistake. */
export const REQUEST_LIMITS: Limits = { depth: 16, nodes: 512 }
/** Certificates of foreign makers carry more. */
export const CERTIFICATE_LIMITS: Limits = { depth: 24, nodes: 2_048 }

export interface DerNode {
  /** The identifier octet: class, constructed bit and number (below 31). */
  readonly tag: number
  /** Tag, length and value as they came. */
  readonly bytes: Uint8Array
  readonly value: Uint8Array
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

/**
 * Reads one DER value that fills `bytes`: definite, minimal lengths, one-byte tags, canonical
 * BOOLEAN, INTEGER, NULL, BIT STRING and OID contents, nothing after the end.
 * Throws DerError with the offset of the first fault.
 */
export function readDer(bytes: Uint8Array, limits: Limits = REQUEST_LIMITS): DerNode {
  const reader = { bytes, limits, left: limits.nodes }
  const node = readNode(reader, 0, bytes.length, 1)
  if (node.bytes.length !== bytes.length)
    throw new DerError('bytes after the value', node.bytes.length)
  return node
}

interface Reader {
  readonly bytes: Uint8Array
  readonly limits: Limits
  left: number
}

function readNode(reader: Reader, start: number, end: number, depth: number): DerNode {
  if (depth > reader.limits.depth) throw new DerError('nested too deeply', start)
  if (--reader.left < 0) throw new DerError('too many values', start)
  const { bytes } = reader
  const tag = bytes[start]
  if (tag === undefined || start >= end) throw new DerError('a value is missing', start)
  if ((tag & 0x1f) === 0x1f || tag === 0) throw new DerError('a tag out of range', start)
  const { valueStart, valueEnd } = readLength(bytes, start + 1, end)
  const value = bytes.subarray(valueStart, valueEnd)
  const children =
    (tag & CONSTRUCTED) === 0 ? [] : readChildren(reader, valueStart, valueEnd, depth)
  checkContents(tag, value, start)
  return { tag, bytes: bytes.subarray(start, valueEnd), value, children }
}

function readChildren(reader: Reader, start: number, end: number, depth: number): DerNode[] {
  const children: DerNode[] = []
  for (let at = start; at < end;) {
    const child = readNode(reader, at, end, depth + 1)
    children.push(child)
    at += child.bytes.length
  }
  return children
}

function readLength(bytes: Uint8Array, at: number, end: number) {
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
  return { valueStart, valueEnd: valueStart + length }
}

type Check = (value: Uint8Array) => boolean
const primitive: Readonly<Record<number, Check>> = {
  [TAG.boolean]: (v) => v.length === 1 && (v[0] === 0 || v[0] === 0xff),
  [TAG.integer]: minimalInteger,
  [TAG.enumerated]: minimalInteger,
  [TAG.bitString]: canonicalBits,
  [TAG.null]: (v) => v.length === 0,
  [TAG.oid]: wellFormedOid,
}

function checkContents(tag: number, value: Uint8Array, start: number): void {
  if (tag >= 0x40) return
  const constructed = (tag & CONSTRUCTED) !== 0
  const collection = tag === TAG.sequence || tag === TAG.set
  // X.690 8.9, 8.11, 10.2: of the universal types only SEQUENCE and SET are constructed in DER.
  if (constructed !== collection || tag === 0x10 || tag === 0x11)
    throw new DerError('a form DER does not have', start)
  const check = primitive[tag]
  if (check !== undefined && !check(value)) throw new DerError('a value is not canonical', start)
}

function minimalInteger(value: Uint8Array): boolean {
  const [first, second] = value
  if (first === undefined) return false
  if (second === undefined) return true
  return !(first === 0 && second < 0x80) && !(first === 0xff && second >= 0x80)
}

function canonicalBits(value: Uint8Array): boolean {
  const unused = value[0]
  if (unused === undefined || unused > 7) return false
  if (value.length === 1) return unused === 0
  const last = value.at(-1) ?? 0
  return (last & ((1 << unused) - 1)) === 0
}

function wellFormedOid(value: Uint8Array): boolean {
  if (value.length === 0 || (value.at(-1) ?? 0x80) >= 0x80) return false
  let atStart = true
  for (const byte of value) {
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
export function expect(node: DerNode | undefined, tag: number, what: string): DerNode {
  if (node === undefined) throw new DerError(`${what} is missing`)
  if (node.tag !== tag) throw new DerError(`${what} is of another type`)
  return node
}

/** The octets of a BIT STRING that fills whole octets, as keys and signatures do. */
export function wholeBits(node: DerNode | undefined, what: string): Uint8Array {
  const { value } = expect(node, TAG.bitString, what)
  if (value[0] !== 0) throw new DerError(`${what} does not fill whole octets`)
  return value.subarray(1)
}

/** Whether two byte strings are the same. Not for secrets. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
