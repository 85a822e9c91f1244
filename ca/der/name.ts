/** Names (RFC 5280 4.1.2.4, 4.2.1.6): read, written, and compared as section 7.1 says. */
import { Cursor } from './cursor.ts'
import { oid, OID, oidOf } from './oid.ts'
import { childrenOf, DerError, expect, readDer, sameBytes, TAG, type DerNode } from './reader.ts'
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
  return rdnsOf(Cursor.over(der).into(TAG.sequence, 'Name'))
}

/** The same of the inside of a Name. Throws DerError. */
export function rdnsOf(name: Cursor): readonly Rdn[] {
  const rdns: Rdn[] = []
  while (name.next()) rdns.push(attributesOf(expect(name, TAG.set, RDN).inside()))
  return rdns
}
const RDN = 'RelativeDistinguishedName'

function attributesOf(rdn: Cursor): Rdn {
  const attributes: Attribute[] = []
  while (rdn.next())
    attributes.push(attribute(expect(rdn, TAG.sequence, 'AttributeTypeAndValue').inside()))
  if (attributes.length === 0) throw new DerError('a RelativeDistinguishedName is empty')
  return attributes
}

function attribute(parts: Cursor): Attribute {
  const type = oidOf(parts.next() ? parts : undefined, 'the attribute type')
  if (!parts.next()) throw new DerError('an attribute has other parts')
  const text = textOf(parts)
  // RFC 5280 4.1.2.4: DirectoryString and its kin; openssl, too, reads nothing else here.
  if (text === undefined) throw new DerError('an attribute value is no text')
  parts.end('an attribute')
  return { oid: type, text, tag: parts.tag }
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

/** A Name whose only attribute is this common name, of ASCII. Throws DerError for any other text. */
export function writeCommonName(text: string): Uint8Array {
  const length = COMMON_NAME.length + sized(text.length)
  const pen = new Pen(sized(sized(sized(length))))
  pen.head(TAG.sequence, sized(sized(length)))
  pen.head(TAG.set, sized(length))
  pen.head(TAG.sequence, length)
  pen.put(COMMON_NAME)
  pen.head(TAG.utf8, text.length)
  pen.ascii(text)
  return pen.bytes
}
const COMMON_NAME = oid(OID.commonName)

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

/** GeneralNames of one uniformResourceIdentifier: these texts one after another. Throws DerError for what is not ASCII. */
export function writeUri(...parts: readonly string[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const pen = new Pen(sized(sized(length)))
  pen.head(TAG.sequence, sized(length))
  pen.head(URI, length)
  for (const part of parts) pen.ascii(part)
  return pen.bytes
}
const URI = 0x86

/** Checks that a SAN value is what `readGeneralNames` reads. Throws DerError. */
export function checkGeneralNames(value: Uint8Array): void {
  const names = Cursor.over(value).into(TAG.sequence, 'GeneralNames')
  if (names.empty) throw new DerError('GeneralNames is empty')
  while (names.next())
    if (names.tag < 0x80 || names.tag > 0xa8) throw new DerError('a GeneralName of no known kind')
}

/** Each GeneralName of a SAN value, DER. Throws DerError. */
export function readGeneralNames(value: Uint8Array): readonly DerNode[] {
  checkGeneralNames(value)
  return childrenOf(readDer(value), TAG.sequence, 'GeneralNames')
}

/** The text of a uniformResourceIdentifier; undefined for every other kind. Throws DerError. */
export function uriOf(name: DerNode): string | undefined {
  if (name.tag !== URI) return undefined
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
