/** The keys of auditors: X25519, written as age writes them. The public one seals, the secret one opens. */
import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'
import { AuditError } from '../errors.ts'
import { fromBech32, toBech32 } from './bech32.ts'

const PUBLIC = 'age'
const SECRET = 'age-secret-key-'
const KEY_BYTES = 32
/** RFC 8410: what stands before the 32 octets of an X25519 key in SPKI and PKCS #8. */
const SPKI = Buffer.from('302a300506032b656e032100', 'hex')
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')

/** Somebody a recording is sealed to. */
export interface Recipient {
  /** `age1…`. */
  readonly text: string
  readonly key: Uint8Array
}

/** Somebody who can open it; kept off the gateway. */
export interface Identity {
  readonly recipient: Recipient
  readonly secret: Uint8Array
}

/** Reads `age1…`. Throws AuditError `recording.key`. */
export function parseRecipient(text: string): Recipient {
  const key = fromBech32(PUBLIC, text)
  if (key.length !== KEY_BYTES || text !== text.toLowerCase())
    throw new AuditError('recording.key', 'a public key of age is age1 and 58 lower-case letters')
  return { text, key }
}

/** The pair of 32 random octets. */
export function identityOf(secret: Uint8Array): Identity {
  if (secret.length !== KEY_BYTES)
    throw new AuditError('recording.key', 'a secret key has 32 octets')
  const key = publicOf(secretKey(secret))
  return { recipient: { text: toBech32(PUBLIC, key), key }, secret }
}

/** `AGE-SECRET-KEY-1…`: to be written to a file that leaves for the auditor, never to a log. */
export function formatIdentity({ secret }: Identity): string {
  return toBech32(SECRET, secret).toUpperCase()
}

/** The secret keys of a file as age-keygen writes it: one a line, `#` begins a comment. Throws `recording.key`. */
export function parseIdentities(text: string): Identity[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim())
  const keys = lines.filter((line) => line !== '' && !line.startsWith('#'))
  if (keys.length === 0) throw new AuditError('recording.key', 'the file holds no secret key')
  return keys.map((line) => identityOf(fromBech32(SECRET, line)))
}

function secretKey(secret: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: 'der', type: 'pkcs8' })
}

function publicOf(secret: KeyObject): Uint8Array {
  const spki = createPublicKey(secret).export({ format: 'der', type: 'spki' })
  return Uint8Array.from(spki.subarray(SPKI.length))
}

/** Both public halves and what they share; undefined where `peer` is a point that shares nothing (RFC 7748, 6.1). */
export function agree(
  secret: Uint8Array,
  peer: Uint8Array,
): { readonly own: Uint8Array; readonly shared: Uint8Array } | undefined {
  const privateKey = secretKey(secret)
  const publicKey = createPublicKey({
    key: Buffer.concat([SPKI, peer]),
    format: 'der',
    type: 'spki',
  })
  try {
    return { own: publicOf(privateKey), shared: diffieHellman({ privateKey, publicKey }) }
  } catch {
    return undefined
  }
}
