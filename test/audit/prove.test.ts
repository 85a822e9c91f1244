import { describe, expect, test } from 'vitest'
import { proveConsistency, proveEntry, readLog, verifyConsistency, verifyProof } from '#audit'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { realDisk } from '../../audit/disk.ts'
import { HashesKept } from '../../audit/prove.ts'
import { LogReader } from '../../audit/read.ts'
import { heads, origin, shared, temporary, vkeys, writer } from './fixture.ts'

const now = 1_800_000_000_000

/** 700 events, so that full tiles and the ragged edge both answer; heads at 100, 300 and 700. */
function build(directory: string): {
  directory: string
  heads: { size: number; root: string; note: string }[]
} {
  const one = writer(directory, realDisk, 200_000)
  one.open()
  const signed = [100, 200, 400].map((n) => {
    one.write(heads(n))
    const checkpoint = one.sign(now)
    if (checkpoint === null) throw new Error('nothing to sign')
    return checkpoint
  })
  one.close()
  return { directory, heads: signed }
}

describe('a proof', () => {
  const { directory, heads: signed } = build(shared())
  const last = signed[2]?.note
  test.for([0, 1, 99, 100, 255, 256, 300, 511, 512, 699])(
    'of event %i holds against the first head and the last',
    (idx) => {
      const first = proveEntry(directory, origin, { idx })
      expect(first.checkpoint.size).toBe([100, 300, 700].find((size) => size > idx))
      expect(verifyProof(first.proof, first.entry.body, vkeys)).toBe(true)
      const later = proveEntry(directory, origin, { idx }, last)
      expect(verifyProof(later.proof, later.entry.body, vkeys)).toBe(true)
    },
  )
  test('is found by uid, and is for that event alone', () => {
    const [third] = [...readLog(directory, origin, 2, 1)]
    const { entry, proof } = proveEntry(directory, origin, { uid: third?.uid ?? '' })
    expect(entry.idx).toBe(2)
    const other = proveEntry(directory, origin, { idx: 3 })
    expect(verifyProof(proof, other.entry.body, vkeys)).toBe(false)
    expect(verifyProof(proof.replace('index 2', 'index 3'), entry.body, vkeys)).toBe(false)
  })
  test('reads as the published format says', () => {
    const { proof } = proveEntry(directory, origin, { idx: 5 })
    expect(proof.split('\n').slice(0, 2)).toEqual(['c2sp.org/tlog-proof@v1', 'index 5'])
    expect(proof.endsWith(signed[0]?.note ?? '-')).toBe(true)
  })
  test('of nothing is refused', () => {
    expect(() => proveEntry(directory, origin, { idx: 700 })).toThrow(/not in the log/)
    expect(() => proveEntry(directory, origin, { uid: 'none' })).toThrow(/no event/)
    expect(() => verifyProof('c2sp.org/tlog-proof@v2\nindex 0\n\n', Buffer.of(), vkeys)).toThrow(
      /not a tlog-proof/,
    )
  })
  test('of consistency holds between every two heads', () => {
    for (const [i, old] of signed.entries())
      for (const newer of signed.slice(i)) {
        const proof = proveConsistency(directory, origin, old.size, newer.size)
        const roots = [old, newer].map(({ root }) => Buffer.from(root, 'hex')) as [Buffer, Buffer]
        expect(verifyConsistency(old.size, newer.size, proof, ...roots)).toBe(true)
        if (old !== newer)
          expect(verifyConsistency(old.size, newer.size, proof, roots[1], roots[1])).toBe(false)
      }
  })
})

test('reading from anywhere, forwards and back, gives the same entries with the same heads', () => {
  const { directory, heads: signed } = build(temporary())
  const all = [...readLog(directory, origin)]
  expect(all.map(({ idx }) => idx)).toEqual(Array.from({ length: 700 }, (_, i) => i))
  for (const [idx, head] of [
    [699, 2],
    [0, 0],
    [300, 2],
    [299, 1],
    [100, 1],
    [99, 0],
  ] as const) {
    const [entry] = [...readLog(directory, origin, idx, 1)]
    expect(entry?.uid).toBe(all[idx]?.uid)
    expect(entry?.cp).toBe(`${signed[head]?.size}-${signed[head]?.root.slice(0, 16)}`)
  }
  expect([...readLog(directory, origin, 700)]).toEqual([])
  expect(readFileSync(join(directory, 'checkpoint'), 'utf8')).toBe(signed[2]?.note)
})

test('hashes kept for a head are let go of after 1,024 questions, or the leaves behind them would stay for good', () => {
  const { directory } = build(temporary())
  const kept = new HashesKept(directory, new LogReader(directory, origin))
  const asked = Array.from({ length: 1_025 }, () => kept.of(700))
  expect(new Set(asked.slice(0, 1_024)).size).toBe(1)
  expect(asked[1_024]).not.toBe(asked[0])
  expect(asked[1_024]?.(0, 699)).toEqual(asked[0]?.(0, 699))
  // Another head is another tree.
  expect(kept.of(300)).not.toBe(asked[1_024])
})
