/** The decision log as it leaves the node: page by page, masked, or not at all. */
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdtempDisposable } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DecisionsPage } from '#api'
import { PolicyEngine, type Candidate } from '#policy'
import { exportApart, leaving, readCursor, type Cursor } from '../../../gateway/policy/exporter.ts'
import { DecisionJournal, recordsSince } from '../../../gateway/policy/journal.ts'
import type { DecisionRecord } from '../../../gateway/policy/record.ts'
import { examineBundle } from '../../../policy/candidate.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { builtin, handmade, withModule } from '../../policy/fixture.ts'

const directory = mkdtempSync(join(tmpdir(), 'sallyport-export-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const START = 1e12
let candidate: Candidate
let records: DecisionRecord[]

beforeAll(async () => {
  candidate = await examineBundle(builtin)
  // Two in each millisecond, of both chains.
  const times = Array.from({ length: 40 }, (_, at) => START + Math.floor(at / 2))
  await write(directory, times)
  records = await Array.fromAsync(recordsSince(directory, 0))
})

/** Adds a decision at each time, every fourth of them to `flow`. */
async function write(where: string, times: readonly number[], maxBytes?: number): Promise<void> {
  const engine = PolicyEngine.unavailable()
  engine.adopt(candidate)
  const bases = await baseInputs()
  const place = { tenant: 't', gateway: 'gw1', site: 'main', timezone: 'UTC' }
  const report = (error: unknown) => {
    throw error
  }
  const bounds = { segmentBytes: 16_000, ...(maxBytes === undefined ? {} : { maxBytes }) }
  await using journal = await DecisionJournal.open({ directory: where, place, report, ...bounds })
  for (const [at, time] of times.entries()) {
    const point = at % 4 === 0 ? 'http.request' : 'session.open'
    const decision = engine.decide(point, bases[point], { decisionId: `d_${time}_${at}` })
    const ticket = journal.add({ point, input: bases[point], decision, at: time })
    // Each by itself: a segment takes what comes at once as one.
    await journal.settled(ticket)
  }
}

const since = (at: number): Cursor => ({ acts: { since: at }, flow: { since: at } })
const page = async (begin: Cursor, maxBytes = 30_000, by = candidate, where = directory) =>
  JSON.parse(
    await exportApart({ directory: where, begin, candidate: by, maxBytes }),
  ) as DecisionsPage

/** All pages from there on, and where the last one ended. */
async function pagesFrom(begin: Cursor, maxBytes = 30_000, where = directory) {
  const items: DecisionsPage['items'] = []
  let pages = 0
  for (let at = begin; ; pages++) {
    const found = await page(at, maxBytes, candidate, where)
    items.push(...found.items)
    if (!found.more) return { items, pages: pages + 1, next: found.next }
    at = readCursor(found.next)
  }
}

test('page after page: every decision once, in its order, without what the policy masks', async () => {
  const { items, pages } = await pagesFrom(since(0))
  expect(pages).toBeGreaterThan(3)
  expect(items.map((item) => item.decision_id)).toEqual(records.map((one) => one.decision_id))
  const [first] = records
  const { email } = first?.input.subject ?? {}
  expect(email).toMatch(/@/)
  expect(JSON.stringify(items)).not.toContain(email)
  expect(items[0]).toMatchObject({ erased: ['/input/subject/claims', '/input/subject/email'] })
  expect(items[0]).toMatchObject({ seq: first?.seq, prev: first?.prev, result: first?.result })
})

test('a page holds one decision, however little it may hold', async () => {
  const found = await page(since(0), 1)
  expect(found.items).toHaveLength(1)
  // The other chain has not been begun: it is still to be begun at that time.
  expect(found).toMatchObject({ next: '1.@0', more: true })
})

test('a look at one time and on: what was written then or later, of both chains', async () => {
  const found = await pagesFrom(since(START + 3))
  expect(found.items.map((item) => item.decision_id)).toEqual(
    records
      .filter(({ timestamp }) => Date.parse(timestamp) >= START + 3)
      .map((one) => one.decision_id),
  )
})

const made = (evaluation: string) => examineBundle(withModule(handmade({ evaluation })))
test.for([
  ['trap', /could not be evaluated/],
  ['[]', /no set of rules/],
  ['[{"result":["/custom/subject"]}]', /no rule of a mask/],
] as const)('a mask that answers with %s: nothing leaves', async ([evaluation, detail]) => {
  const asking = page(since(0), 1e9, await made(evaluation))
  await expect(asking).rejects.toMatchObject({
    code: 'policy.mask',
    detail: expect.stringMatching(detail),
  })
})

test('a mask that does not end: nothing leaves, and nobody waits for it for ever', async () => {
  const task = { directory, begin: since(0), candidate: await made('loop'), maxBytes: 1e9 }
  const detail = 'a page was not masked within 1000 ms'
  await expect(exportApart(task, 1000)).rejects.toMatchObject({ code: 'policy.mask', detail })
})

test('what is masked in the input is not said beside it', () => {
  const [record] = records
  if (record === undefined) throw new Error('there is no record')
  expect(record).toMatchObject({
    requested_by: expect.any(String),
    custom: { subject: expect.any(String) },
  })
  const out = (erased: string[]) => leaving({ record, erased, masked: [] }, 'acts')
  expect(out(['/input/subject/email'])).toMatchObject({
    requested_by: record.requested_by,
    custom: { subject: record.custom.subject },
  })
  expect(out(['/input/subject/%69d'])).toMatchObject({ custom: { subject: null } })
  expect(out(['/input/client'])).toMatchObject({ requested_by: null })
  expect(out(['/input'])).toMatchObject({
    req_id: null,
    requested_by: null,
    custom: { subject: null, session: null },
  })
})

test('a clock that went back between pages: nothing is left out, and nothing comes twice', async () => {
  await using made = await mkdtempDisposable(join(tmpdir(), 'sallyport-export-'))
  const day = 86_400_000
  await write(made.path, [START, START + 1, START + 2, START + 3])
  const first = await pagesFrom(since(START), 8_000, made.path)
  expect(first.items).toHaveLength(4)
  // A start found the clock a day behind, the next one found it right again.
  await write(made.path, [START - day, START - day + 1, START - day + 2])
  await write(made.path, [START + 10, START + 11])
  const second = await pagesFrom(readCursor(first.next), 8_000, made.path)
  expect(second.items.map((item) => item.decision_id).toSorted()).toEqual([
    `d_${START + 10}_0`,
    `d_${START + 11}_1`,
    `d_${START - day}_0`,
    `d_${START - day + 1}_1`,
    `d_${START - day + 2}_2`,
  ])
  expect((await pagesFrom(readCursor(second.next), 8_000, made.path)).items).toEqual([])
  // By time, too: all that came behind the first of that time, and what a replay looks at likewise.
  expect((await pagesFrom(since(START), 1e9, made.path)).items).toHaveLength(9)
  expect(await Array.fromAsync(recordsSince(made.path, START + 2))).toHaveLength(6)
})

test('what is not kept any more is skipped, and what is left says its number and its chain', async () => {
  await using made = await mkdtempDisposable(join(tmpdir(), 'sallyport-export-'))
  await write(made.path, [START])
  const { next } = await page(since(0), 1e9, candidate, made.path)
  const times = Array.from({ length: 60 }, (_, at) => START + at)
  await write(made.path, times, 48_000)
  const { items } = await pagesFrom(readCursor(next), 30_000, made.path)
  const acts = items.filter(
    (item) => (item as { custom?: { chain?: string } }).custom?.chain === 'acts',
  )
  const numbers = acts.map((item) => (item as { seq?: number }).seq ?? -1)
  expect(numbers[0]).toBeGreaterThan(1)
  expect(numbers).toEqual(numbers.map((_, at) => (numbers[0] ?? 0) + at))
  expect(numbers.at(-1)).toBe(44)
})
