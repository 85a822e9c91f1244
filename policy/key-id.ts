/** The name of a key that signs bundles: what gateways and signers call it alike. */
import { createHash, createPublicKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'

/**
 * The first 16 hex digits of the SHA-256 of a public key's SPKI. Takes the key, or its PEM. Throws
 * what node:crypto throws of a text that is no key.
 */
export function keyIdOf(key: KeyObject | string): string {
  const known = typeof key === 'string' ? createPublicKey(key) : key
  const spki = known.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('hex').slice(0, 16)
}
