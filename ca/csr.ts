/** Strict, bounded PKCS#10 reader (RFC 2986); says what a request holds, trusts none of it. */
import { readKey, type ImportedKey } from './algorithm.ts'
import { readExtensions, findExtension } from './der/certificate.ts'
import { rdnsOf, type Rdn } from './der/name.ts'
import { OID, oidOf } from './der/oid.ts'
import {
  childrenOf,
  DerError,
  expect,
  readDer,
  REQUEST_LIMITS,
  TAG,
  wholeBits,
  type DerNode,
} from './der/reader.ts'
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
  const root = asDer(() => readDer(der, REQUEST_LIMITS))
  return asStructure(() => requestOf(root))
}

function asDer(read: () => DerNode): DerNode {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw refuse('der', `the request is not DER: ${cause.message}`, { cause })
  }
}

function asStructure<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw refuse('csr.structure', `the request is not PKCS#10: ${cause.message}`, { cause })
  }
}

function requestOf(root: DerNode): CertificationRequest {
  const [info, algorithm, signature, more] = childrenOf(root, TAG.sequence, 'CertificationRequest')
  const all = childrenOf(info, TAG.sequence, 'CertificationRequestInfo')
  const [version, subject, spki, attributes, extra] = all
  if (more !== undefined || extra !== undefined) throw new DerError('it has other parts')
  const { value } = expect(version, TAG.integer, 'version')
  if (value.length !== 1 || value[0] !== 0) throw new DerError('version is not 0')
  const subjectKey = expect(spki, TAG.sequence, 'subjectPKInfo').bytes
  // Read here, so that a malformed one is a malformed request and not an unknown algorithm.
  oidOf(childrenOf(algorithm, TAG.sequence, 'signatureAlgorithm')[0], 'signatureAlgorithm')
  const rdns = rdnsOf(subject)
  const asked = readAttributes(attributes)
  const signed = wholeBits(signature, 'signature')
  const key = readKey(subjectKey)
  return {
    info: expect(info, TAG.sequence, 'CertificationRequestInfo').bytes,
    subject: expect(subject, TAG.sequence, 'subject').bytes,
    rdns,
    spki: key.spki,
    spkiSha256: key.sha256,
    san: asked.san,
    challengePassword: asked.challengePassword,
    algorithm: expect(algorithm, TAG.sequence, 'signatureAlgorithm').bytes,
    signature: signed,
    key,
  }
}

/** RFC 2986 4.1 wants the attributes even when empty; openssl reads requests without them, and so do we. */
function readAttributes(node: DerNode | undefined) {
  const list = node === undefined ? [] : childrenOf(node, 0xa0, 'attributes')
  const found = new Map<string, readonly DerNode[]>()
  for (const attribute of list) {
    const [type, values, more] = childrenOf(attribute, TAG.sequence, 'an attribute')
    const name = oidOf(type, 'the attribute type')
    const set = childrenOf(values, TAG.set, 'the attribute values')
    if (more !== undefined) throw new DerError('an attribute has other parts')
    if (found.has(name)) throw refuse('csr.attribute', `the attribute ${name} is repeated`)
    if (set.length === 0) throw refuse('csr.attribute', `the attribute ${name} has no value`)
    found.set(name, set)
  }
  if (found.has(OID.changeSubjectName))
    throw refuse('name.change', 'a request cannot change the name of a device')
  return {
    san: sanOf(only(found, OID.extensionRequest)),
    challengePassword: challengeOf(only(found, OID.challengePassword)),
  }
}

function only(found: ReadonlyMap<string, readonly DerNode[]>, name: string): DerNode | undefined {
  const values = found.get(name)
  if (values !== undefined && values.length !== 1)
    throw refuse('csr.attribute', `the attribute ${name} has several values`)
  return values?.[0]
}

function sanOf(request: DerNode | undefined): Uint8Array | null {
  if (request === undefined) return null
  return findExtension(readExtensions(request), 'subjectAltName')?.value ?? null
}

function challengeOf(node: DerNode | undefined): string | null {
  if (node === undefined) return null
  const text = textOf(node)
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
