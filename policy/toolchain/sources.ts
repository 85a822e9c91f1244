/** The sources of the default bundle, and what they hash to. Comparing needs no `opa`. */
import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import type { Point } from '../envelope.ts'
import { POINT_NAMES, POINTS } from '../points.ts'
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

/** The published input schema of a point: the envelope, and what of it cannot be null there. */
function publishedSchema(point: Point): unknown {
  const needed = POINTS[point].needs.map((part) => [part, { type: 'object' }] as const)
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: `Input of ${point}`,
    allOf: [{ $ref: '../input.json' }],
    properties: { action: { const: point }, ...Object.fromEntries(needed) },
  }
}

/** The published input schema of each point: where it lies, and what it says. */
export function publishedSchemas(): Map<string, unknown> {
  return new Map(
    POINT_NAMES.map((point) => [
      join(ROOM, 'schema', 'points', `${point.replace('.', '_')}.json`),
      publishedSchema(point),
    ]),
  )
}

/** Writes the published schemas that say something else than they should. */
export async function publishSchemas(): Promise<void> {
  for (const [path, schema] of publishedSchemas()) {
    const said = await readFile(path, 'utf8').catch(() => 'null')
    if (!isDeepStrictEqual(JSON.parse(said), schema))
      await writeFile(path, `${JSON.stringify(schema, null, 2)}\n`)
  }
}
