/** Object identifiers: dotted text, their encoding, and the ones we name. */
import { DerError, expect, TAG, type DerPart } from './reader.ts'
import { tlv } from './writer.ts'

export const OID = {
  // keys and signatures (RFC 5480, 5758, 4055, 8410)
  ecPublicKey: '1.2.840.10045.2.1',
  p256: '1.2.840.10045.3.1.7',
  p384: '1.3.132.0.34',
  rsaEncryption: '1.2.840.113549.1.1.1',
  ed25519: '1.3.101.112',
  ecdsaSha256: '1.2.840.10045.4.3.2',
  ecdsaSha384: '1.2.840.10045.4.3.3',
  ecdsaSha512: '1.2.840.10045.4.3.4',
  rsaSha256: '1.2.840.113549.1.1.11',
  rsaSha384: '1.2.840.113549.1.1.12',
  rsaSha512: '1.2.840.113549.1.1.13',
  // names (RFC 5280 A.1)
  commonName: '2.5.4.3',
  serialNumber: '2.5.4.5',
  organization: '2.5.4.10',
  // extensions (RFC 5280 4.2)
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  crlDistributionPoints: '2.5.29.31',
  certificatePolicies: '2.5.29.32',
  authorityInfoAccess: '1.3.6.1.5.5.7.1.1',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  noRevAvail: '2.5.29.56',
  // CRLs (RFC 5280 5.2, 5.3)
  crlNumber: '2.5.29.20',
  reasonCode: '2.5.29.21',
  deltaCrlIndicator: '2.5.29.27',
  freshestCrl: '2.5.29.46',
  // OCSP (RFC 6960 4.2, 4.4) and the hashes that its certificate ids are made with
  ocspSigning: '1.3.6.1.5.5.7.3.9',
  ocspBasic: '1.3.6.1.5.5.7.48.1.1',
  ocspNonce: '1.3.6.1.5.5.7.48.1.2',
  ocspNoCheck: '1.3.6.1.5.5.7.48.1.5',
  sha1: '1.3.14.3.2.26',
  sha256: '2.16.840.1.101.3.4.2.1',
  sha384: '2.16.840.1.101.3.4.2.2',
  sha512: '2.16.840.1.101.3.4.2.3',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  cmcRa: '1.3.6.1.5.5.7.3.28',
  // requests (RFC 2985, 6402)
  challengePassword: '1.2.840.113549.1.9.7',
  extensionRequest: '1.2.840.113549.1.9.14',
  changeSubjectName: '1.3.6.1.5.5.7.7.36',
  // csrattrs (RFC 9908 3.4)
  requestTemplate: '1.2.840.113549.1.9.16.2.61',
  extensionTemplate: '1.2.840.113549.1.9.16.2.62',
  // CMS (RFC 5652)
  data: '1.2.840.113549.1.7.1',
  signedData: '1.2.840.113549.1.7.2',
} as const

/** Tag and length: no identifier with a name is longer than 127 octets. */
const HEAD = 2
const named: ReadonlySet<string> = new Set(Object.values(OID))
const encodings = new Map<string, Uint8Array>()

/** The encoding of a dotted identifier, not to be written to. Throws DerError if it is not one. */
export function oid(dotted: string): Uint8Array {
  const known = encodings.get(dotted)
  if (known !== undefined) return known
  const encoding = encode(dotted)
  // Only those with a name here: whatever else is asked for must not grow the table.
  if (named.has(dotted)) encodings.set(dotted, encoding)
  return encoding
}

function encode(dotted: string): Uint8Array {
  const [first, second, ...rest] = dotted.split('.').map(Number)
  if (first === undefined || second === undefined || first > 2 || !rest.every(Number.isSafeInteger))
    throw new DerError('not an object identifier')
  return tlv(TAG.oid, Uint8Array.from([first * 40 + second, ...rest].flatMap(base128)))
}

function base128(arc: number): number[] {
  const octets = [arc % 128]
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128))
    octets.unshift((rest % 128) + 128)
  return octets
}

/** The dotted form of an OBJECT IDENTIFIER node. Throws DerError for another type or an arc above 2^53. */
export function oidOf(node: DerPart | undefined, what: string): string {
  const found = expect(node, TAG.oid, what)
  return nameOf(found) ?? spell(found, what)
}

interface Named {
  readonly dotted: string
  readonly encoding: Uint8Array
}
/** Those with a name here, by length and last octet: most of what is read, and spelling one out takes a while. */
const byEnding: Named[][] = Array.from({ length: 256 }, () => [])
for (const dotted of Object.values(OID)) {
  const encoding = oid(dotted)
  byEnding[endingOf(encoding, HEAD, encoding.length)]?.push({ dotted, encoding })
}

function endingOf(bytes: Uint8Array, from: number, to: number): number {
  return ((bytes[to - 1] ?? 0) ^ ((to - from) << 4)) & 0xff
}

function nameOf({ source, from, to }: DerPart): string | undefined {
  const rows = byEnding[endingOf(source, from, to)] ?? NONE
  for (const { dotted, encoding } of rows) {
    let at = from
    while (at < to && source[at] === encoding[at - from + HEAD]) at++
    if (at === to && encoding.length === to - from + HEAD) return dotted
  }
  return undefined
}
const NONE = [] as const

function spell({ source, from, to }: DerPart, what: string): string {
  let dotted = ''
  let arc = 0
  for (let at = from; at < to; at++) {
    const byte = source[at] ?? 0
    arc = arc * 128 + (byte & 0x7f)
    if (!Number.isSafeInteger(arc)) throw new DerError(`${what} has an arc out of range`)
    if (byte >= 0x80) continue
    dotted += dotted === '' ? firstTwo(arc) : `.${arc}`
    arc = 0
  }
  return dotted
}

/** X.690 8.19.4: the first two arcs share one number. */
function firstTwo(joined: number): string {
  const first = Math.min(2, Math.floor(joined / 40))
  return `${first}.${joined - first * 40}`
}
