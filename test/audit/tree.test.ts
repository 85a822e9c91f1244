import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  consistencyProof,
  emptyRoot,
  Frontier,
  inclusionProof,
  leafHash,
  nodeHash,
  rootOf,
  verifyConsistency,
  verifyInclusion,
  type Hash,
  type Perfect,
} from '../../audit/tree.ts'

const vectors = JSON.parse(
  readFileSync(new URL('../vectors/events/tree.json', import.meta.url), 'utf8'),
) as { leaves: string[]; roots: string[] }
const hex = (hash: Hash): string => Buffer.from(hash).toString('hex')
const known = vectors.leaves.map((leaf) => leafHash(Buffer.from(leaf, 'hex')))

/** MTH as RFC 6962 writes it, to hold the quick one against. */
function plainRoot(leaves: readonly Hash[]): Hash {
  if (leaves.length === 0) return emptyRoot
  if (leaves.length === 1) return leaves[0] as Hash
  let k = 1
  while (k * 2 < leaves.length) k *= 2
  return nodeHash(plainRoot(leaves.slice(0, k)), plainRoot(leaves.slice(k)))
}
const perfectOf =
  (leaves: readonly Hash[]): Perfect =>
  (level, index) =>
    plainRoot(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level))
const some = (n: number): Hash[] =>
  Array.from({ length: n }, (_, i) => leafHash(Buffer.from(`leaf ${i}`)))

describe('the known tree', () => {
  test('a tree of nothing is the hash of nothing', () => {
    expect(hex(new Frontier().root())).toBe(
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    )
  })
  test.for(vectors.roots.map((root, i) => ({ size: i + 1, root })))(
    'the root of its first $size leaves',
    ({ size, root }) => {
      expect(hex(rootOf(known.slice(0, size)))).toBe(root)
    },
  )
})

describe('proofs', () => {
  test('every inclusion proof up to 70 leaves holds, and for no other leaf, index or size', () => {
    for (const size of [1, 2, 3, 7, 8, 9, 31, 64, 70]) {
      const leaves = some(size)
      const root = plainRoot(leaves)
      for (let idx = 0; idx < size; idx++) {
        const proof = inclusionProof(perfectOf(leaves), idx, size)
        const leaf = leaves[idx] as Hash
        expect(verifyInclusion(leaf, idx, size, proof, root)).toBe(true)
        if (size === 1) continue
        expect(verifyInclusion(leaf, (idx + 1) % size, size, proof, root)).toBe(false)
        expect(verifyInclusion(leaves[(idx + 1) % size] as Hash, idx, size, proof, root)).toBe(
          false,
        )
        expect(verifyInclusion(leaf, idx, size, proof.slice(1), root)).toBe(false)
        expect(verifyInclusion(leaf, idx, size, [...proof, leaf], root)).toBe(false)
      }
    }
  })
  test('every consistency proof up to 40 leaves holds, and not with another old root', () => {
    const leaves = some(40)
    for (let size = 1; size <= 40; size++) {
      const root = plainRoot(leaves.slice(0, size))
      for (let old = 0; old <= size; old++) {
        const oldRoot = plainRoot(leaves.slice(0, old))
        const proof = consistencyProof(perfectOf(leaves.slice(0, size)), old, size)
        expect(verifyConsistency(old, size, proof, oldRoot, root)).toBe(true)
        expect(verifyConsistency(old, size, proof, leafHash(Buffer.from('other')), root)).toBe(
          false,
        )
        if (proof.length > 0)
          expect(verifyConsistency(old, size, proof.slice(1), oldRoot, root)).toBe(false)
      }
    }
  })
  test('an index outside the tree is no proof', () => {
    expect(verifyInclusion(known[0] as Hash, 1, 1, [], known[0] as Hash)).toBe(false)
    expect(verifyInclusion(known[0] as Hash, -1, 1, [], known[0] as Hash)).toBe(false)
    expect(verifyConsistency(2, 1, [], known[0] as Hash, known[0] as Hash)).toBe(false)
  })
})

test('a frontier gives the root that the definition gives, after every leaf', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 80 }), (bodies) => {
      const leaves = bodies.map(leafHash)
      const frontier = new Frontier()
      for (const [i, leaf] of leaves.entries()) {
        frontier.push(leaf)
        expect(hex(frontier.root())).toBe(hex(plainRoot(leaves.slice(0, i + 1))))
      }
    }),
  )
})

test('changing, dropping, repeating or exchanging any leaf changes the root', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.string(), { minLength: 2, maxLength: 40 }),
      fc.nat(),
      fc.nat(),
      (texts, a, b) => {
        const leaves = texts.map((text) => leafHash(Buffer.from(text)))
        const i = a % leaves.length
        const j = b % leaves.length
        const root = hex(rootOf(leaves))
        expect(hex(rootOf(leaves.toSpliced(i, 1)))).not.toBe(root)
        expect(hex(rootOf(leaves.toSpliced(i, 0, leaves[i] as Hash)))).not.toBe(root)
        if (i === j) return
        const swapped = leaves.with(i, leaves[j] as Hash).with(j, leaves[i] as Hash)
        expect(hex(rootOf(swapped))).not.toBe(root)
      },
    ),
  )
})
