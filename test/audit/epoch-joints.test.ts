/** Where one epoch meets the next: copies that end too early, beginnings that were pruned, witnesses, and what goes on over both. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { cpSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  AuditError,
  loggedRecordings,
  pruneLog,
  recordingsOver,
  verifyEpochs,
  verifyLog,
  type EventInput,
  type Pruned,
} from '#audit'
import { closingIn, jointFault, openingEvent, openingIn, successorOf } from '../../audit/epoch.ts'
import { parseCheckpoint } from '../../audit/checkpoint.ts'
import { cosign, withLines } from '../../audit/cosign.ts'
import { formatWitnessKey, witnessSigner } from '../../audit/note.ts'
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
import { stats, temporary } from './fixture.ts'
import { at, verify, pristine, copy, checkpoint } from './node-of-epochs.ts'

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
