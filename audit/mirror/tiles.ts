/** Trees seen through tiles that somebody else serves: what a question needs is found first, fetched, then answered. */
import { AuditError } from '../errors.ts'
import { formatTilePath } from '../publish.ts'
import { tileWidth } from '../tile.ts'
import { consistencyProof, consistencyRoots, rootOf, startsWhole } from '../tree.ts'
import type { Frontier, Hash, Perfect } from '../tree.ts'

/** Gives the bytes of one tile by its path in the public format. */
export type FetchTile = (path: string) => Promise<Uint8Array>

interface Spot {
  readonly path: string
  readonly width: number
  /** Where in the tile the subtree begins, and how many hashes it spans. */
  readonly at: number
  readonly count: number
}

/** Where the hashes of a perfect subtree stand, in the tiles that the tree of `size` has. */
function spotOf(level: number, index: number, size: number): Spot {
  const row = Math.floor(level / 8)
  const count = 2 ** (level % 8)
  const first = index * count
  const n = Math.floor(first / tileWidth)
  const width = Math.min(tileWidth, Math.floor(size / tileWidth ** row) - n * tileWidth)
  return { path: formatTilePath({ level: row, n, width }), width, at: first % tileWidth, count }
}

const nothing = new Uint8Array(32)

/** Answers `question` about the tree of `size` from the fewest tiles that it takes. */
async function ask<T>(
  fetch: FetchTile,
  size: number,
  question: (perfect: Perfect) => T,
): Promise<T> {
  const needed = new Map<string, Spot>()
  question((level, index) => {
    const spot = spotOf(level, index, size)
    needed.set(spot.path, spot)
    return nothing
  })
  const tiles = new Map<string, Uint8Array>()
  for (const { path, width } of needed.values()) {
    const bytes = await fetch(path)
    if (bytes.length !== width * 32)
      throw new AuditError('mirror.source', `${path} has ${bytes.length} bytes`)
    tiles.set(path, bytes)
  }
  return question((level, index) => {
    const { path, at, count } = spotOf(level, index, size)
    const bytes = tiles.get(path) ?? nothing
    return rootOf(
      Array.from({ length: count }, (_, i) => bytes.subarray((at + i) * 32, (at + i + 1) * 32)),
    )
  })
}

/**
 * How the tree of `size` and `root` stands to an older one: it `extends` it; it `differs`, shown by hashes that do
 * lead to `root`; or what was served leads nowhere and shows nothing. Needs 0 < old.size < size.
 */
export async function compare(
  fetch: FetchTile,
  old: { readonly size: number; readonly root: Hash },
  size: number,
  root: Hash,
): Promise<'extends' | 'differs' | 'unproven'> {
  const proof = await ask(fetch, size, (perfect) => [
    ...(startsWhole(old.size) ? [perfect(Math.log2(old.size), 0)] : []),
    ...consistencyProof(perfect, old.size, size),
  ])
  const roots = consistencyRoots(old.size, size, proof)
  if (roots === null || Buffer.compare(roots.whole, root) !== 0) return 'unproven'
  return Buffer.compare(roots.old, old.root) === 0 ? 'extends' : 'differs'
}

/** Whether `tree` is what the signed tree begins with. */
export async function belongs(
  tiles: FetchTile,
  tree: Frontier,
  size: number,
  root: Uint8Array,
): Promise<boolean> {
  if (tree.size === size) return Buffer.compare(tree.root(), root) === 0
  return (await compare(tiles, { size: tree.size, root: tree.root() }, size, root)) === 'extends'
}

/** Full tiles never change: within one look each is asked for once. */
export function kept(fetch: FetchTile): FetchTile {
  const known = new Map<string, Uint8Array>()
  return async (path) => {
    const bytes = known.get(path) ?? (await fetch(path))
    if (known.size < 1_024) known.set(path, bytes)
    return bytes
  }
}
