/** Strict, bounded PKCS#10 reader (RFC 2986); says what a request holds, trusts none of it. */
import { readKey, type ImportedKey } from './algorithm.ts'
import { readExtensions, findExtension } from './der/certificate.ts'
import { Cursor } from './der/cursor.ts'
import { rdnsOf, type Rdn } from './der/name.ts'
import { OID, oidOf } from './der/oid.ts'
import { checkDer, DerError, expect, REQUEST_LIMITS, TAG, wholeBits } from './der/reader.ts'
import { textOf } from './der/text.ts'
import { refuse } from './errors.ts'

export interface CertificationRequest {
  /** CertificationRequestInfo: the bytes that are signed. */
  readonly info: Uint8Array
  /** Name, DER. */
  readonly subject: Uint8Array
  readonly rdns: readonly Rdn[]
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array
  readonly spkiSha256: string
  readonly key: ImportedKey
  /** The value of the SAN asked for, DER. Every other extension asked for is ignored. */
  readonly san: Uint8Array | null
  readonly challengePassword: string | null
  /** AlgorithmIdentifier, DER. */
  readonly algorithm: Uint8Array
  readonly signature: Uint8Array
}

/**
 * Reads a request (DER). Throws CaError: `der` (not DER, over a limit), `csr.structure`,
 * `csr.attribute` (repeated, empty or several values), `name.change` (RFC 6402),
 * `key.algorithm`, `key.weak`. The signature is not checked here, nor whether the point of the key is
 * on its curve: see `provePossession`.
 */
export function readCsr(der: Uint8Array): CertificationRequest {
  try {
    checkDer(der, REQUEST_LIMITS)
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw refuse('der', `the request is not DER: ${cause.message}`, { cause })
  }
  try {
    return requestOf(new Cursor(der, 0, der.length))
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw refuse('csr.structure', `the request is not PKCS#10: ${cause.message}`, { cause })
  }
}

function requestOf(whole: Cursor): CertificationRequest {
  const parts = whole.into(TAG.sequence, 'CertificationRequest')
  const info = parts.step(TAG.sequence, 'CertificationRequestInfo').bytes
  const fields = parts.inside()
  const algorithm = parts.step(TAG.sequence, 'signatureAlgorithm').bytes
  // Read here, so that a malformed one is a malformed request and not an unknown algorithm.
  oidOf(parts.inside().step(TAG.oid, 'signatureAlgorithm'), 'signatureAlgorithm')
  const signature = wholeBits(parts.step(TAG.bitString, 'signature'), 'signature')
  parts.end('it')
  const version = fields.step(TAG.integer, 'version')
  if (version.to !== version.from + 1 || version.source[version.from] !== 0)
    throw new DerError('version is not 0')
  const subject = fields.step(TAG.sequence, 'subject').bytes
  const rdns = rdnsOf(fields.inside())
  const spki = fields.step(TAG.sequence, 'subjectPKInfo').bytes
  const { san, challengePassword } = readAttributes(fields)
  fields.end('it')
  const key = readKey(spki)
  const spkiSha256 = key.sha256
  return {
    info,
    subject,
    rdns,
    spki,
    spkiSha256,
    key,
    san,
    challengePassword,
    algorithm,
    signature,
  }
}

/** RFC 2986 4.1 wants the attributes even when empty; openssl reads requests without them, and so do we. */
function readAttributes(fields: Cursor): Asked {
  const asked: Asked = { san: null, challengePassword: null }
  if (!fields.next()) return asked
  const list = expect(fields, 0xa0, 'attributes').inside()
  const seen: string[] = []
  while (list.next()) {
    const attribute = expect(list, TAG.sequence, 'an attribute').inside()
    const name = oidOf(attribute.step(TAG.oid, 'the attribute type'), 'the attribute type')
    const values = attribute.step(TAG.set, 'the attribute values')
    attribute.end('an attribute')
    if (seen.includes(name)) throw refuse('csr.attribute', `the attribute ${name} is repeated`)
    seen.push(name)
    readAttribute(name, values.inside(), asked)
  }
  return asked
}

interface Asked {
  san: Uint8Array | null
  challengePassword: string | null
}

/** What an attribute says to us, which has one value then. */
function readAttribute(name: string, values: Cursor, asked: Asked): void {
  if (values.empty) throw refuse('csr.attribute', `the attribute ${name} has no value`)
  if (name === OID.changeSubjectName)
    throw refuse('name.change', 'a request cannot change the name of a device')
  if (name === OID.extensionRequest)
    asked.san = findExtension(readExtensions(values), 'subjectAltName')?.value ?? null
  else if (name === OID.challengePassword) asked.challengePassword = challengeOf(values)
  else return
  if (!values.empty) throw refuse('csr.attribute', `the attribute ${name} has several values`)
}

function challengeOf(values: Cursor): string {
  const text = values.next() ? textOf(values) : undefined
  // RFC 2985 5.4.1 bounds it; RFC 7030 3.5 relies on that bound.
  if (text === undefined || text.length === 0 || text.length > 255)
    throw refuse('csr.attribute', 'challengePassword is not a text of 1 to 255 characters')
  return text
}

/**
 * Checks that the holder of the key signed the request (RFC 7030 3.4).
 * Throws CaError `csr.algorithm`, `csr.signature`, `key.weak`.
 */
export function provePossession(request: CertificationRequest): void {
  const { algorithm, info, signature, key } = request
  if (!key.verifies(algorithm, info, signature))
    throw refuse('csr.signature', 'the request is not signed by the key it carries')
}
