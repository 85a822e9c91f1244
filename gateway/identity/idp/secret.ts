/** Client secrets at rest: AES-256-GCM under a key made from the gateway's own, bound to the provider's id. */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

const NONCE = 12
const TAG = 16

function keyOf(secret: string): Uint8Array {
  return new Uint8Array(
    hkdfSync('sha256', Buffer.from(secret, 'base64url'), '', 'sallyport idp secret v1', 32),
  )
}

/** `key` is one of the cookie secrets of identity/keys.json. */
export function sealSecret(secret: string, id: string, key: string): string {
  const nonce = randomBytes(NONCE)
  const cipher = createCipheriv('aes-256-gcm', keyOf(key), nonce).setAAD(Buffer.from(id))
  const body = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url')
}

/** The secret, or undefined where none of the keys opens it. */
export function openSecret(
  sealed: string,
  id: string,
  keys: readonly string[],
): string | undefined {
  const bytes = Buffer.from(sealed, 'base64url')
  if (bytes.length < NONCE + TAG) return undefined
  for (const key of keys) {
    const nonce = bytes.subarray(0, NONCE)
    const cipher = createDecipheriv('aes-256-gcm', keyOf(key), nonce, { authTagLength: TAG })
    cipher.setAAD(Buffer.from(id)).setAuthTag(bytes.subarray(NONCE, NONCE + TAG))
    try {
      return Buffer.concat([cipher.update(bytes.subarray(NONCE + TAG)), cipher.final()]).toString()
    } catch {
      // Sealed under another of the keys.
    }
  }
  return undefined
}
