/** A rotation as a device or a person is shown it: exactly an epoch whose beginning proves the head they hold is taken. */
import { cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { Handovers, parseCheckpoint, type EndedEpoch } from '#audit'
import { HeadKeeper } from '#heads'
import { proveConsistency } from '../../audit/prove.ts'
import {
  beginning,
  ending,
  first,
  keysOf,
  now,
  second,
  textsOf,
  third,
  writeEpoch,
  writerOf,
  type EpochKeys,
} from './epoch-fixture.ts'
import { shared, stats, temporary } from './fixture.ts'

const noteOf = (directory: string): string => readFileSync(join(directory, 'checkpoint'), 'utf8')
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

function endedIn(directory: string, epoch: number, keys: EpochKeys): EndedEpoch {
  const last = parseCheckpoint(noteOf(directory))
  return { epoch, origin: keys.origin, directory, vkeys: keys.vkeys, last }
}

/** Three epochs: the first had a head of 3 events before it ended with 4. */
const folder = shared()
const [one, two, three] = ['1', '2', '3'].map((name) => join(folder, name)) as [
  string,
  string,
  string,
]
writeEpoch(one, first, { closing: ending(second), signedEarly: true })
writeEpoch(two, second, { opening: beginning(first, one), closing: ending(third) })
writeEpoch(three, third, { opening: beginning(second, two), events: 300 })
const early = readFileSync(join(one, 'checkpoints.log'), 'utf8').split(/(?<=\n)\n(?=sallyport)/)[0]

const ended = [endedIn(two, 2, second), endedIn(one, 1, first)]

/** What a gateway shows of the log in `directory` to who holds `from` events of it. */
function shows(directory: string, keys: EpochKeys, from = 0, note = noteOf(directory)) {
  const { size } = parseCheckpoint(note)
  const proof = from > 0 && from < size ? proveConsistency(directory, keys.origin, from, size) : []
  return { origin: keys.origin, keys: keys.vkeys, note, from, proof: proof.map(text) }
}

/** And to who holds so many of an earlier epoch. */
function over(
  directory: string,
  keys: EpochKeys,
  before: readonly EndedEpoch[],
  held: string,
  from: number,
) {
  const { size } = parseCheckpoint(noteOf(directory))
  const newest = { directory, origin: keys.origin }
  const handovers = new Handovers(newest, before).to(size, held, from)
  return { ...shows(directory, keys), handovers }
}

const keeperIn = (directory = temporary()): HeadKeeper => new HeadKeeper(directory, () => 1_000)
/** Somebody who was shown the first epoch when it had 3 events. */
function holder(): HeadKeeper {
  const keeper = keeperIn()
  expect(keeper.see(shows(one, first, 0, early))).toEqual({ kind: 'first' })
  return keeper
}
const toSecond = (from = 3) => over(two, second, ended.slice(1), first.origin, from)

describe('a rotation that is shown whole', () => {
  test('is followed from any head of the old epoch, and the new one goes on', () => {
    const keeper = holder()
    expect(keeper.see(toSecond())).toEqual({ kind: 'followed' })
    expect(keeper.all().map(({ origin }) => origin)).toEqual([second.origin])
    expect(keeper.see(shows(two, second, 5))).toEqual({ kind: 'same' })
    expect(keeper.conflicts()).toEqual([])
  })
  test('is followed from the last head of the old epoch', () => {
    const keeper = keeperIn()
    expect(keeper.see(shows(one, first))).toEqual({ kind: 'first' })
    expect(keeper.see(toSecond(4))).toEqual({ kind: 'followed' })
  })
  test('twice is followed to the third epoch, whose keys count from then on', () => {
    const keeper = holder()
    expect(keeper.see(over(three, third, ended, first.origin, 3))).toEqual({ kind: 'followed' })
    expect(keeper.held(third.origin)?.keys).toEqual(third.vkeys)
    expect(keeper.see(shows(three, third, 301))).toEqual({ kind: 'same' })
  })
  test('is followed by who was told one key of two', () => {
    const keeper = keeperIn()
    keeper.accept(first.origin, first.vkeys.slice(0, 1))
    expect(keeper.see(shows(one, first, 0, early))).toEqual({ kind: 'first' })
    expect(keeper.see(toSecond())).toEqual({ kind: 'followed' })
    expect(keeper.held(second.origin)?.keys).toEqual(second.vkeys)
  })
  test('is followed by who was told the keys it leads to, and the old head is let go of', () => {
    const keeper = holder()
    keeper.accept(second.origin, second.vkeys.slice(0, 1))
    expect(keeper.see(toSecond())).toEqual({ kind: 'followed' })
    expect(keeper.see(shows(one, first))).toMatchObject({ code: 'head.rollback' })
  })
  test('to other keys than the owner named is refused, whatever the old keys say, and his word stays', () => {
    const keeper = holder()
    const meant = keysOf(2)
    keeper.accept(second.origin, meant.vkeys)
    const stolen = { kind: 'conflict', code: 'head.signature' }
    expect(keeper.see(toSecond())).toMatchObject(stolen)
    expect(keeper.see(toSecond())).toMatchObject(stolen)
    expect(keeper.all().map(({ origin }) => origin)).toEqual([first.origin])
    expect(keeper.conflicts()).toHaveLength(1)
    // Those that he named are believed, though the old ones do not lead there.
    const directory = writeEpoch(temporary(), meant, { opening: beginning(first, one) })
    const meantOne = over(directory, meant, ended.slice(1), first.origin, 3)
    expect(keeper.see(meantOne)).toEqual({ kind: 'first' })
    expect(keeper.held(second.origin)?.keys).toEqual(meant.vkeys)
  })
  test('is not undone: the old epoch, shown again, is refused', () => {
    const keeper = holder()
    keeper.see(toSecond())
    expect(keeper.see(shows(one, first, 0))).toMatchObject({ code: 'head.rollback' })
  })
  test('to who holds nothing is no more than a first head', () => {
    expect(keeperIn().see(toSecond())).toEqual({ kind: 'first' })
  })
})

/** The first epoch from its beginning otherwise, ended by the old keys too. */
const otherEnd = (): string => writeEpoch(temporary(), first, { closing: ending(second) })

interface Refusal {
  readonly name: string
  readonly shown: () => object
  readonly code: string
}
const [handover] = toSecond().handovers
if (handover === undefined) throw new Error('there is one rotation')
const changed = (part: Partial<typeof handover>): object => ({
  ...toSecond(),
  handovers: [{ ...handover, ...part }],
})

const refusals: readonly Refusal[] = [
  { name: 'without its rotation', shown: () => shows(two, second), code: 'head.other' },
  {
    name: 'with a leaf for its end that is not the last',
    shown: () => changed({ closing: handover.opening, closing_path: handover.opening_path }),
    code: 'head.unproven',
  },
  {
    name: 'with no way to its end',
    shown: () => changed({ closing_path: [] }),
    code: 'head.unproven',
  },
  {
    name: 'with no way to its beginning',
    shown: () => changed({ opening_path: [] }),
    code: 'head.unproven',
  },
  {
    name: 'with no proof that the old epoch went on from what is held',
    shown: () => changed({ proof: [] }),
    code: 'head.unproven',
  },
  {
    name: 'with a head of the old epoch that was not its last',
    shown: () => changed({ note: early ?? '' }),
    code: 'head.unproven',
  },
  {
    name: 'that rogue keys signed, over a beginning that is right',
    shown: () => {
      const rogue = keysOf(2)
      const directory = writeEpoch(temporary(), rogue, { opening: beginning(first, one) })
      return over(directory, rogue, ended.slice(1), first.origin, 3)
    },
    code: 'head.unproven',
  },
  {
    name: 'whose beginning holds another end of the old epoch than the one that is shown',
    shown: () => {
      const other = otherEnd()
      const directory = writeEpoch(temporary(), second, { opening: beginning(first, other) })
      return over(directory, second, ended.slice(1), first.origin, 3)
    },
    code: 'head.unproven',
  },
  {
    name: 'from an old epoch that was rewritten before it ended',
    shown: () => {
      const other = otherEnd()
      const opening = beginning(first, other)
      const directory = writeEpoch(temporary(), second, { opening })
      return over(directory, second, [endedIn(other, 1, first)], first.origin, 3)
    },
    code: 'head.unproven',
  },
  {
    name: 'without the rotation between',
    shown: () => ({ ...over(three, third, ended, first.origin, 3), handovers: [handover] }),
    code: 'head.unproven',
  },
  {
    name: 'that an epoch which was never ended is said to have become',
    shown: () => {
      const other = writeEpoch(temporary(), first, { events: 4 })
      const directory = writeEpoch(temporary(), second, { opening: beginning(first, other) })
      return over(directory, second, [endedIn(other, 1, first)], first.origin, 3)
    },
    code: 'head.unproven',
  },
  {
    name: 'with more rotations than any gateway shows at once',
    shown: () => ({ ...toSecond(), handovers: Array.from({ length: 5 }, () => handover) }),
    code: 'head.invalid',
  },
]

describe('an epoch is refused', () => {
  test.for(refusals)('$name', ({ shown, code }) => {
    const keeper = holder()
    expect(keeper.see(shown())).toMatchObject({ kind: 'conflict', code })
    expect(keeper.all().map(({ origin }) => origin)).toEqual([first.origin])
    if (code !== 'head.invalid') expect(keeper.conflicts()).toHaveLength(1)
    // Nothing was spoilt by it: the true one is still followed.
    expect(keeper.see(toSecond())).toEqual({ kind: 'followed' })
  })
  test('from an end of fewer events than were held, as a rollback', () => {
    const keeper = keeperIn()
    const longer = temporary()
    cpSync(one, longer, { recursive: true })
    const forger = writerOf(longer, first)
    forger.write(textsOf(first, [stats(9)]))
    forger.sign(now)
    forger.close()
    expect(keeper.see(shows(longer, first))).toEqual({ kind: 'first' })
    expect(keeper.see(toSecond(5))).toMatchObject({ kind: 'conflict', code: 'head.rollback' })
  })
  test('from another end of as many events as were held, as a fork', () => {
    const keeper = keeperIn()
    const other = writeEpoch(temporary(), first, { events: 4 })
    expect(keeper.see(shows(other, first))).toEqual({ kind: 'first' })
    expect(keeper.see(toSecond(4))).toMatchObject({ kind: 'conflict', code: 'head.fork' })
  })
  test('with any one character of a proof, a leaf or a note changed', () => {
    const at = (value: string, place: number): string => {
      const i = Math.floor(value.length * place)
      return `${value.slice(0, i)}${value[i] === 'A' ? 'B' : 'A'}${value.slice(i + 1)}`
    }
    const places = [0.02, 0.3, 0.55, 0.9]
    const forged = [
      ...places.map((place) => changed({ closing: at(handover.closing, place) })),
      ...places.map((place) => changed({ opening: at(handover.opening, place) })),
      ...places.map((place) => changed({ note: at(handover.note, place) })),
      ...handover.proof.map((_, i) =>
        changed({ proof: handover.proof.map((hash, j) => (i === j ? at(hash, 0.5) : hash)) }),
      ),
      ...handover.closing_path.map((_, i) =>
        changed({
          closing_path: handover.closing_path.map((hash, j) => (i === j ? at(hash, 0.5) : hash)),
        }),
      ),
      ...handover.opening_path.map((_, i) =>
        changed({
          opening_path: handover.opening_path.map((hash, j) => (i === j ? at(hash, 0.5) : hash)),
        }),
      ),
    ]
    expect(forged.length).toBeGreaterThan(16)
    for (const shown of forged)
      expect(holder().see(shown)).toMatchObject({
        kind: 'conflict',
        code: expect.stringMatching(/^head\.(unproven|invalid)$/) as string,
      })
  })
})

test('who missed more rotations than one answer shows is told of another log, and accepts it', () => {
  const all = [first, second, third, keysOf(4), keysOf(5), keysOf(6)]
  const at = all.map(() => temporary())
  for (const [i, keys] of all.entries()) {
    const [before, next] = [all[i - 1], all[i + 1]]
    writeEpoch(at[i] ?? '', keys, {
      events: 1,
      ...(before ? { opening: beginning(before, at[i - 1] ?? '') } : {}),
      ...(next ? { closing: ending(next) } : {}),
    })
  }
  const [newest, directory] = [all[5] ?? first, at[5] ?? '']
  const before = [4, 3, 2, 1, 0].map((i) => endedIn(at[i] ?? '', i + 1, all[i] ?? first))
  const who = (i: number) => {
    const keeper = keeperIn()
    expect(keeper.see(shows(at[i] ?? '', all[i] ?? first))).toEqual({ kind: 'first' })
    const { origin } = all[i] ?? first
    const { size } = parseCheckpoint(noteOf(at[i] ?? ''))
    return { keeper, shown: over(directory, newest, before, origin, size) }
  }
  // Four at once are followed, and stay below the 128 KiB that a line to a device may have.
  const four = who(1)
  expect(four.shown.handovers).toHaveLength(4)
  expect(JSON.stringify(four.shown).length).toBeLessThan(96 * 1024)
  expect(four.keeper.see(four.shown)).toEqual({ kind: 'followed' })
  const five = who(0)
  expect(five.keeper.see(five.shown)).toMatchObject({ kind: 'conflict', code: 'head.other' })
  expect(five.keeper.accept(newest.origin, newest.vkeys)).toBe(true)
  expect(five.keeper.see(five.shown)).toEqual({ kind: 'first' })
})

test('of an epoch whose beginning was pruned, and of one that is not here, nothing is shown', () => {
  const { size } = parseCheckpoint(noteOf(two))
  const to = (directory: string, held: string) =>
    new Handovers({ directory, origin: second.origin }, ended.slice(1)).to(size, held, 3)
  expect(to(two, first.origin)).toHaveLength(1)
  expect(to(two, 'sallyport.test/audit/n9/1')).toEqual([])
  expect(to(temporary(), first.origin)).toEqual([])
})
