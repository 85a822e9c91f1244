/** The built-in bundle signed by keys of our own, changed or not, and with what code it is refused. */
import { createHash, type KeyObject } from 'node:crypto'
import { loadBundle, PolicyError, type HighWater, type PublicKeys } from '#policy'
import { signFiles } from '../../policy/signature.ts'
import { readTar } from '../../policy/tar.ts'
import { archive, keyPair } from './fixture.ts'

export const text = (value: string): Uint8Array => new TextEncoder().encode(value)
export const json = (value: unknown): Uint8Array => text(JSON.stringify(value))

export const ours = keyPair('P-256')
export const large = keyPair('P-384')
export const theirs = keyPair('P-256')
export const trust: PublicKeys = new Map([
  ['plant-2026', ours.pem],
  ['plant-384', large.pem],
])
export const files = readTar(archive)

interface Signing {
  readonly key?: KeyObject
  readonly keyId?: string
  readonly seq?: number
}

export function signed(
  changes: Record<string, Uint8Array> = {},
  signing: Signing = {},
): Map<string, Uint8Array> {
  const { key = ours.key, keyId = 'plant-2026', seq = 7 } = signing
  const all = new Map([...files, ...Object.entries(changes)])
  all.set('.signatures.json', signFiles(all, { key, keyId, seq, iat: 1795082400 }))
  return all
}

export async function refusalOf(
  bytes: Uint8Array,
  highWater: HighWater | null = null,
  by = trust,
): Promise<string> {
  const refusal = await loadBundle(bytes, { trust: by, highWater }).catch((error: unknown) => error)
  return refusal instanceof PolicyError ? refusal.code : `no refusal: ${String(refusal)}`
}

export const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
