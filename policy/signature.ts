/**
 * The bundle's signature: compact JWS (RFC 7515), ES256 or ES384, in `.signatures.json` as stock OPA
 * writes and verifies it. The key comes from the caller's trust alone; the header chooses nothing.
 */
import { createHash, createPublicKey, sign, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { canonicalJson } from './canonical.ts'
import { PolicyError } from './errors.ts'

/** Key id -> public key, PEM (SPKI). Only P-256 and P-384 keys are of use. */
export type PublicKeys = ReadonlyMap<string, string>

const ALGORITHMS = {
  ES256: { hash: 'sha256', curve: 'prime256v1', bytes: 64 },
  ES384: { hash: 'sha384', curve: 'secp384r1', bytes: 96 },
} as const
type Algorithm = keyof typeof ALGORITHMS

const SIGNATURES = '.signatures.json'
const SCOPE = 'sallyport'
const PERMIT_SCOPE = 'sallyport.downgrade'
const STRUCTURED = new Set(['data.json', '.manifest'])
const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

export interface Signed {
  readonly keyId: string
  /** Grows with every release of the policy; what it is measured against is the high-water mark. */
  readonly seq: number
  /** Epoch seconds. */
  readonly issuedAt: number
}

/** JSON from a bundle's file. Errors: bundle.json. */
export function parseJson(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(decoder.decode(bytes))
  } catch (error) {
    throw new PolicyError('bundle.json', `${name} is not JSON`, { cause: error })
  }
}

/** SHA-256, hex, of a file as OPA counts it: structured files in canonical form, the rest raw. */
export function fileDigest(name: string, bytes: Uint8Array): string {
  const content = STRUCTURED.has(name) ? canonicalJson(parseJson(bytes, name)) : bytes
  return createHash('sha256').update(content).digest('hex')
}

function object(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new PolicyError('bundle.signature', `${what} is not an object`)
  return value as Readonly<Record<string, unknown>>
}

function segment(text: string | undefined): Uint8Array {
  if (text === undefined || !/^[A-Za-z0-9_-]+$/.test(text))
    throw new PolicyError('bundle.signature', 'not a compact JWS')
  return new Uint8Array(Buffer.from(text, 'base64url'))
}

function isAlgorithm(value: unknown): value is Algorithm {
  return typeof value === 'string' && Object.hasOwn(ALGORITHMS, value)
}

function publicKey(keys: PublicKeys, keyId: string, algorithm: Algorithm): KeyObject {
  const pem = keys.get(keyId)
  if (pem === undefined)
    throw new PolicyError('bundle.key', `no trusted key ${JSON.stringify(keyId)}`)
  let key: KeyObject
  try {
    key = createPublicKey(pem)
  } catch (error) {
    throw new PolicyError('bundle.key', `the trusted key ${keyId} cannot be read`, { cause: error })
  }
  if (key.asymmetricKeyDetails?.namedCurve !== ALGORITHMS[algorithm].curve)
    throw new PolicyError('bundle.key', `the trusted key ${keyId} is not one for ${algorithm}`)
  return key
}

function tokenOf(bytes: Uint8Array): string {
  const { signatures } = object(parseJson(bytes, SIGNATURES), SIGNATURES)
  if (!Array.isArray(signatures) || signatures.length !== 1 || typeof signatures[0] !== 'string')
    throw new PolicyError('bundle.signature', 'exactly one signature is expected')
  return signatures[0]
}

function checkFiles(listed: unknown, files: ReadonlyMap<string, Uint8Array>): void {
  if (!Array.isArray(listed)) throw new PolicyError('bundle.signature', 'no list of files')
  const seen = new Set<string>()
  for (const item of listed as readonly unknown[]) {
    const { name, hash, algorithm } = object(item, 'a listed file')
    if (typeof name !== 'string' || typeof hash !== 'string' || algorithm !== 'SHA-256')
      throw new PolicyError('bundle.signature', 'a listed file without name or SHA-256')
    const bytes = files.get(name)
    if (bytes === undefined) throw new PolicyError('bundle.files', `${name} is signed and missing`)
    if (seen.has(name)) throw new PolicyError('bundle.files', `${name} is signed twice`)
    if (fileDigest(name, bytes) !== hash)
      throw new PolicyError('bundle.files', `${name} was changed`)
    seen.add(name)
  }
  const extra = [...files.keys()].find((name) => name !== SIGNATURES && !seen.has(name))
  if (extra !== undefined) throw new PolicyError('bundle.files', `${extra} is not signed`)
}

interface Token {
  readonly alg: Algorithm
  readonly keyId: string
  readonly payload: Readonly<Record<string, unknown>>
  readonly signedText: string
  readonly value: Uint8Array
}

/** The parts of a compact JWS (RFC 7515 section 3.1), nothing verified yet. */
function parseToken(token: string): Token {
  const parts = token.split('.')
  if (parts.length !== 3) throw new PolicyError('bundle.signature', 'not a compact JWS')
  const [head, body, tail] = parts
  const header = object(parseJson(segment(head), 'the JWS header'), 'the JWS header')
  const payload = object(parseJson(segment(body), 'the JWS payload'), 'the JWS payload')
  const { alg } = header
  if (!isAlgorithm(alg) || 'crit' in header)
    throw new PolicyError('bundle.signature', 'only ES256 and ES384, without extensions')
  const keyId = payload['keyid'] ?? header['kid']
  if (typeof keyId !== 'string') throw new PolicyError('bundle.key', 'the signature names no key')
  return { alg, keyId, payload, signedText: `${head}.${body}`, value: segment(tail) }
}

/** Verifies a compact JWS by one of the keys. Errors: bundle.signature, bundle.key. */
function verifyToken(token: string, keys: PublicKeys): Token {
  const parsed = parseToken(token)
  const { hash, bytes } = ALGORITHMS[parsed.alg]
  const key = publicKey(keys, parsed.keyId, parsed.alg)
  const text = encoder.encode(parsed.signedText)
  const good =
    parsed.value.length === bytes &&
    verify(hash, text, { key, dsaEncoding: 'ieee-p1363' }, parsed.value)
  if (!good) throw new PolicyError('bundle.signature', 'the signature does not verify')
  return parsed
}

/**
 * Verifies the signature over all files of an archive.
 * Errors: bundle.unsigned, bundle.signature, bundle.key, bundle.files.
 */
export function verifyFiles(files: ReadonlyMap<string, Uint8Array>, keys: PublicKeys): Signed {
  const signatures = files.get(SIGNATURES)
  if (signatures === undefined) throw new PolicyError('bundle.unsigned', `${SIGNATURES} is missing`)
  const { keyId, payload } = verifyToken(tokenOf(signatures), keys)
  const { scope, seq, iat } = payload
  if (scope !== SCOPE) throw new PolicyError('bundle.signature', `the scope is not ${SCOPE}`)
  if (!Number.isSafeInteger(seq) || Number(seq) < 1 || !Number.isSafeInteger(iat))
    throw new PolicyError('bundle.signature', 'seq and iat must be integers')
  checkFiles(payload['files'], files)
  return { keyId, seq: Number(seq), issuedAt: Number(iat) }
}

interface Signer {
  /** P-256 or P-384. */
  readonly key: KeyObject
  readonly keyId: string
}

function signToken({ key, keyId }: Signer, payload: object): string {
  const alg = key.asymmetricKeyDetails?.namedCurve === ALGORITHMS.ES384.curve ? 'ES384' : 'ES256'
  const encode = (value: unknown): string =>
    Buffer.from(JSON.stringify(value)).toString('base64url')
  const text = `${encode({ alg, typ: 'JWT', kid: keyId })}.${encode(payload)}`
  const options = { key, dsaEncoding: 'ieee-p1363' } as const
  return `${text}.${sign(ALGORITHMS[alg].hash, encoder.encode(text), options).toString('base64url')}`
}

/** What a downgrade permit allows: this one older archive, over what has been in force, for a while. */
export interface Permit {
  /** Number and SHA-256, hex, of the archive to go back to. */
  readonly seq: number
  readonly digest: string
  /** The high-water mark it was written for; any other voids it, so it works once. */
  readonly over: number
  /** Epoch seconds, exclusive. */
  readonly expiresAt: number
}

/** Signs a downgrade permit, a compact JWS of its own scope. */
export function signPermit(permit: Permit, signer: Signer): string {
  const { seq, digest, over, expiresAt } = permit
  return signToken(signer, { digest, exp: expiresAt, over, scope: PERMIT_SCOPE, seq })
}

/** Verifies a downgrade permit. Errors: bundle.permit, bundle.key, bundle.signature. */
export function verifyPermit(token: string, keys: PublicKeys): Permit {
  const { scope, seq, digest, over, exp } = verifyToken(token, keys).payload
  const numbers = [seq, over, exp].every(Number.isSafeInteger)
  if (scope !== PERMIT_SCOPE || !numbers || typeof digest !== 'string')
    throw new PolicyError('bundle.permit', 'not a downgrade permit')
  return { seq: Number(seq), digest, over: Number(over), expiresAt: Number(exp) }
}

/** `.signatures.json` for these files. Takes a P-256 or P-384 private key; `iat` in epoch seconds. */
export function signFiles(
  files: ReadonlyMap<string, Uint8Array>,
  signer: Signer & { readonly seq: number; readonly iat: number },
): Uint8Array<ArrayBuffer> {
  const listed = [...files.keys()]
    .filter((name) => name !== SIGNATURES)
    .toSorted()
    .map((name) => ({
      name,
      hash: fileDigest(name, files.get(name) ?? new Uint8Array()),
      algorithm: 'SHA-256',
    }))
  const payload = {
    files: listed,
    iat: signer.iat,
    keyid: signer.keyId,
    scope: SCOPE,
    seq: signer.seq,
  }
  const signatures = [signToken(signer, payload)]
  return encoder.encode(`${JSON.stringify({ signatures })}\n`)
}
