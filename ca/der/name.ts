/** Names (RFC 5280 4.1.2.4, 4.2.1.6): read, written, and compared as section 7.1 says. */
import { oid, OID, oidOf } from './oid.ts'
import { childrenOf, DerError, readDer, sameBytes, TAG, type DerNode } from './reader.ts'
import { encodeAscii, encodeUtf8, ia5Text, isPrintable, textOf } from './text.ts'
import { contextPrimitive, Pen, sequence, sized } from './writer.ts'

export interface Attribute {
  readonly oid: string
  readonly text: string
  /** Of its string type. */
  readonly tag: number
}
/** One relative distinguished name: usually a single attribute. */
export type Rdn = readonly Attribute[]

/** Reads a Name (DER). Throws DerError. */
export function readName(der: Uint8Array): readonly Rdn[] {
  return rdnsOf(readDer(der))
}

/** The same for a node that was read as part of something. Throws DerError. */
export function rdnsOf(name: DerNode | undefined): readonly Rdn[] {
  return childrenOf(name, TAG.sequence, 'Name').map((rdn) => {
    const attributes = childrenOf(rdn, TAG.set, 'RelativeDistinguishedName').map(attribute)
    if (attributes.length === 0) throw new DerError('a RelativeDistinguishedName is empty')
    return attributes
  })
}

function attribute(node: DerNode): Attribute {
  const parts = childrenOf(node, TAG.sequence, 'AttributeTypeAndValue')
  const [type, value] = [parts[0], parts[1]]
  if (value === undefined || parts.length > 2) throw new DerError('an attribute has other parts')
  const text = textOf(value)
  // RFC 5280 4.1.2.4: DirectoryString and its kin; openssl, too, reads nothing else here.
  if (text === undefined) throw new DerError('an attribute value is no text')
  return { oid: oidOf(type, 'the attribute type'), text, tag: value.tag }
}

/** RFC 5280 7.1 by way of RFC 4518: string types and case do not matter, inner spaces count once. */
export function sameName(a: Uint8Array, b: Uint8Array): boolean {
  if (sameBytes(a, b)) return true
  const [left, right] = [readName(a), readName(b)]
  return left.length === right.length && left.every((rdn, at) => sameRdn(rdn, right[at] ?? []))
}

function sameRdn(a: Rdn, b: Rdn): boolean {
  const left = a.map(comparable).toSorted()
  const right = b.map(comparable).toSorted()
  return left.length === right.length && left.every((each, at) => each === right[at])
}

function comparable({ oid: type, text }: Attribute): string {
  return `${type}=${text.normalize('NFKC').toLowerCase().trim().replace(/\s+/g, ' ')}`
}

/** An attribute to write; `printable` is for the types that RFC 5280 A.1 restricts. */
export interface NameValue {
  readonly type: 'commonName' | 'organization' | 'serialNumber'
  readonly text: string
}

/** A Name of single-attribute RDNs, in order. Throws DerError for a serialNumber PrintableString cannot hold. */
export function writeName(values: readonly NameValue[]): Uint8Array {
  return sequence(...values.map(rdnFor))
}

function rdnFor({ type, text }: NameValue): Uint8Array {
  const tag = type === 'serialNumber' ? TAG.printable : TAG.utf8
  if (tag === TAG.printable && !isPrintable(text))
    throw new DerError('serialNumber is a PrintableString')
  const [identifier, octets] = [oid(OID[type]), encodeUtf8(text)]
  const length = identifier.length + sized(octets.length)
  const pen = new Pen(sized(sized(length)))
  pen.head(TAG.set, sized(length))
  pen.head(TAG.sequence, length)
  pen.put(identifier)
  pen.head(tag, octets.length)
  pen.put(octets)
  return pen.bytes
}

/** A GeneralName to write. IP: 4 or 16 octets. */
export type GeneralName =
  | { readonly kind: 'uri' | 'dns'; readonly text: string }
  | { readonly kind: 'ip'; readonly octets: Uint8Array }

/** GeneralNames (the value of a SAN), in order. Throws DerError for text that is not ASCII. */
export function writeGeneralNames(names: readonly GeneralName[]): Uint8Array {
  return sequence(...names.map(generalName))
}

function generalName(name: GeneralName): Uint8Array {
  if (name.kind === 'ip') return contextPrimitive(7, name.octets)
  return contextPrimitive(name.kind === 'dns' ? 2 : 6, encodeAscii(name.text))
}

/** Each GeneralName of a SAN value, DER. Throws DerError. */
export function readGeneralNames(value: Uint8Array): readonly DerNode[] {
  const names = childrenOf(readDer(value), TAG.sequence, 'GeneralNames')
  if (names.length === 0) throw new DerError('GeneralNames is empty')
  for (const name of names)
    if (name.tag < 0x80 || name.tag > 0xa8) throw new DerError('a GeneralName of no known kind')
  return names
}

/** The text of a uniformResourceIdentifier; undefined for every other kind. Throws DerError. */
export function uriOf(name: DerNode): string | undefined {
  if (name.tag !== 0x86) return undefined
  return ia5Text(name.value)
}

/** Whether two SAN values hold the same names, in any order. Throws DerError. */
export function sameGeneralNames(a: Uint8Array, b: Uint8Array): boolean {
  const key = (value: Uint8Array) =>
    readGeneralNames(value)
      .map((name) => name.bytes.toHex())
      .toSorted()
  const [left, right] = [key(a), key(b)]
  return left.length === right.length && left.every((each, at) => each === right[at])
}
