/**
 * Evidence of an epoch that is over: whoever came to have its keys since can sign any history under them. What is here of it
 * must be what the next one, whose keys they have not, goes on from.
 */
import { hash } from 'node:crypto'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { buildEvidence } from '#audit'
import {
  derive,
  judge,
  manifestText,
  proveEvents,
  readVkey,
  readZip,
  verifyPackage,
} from '../../../audit/evidence/verify.mjs'
import { listed, packEntry, zipOf, type Packed } from '../../../audit/evidence/zip.ts'
import { first, keysOf, second, third, type EpochKeys } from '../epoch-fixture.ts'
import { shared } from '../fixture.ts'
import { begin, minute, Month } from '../month.ts'
import { catalogue, foreign, forge, hasForeign, remade } from './fixture.ts'

const at = (directory: string, epoch: number): string => join(directory, String(epoch))

/** Three epochs; `told`: with a session in the first, which a forger would rather not show. */
function history(directory: string, keys: readonly [EpochKeys, EpochKeys, EpochKeys], told = true) {
  const one = new Month(at(directory, 1), undefined, keys[0])
  one.open()
  one.pass(2)
  if (told) {
    one.grant('g_1')
    one.start('s_1', 'g_1')
    one.pass(2)
    one.end('s_1')
  }
  one.pass(12)
  const two = one.rotate(at(directory, 2), keys[1])
  const once = two.time
  two.pass(6)
  const three = two.rotate(at(directory, 3), keys[2])
  three.pass(3)
  three.one.sign(three.time)
  three.one.close()
  return { once, end: three.time }
}
const real = shared()
const { once, end } = history(real, [first, second, third])

interface Asked {
  readonly log?: string
  readonly vkeys?: readonly string[]
  readonly from?: number
  readonly to?: number
}
const packageOf = ({ log = real, vkeys = third.vkeys, from = begin, to = end }: Asked): Buffer =>
  buildEvidence({ directory: log, vkeys, from, to, leadMs: 0, catalogue }).bytes
const early = { to: begin + 8 * minute }
const zip = packageOf(early)

const entriesOf = (bytes: Buffer, of: RegExp): Packed[] =>
  [...readZip(bytes).values()].filter(({ name }) => of.test(name))

/** A package of these files of a log, all that is made of them made anew: what a forger who knows this program would do. */
function sealed(log: readonly Packed[], from: Buffer, vkeys: readonly string[], to: number) {
  const entries = new Map(
    log.map(({ name, bytes, packed }) => [
      name,
      { name, bytes: Buffer.from(bytes), packed: Buffer.from(packed) },
    ]),
  )
  const proven = proveEvents(entries, vkeys.map(readVkey))
  const judgement = judge(proven, begin, to)
  const asked = {
    from: begin,
    to,
    framework: undefined,
    device: undefined,
    catalogueSha256: catalogue.sha256,
  }
  const files = derive(proven, judgement, asked, catalogue.controls)
  const all = [
    ...log,
    ...entriesOf(from, /^(catalogue.json|verify\.)/),
    ...[...files].map(([name, text]) => packEntry(name, text)),
  ]
  const manifest = manifestText(proven, judgement, asked, all.map(listed))
  return zipOf([
    ...all,
    packEntry('manifest.json', manifest),
    packEntry('manifest.sha256', `${hash('sha256', manifest)}  manifest.json\n`),
  ])
}

/** Both programs say this, with this exit, and neither that the events are proven. */
function bothRefuse(bytes: Buffer, vkeys: readonly string[], exit: 1 | 2, says: RegExp): void {
  const ours = verifyPackage(bytes, [...vkeys])
  expect(ours.lines.join('\n')).toMatch(says)
  expect(ours.exit).toBe(exit)
  expect(ours.lines.join('\n')).not.toMatch(/^PROVEN: (complete|log\/events)/m)
  if (!hasForeign) return
  const theirs = foreign(bytes, vkeys)
  expect(theirs.out).toMatch(says)
  expect(theirs.exit).toBe(exit)
  expect(theirs.out).not.toMatch(/^PROVEN: (complete|log\/events)/m)
}

/** Epoch 1 anew under keys of their own, and the beginning of 2 that names these, signed by 2's keys, which they have. */
const own = keysOf(1)
const forged = shared()
history(forged, [own, second, third], false)
const forgedOne = packageOf({ log: forged, vkeys: own.vkeys, ...early })
const link3 = entriesOf(zip, /^log\/keys\/3\//)

test('the thief of an older epoch’s keys writes what was before it anew: the newest hold nothing of it', () => {
  const log = [...entriesOf(forgedOne, /^log\/(?!keys\/3)/), ...link3]
  const without = log.filter(({ name }) => name !== 'log/keys/2/consistency.json')
  const says =
    /^NOT PROVABLE: nothing here shows that \S+\/n1\/3 goes on from what is here of \S+\/n1\/2$/m
  bothRefuse(sealed(without, zip, own.vkeys, early.to), third.vkeys, 2, says)
  // With the proof of their own second epoch, or of the real one.
  expect(log.length).toBe(without.length + 1)
  for (const some of [log, [...without, ...entriesOf(zip, /^log\/keys\/2\/consistency/)]])
    bothRefuse(
      remade(sealed(without, zip, own.vkeys, early.to), (entry) =>
        entry.name === 'log/checkpoints'
          ? [entry, ...some.filter(({ name }) => name === 'log/keys/2/consistency.json')]
          : [entry],
      ),
      third.vkeys,
      1,
      /VIOLATED at log\/keys\/2\/consistency.json/,
    )
})

test('the thief of an older epoch’s keys shows it with the one before, both anew', () => {
  const to = once + minute
  const both = packageOf({ log: forged, vkeys: own.vkeys, to })
  const log = [...entriesOf(both, /^log\/[12]\/(?!consistency)/), ...link3]
  const says =
    /^NOT PROVABLE: nothing here shows that \S+\/n1\/3 goes on from what is here of \S+\/n1\/2$/m
  bothRefuse(sealed(log, zip, own.vkeys, to), third.vkeys, 2, says)
})

test('an epoch whose keys leaked is not proven by them where newer ones were given', () => {
  const leaked = shared()
  history(leaked, [first, keysOf(2), keysOf(3)], false)
  const alone = packageOf({ log: at(leaked, 1), vkeys: first.vkeys, ...early })
  expect(verifyPackage(alone, [...first.vkeys])).toMatchObject({ exit: 0 })
  const says = /^NOT PROVABLE: keys of \S+\/n1\/3 were given, and nothing here leads to it$/m
  bothRefuse(alone, [...first.vkeys, ...third.vkeys], 2, says)
  // Between it and the newest one that says nothing of what was before it: the end of the second alone.
  const ends = entriesOf(packageOf({ from: end - minute }), /^log\/keys\/2\//)
  const log = [...entriesOf(alone, /^log\//), ...ends, ...link3]
  bothRefuse(
    sealed(log, zip, first.vkeys, early.to),
    [...first.vkeys, ...third.vkeys],
    2,
    /^NOT PROVABLE: keys of \S+\/n1\/3 were given, and nothing here leads from it to \S+\/n1\/1$/m,
  )
})

test('the proof is as long as the log asks, wherever in an epoch the time ends', () => {
  for (let to = begin + minute; to < once - 3 * minute; to += minute) {
    const some = packageOf({ to })
    expect(readZip(some).has('log/consistency.json')).toBe(true)
    expect(verifyPackage(some, [...third.vkeys])).toMatchObject({ exit: 0 })
    if (hasForeign && (to - begin) % (5 * minute) === minute)
      expect(foreign(some, third.vkeys).exit).toBe(0)
  }
})

const place = 'log/consistency.json'
const changed = (change: (proof: { from: number; size: number; hashes: string[] }) => unknown) =>
  forge(zip, { [place]: (text) => `${JSON.stringify(change(JSON.parse(text)))}\n` })
const rows: { name: string; bytes: () => Buffer }[] = [
  {
    name: 'a hash less',
    bytes: () => changed((proof) => ({ ...proof, hashes: proof.hashes.slice(1) })),
  },
  {
    name: 'a hash more',
    bytes: () => changed((proof) => ({ ...proof, hashes: [...proof.hashes, '00'.repeat(32)] })),
  },
  {
    name: 'another hash',
    bytes: () => changed((proof) => ({ ...proof, hashes: proof.hashes.with(-1, 'ab'.repeat(32)) })),
  },
  { name: 'no hash', bytes: () => changed((proof) => ({ ...proof, hashes: [] })) },
  { name: 'another beginning', bytes: () => changed((proof) => ({ ...proof, from: 1 })) },
  { name: 'another end', bytes: () => changed(({ size, ...proof }) => ({ ...proof, size })) },
]
test.for(rows)('a proof with $name is a violation', ({ bytes }) => {
  bothRefuse(bytes(), third.vkeys, 1, /VIOLATED at log\/consistency.json/)
})
test('a proof where none belongs is a violation', () => {
  const proof = entriesOf(zip, /^log\/consistency/)[0]?.bytes ?? ''
  const bytes = remade(zip, (entry) =>
    entry.name === 'log/keys/3/leaves.txt'
      ? [entry, packEntry('log/keys/3/consistency.json', Buffer.from(proof))]
      : [entry],
  )
  bothRefuse(bytes, third.vkeys, 1, /VIOLATED at log\/keys\/3\/consistency.json/)
})
