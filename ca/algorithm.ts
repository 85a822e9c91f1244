/** Keys and signatures we take and make: a row each. Whatever has no row is refused. */
import {
  createPublicKey,
  hash as digestOf,
  verify,
  type KeyObject,
  type RawPublicKeyInput,
} from 'node:crypto'
import { oid, OID, oidOf } from './der/oid.ts'
import {
  childrenOf,
  DerError,
  readDer,
  sameBytes,
  TAG,
  wholeBits,
  type DerNode,
} from './der/reader.ts'
import { sequence, tlv } from './der/writer.ts'
import { refuse } from './errors.ts'
import type { SigningAlgorithm } from './signer.ts'

/** Key names as policy knows them; RSA by the size it reaches. */
export type KeyAlgorithm = 'P-256' | 'P-384' | 'Ed25519' | 'RSA-2048' | 'RSA-3072' | 'RSA-4096'

const ACCEPTED_KEYS = 'P-256, P-384, Ed25519, RSA 2048 to 4096'

/**
 * A key of an accepted kind in its one encoding; only `importKey` and `readKey` make one, so that
 * nobody has to do it twice. OpenSSL has the last word, on the point: once, when first asked.
 */
export class ImportedKey {
  readonly algorithm: KeyAlgorithm
  /** SubjectPublicKeyInfo, DER. */
  readonly spki: Uint8Array
  /** SHA-256 of it, hex. */
  readonly sha256: string
  #sound = false
  constructor(made: typeof secret, algorithm: KeyAlgorithm, spki: Uint8Array) {
    if (made !== secret) throw refuse('key.weak', 'a key comes from importKey')
    this.algorithm = algorithm
    this.spki = spki
    this.sha256 = sha256Hex(spki)
  }
  /** Throws CaError `key.weak` for a key that OpenSSL does not take. */
  requireSound(): void {
    if (!this.#sound) openKey(this.spki)
    this.#sound = true
  }
  /**
   * Whether `signature` over `data` is this key's, under an algorithm we take.
   * Throws CaError `csr.algorithm` for any other AlgorithmIdentifier, `key.weak` as `requireSound`.
   */
  verifies(algorithm: Uint8Array, data: Uint8Array, signature: Uint8Array): boolean {
    const row = signatureRow(algorithm)
    const ours = row.key === KINDS[this.algorithm]
    const verified = ours && verifiesWith(row.hash, data, this.#bytes(), signature)
    // What verified was imported for it.
    if (verified) this.#sound = true
    else this.requireSound()
    return verified
  }
  /** Straight from its bytes: a KeyObject made for this alone costs a tenth of the verification. */
  #bytes(): Parameters<typeof verify>[2] {
    const { spki } = this
    if (!isPlainP256(spki)) return { key: viewOf(spki), format: 'der', type: 'spki' }
    // The common one as a point: OpenSSL reads a SubjectPublicKeyInfo twice over.
    const point: RawPublicKeyInput = {
      key: spki.subarray(P256_HEAD.length - 1),
      format: 'raw-public',
      asymmetricKeyType: 'ec',
      namedCurve: 'P-256',
    }
    // `verify` takes what `createPublicKey` takes; its typings do not know this form of it yet.
    return point as object as KeyObject
  }
}
const secret = Symbol('made by importKey')

const KINDS = {
  'P-256': 'ec',
  'P-384': 'ec',
  Ed25519: 'ed25519',
  'RSA-2048': 'rsa',
  'RSA-3072': 'rsa',
  'RSA-4096': 'rsa',
} as const satisfies Record<KeyAlgorithm, SignatureRow['key']>

interface KeyRow {
  /** The AlgorithmIdentifier, the only encoding taken (RFC 5480 2.1.1, 8410 3, 4055 1.2). */
  readonly identifier: Uint8Array
  /** The key's name, or why it is refused. */
  readonly judge: (bits: Uint8Array) => KeyAlgorithm | { readonly weak: string }
}

const keyRows: readonly KeyRow[] = [
  {
    identifier: sequence(oid(OID.ecPublicKey), oid(OID.p256)),
    judge: (b) => point('P-256', b, 65),
  },
  {
    identifier: sequence(oid(OID.ecPublicKey), oid(OID.p384)),
    judge: (b) => point('P-384', b, 97),
  },
  { identifier: sequence(oid(OID.ed25519)), judge: edwards },
  { identifier: sequence(oid(OID.rsaEncryption), tlv(TAG.null)), judge: rsa },
]

function point(name: KeyAlgorithm, bits: Uint8Array, length: number) {
  // A compressed point is the same key under another SPKI hash: two identities for one key.
  return bits.length === length && bits[0] === 4 ? name : { weak: 'the point is not uncompressed' }
}

/** y-coordinates of the points of order 1, 2, 4 and 8, little-endian, sign bit clear; p and p + 1 are 0 and 1 again. */
const SMALL_ORDER = new Set([
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
])

function edwards(bits: Uint8Array) {
  if (bits.length !== 32) return { weak: 'the key is not 32 octets' }
  const y = Uint8Array.from(bits)
  y[31] = (y[31] ?? 0) & 0x7f
  return SMALL_ORDER.has(y.toHex()) ? { weak: 'the point has a small order' } : ('Ed25519' as const)
}

/** The product of the odd primes below 752: one gcd finds a modulus that shares any of them. */
const SMALL_PRIMES = (() => {
  let product = 1n
  for (let n = 3; n < 752; n += 2) {
    let prime = true
    for (let d = 3; d * d <= n; d += 2) if (n % d === 0) prime = false
    if (prime) product *= BigInt(n)
  }
  return product
})()

function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b]
  return a
}

function rsa(bits: Uint8Array) {
  const [modulus, exponent, more] = childrenOf(readDer(bits), TAG.sequence, 'RSAPublicKey')
  const n = magnitude(modulus)
  const e = magnitude(exponent)
  if (n === undefined || e === undefined || more !== undefined)
    return { weak: 'the RSA key has other parts' }
  const weak = weakness(n, e)
  if (weak !== undefined) return { weak }
  const size = sizeOf(n)
  return size < 3072 ? 'RSA-2048' : size < 4096 ? 'RSA-3072' : 'RSA-4096'
}

function weakness(n: bigint, e: bigint): string | undefined {
  const size = sizeOf(n)
  if (size < 2048 || size > 4096) return `the RSA key has ${size} bits`
  // SP 800-56B 6.2: 2^16 < e < 2^256, odd.
  if (e <= 65_536n || e >= 2n ** 256n || e % 2n === 0n) return 'the RSA exponent is out of range'
  // An even modulus shares 2, which the product leaves out.
  return n % 2n === 0n || gcd(n, SMALL_PRIMES) !== 1n
    ? 'the RSA modulus has a small factor'
    : undefined
}

function sizeOf(n: bigint): number {
  return n.toString(2).length
}

function magnitude(node: DerNode | undefined): bigint | undefined {
  if (node?.tag !== TAG.integer || (node.value[0] ?? 0x80) >= 0x80) return undefined
  return BigInt(`0x${node.value.toHex()}`)
}

/** The common key: what stands before the coordinates is the same in every one of them. */
const P256_HEAD = Uint8Array.fromHex('3059301306072a8648ce3d020106082a8648ce3d03010703420004')
const P256_LENGTH = P256_HEAD.length + 64

function isPlainP256(spki: Uint8Array): boolean {
  if (spki.length !== P256_LENGTH) return false
  for (let at = 0; at < P256_HEAD.length; at++) if (spki[at] !== P256_HEAD[at]) return false
  return true
}

/**
 * Imports a SubjectPublicKeyInfo (DER) of an accepted kind, in its one canonical encoding.
 * Throws CaError `key.algorithm` (kind not on the list, explicit curve), `key.weak`; DerError if it is no key.
 */
export function importKey(spki: Uint8Array): ImportedKey {
  const key = readKey(spki)
  key.requireSound()
  return key
}

/**
 * The same without the last question, whether the point is on its curve: for who verifies a
 * signature with it next, and so asks it anyway. Throws as `importKey`.
 */
export function readKey(spki: Uint8Array): ImportedKey {
  if (isPlainP256(spki)) return new ImportedKey(secret, 'P-256', spki)
  const { identifier, bits } = keyParts(spki)
  const row = keyRows.find((each) => sameBytes(each.identifier, identifier))
  if (row === undefined)
    throw refuse('key.algorithm', `this kind of key is not accepted; accepted: ${ACCEPTED_KEYS}`)
  const judged = row.judge(bits)
  if (typeof judged !== 'string')
    throw refuse('key.weak', `${judged.weak}; accepted: ${ACCEPTED_KEYS}`)
  return new ImportedKey(secret, judged, spki)
}

function keyParts(spki: Uint8Array): { identifier: Uint8Array; bits: Uint8Array } {
  const [algorithm, bits, more] = childrenOf(readDer(spki), TAG.sequence, 'SubjectPublicKeyInfo')
  if (algorithm === undefined || more !== undefined)
    throw new DerError('SubjectPublicKeyInfo has other parts')
  return { identifier: algorithm.bytes, bits: wholeBits(bits, 'subjectPublicKey') }
}

/**
 * OpenSSL decides whether the point is on its curve. The encoding has been checked by then: strict
 * DER, one identifier, one form of the key inside; to export it again only to compare takes as long
 * as to verify a signature.
 */
function openKey(spki: Uint8Array): KeyObject {
  try {
    return createPublicKey({ key: viewOf(spki), format: 'der', type: 'spki' })
  } catch (cause) {
    throw refuse('key.weak', `the key is not a valid one; accepted: ${ACCEPTED_KEYS}`, { cause })
  }
}

/** The same bytes as node:crypto's typings want them. */
function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

interface SignatureRow {
  readonly identifier: Uint8Array
  readonly hash: string | null
  readonly key: 'ec' | 'rsa' | 'ed25519'
}

function rsaRow(dotted: string, hash: string): SignatureRow {
  return { identifier: sequence(oid(dotted), tlv(TAG.null)), hash, key: 'rsa' }
}

const signatureRows: readonly SignatureRow[] = [
  { identifier: sequence(oid(OID.ecdsaSha256)), hash: 'sha256', key: 'ec' },
  { identifier: sequence(oid(OID.ecdsaSha384)), hash: 'sha384', key: 'ec' },
  { identifier: sequence(oid(OID.ecdsaSha512)), hash: 'sha512', key: 'ec' },
  { identifier: sequence(oid(OID.ed25519)), hash: null, key: 'ed25519' },
  rsaRow(OID.rsaSha256, 'sha256'),
  rsaRow(OID.rsaSha384, 'sha384'),
  rsaRow(OID.rsaSha512, 'sha512'),
]

/**
 * Whether `signature` over `data` verifies under an algorithm we take (SHA-1 and MD5 have no row).
 * Throws CaError `csr.algorithm` for any other AlgorithmIdentifier.
 */
export function verifySignature(
  algorithm: Uint8Array,
  data: Uint8Array,
  signature: Uint8Array,
  key: KeyObject,
): boolean {
  const row = signatureRow(algorithm)
  return key.asymmetricKeyType === row.key && verifiesWith(row.hash, data, key, signature)
}

function signatureRow(algorithm: Uint8Array): SignatureRow {
  for (const row of signatureRows) if (sameBytes(row.identifier, algorithm)) return row
  throw refuse(
    'csr.algorithm',
    `${signatureName(algorithm)} is not an accepted signature algorithm`,
  )
}

function verifiesWith(
  hash: string | null,
  data: Uint8Array,
  key: Parameters<typeof verify>[2],
  signature: Uint8Array,
): boolean {
  try {
    return verify(hash, data, key, signature)
  } catch {
    // OpenSSL throws for a signature it cannot even parse.
    return false
  }
}

function signatureName(algorithm: Uint8Array): string {
  return oidOf(childrenOf(readDer(algorithm), TAG.sequence, 'the signature algorithm')[0], 'it')
}

/** AlgorithmIdentifier of what our own keys sign with, DER. */
export const signingIdentifier: Readonly<Record<SigningAlgorithm, Uint8Array>> = {
  'ecdsa-p256-sha256': sequence(oid(OID.ecdsaSha256)),
  'ecdsa-p384-sha384': sequence(oid(OID.ecdsaSha384)),
  ed25519: sequence(oid(OID.ed25519)),
}

/** With its length said, node:crypto need not find out whether the hash is one of a length to choose. */
const HEX = { outputEncoding: 'hex', outputLength: 32 } as const
/** One character per octet: a string is made faster than a Buffer, which has memory of its own. */
const OCTETS = { outputEncoding: 'latin1', outputLength: 32 } as const

/** SHA-256, hex. */
export function sha256Hex(bytes: Uint8Array): string {
  return digestOf('sha256', bytes, HEX)
}

/** RFC 7093 2, method 1: the left 160 bits of SHA-256 over the subjectPublicKey's octets. Throws DerError. */
export function keyIdentifier(spki: Uint8Array): Uint8Array {
  const bits = isPlainP256(spki) ? spki.subarray(P256_HEAD.length - 1) : keyParts(spki).bits
  const digest = digestOf('sha256', bits, OCTETS)
  const identifier = new Uint8Array(20)
  for (let at = 0; at < 20; at++) identifier[at] = digest.charCodeAt(at)
  return identifier
}
