/**
 * Hashes of perfect subtrees, kept as full tiles (c2sp.org/tlog-tiles): tile/<L>/<N>, 256 hashes of 32 bytes each.
 * Tiles are derived: one that is lost or half written is made again from the leaves, so none is synced.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Hash, Perfect } from './tree.ts'
import { rootOf } from './tree.ts'

/** A tile holds this many hashes, an entry bundle this many entries. */
export const tileWidth = 256
const width = tileWidth

/** `tile/<L>/x001/x234/067`: groups of three digits, all but the last led by an x. */
export function tilePath(level: number | 'entries', n: number): string {
  const digits = String(n)
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0')
  const groups = padded.match(/\d{3}/g) ?? []
  const parts = groups.map((group, i) => (i === groups.length - 1 ? group : `x${group}`))
  return `tile/${level}/${parts.join('/')}`
}

/** The right edge of every tile level in memory; writes each tile as its last hash arrives. */
export class TileWriter {
  readonly #directory: string
  readonly #edges: Hash[][] = []
  /** Called with each full tile; decides whether it reaches the disk. */
  readonly #keep: (path: string, bytes: Uint8Array) => void

  constructor(directory: string, keep: (path: string, bytes: Uint8Array) => void = writeTile) {
    this.#directory = directory
    this.#keep = keep
  }

  /** Goes on behind `size` leaves whose hashes are at hand. */
  resume(size: number, perfect: Perfect): void {
    for (let level = 0; width ** level <= size; level++) {
      const count = Math.floor(size / width ** level)
      const from = count - (count % width)
      this.#edges[level] = Array.from({ length: count - from }, (_, i) =>
        perfect(8 * level, from + i),
      )
    }
  }

  /** Takes a perfect subtree's hash; only levels that are multiples of 8 stand in tiles. */
  add = (level: number, index: number, value: Hash): void => {
    if (level % 8 !== 0) return
    const edge = (this.#edges[level / 8] ??= [])
    edge.push(value)
    if (edge.length < width) return
    this.#keep(
      join(this.#directory, tilePath(level / 8, (index + 1) / width - 1)),
      Buffer.concat(edge),
    )
    edge.length = 0
  }
}

function writeTile(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes, { mode: 0o600 })
  } catch (error) {
    // Only the first tile of a folder finds none.
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, bytes, { mode: 0o600 })
  }
}

/** Writes a tile unless the disk already holds it, byte for byte: what recovery does. */
export function mendTile(path: string, bytes: Uint8Array): void {
  if (existsSync(path) && Buffer.compare(readFileSync(path), bytes) === 0) return
  writeTile(path, bytes)
}

/**
 * Gives perfect subtrees from tiles; what no full tile holds yet comes from `leaf`, the hash of a leaf by index.
 * Keeps the tiles it read: make one per question.
 */
export function tileReader(directory: string, leaf: (idx: number) => Hash): Perfect {
  const cache = new Map<string, Buffer | null>()
  const load = (level: number, n: number): Buffer | null => {
    const path = join(directory, tilePath(level, n))
    let bytes = cache.get(path)
    if (bytes === undefined) {
      bytes = existsSync(path) ? readFileSync(path) : null
      if (bytes !== null && bytes.length !== width * 32) bytes = null
      cache.set(path, bytes)
    }
    return bytes
  }
  const perfect: Perfect = (level, index) => {
    const tileLevel = Math.floor(level / 8)
    const count = 2 ** (level % 8)
    const first = index * count
    const tile = load(tileLevel, Math.floor(first / width))
    if (tile !== null) {
      const at = (first % width) * 32
      const hashes = Array.from({ length: count }, (_, i) =>
        tile.subarray(at + i * 32, at + i * 32 + 32),
      )
      return rootOf(hashes)
    }
    if (level === 0) return leaf(index)
    return rootOf([perfect(level - 1, index * 2), perfect(level - 1, index * 2 + 1)])
  }
  return perfect
}
