/**
 * How the first administrator comes in: a one-time token of 256 bits in a file of the data directory,
 * of which the store keeps the hash alone. It is good for one account, and only while there is none.
 */
import { createHash, randomBytes } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivateFile } from './keys.ts'
import type { IdentityStore } from './store.ts'

const PREFIX = 'sbt_'
const FILE = 'bootstrap-token'

/** What the store keeps of a token: SHA-256 in hex. 256 random bits need no slow hash. */
export function hashBootstrapToken(token: string): string {
  return createHash('sha256').update(token.trim()).digest('hex')
}

/** Writes the token to `bootstrap-token` (0600) in the data directory; gives the path. */
async function writeBootstrapToken(directory: string, token: string): Promise<string> {
  const path = join(directory, FILE)
  await writePrivateFile(path, `${token}\n`)
  return path
}

/** Removes the file; not an error if it is gone. */
export async function removeBootstrapFile(directory: string): Promise<void> {
  await rm(join(directory, FILE), { force: true })
}

/**
 * Makes sure that a gateway without accounts has a token to begin with: gives the file that holds it, or
 * null when the gateway is past that. A token whose file was lost is replaced; the old one is then dead.
 */
export async function openBootstrap(
  store: IdentityStore,
  directory: string,
): Promise<string | null> {
  const [first] = await store.listAccounts('', 1)
  if (first !== undefined) return null
  const known = await store.bootstrapHash()
  const path = join(directory, FILE)
  const kept = await readFile(path, 'utf8').catch(() => undefined)
  if (kept !== undefined && known === hashBootstrapToken(kept)) return path
  const token = PREFIX + randomBytes(32).toString('base64url')
  // The file first: a crash in between leaves a file that opens nothing, and the next start replaces it.
  await writeBootstrapToken(directory, token)
  if (await store.openBootstrap(hashBootstrapToken(token))) return path
  await removeBootstrapFile(directory)
  return null
}
