/** An export against every epoch of a node's log: what is said, and of which of them. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { reconcileEpochs, type EpochsReconciliation } from '#audit'
import { LogReader } from '../../audit/read.ts'
import { listSegments } from '../../audit/recover.ts'
import { ending, first, second, third, writeEpoch, type EpochKeys } from './epoch-fixture.ts'
import { temporary } from './fixture.ts'
import { at, copy, pristine } from './node-of-epochs.ts'

const bodies = (directory: string, { origin }: EpochKeys): Buffer[] =>
  [...new LogReader(directory, origin).bodies(0)].map(({ body }) => Buffer.from(body))
/** The first has 3 events and its end, the second a beginning and an end, the third a beginning. */
const one = bodies(at(pristine, 1), first)
const two = bodies(at(pristine, 2), second)
const three = bodies(at(pristine, 3), third)
const whole = [...one, ...two, ...three]

const ask = (
  lines: readonly Uint8Array[],
  more: Partial<Parameters<typeof reconcileEpochs>[0]> = {},
): Promise<EpochsReconciliation> =>
  reconcileEpochs({ directory: pristine, vkeys: third.vkeys, lines, ...more })
const renamed = (body: Buffer | undefined, from: EpochKeys, to: EpochKeys): Buffer =>
  Buffer.from(String(body).replaceAll(from.origin, to.origin))
const clean = { missing: [], mismatches: [], repeated: [] }

test('the row counts are those that the rows below speak of', () => {
  expect([one.length, two.length, three.length]).toEqual([4, 5, 4])
})

test.each([
  ['the first', first],
  ['one between', second],
  ['the newest', third],
])('whole is complete in any order, with the keys of %s epoch', async (_which, { vkeys }) => {
  const found = await ask(whole.toReversed(), { vkeys })
  expect(found).toMatchObject({ outcome: 'complete', strange: 0, others: [] })
  expect(found.epochs).toMatchObject([
    { epoch: 1, origin: first.origin, ended: true, verbatim: 4, from: 0, to: 4, ...clean },
    { epoch: 2, origin: second.origin, ended: true, verbatim: 5, from: 0, to: 5, ...clean },
    { epoch: 3, origin: third.origin, ended: false, verbatim: 4, from: 0, to: 4, ...clean },
  ])
})

test('a leaf missing in one epoch is named there, though others have one of its number', async () => {
  const found = await ask([...one, ...two.toSpliced(2, 1), ...three])
  expect(found.outcome).toBe('violated')
  expect(found.epochs).toMatchObject([
    clean,
    { ...clean, epoch: 2, missing: [{ from: 2, to: 2 }] },
    clean,
  ])
})

test('a leaf that came twice is named with its epoch, and no fault', async () => {
  const found = await ask([...whole, ...two.slice(1, 3), ...two.slice(1, 2)])
  expect(found).toMatchObject({ outcome: 'complete', strange: 0 })
  expect(found.epochs).toMatchObject([
    { duplicates: 0, repeated: [] },
    { duplicates: 3, repeated: [{ from: 1, to: 2 }], verbatim: 5 },
    { duplicates: 0, repeated: [] },
  ])
})

test('a leaf that was altered is named with its epoch and line', async () => {
  const altered = Buffer.from(String(two[1]).replace('"time":18', '"time":19'))
  const found = await ask([...one, ...two.with(1, altered), ...three])
  expect(found.outcome).toBe('violated')
  expect(found.epochs).toMatchObject([
    clean,
    { missing: [{ from: 1, to: 1 }], mismatches: [{ idx: 1, line: 6, what: 'altered' }] },
    clean,
  ])
})

test('a leaf of one epoch passed off as one of another is altered there, and missing from its own', async () => {
  const found = await ask([...one, ...two, ...three.with(2, renamed(three[2], third, second))])
  expect(found.outcome).toBe('violated')
  expect(found.epochs).toMatchObject([
    clean,
    { missing: [], mismatches: [{ idx: 2, line: 12, what: 'altered' }] },
    { missing: [{ from: 2, to: 2 }], mismatches: [] },
  ])
})

test('an event behind the end of an epoch is not in the log', async () => {
  const behind = Buffer.from(String(one[3]).replace('"sequence":3', '"sequence":4'))
  expect(behind.equals(one[3] ?? behind)).toBe(false)
  const found = await ask([...whole, behind])
  expect(found.outcome).toBe('violated')
  expect(found.epochs[0]).toMatchObject({
    missing: [],
    mismatches: [{ idx: 4, line: 14, what: 'not in the log' }],
  })
})

describe('an export that is cut at a joint', () => {
  const missing = async (lines: readonly Buffer[]) => {
    const found = await ask(lines)
    expect(found.outcome).toBe('violated')
    return found.epochs.map((epoch) => epoch.missing)
  }
  test('behind the last event of an epoch lacks all of the next ones', async () => {
    expect(await missing(one)).toEqual([[], [{ from: 0, to: 4 }], [{ from: 0, to: 3 }]])
  })
  test('before the first event of an epoch lacks all of those before', async () => {
    expect(await missing(three)).toEqual([[{ from: 0, to: 3 }], [{ from: 0, to: 4 }], []])
  })
  test('without the end of an epoch lacks that', async () => {
    const lines = [...one.slice(0, -1), ...two, ...three]
    expect(await missing(lines)).toEqual([[{ from: 3, to: 3 }], [], []])
  })
  test('without the beginning of an epoch lacks that', async () => {
    const lines = [...one, ...two.slice(1), ...three]
    expect(await missing(lines)).toEqual([[], [{ from: 0, to: 0 }], []])
  })
})

test('leaves of other logs are told from other lines, each log by its name and first line', async () => {
  const plant = { ...first, origin: 'other.test/audit/n7/1' }
  const lines = [
    Buffer.from('cron[1]: hello'),
    ...one.map((body) => renamed(body, first, plant)),
    ...whole,
  ]
  expect(await ask(lines)).toMatchObject({
    outcome: 'complete',
    strange: 5,
    others: [{ origin: plant.origin, lines: 4, line: 2 }],
  })
})

test('no more logs are kept in mind than sixteen, however many an export names', async () => {
  const many = Array.from({ length: 40 }, (_, i) =>
    renamed(one[0], first, { ...first, origin: `other.test/audit/n${i}/1` }),
  )
  const found = await ask([...many, ...whole])
  expect(found).toMatchObject({ outcome: 'complete', strange: 40 })
  expect(found.others).toHaveLength(16)
})

test('what cites the name of a signed head in its words is an event all the same', async () => {
  const keys = first
  const node = temporary()
  writeEpoch(at(node, 1), keys, { events: 2 })
  const own = bodies(at(node, 1), keys)
  const line = Buffer.concat([
    Buffer.from('audit.checkpoint is the id of this line: '),
    own[1] ?? Buffer.alloc(0),
  ])
  const found = await ask([own[0] ?? line, line], { directory: node, vkeys: keys.vkeys })
  expect(found).toMatchObject({ outcome: 'complete', strange: 0 })
})

test('a later epoch that only the export has leaves it open whether all is there', async () => {
  const node = temporary()
  writeEpoch(at(node, 1), first)
  const own = bodies(at(node, 1), first)
  const lines = [...own, renamed(own[0], first, second)]
  const found = await ask(lines, { directory: node, vkeys: first.vkeys })
  expect(found).toMatchObject({ outcome: 'not-provable', epochs: [clean] })
  expect(found.why).toBe(
    `the export has events of ${second.origin}, a later epoch than any that is here (line 4)`,
  )
})

test('a later epoch is not lost behind more other logs than are kept in mind', async () => {
  const node = temporary()
  writeEpoch(at(node, 1), first)
  const own = bodies(at(node, 1), first)
  const many = Array.from({ length: 20 }, (_, i) =>
    renamed(own[0], first, { ...first, origin: `other.test/audit/n${i}/1` }),
  )
  const lines = [...many, ...own, renamed(own[0], first, second)]
  const found = await ask(lines, { directory: node, vkeys: first.vkeys })
  expect(found).toMatchObject({ outcome: 'not-provable' })
  expect(found.why).toContain(`the export has events of ${second.origin}, a later epoch`)
})

test('an epoch that is missing here makes it not provable, and what is here is compared', async () => {
  const node = copy()
  rmSync(at(node, 3), { recursive: true })
  const found = await ask(whole, { directory: node, vkeys: second.vkeys })
  expect(found).toMatchObject({ outcome: 'not-provable', epochs: [clean, clean] })
  expect(found.why).toBe(`the log goes on as ${third.origin}, which is not here`)
  expect(await ask(two, { directory: node, vkeys: second.vkeys })).toMatchObject({
    outcome: 'violated',
    why: found.why,
    epochs: [{ missing: [{ from: 0, to: 3 }] }, clean],
  })
})

test('epochs that were moved to an archive are named, and not looked for', async () => {
  const node = copy()
  rmSync(at(node, 1), { recursive: true })
  const found = await ask(whole, { directory: node })
  expect(found).toMatchObject({
    outcome: 'complete',
    before: { origin: first.origin, size: 4 },
    others: [{ origin: first.origin, lines: 4, line: 1 }],
  })
  expect(found.epochs.map(({ epoch }) => epoch)).toEqual([2, 3])
})

describe('of a part of the log', () => {
  test('both ends are named with their epochs, and what is outside is nobody’s fault', async () => {
    const range = { from: { epoch: 1, idx: 2 }, to: { epoch: 2, idx: 3 } }
    const lines = [...one.slice(2), ...two.slice(0, 3)]
    const found = await ask(lines, range)
    expect(found.outcome).toBe('complete')
    expect(found.epochs).toMatchObject([
      { epoch: 1, from: 2, to: 4, verbatim: 2 },
      { epoch: 2, from: 0, to: 3, verbatim: 3 },
    ])
    expect(await ask([...lines, ...whole], range)).toMatchObject({
      outcome: 'complete',
      strange: 0,
    })
    expect(await ask(lines.slice(0, -1), range)).toMatchObject({
      outcome: 'violated',
      epochs: [clean, { missing: [{ from: 2, to: 2 }] }],
    })
  })
  test('an end that is not signed yet is not provable, of its epoch', async () => {
    const found = await ask(whole, { to: { epoch: 3, idx: 9 } })
    expect(found).toMatchObject({
      outcome: 'not-provable',
      why: 'epoch 3: only 4 events are signed',
    })
  })
  test('an epoch that is not here, or an end before the beginning, is refused', async () => {
    await expect(ask(whole, { to: { epoch: 4, idx: 1 } })).rejects.toThrow(/epoch 4 is not here/)
    const back = { from: { epoch: 2, idx: 1 }, to: { epoch: 1, idx: 3 } }
    await expect(ask(whole, back)).rejects.toThrow(/ends before it begins/)
  })
})

test('epochs that are not what was signed, or do not go on from one another, are no measure', async () => {
  const forged = copy()
  const [segment = ''] = listSegments(at(forged, 2))
  const path = join(at(forged, 2), 'seg', segment)
  const bytes = readFileSync(path)
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
  writeFileSync(path, bytes)
  await expect(ask(whole, { directory: forged })).rejects.toThrow(/^epoch 2/)
  const apart = temporary()
  writeEpoch(at(apart, 1), first, { closing: ending(second) })
  writeEpoch(at(apart, 2), second)
  await expect(
    ask(whole, { directory: apart, vkeys: [...first.vkeys, ...second.vkeys] }),
  ).rejects.toThrow(/does not say/)
  await expect(ask(whole, { vkeys: [] })).rejects.toThrow(/no verifier key/)
})
