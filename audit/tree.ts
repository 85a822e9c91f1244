/** The Merkle tree of RFC 6962 section 2: hashes, heads and proofs; knows no files. */
import { hash } from 'node:crypto'

/** A SHA-256 value, 32 bytes. */
export type Hash = Uint8Array

/** The root of a tree without leaves: SHA-256 of nothing. */
export const emptyRoot: Hash = sha256(new Uint8Array(0))

function sha256(bytes: Uint8Array): Hash {
  // By way of a string, because a Buffer from the pool costs a third of one that the hash brings along.
  return Buffer.from(hash('sha256', bytes, 'binary'), 'binary')
}

const leafScratch = Buffer.alloc(33 * 1024)
/** SHA-256(0x00 || body). RFC 6962 2.1. */
export function leafHash(body: Uint8Array): Hash {
  if (body.length >= leafScratch.length) return sha256(Buffer.concat([new Uint8Array(1), body]))
  leafScratch.set(body, 1)
  return sha256(leafScratch.subarray(0, body.length + 1))
}

/**
 * The leaf hash of a body that stands in `bytes` from `offset` on, behind a byte that is zero: nothing is copied.
 * The header of a frame ends in such a byte.
 */
export function leafHashInPlace(bytes: Uint8Array, offset: number, end: number): Hash {
  if (bytes[offset - 1] !== 0) return leafHash(bytes.subarray(offset, end))
  return sha256(bytes.subarray(offset - 1, end))
}

const nodeScratch = Buffer.alloc(65, 1)
/** SHA-256(0x01 || left || right). RFC 6962 2.1. */
export function nodeHash(left: Hash, right: Hash): Hash {
  nodeScratch.set(left, 1)
  nodeScratch.set(right, 33)
  return sha256(nodeScratch)
}

function equalHash(a: Hash, b: Hash): boolean {
  return Buffer.compare(a, b) === 0
}

/**
 * The right edge of a growing tree: one hash per perfect subtree, largest first. Appending costs one node hash
 * on average, the root at most one per level.
 */
export class Frontier {
  size = 0
  readonly #perfect: Hash[] = []

  /** The tree of `size` leaves, of the perfect subtrees it is made of. */
  static of(size: number, perfect: Perfect): Frontier {
    const tree = new Frontier()
    tree.size = size
    tree.#perfect.push(...subtreesOf(size).map(({ level, index }) => perfect(level, index)))
    return tree
  }

  /**
   * Appends a leaf hash. `onPerfect` hears of every perfect subtree this leaf completes: its level (leaves are 0)
   * and its index on that level.
   */
  push(leaf: Hash, onPerfect?: (level: number, index: number, value: Hash) => void): void {
    let value = leaf
    let level = 0
    let index = this.size
    onPerfect?.(0, index, value)
    // An odd index on a level closes the pair to its left. Division, not shift: sizes pass 2^32.
    while (index % 2 === 1) {
      value = nodeHash(this.#perfect.pop() as Hash, value)
      index = (index - 1) / 2
      onPerfect?.(++level, index, value)
    }
    this.#perfect.push(value)
    this.size++
  }

  /** The same tree, to grow on its own. */
  copy(): Frontier {
    const copy = new Frontier()
    copy.size = this.size
    copy.#perfect.push(...this.#perfect)
    return copy
  }

  root(): Hash {
    let root: Hash | undefined
    for (let i = this.#perfect.length - 1; i >= 0; i--) {
      const left = this.#perfect[i] as Hash
      root = root === undefined ? left : nodeHash(left, root)
    }
    return root ?? emptyRoot
  }
}

/** The root over leaf hashes given as a list. */
export function rootOf(leaves: Iterable<Hash>): Hash {
  const frontier = new Frontier()
  for (const leaf of leaves) frontier.push(leaf)
  return frontier.root()
}

/** Gives the hash of a perfect subtree: `index` counts on its own `level`. */
export type Perfect = (level: number, index: number) => Hash

/** The perfect subtrees that the tree of `size` leaves is made of, the largest first. */
export function subtreesOf(size: number): { readonly level: number; readonly index: number }[] {
  const found: { level: number; index: number }[] = []
  let at = 0
  for (let level = Math.floor(Math.log2(Math.max(1, size))); level >= 0; level--) {
    const width = 2 ** level
    if (Math.floor(size / width) % 2 === 0) continue
    found.push({ level, index: at / width })
    at += width
  }
  return found
}

/** Largest power of two below n (n > 1): where RFC 6962 splits. */
function split(n: number): number {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

/** MTH(D[from:to]) from perfect subtrees; `from` must be where a subtree of the tree begins. */
function rangeRoot(perfect: Perfect, from: number, to: number): Hash {
  const n = to - from
  if (n === 0) return emptyRoot
  const level = Math.log2(n)
  if (Number.isInteger(level) && from % n === 0) return perfect(level, from / n)
  const k = split(n)
  return nodeHash(rangeRoot(perfect, from, from + k), rangeRoot(perfect, from + k, to))
}

/** PATH(idx, D[0:size]), from the leaf's sibling up. RFC 6962 2.1.1. Needs 0 <= idx < size. */
export function inclusionProof(perfect: Perfect, idx: number, size: number): Hash[] {
  const path: Hash[] = []
  let [from, to] = [0, size]
  while (to - from > 1) {
    const middle = from + split(to - from)
    if (idx < middle) {
      path.push(rangeRoot(perfect, middle, to))
      to = middle
    } else {
      path.push(rangeRoot(perfect, from, middle))
      from = middle
    }
  }
  return path.toReversed()
}

/** PROOF(old, D[0:size]). RFC 6962 2.1.2. Needs 0 <= old <= size; empty when old is 0 or size. */
export function consistencyProof(perfect: Perfect, old: number, size: number): Hash[] {
  if (old === 0 || old === size) return []
  const path: Hash[] = []
  let [from, to, whole] = [0, size, true]
  let remaining = old
  while (remaining !== to - from) {
    const k = split(to - from)
    if (remaining <= k) {
      path.push(rangeRoot(perfect, from + k, to))
      to = from + k
    } else {
      path.push(rangeRoot(perfect, from, from + k))
      from += k
      remaining -= k
      whole = false
    }
  }
  if (!whole) path.push(rangeRoot(perfect, from, to))
  return path.toReversed()
}

/** One step towards the root: where the pair stands on the next level up. */
function up([fn, sn]: readonly [number, number]): [number, number] {
  return [Math.floor(fn / 2), Math.floor(sn / 2)]
}

/** A left edge with nothing to its right is carried up unpaired. */
function carry(at: readonly [number, number]): [number, number] {
  let [fn, sn] = at
  while (fn % 2 === 0 && fn !== 0) [fn, sn] = up([fn, sn])
  return [fn, sn]
}

/** Whether `proof` shows that `leaf` stands at `idx` of the tree with this size and root. RFC 9162 2.1.3.2. */
export function verifyInclusion(
  leaf: Hash,
  idx: number,
  size: number,
  proof: readonly Hash[],
  root: Hash,
): boolean {
  if (!(idx >= 0 && idx < size)) return false
  let at: [number, number] = [idx, size - 1]
  let value = leaf
  for (const sibling of proof) {
    const [fn, sn] = at
    if (sn === 0) return false
    if (fn % 2 === 1 || fn === sn) {
      value = nodeHash(sibling, value)
      at = carry(at)
    } else value = nodeHash(value, sibling)
    at = up(at)
  }
  return at[1] === 0 && equalHash(value, root)
}

/** Whether `proof` shows that the tree of `size` begins with the tree of `oldSize`. RFC 9162 2.1.4.2. */
export function verifyConsistency(
  oldSize: number,
  size: number,
  proof: readonly Hash[],
  oldRoot: Hash,
  root: Hash,
): boolean {
  if (oldSize > size || oldSize < 0) return false
  if (oldSize === size) return proof.length === 0 && equalHash(oldRoot, root)
  if (oldSize === 0) return proof.length === 0 && equalHash(oldRoot, emptyRoot)
  const first = startsWhole(oldSize) ? [oldRoot] : []
  const roots = consistencyRoots(oldSize, size, [...first, ...proof])
  return roots !== null && equalHash(roots.old, oldRoot) && equalHash(roots.whole, root)
}

/** An old tree that is one perfect subtree is its own first hash, so that a proof leaves it out. */
export function startsWhole(oldSize: number): boolean {
  return Number.isInteger(Math.log2(oldSize))
}

/**
 * The roots of the tree of `oldSize` and of the tree of `size` that a consistency proof leads to, its first hash never
 * left out; null for one of the wrong length. Needs 0 < oldSize < size. Where `whole` is a signed root, `old` is the
 * root of what that tree begins with. RFC 9162 2.1.4.2.
 */
export function consistencyRoots(
  oldSize: number,
  size: number,
  proof: readonly Hash[],
): { readonly old: Hash; readonly whole: Hash } | null {
  const [first, ...path] = proof
  if (first === undefined) return null
  let at: [number, number] = [oldSize - 1, size - 1]
  while (at[0] % 2 === 1) at = up(at)
  let [fr, sr] = [first, first]
  for (const value of path) {
    const [fn, sn] = at
    if (sn === 0) return null
    if (fn % 2 === 1 || fn === sn) {
      fr = nodeHash(value, fr)
      sr = nodeHash(value, sr)
      at = carry(at)
    } else sr = nodeHash(sr, value)
    at = up(at)
  }
  return at[1] === 0 ? { old: fr, whole: sr } : null
}
