/** The sources of the default bundle, and what they hash to. Comparing needs no `opa`. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PolicyTree } from './tree.ts'

/** The room's own directory, and the one it lies in: the module embeds paths relative to the latter. */
export const ROOM = fileURLToPath(new URL('..', import.meta.url))
export const BASE = fileURLToPath(new URL('../..', import.meta.url))

export const LOCK_FILE = join(ROOM, 'default', 'lock.json')
export const BUNDLE_FILE = join(ROOM, 'default', 'bundle.tar')

/** The library is the same in every tree, and its folder is called so in each. */
export const LIBRARY = 'sallyport'

export interface Lock {
  readonly bundle_sha256: string
  readonly opa: string
  readonly sources: Readonly<Record<string, string>>
}

/** SHA-256, hex. */
export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

type Rego = Pick<PolicyTree, 'room' | 'rules'>
const OWN: Rego = { room: ROOM, rules: 'default' }

/** Paths of the Rego that goes into the bundle, relative to the tree's room, sorted; tests left out. */
export async function regoFiles({ room, rules }: Rego = OWN): Promise<string[]> {
  const found: string[] = []
  for (const directory of [LIBRARY, rules]) {
    for (const name of await readdir(join(room, directory))) {
      if (name.endsWith('.rego') && !name.endsWith('_test.rego')) found.push(`${directory}/${name}`)
    }
  }
  return found.toSorted()
}

/** Names of the vectors carried in the bundle, sorted. */
export async function vectorFiles(directory: string): Promise<string[]> {
  const names = await readdir(directory)
  return names.filter((name) => name.endsWith('.json')).toSorted()
}

/** Digest of every file the bundle is made from. */
export async function sourceDigests(): Promise<Record<string, string>> {
  const fixed = ['capabilities.json', 'default/manifest.json', 'default/site.json']
  const vectors = (await vectorFiles(join(ROOM, 'default', 'vectors'))).map(
    (name) => `default/vectors/${name}`,
  )
  const paths = [...fixed, ...(await regoFiles()), ...vectors].toSorted()
  const pairs = paths.map(
    async (path) => [path, digestOf(await readFile(join(ROOM, path)))] as const,
  )
  return Object.fromEntries(await Promise.all(pairs))
}

/** The committed lock. */
export async function readLock(): Promise<Lock> {
  return JSON.parse(await readFile(LOCK_FILE, 'utf8')) as Lock
}
