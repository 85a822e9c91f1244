/** A certificate's parts as they were encoded (RFC 5280 4.1); judges structure, not meaning. */
import { Cursor } from './cursor.ts'
import { OID, oidOf } from './oid.ts'
import {
  CERTIFICATE_LIMITS,
  childrenOf,
  DerError,
  expect,
  readDer,
  sameBytes,
  TAG,
  wholeBits,
  type DerNode,
} from './reader.ts'

export interface Extension {
  readonly oid: string
  readonly critical: boolean
  /** What the OCTET STRING holds. */
  readonly value: Uint8Array
}
export interface ToBeSigned {
  readonly bytes: Uint8Array
  /** Lower-case hex of the INTEGER's contents. */
  readonly serial: string
  /** AlgorithmIdentifier, DER. */
  readonly algorithm: Uint8Array
  /** Name, DER. */
  readonly issuer: Uint8Array
  /** Name, DER. */
  readonly subject: Uint8Array
  /** Epoch ms. */
  readonly notBefore: number
  readonly notAfter: number
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array
  readonly extensions: readonly Extension[]
}
export interface ParsedCertificate extends ToBeSigned {
  /** The whole certificate. `bytes` is the TBS. */
  readonly der: Uint8Array
  readonly signature: Uint8Array
}

/** Reads a version 3 certificate. Throws DerError. */
export function readCertificate(der: Uint8Array): ParsedCertificate {
  const parts = childrenOf(readDer(der, CERTIFICATE_LIMITS), TAG.sequence, 'Certificate')
  if (parts.length !== 3) throw new DerError('Certificate has other parts')
  const tbs = toBeSigned(parts[0])
  const algorithm = expect(parts[1], TAG.sequence, 'signatureAlgorithm')
  if (!sameBytes(algorithm.bytes, tbs.algorithm))
    throw new DerError('the two signature algorithms differ')
  return { ...tbs, der, signature: wholeBits(parts[2], 'signature') }
}

/** Reads a TBSCertificate by itself. Throws DerError. */
export function readTbs(der: Uint8Array): ToBeSigned {
  return toBeSigned(readDer(der, CERTIFICATE_LIMITS))
}

function toBeSigned(node: DerNode | undefined): ToBeSigned {
  const all = childrenOf(node, TAG.sequence, 'TBSCertificate')
  const [version, serial, algorithm, issuer, validity, subject, spki, ...rest] = all
  const [number] = childrenOf(version, 0xa0, 'version')
  if (!sameBytes(expect(number, TAG.integer, 'version').value, Uint8Array.of(2)))
    throw new DerError('not version 3')
  const [notBefore, notAfter, more] = childrenOf(validity, TAG.sequence, 'validity')
  if (more !== undefined) throw new DerError('validity has other parts')
  return {
    bytes: expect(node, TAG.sequence, 'TBSCertificate').bytes,
    serial: expect(serial, TAG.integer, 'serialNumber').value.toHex(),
    algorithm: expect(algorithm, TAG.sequence, 'signature').bytes,
    issuer: expect(issuer, TAG.sequence, 'issuer').bytes,
    subject: expect(subject, TAG.sequence, 'subject').bytes,
    notBefore: readTime(notBefore),
    notAfter: readTime(notAfter),
    spki: expect(spki, TAG.sequence, 'subjectPublicKeyInfo').bytes,
    extensions: readTail(rest),
  }
}

function readTail(rest: readonly DerNode[]): readonly Extension[] {
  // RFC 5280 4.1.2.8 allows unique identifiers; no CA has written them for decades.
  const [tail, more] = rest
  if (tail === undefined || more !== undefined) throw new DerError('TBSCertificate has other parts')
  return readExtensions(Cursor.within(expect(tail, 0xa3, 'extensions')))
}

/** Reads the Extensions that come next (also those asked for in a CSR). Throws DerError; a repeated identifier is one (RFC 5280 4.2). */
export function readExtensions(list: Cursor): readonly Extension[] {
  const inside = list.into(TAG.sequence, 'Extensions')
  const extensions: Extension[] = []
  while (inside.next()) {
    extensions.push(readExtension(expect(inside, TAG.sequence, 'Extension').inside()))
  }
  const several = extensions.length > 1
  if (several && new Set(extensions.map((each) => each.oid)).size !== extensions.length)
    throw new DerError('an extension is repeated')
  return extensions
}

function readExtension(parts: Cursor): Extension {
  const oid = oidOf(parts.step(TAG.oid, 'extnID'), 'extnID')
  const critical = parts.next() && parts.tag === TAG.boolean
  // X.690 11.5: DER leaves a default out, and critical defaults to false.
  if (critical && parts.source[parts.from] === 0)
    throw new DerError('critical FALSE is written out')
  if (critical) parts.next()
  const { value } = expect(parts, TAG.octetString, 'extnValue')
  parts.end('Extension')
  return { oid, critical, value }
}

const TIMES: Readonly<Record<number, RegExp>> = {
  [TAG.utcTime]: /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/,
  [TAG.generalizedTime]: /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/,
}

/** RFC 5280 4.1.2.5: whole seconds, Z, a date that exists. */
function readTime(node: DerNode | undefined): number {
  if (node === undefined) throw new DerError('a time is missing')
  const text = String.fromCharCode(...node.value.subarray(0, 16))
  const [, digits = '', ...rest] = TIMES[node.tag]?.exec(text) ?? []
  if (digits === '') throw new DerError('not a time')
  // 4.1.2.5.1: of two digits, those below 50 are this century.
  const century = digits.length === 4 ? '' : Number(digits) < 50 ? '20' : '19'
  const [month, day, hour, minute, second] = rest
  const iso = `${century}${digits}-${month}-${day}T${hour}:${minute}:${second}.000Z`
  const date = new Date(iso)
  // Dates such as 30 February parse as another day.
  if (Number.isNaN(date.getTime()) || date.toISOString() !== iso) throw new DerError('no such date')
  return date.getTime()
}

/** One extension by identifier. */
export function findExtension(
  extensions: readonly Extension[],
  name: keyof typeof OID,
): Extension | undefined {
  return extensions.find((extension) => extension.oid === OID[name])
}
