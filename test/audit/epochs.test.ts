/** A log over its epochs: what goes on is proven from the keys of any one of them, and what was put between is found. */
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { formatVkey } from '../../audit/note.ts'
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
} from './epoch-fixture.ts'
import { stats, temporary } from './fixture.ts'
import { at, verify, pristine, copy, checkpoint } from './node-of-epochs.ts'

describe('a log of three epochs', () => {
  test.for([
    { name: 'the keys of the first', keys: first.vkeys },
    { name: 'the keys of the one between', keys: second.vkeys },
    { name: 'the keys of the newest', keys: third.vkeys },
    { name: 'one key of the first, of two', keys: first.vkeys.slice(0, 1) },
    { name: 'one key of the newest, of two', keys: third.vkeys.slice(1) },
    { name: 'all keys', keys: [...first.vkeys, ...second.vkeys, ...third.vkeys] },
  ])('is proven by $name', async ({ keys }) => {
    const found = await verify(copy(), keys)
    expect(found).toMatchObject({ outcome: 'proven' })
    expect(found.epochs.map(({ epoch, verdict }) => [epoch, verdict.outcome])).toEqual([
      [1, 'proven'],
      [2, 'proven'],
      [3, 'proven'],
    ])
  })
  test('is not provable by keys of another log', async () => {
    const found = await verify(copy(), keysOf(4).vkeys)
    expect(found).toMatchObject({ outcome: 'not-provable', epochs: [] })
    expect(found.why).toContain('no key given is of')
  })
  test('whose first epoch is elsewhere is proven from there on, and says from which head', async () => {
    const node = copy()
    rmSync(at(node, 1), { recursive: true })
    expect(await verify(node, third.vkeys)).toMatchObject({
      outcome: 'proven',
      before: { origin: first.origin, size: 4 },
    })
  })
  test.for([
    { name: 'an epoch of it', epoch: 1 as const },
    { name: 'the newest', epoch: 3 as const },
  ])('still holds a head kept of $name', async ({ epoch }) => {
    const node = copy()
    const held = [checkpoint(node, epoch)]
    expect(await verify(node, first.vkeys, held)).toMatchObject({ outcome: 'proven' })
  })
  test.for([
    { name: 'before its newest epoch, the one before not ended', left: [1, 2], ended: false },
    { name: 'before all but the first', left: [1], ended: false },
    { name: 'before its newest epoch', left: [1, 2], ended: true },
  ])('cut off $name is not proven to who has the keys of that', async ({ left, ended }) => {
    const node = copy()
    const last = left.length
    for (const epoch of [1, 2, 3].slice(last)) rmSync(at(node, epoch), { recursive: true })
    if (!ended) {
      const opening = last === 1 ? {} : { opening: beginning(first, at(node, 1)) }
      rmSync(at(node, last), { recursive: true })
      writeEpoch(at(node, last), last === 1 ? first : second, opening)
      expect(await verify(node)).toMatchObject({ outcome: 'proven' })
    }
    expect(await verify(node, [...first.vkeys, ...third.vkeys])).toMatchObject({
      outcome: 'not-provable',
      why: ended
        ? `the log goes on as ${third.origin}, which is not here`
        : `keys were given of ${third.origin}, which is not here`,
    })
  })
  test('is proven to who has keys of another log besides, or of an epoch that was archived', async () => {
    const node = copy()
    const other = formatVkey('sallyport.test/audit/n2/9', third.ed25519)
    expect(await verify(node, [...third.vkeys, other])).toMatchObject({ outcome: 'proven' })
    rmSync(at(node, 1), { recursive: true })
    expect(await verify(node, [...first.vkeys, ...third.vkeys])).toMatchObject({
      outcome: 'proven',
    })
  })
  test('is not provable against a head of a log that is not here', async () => {
    const other = writeEpoch(temporary(), keysOf(7))
    const held = [readFileSync(join(other, 'checkpoint'), 'utf8')]
    expect(await verify(copy(), first.vkeys, held)).toMatchObject({
      outcome: 'not-provable',
      why: 'a held note is of sallyport.test/audit/n1/7, which is not here',
    })
  })
})

interface Forgery {
  readonly name: string
  /** Gives the keys of who forged it, where they are none of the log's. */
  readonly forge: (node: string) => readonly string[] | void
  readonly outcome: 'violated' | 'not-provable'
  readonly why: RegExp
}

/** Replaces the second epoch of two. */
const instead = (node: string, write: (directory: string) => void): void => {
  rmSync(at(node, 2), { recursive: true })
  write(at(node, 2))
}

const forgeries: readonly Forgery[] = [
  {
    name: 'a head of the old epoch that is not its last',
    forge: (node) => {
      const [early = ''] = readFileSync(join(at(node, 1), 'checkpoints.log'), 'utf8').split(
        /(?<=\n)\n(?=sallyport)/,
      )
      const opening = { ...beginning(first, at(node, 1)), note: early }
      instead(node, (directory) => writeEpoch(directory, second, { opening }))
    },
    outcome: 'violated',
    why: /goes on from a head of 3 events that is not the last of .*\/1, which has 4/,
  },
  {
    name: 'a last head of another history that the old keys signed',
    forge: (node) => {
      const other = writeEpoch(temporary(), first, { closing: ending(second) })
      const opening = beginning(first, other)
      instead(node, (directory) => writeEpoch(directory, second, { opening }))
    },
    outcome: 'violated',
    why: /goes on from a head of 4 events that is not the last/,
  },
  {
    name: 'an epoch between that is left out',
    forge: (node) => {
      rmSync(at(node, 2), { recursive: true })
      writeEpoch(at(node, 3), third, { opening: beginning(first, at(node, 1)) })
    },
    outcome: 'violated',
    why: /\/3 does not follow .*\/1/,
  },
  {
    name: 'an epoch between that is not here',
    forge: (node) => {
      rmSync(node, { recursive: true })
      cpSync(pristine, node, { recursive: true })
      rmSync(at(node, 2), { recursive: true })
    },
    outcome: 'not-provable',
    why: /epoch 2, from which .*\/3 goes on, is not here/,
  },
  {
    name: 'an event that the old keys signed behind the end',
    forge: (node) => {
      const one = writerOf(at(node, 1), first)
      one.write(textsOf(first, [stats(9)]))
      one.sign(now)
      one.close()
    },
    outcome: 'violated',
    why: /epoch 1: the log goes on behind its end/,
  },
  {
    name: 'a second successor, under keys that the old ones never named',
    forge: (node) => {
      const rogue = keysOf(2)
      const opening = beginning(first, at(node, 1))
      instead(node, (directory) => writeEpoch(directory, rogue, { opening }))
      return rogue.vkeys
    },
    outcome: 'violated',
    why: /.*\/1 was ended for other keys of .*\/2 than these/,
  },
  {
    name: 'a successor of an epoch that was never ended',
    forge: (node) => {
      rmSync(at(node, 1), { recursive: true })
      writeEpoch(at(node, 1), first)
      const opening = beginning(first, at(node, 1))
      instead(node, (directory) => writeEpoch(directory, second, { opening }))
    },
    outcome: 'violated',
    why: /\/1 was not ended, and .*\/2 is there/,
  },
  {
    name: 'an end that names another successor',
    forge: (node) => {
      rmSync(at(node, 1), { recursive: true })
      writeEpoch(at(node, 1), first, { closing: ending(third) })
      const opening = beginning(first, at(node, 1))
      instead(node, (directory) => writeEpoch(directory, second, { opening }))
    },
    outcome: 'violated',
    why: /was ended for .*\/3, not for .*\/2/,
  },
  {
    name: 'a second epoch that says of no first',
    forge: (node) => instead(node, (directory) => writeEpoch(directory, second)),
    outcome: 'violated',
    why: /\/2 does not say that it goes on from .*\/1/,
  },
  {
    name: 'a second epoch that calls the first by other keys',
    forge: (node) => {
      const opening = { ...beginning(first, at(node, 1)), keys: keysOf(1).vkeys }
      instead(node, (directory) => writeEpoch(directory, second, { opening }))
    },
    outcome: 'violated',
    why: /\/2 names other keys of .*\/1/,
  },
  {
    name: 'an end whose successor is not here',
    forge: (node) => rmSync(at(node, 2), { recursive: true }),
    outcome: 'not-provable',
    why: /goes on as .*\/2, which is not here/,
  },
  {
    name: 'a successor of which nothing was signed yet',
    forge: (node) => instead(node, (directory) => mkdirSync(directory)),
    outcome: 'not-provable',
    why: /epoch 2: there is no checkpoint/,
  },
  {
    name: 'an epoch in the folder of another',
    forge: (node) => renameSync(at(node, 2), at(node, 3)),
    outcome: 'violated',
    why: /the folder of epoch 3 holds the log .*\/2/,
  },
  {
    name: 'a beginning in the middle of an epoch',
    forge: (node) => {
      const opening = beginning(first, at(node, 1))
      const one = writerOf(at(node, 2), second)
      const [text = ''] = textsOf(second, [
        { code: 'log.epoch_begin', message: 'once more', status: 'success', data: opening },
      ])
      one.write([text])
      one.sign(now)
      one.close()
    },
    outcome: 'violated',
    why: /epoch 2: the log begins a second time/,
  },
]

describe('of two epochs', () => {
  test('nothing is wrong where nobody forged anything', async () => {
    expect(await verify(copy(2), second.vkeys)).toMatchObject({ outcome: 'proven' })
  })
  test.for(forgeries)('$name: $outcome', async ({ forge, outcome, why }) => {
    const node = copy(2)
    const forger = forge(node)
    // Whoever has the keys of the first alone sees that something is wrong, if not always what.
    expect((await verify(node)).outcome).not.toBe('proven')
    const given = [...first.vkeys, ...(forger ?? [...second.vkeys, ...third.vkeys])]
    const found = await verify(node, given)
    expect(found.why).toMatch(why)
    expect(found.outcome).toBe(outcome)
  })
  test('a head that the old keys signed behind the end is found by whoever kept it', async () => {
    const node = copy(2)
    const beyond = temporary()
    cpSync(at(node, 1), beyond, { recursive: true })
    const one = writerOf(beyond, first)
    one.write(textsOf(first, [stats(9)]))
    one.sign(now)
    one.close()
    const held = [readFileSync(join(beyond, 'checkpoint'), 'utf8')]
    expect(await verify(node, first.vkeys, held)).toMatchObject({
      outcome: 'violated',
      why: expect.stringMatching(/^epoch 1: 4 events are left of the 5 that were signed/) as string,
    })
  })
  test('one that is ended is not opened to be written, one that goes on behind its end not at all', () => {
    const node = copy(2)
    const one = writerOf(at(node, 1), first)
    one.write(textsOf(first, [stats(9)]))
    one.close()
    expect(() => writerOf(at(node, 1), first)).toThrow(/goes on behind its end/)
  })
})
