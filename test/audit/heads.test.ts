/** Who is shown heads of a log: what they keep, what they refuse, what two of them can show together. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openHeads } from '#audit'
import { HeadKeeper } from '#heads'
import { signCheckpoint } from '../../audit/checkpoint.ts'
import { formatVkey, noteSigner } from '../../audit/note.ts'
import { consistencyProof, leafHash, rootOf } from '../../audit/tree.ts'
import type { Hash, Perfect } from '../../audit/tree.ts'
import { keys, origin, signers, temporary, vkeys } from './fixture.ts'

/** A history: `size` leaves, of which those from `forked` on are other ones. */
function history(size: number, forked = size): Hash[] {
  return Array.from({ length: size }, (_, i) =>
    leafHash(Buffer.from(`${i < forked ? '' : 'x'}${i}`)),
  )
}

function perfectOf(leaves: readonly Hash[]): Perfect {
  return (level, index) => rootOf(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level))
}

function shown(size: number, from = 0, forked = size, name = origin) {
  const leaves = history(size, forked)
  const sign =
    name === origin ? signers : [noteSigner(name, keys.ed25519), noteSigner(name, keys.mlDsa44)]
  const proof = from > 0 && from < size ? consistencyProof(perfectOf(leaves), from, size) : []
  return {
    origin: name,
    keys: name === origin ? vkeys : sign.map(({ verifier }) => verifier.vkey),
    note: signCheckpoint({ origin: name, size, root: rootOf(leaves) }, sign, 1_800_000_000_000)
      .note,
    from,
    proof: proof.map((hash) => Buffer.from(hash).toString('base64')),
  }
}

const keeperIn = (directory = temporary()): HeadKeeper => new HeadKeeper(directory, () => 1_000)

test('a log that grows is followed, across restarts', () => {
  const directory = temporary()
  expect(keeperIn(directory).see(shown(7))).toEqual({ kind: 'first' })
  expect(keeperIn(directory).see(shown(7, 7))).toEqual({ kind: 'same' })
  for (const [from, size] of [
    [7, 8],
    [8, 300],
    [300, 301],
  ] as const)
    expect(keeperIn(directory).see(shown(size, from))).toEqual({ kind: 'grew' })
  expect(keeperIn(directory).held(origin)).toMatchObject({ size: 301, at: 1_000 })
  expect(keeperIn(directory).conflicts()).toEqual([])
})

const other = generateKeyPairSync('ed25519').privateKey
const wrong: { name: string; held: number; shows: object; code: string }[] = [
  { name: 'fewer events', held: 9, shows: shown(8), code: 'head.rollback' },
  { name: 'others, as many', held: 9, shows: shown(9, 9, 3), code: 'head.fork' },
  { name: 'more, with another beginning', held: 9, shows: shown(20, 9, 3), code: 'head.unproven' },
  {
    name: 'more, without a proof',
    held: 9,
    shows: { ...shown(20, 9), proof: [] },
    code: 'head.unproven',
  },
  {
    name: 'more, proven from another size',
    held: 9,
    shows: shown(20, 8),
    code: 'head.unproven',
  },
  {
    name: 'a head under other keys',
    held: 9,
    shows: {
      ...shown(20, 9),
      keys: [formatVkey(origin, other)],
      note: signCheckpoint(
        { origin, size: 20, root: rootOf(history(20)) },
        [noteSigner(origin, other)],
        0,
      ).note,
    },
    code: 'head.signature',
  },
  {
    name: 'a head with one bit changed',
    held: 9,
    shows: { ...shown(20, 9), note: shown(20, 9).note.replace(/^20$/m, '21') },
    code: 'head.signature',
  },
  { name: 'no head', held: 9, shows: { note: 'hello' }, code: 'head.invalid' },
  {
    name: 'a proof without end',
    held: 9,
    shows: { ...shown(20, 9), proof: Array.from({ length: 65 }, () => 'AA==') },
    code: 'head.invalid',
  },
]
test.for(wrong)('$name: refused, and what was held stays', ({ held, shows, code }) => {
  const directory = temporary()
  const keeper = keeperIn(directory)
  const before = shown(held)
  keeper.see(before)
  expect(keeper.see(shows)).toMatchObject({ kind: 'conflict', code })
  expect(keeper.held(origin)).toMatchObject({ size: held })
  const evidence = keeper.conflicts()
  expect(evidence).toHaveLength(code === 'head.invalid' ? 0 : 1)
  for (const path of evidence) {
    const kept = JSON.parse(readFileSync(path, 'utf8')) as { held: { note: string }; shown: object }
    expect(kept.held.note).toBe(before.note)
    expect(kept.shown).toEqual(shows)
  }
  // The log as it was goes on being believed.
  expect(keeper.see(shown(held + 5, held))).toEqual({ kind: 'grew' })
})

test('evidence is bounded, however often a gateway lies', () => {
  const keeper = keeperIn()
  keeper.see(shown(9))
  for (let size = 10; size < 40; size++) keeper.see(shown(size, 9, 2))
  expect(keeper.conflicts()).toHaveLength(8)
})

test('heads that nobody signed take one place, and leave the others to those that are evidence', () => {
  const keeper = keeperIn()
  keeper.see(shown(20))
  for (let i = 0; i < 20; i++)
    expect(keeper.see({ ...shown(20), note: `garbage ${i}\n` })).toMatchObject({
      code: 'head.signature',
    })
  expect(keeper.conflicts()).toHaveLength(1)
  for (let forked = 0; forked < 12; forked++) keeper.see(shown(20, 0, forked))
  expect(keeper.conflicts()).toHaveLength(9)
  const codes = keeper
    .conflicts()
    .map((path) => (JSON.parse(readFileSync(path, 'utf8')) as { code: string }).code)
  expect(codes.filter((code) => code === 'head.fork')).toHaveLength(8)
})

const second = 'd.test/audit/other/1'

test.for([
  { name: 'a node never heard of', log: second },
  { name: 'a later epoch of the same node', log: origin.replace(/[0-9]+$/, '999') },
])('the log of $name is refused where one is held, until the owner accepts it', ({ log }) => {
  const directory = temporary()
  const before = shown(9)
  keeperIn(directory).see(before)
  const said = keeperIn(directory).see(shown(3, 0, 3, log))
  expect(said).toMatchObject({ kind: 'conflict', code: 'head.other', held: before.note })
  expect(said).toHaveProperty('message', expect.stringContaining(log))
  expect(keeperIn(directory).held(log)).toBeNull()
  // However many names are shown, they take one place.
  keeperIn(directory).see(shown(3, 0, 3, `${second}0`))
  expect(keeperIn(directory).conflicts()).toHaveLength(1)
  expect(keeperIn(directory).accept(log, [])).toBe(true)
  expect(keeperIn(directory).conflicts()).toEqual([])
  expect(keeperIn(directory).see(shown(3, 0, 3, log))).toEqual({ kind: 'first' })
  expect(keeperIn(directory).see(shown(4, 3, 4, log))).toEqual({ kind: 'grew' })
  // Both go on, each from its own head; a third is as unknown as the second was.
  expect(keeperIn(directory).see(shown(10, 9))).toEqual({ kind: 'grew' })
  expect(keeperIn(directory).see(shown(3, 0, 3, `${second}1`))).toMatchObject({
    code: 'head.other',
  })
  expect(keeperIn(directory).accept(log, [])).toBe(false)
})

test('a log that is accepted by its keys is believed under no others, and not twice', () => {
  const keeper = keeperIn()
  keeper.see(shown(9))
  const real = shown(3, 0, 3, second)
  expect(() => keeper.accept(second, vkeys)).toThrow(/not all of these keys/)
  keeper.accept(second, real.keys)
  const forged = [formatVkey(second, other)]
  const note = signCheckpoint(
    { origin: second, size: 3, root: rootOf(history(3)) },
    [noteSigner(second, other)],
    0,
  ).note
  expect(keeper.see({ ...real, keys: forged, note })).toMatchObject({ code: 'head.signature' })
  expect(keeper.see({ ...real, keys: forged })).toEqual({ kind: 'first' })
  expect(keeper.held(second)).toMatchObject({ keys: real.keys })
  // Once forgotten, the word for it is spent.
  keeper.forget(second)
  expect(keeper.see(real)).toMatchObject({ code: 'head.other' })
})

test('an accepted log whose file somebody changed is said, not taken for a word', () => {
  const directory = temporary()
  keeperIn(directory).see(shown(9))
  keeperIn(directory).accept(second, [])
  const file = readdirSync(directory).find((one) => one.startsWith('accepted-')) ?? ''
  writeFileSync(join(directory, file), 'yes')
  expect(() => keeperIn(directory).see(shown(3, 0, 3, second))).toThrow(/cannot be used/)
})

test('an earlier epoch is a step back, and there is no end of logs', () => {
  const keeper = keeperIn()
  const of = (name: string) => {
    keeper.accept(name, [])
    return keeper.see(shown(3, 0, 3, name))
  }
  expect(of('d.test/audit/n/1')).toEqual({ kind: 'first' })
  expect(of('d.test/audit/n/3')).toEqual({ kind: 'first' })
  expect(of('d.test/audit/n/2')).toMatchObject({ code: 'head.rollback' })
  for (let node = 0; node < 14; node++) of(`d.test/audit/m${node}/1`)
  expect(of('d.test/audit/last/1')).toMatchObject({ code: 'head.full' })
  expect(keeper.all()).toHaveLength(16)
})

test('a gateway that stops showing its log is not one that never did', () => {
  const keeper = keeperIn()
  expect(keeper.hidden()).toBeNull()
  keeper.see(shown(3))
  expect(keeper.hidden()).toMatchObject({ code: 'head.hidden' })
  expect(keeper.forget(origin)).toBe(true)
  expect(keeper.forget(origin)).toBe(false)
  expect(keeper.hidden()).toBeNull()
})

test('a file that somebody changed is said, not taken for nothing', () => {
  const directory = join(temporary(), 'witness')
  mkdirSync(directory)
  const keeper = keeperIn(directory)
  keeper.see(shown(3))
  const file = join(directory, readdirSync(directory)[0] ?? '')
  writeFileSync(file, readFileSync(file, 'utf8').replace('\\n3\\n', '\\n4\\n'))
  expect(() => keeper.see(shown(4, 3))).toThrow(/cannot be used/)
})

test('heads that were exported are read back, of this log alone', () => {
  const text = `${shown(3).note}\n${shown(5).note}\n`
  expect(openHeads(text, vkeys).map(({ size }) => size)).toEqual([3, 5])
  expect(() => openHeads('', vkeys)).toThrow(/no head/)
  expect(() => openHeads(`${shown(3, 0, 3, 'd.test/audit/n/1').note}\n`, vkeys)).toThrow()
})
