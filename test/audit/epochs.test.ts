/** A log over its epochs: what goes on is proven from the keys of any one of them, and what was put between is found. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { cpSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  AuditError,
  loggedRecordings,
  pruneLog,
  recordingsOver,
  verifyEpochs,
  verifyLog,
  type EpochsVerdict,
  type EventInput,
  type Pruned,
} from '#audit'
import { closingIn, jointFault, openingEvent, openingIn, successorOf } from '../../audit/epoch.ts'
import { parseCheckpoint } from '../../audit/checkpoint.ts'
import { cosign, withLines } from '../../audit/cosign.ts'
import { formatVkey, formatWitnessKey, witnessSigner } from '../../audit/note.ts'
import { LogReader } from '../../audit/read.ts'
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
import { shared, stats, temporary } from './fixture.ts'

const at = (node: string, epoch: number): string => join(node, String(epoch))
const verify = (
  directory: string,
  verifierKeys: readonly string[] = first.vkeys,
  held: readonly string[] = [],
): Promise<EpochsVerdict> => verifyEpochs({ directory, verifierKeys, held })

/** Two epochs as they ought to be; a third where asked. */
function build(node: string, epochs: 2 | 3 = 2): string {
  writeEpoch(at(node, 1), first, { closing: ending(second), signedEarly: true })
  const opening = beginning(first, at(node, 1))
  if (epochs === 2) writeEpoch(at(node, 2), second, { opening })
  else {
    writeEpoch(at(node, 2), second, { opening, closing: ending(third) })
    writeEpoch(at(node, 3), third, { opening: beginning(second, at(node, 2)) })
  }
  return node
}
const pristine = build(shared(), 3)
function copy(epochs: 2 | 3 = 3): string {
  const node = temporary()
  cpSync(pristine, node, { recursive: true })
  if (epochs === 2) {
    rmSync(at(node, 2), { recursive: true })
    rmSync(at(node, 3), { recursive: true })
    writeEpoch(at(node, 2), second, { opening: beginning(first, at(node, 1)) })
  }
  return node
}
const checkpoint = (node: string, epoch: number): string =>
  readFileSync(join(at(node, epoch), 'checkpoint'), 'utf8')

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

describe('a copy of an epoch that was not taken to its end', () => {
  /** As a mirror that had the first three events of four leaves it. */
  function behind(signer = first): string {
    const node = copy(2)
    const early = temporary()
    writeEpoch(early, first)
    const opening = { ...beginning(first, at(node, 1)) }
    if (signer !== first) {
      const other = writeEpoch(temporary(), { ...signer, origin: first.origin }, { events: 4 })
      opening.note = beginning(first, other).note
    }
    rmSync(at(node, 2), { recursive: true })
    writeEpoch(at(node, 2), second, { opening })
    rmSync(at(node, 1), { recursive: true })
    renameSync(early, at(node, 1))
    return node
  }
  test.for([{ keys: second.vkeys }, { keys: [...first.vkeys, ...second.vkeys] }])(
    'is incomplete, not forged',
    async ({ keys }) => {
      expect(await verify(behind(), keys)).toMatchObject({
        outcome: 'not-provable',
        why: `of the 4 events that ${first.origin} ended with, as ${second.origin} holds it, 3 are here`,
      })
    },
  )
  test('beside a successor with a last head that its keys did not sign, is no copy of that', async () => {
    expect(await verify(behind(keysOf(1)), [...first.vkeys, ...second.vkeys])).toMatchObject({
      outcome: 'violated',
      why: `${first.origin} was not ended, and ${second.origin} is there`,
    })
  })
})

describe('an epoch whose beginning was pruned', () => {
  /** Two epochs, the second in several segments, and an archive of that. */
  function long(node: string): { readonly prune: () => Promise<Pruned> } {
    rmSync(at(node, 2), { recursive: true })
    const one = writerOf(at(node, 2), second, 20_000)
    const opening = beginning(first, at(node, 1))
    one.write(textsOf(second, [openingEvent(opening)]))
    for (let i = 0; i < 10; i++)
      one.write(
        textsOf(
          second,
          Array.from({ length: 30 }, (_, n) => stats(n)),
        ),
      )
    one.sign(now)
    one.close()
    const archive = temporary()
    cpSync(at(node, 2), archive, { recursive: true })
    const { ed25519, mlDsa44 } = second
    const prune = (): Promise<Pruned> =>
      pruneLog({
        directory: at(node, 2),
        signers: { ed25519, mlDsa44 },
        clock: { now: () => now },
        random: (n) => randomBytes(n),
        archive,
        before: now + 1,
      })
    return { prune }
  }
  test('keeps it for as long as the one before lies beside it', async () => {
    const node = copy(2)
    const { prune } = long(node)
    expect(await prune()).toMatchObject({
      segments: 0,
      held: 'epoch 1, from which this one goes on, lies beside it: put that whole into an archive first',
    })
    const archived = join(temporary(), '1')
    renameSync(at(node, 1), archived)
    const { segments, first: left } = await prune()
    expect(segments).toBeGreaterThan(0)
    expect(await verify(node, second.vkeys)).toMatchObject({ outcome: 'proven' })
    // Beside it again, nothing is wrong with either, and that they are one log cannot be told.
    renameSync(archived, at(node, 1))
    const found = await verify(node, [...first.vkeys, ...second.vkeys])
    expect(found).toMatchObject({
      outcome: 'not-provable',
      why: `the beginning of ${second.origin} was pruned, which says that it goes on from ${first.origin}: take its archive`,
    })
    expect(found.epochs[1]?.verdict.pruned).toBe(left)
  })
  test('is still no successor of one that was never ended', async () => {
    const node = copy(2)
    const { prune } = long(node)
    rmSync(at(node, 1), { recursive: true })
    await prune()
    writeEpoch(at(node, 1), first)
    expect(await verify(node, [...first.vkeys, ...second.vkeys])).toMatchObject({
      outcome: 'violated',
      why: `${first.origin} was not ended, and ${second.origin} is there`,
    })
  })
})

describe('a witness of one epoch', () => {
  const keyOf = (name: string) => {
    const key = generateKeyPairSync('ed25519').privateKey
    return { signer: witnessSigner(name, key), vkey: formatWitnessKey(name, key) }
  }
  const [old, fresh] = [keyOf('mirror.test/1'), keyOf('mirror.test/2')]
  const cosigned = (node: string, epoch: number, { signer }: typeof old): string => {
    const note = checkpoint(node, epoch)
    return withLines(note, cosign(parseCheckpoint(note), [signer], now))
  }
  test.for([
    { name: 'its newest: proven', by: fresh, epochs: [2], outcome: 'proven' },
    { name: 'both, each its own: proven', by: fresh, epochs: [1, 2], outcome: 'proven' },
    { name: 'the first alone: not-provable', by: old, epochs: [1], outcome: 'not-provable' },
    { name: 'none: not-provable', by: fresh, epochs: [], outcome: 'not-provable' },
  ])('that cosigned $name', async ({ by, epochs, outcome }) => {
    const node = copy(2)
    const held = epochs.map((epoch) => cosigned(node, epoch, epoch === 1 ? old : fresh))
    const asked = { directory: node, verifierKeys: first.vkeys, held, witnessKeys: [by.vkey] }
    expect(await verifyEpochs(asked)).toMatchObject({
      outcome,
      ...(outcome === 'proven'
        ? {}
        : { why: expect.stringMatching(/^epoch 2.*: 0 of the 1 witnesses/) as string }),
    })
  })
  test('is still believed of the first: what it cosigned there must be in it', async () => {
    const node = copy(2)
    const other = temporary()
    writeEpoch(at(other, 1), first, { events: 2, closing: ending(second) })
    const held = [cosigned(other, 1, old), cosigned(node, 2, fresh)]
    const asked = {
      directory: node,
      verifierKeys: first.vkeys,
      witnessKeys: [fresh.vkey, old.vkey],
    }
    expect(await verifyEpochs({ ...asked, held, quorum: 1 })).toMatchObject({
      outcome: 'violated',
    })
  })
})

describe('the leaf at the joint', () => {
  const bodies = (epoch: number, origin: string): Uint8Array[] =>
    [...new LogReader(at(pristine, epoch), origin).bodies(0)].map(({ body }) => body)

  test('is read back as it was written', () => {
    const closing = bodies(1, first.origin).at(-1) ?? new Uint8Array()
    expect(closingIn(closing)).toEqual(ending(second))
    expect(openingIn(closing)).toBeNull()
    const [opening = new Uint8Array()] = bodies(2, second.origin)
    expect(openingIn(opening)).toEqual(beginning(first, at(pristine, 1)))
    expect(closingIn(opening)).toBeNull()
    expect(bodies(1, first.origin).slice(0, -1).map(closingIn)).toEqual([null, null, null])
  })
  test.for([
    { name: 'keys of another log', keys: third.vkeys, code: 'note.invalid' },
    { name: 'no keys', keys: [], code: 'note.invalid' },
    { name: 'a key that is none', keys: ['x+00000000+AAAA'], code: 'key.invalid' },
    {
      name: 'more keys than an epoch has',
      keys: [...Array(5)].map(() => second.vkeys[0] ?? ''),
      code: 'note.invalid',
    },
  ])('with $name is refused, and a log that holds it does not hold', async ({ keys, code }) => {
    const directory = writeEpoch(temporary(), first, {
      closing: { successor: second.origin, keys },
    })
    const last = [...new LogReader(directory, first.origin).bodies(0)].at(-1)
    let thrown: unknown
    try {
      closingIn(last?.body ?? new Uint8Array())
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(AuditError)
    expect(thrown).toMatchObject({ code })
    expect(await verifyLog({ directory, verifierKeys: first.vkeys })).toMatchObject({
      outcome: 'violated',
      place: { idx: 3 },
    })
    expect(() => writerOf(directory, first)).toThrow(/names|not a verifier key/)
  })
  test('a name without an epoch has no successor', () => {
    expect(successorOf('plant.example/audit/gw1/9')).toBe('plant.example/audit/gw1/10')
    for (const origin of ['plant.example/audit/gw1', 'plant.example/audit/gw1/', 'a/01', '7'])
      expect(() => successorOf(origin)).toThrow(/ends in no epoch/)
  })
  test('what joins two epochs joins no other two', () => {
    const closing = ending(second)
    const opening = beginning(first, at(pristine, 1))
    const last = { origin: first.origin, size: 4, root: '' }
    const root = Buffer.from(opening.note.split('\n')[2] ?? '', 'base64').toString('hex')
    const joint = {
      origin: first.origin,
      keys: first.vkeys,
      last: { ...last, root },
      closing,
      next: { origin: second.origin, keys: second.vkeys, opening },
    }
    expect(jointFault(joint)).toBeNull()
    expect(jointFault({ ...joint, last })).toMatch(/not the last/)
    expect(jointFault({ ...joint, last: { ...joint.last, size: 5 } })).toMatch(/not the last/)
    expect(jointFault({ ...joint, origin: third.origin })).toMatch(/does not follow/)
  })
})

test('a recording that one epoch began and the next ended is told whole, over both', () => {
  const node = temporary()
  const session = 's_01j00000000000000000000000'
  const part = (n: number): EventInput => ({
    code: 'recording.part',
    message: `part ${n}`,
    status: 'success',
    session,
    data: { track: 1, part: n, sha256: 'ab', bytes: n, t0: 0, t1: 1 },
  })
  const end: EventInput = {
    code: 'recording.end',
    message: 'ended',
    status: 'success',
    session,
    data: { parts: 2, root: 'cd' },
  }
  const [one, two] = [writerOf(at(node, 1), first), writerOf(at(node, 2), second)]
  one.write(textsOf(first, [part(1)]))
  two.write(textsOf(second, [part(2), end]))
  for (const writer of [one, two]) {
    writer.sign(now)
    writer.close()
  }
  const epochs = [
    { directory: at(node, 1), origin: first.origin, size: 1 },
    { directory: at(node, 2), origin: second.origin, size: 2 },
  ]
  expect(recordingsOver(epochs).get(session)).toMatchObject({
    parts: [{ part: 1 }, { part: 2 }],
    end: { parts: 2, root: 'cd' },
  })
  expect(loggedRecordings(at(node, 1), first.origin).get(session)?.end).toBeUndefined()
})
