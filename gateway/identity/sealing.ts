/** Secrets at rest: AES-256-GCM under a key made from the gateway's own, one for each purpose, bound to whose it is. */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

const NONCE = 12
const TAG = 16

/** `idp`: what a company's provider knows us by; `totp`: what an authenticator app makes codes of; `oidc`: rows of our own provider, kept elsewhere. */
type Purpose = 'idp' | 'totp' | 'oidc'

function keyOf(secret: string, purpose: Purpose): Uint8Array {
  const name = `sallyport ${purpose} secret v1`
  return new Uint8Array(hkdfSync('sha256', Buffer.from(secret, 'base64url'), '', name, 32))
}

/** `id` says whose it is; `key` is one of the cookie secrets of identity/keys.json. */
export function sealSecret(secret: string, id: string, key: string, purpose: Purpose): string {
  const nonce = randomBytes(NONCE)
  const cipher = createCipheriv('aes-256-gcm', keyOf(key, purpose), nonce).setAAD(Buffer.from(id))
  const body = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url')
}

/** The secret, or undefined where none of the keys opens it. */
export function openSecret(
  sealed: string,
  id: string,
  keys: readonly string[],
  purpose: Purpose,
): string | undefined {
  const bytes = Buffer.from(sealed, 'base64url')
  if (bytes.length < NONCE + TAG) return undefined
  for (const key of keys) {
    const nonce = bytes.subarray(0, NONCE)
    const cipher = createDecipheriv('aes-256-gcm', keyOf(key, purpose), nonce, {
      authTagLength: TAG,
    })
    cipher.setAAD(Buffer.from(id)).setAuthTag(bytes.subarray(NONCE, NONCE + TAG))
    try {
      return Buffer.concat([cipher.update(bytes.subarray(NONCE + TAG)), cipher.final()]).toString()
    } catch {
      // Sealed under another of the keys.
    }
  }
  return undefined
}
