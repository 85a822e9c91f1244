/**
 * The key that updates are signed with. Its owner keeps the private half off every gateway; the public half is one
 * word, short enough for a line that a person pastes, and is what a device pins.
 */
import { createPublicKey, hash, type KeyObject } from 'node:crypto'

const WORD = /^ed25519:([A-Za-z0-9_-]{43})$/
const RAW_BYTES = 32

export interface UpdateKey {
  /** `ed25519:` and the 32 octets in base64url. */
  readonly word: string
  /** The first 16 hex digits of the SHA-256 of those octets: which key a signature is of. */
  readonly id: string
  readonly key: KeyObject
}

function keyOf(raw: Buffer): UpdateKey {
  const x = raw.toString('base64url')
  return {
    word: `ed25519:${x}`,
    id: hash('sha256', raw, 'hex').slice(0, 16),
    key: createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' }),
  }
}

/** The public key that a word says; undefined for what is none. Each key has one word. */
export function readUpdateKey(word: string): UpdateKey | undefined {
  const [, text] = WORD.exec(word) ?? []
  if (text === undefined) return undefined
  const raw = Buffer.from(text, 'base64url')
  if (raw.length !== RAW_BYTES || raw.toString('base64url') !== text) return undefined
  try {
    return keyOf(raw)
  } catch {
    return undefined
  }
}

/** The public half of an Ed25519 key; undefined for a key of another kind. */
export function updateKeyOf(key: KeyObject): UpdateKey | undefined {
  if (key.asymmetricKeyType !== 'ed25519') return undefined
  const { x } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  return keyOf(Buffer.from(x ?? '', 'base64url'))
}
