/** The decision log as it leaves the node: page by page, masked, or not at all. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { DecisionsPage } from '#api'
import { PolicyEngine, type Candidate } from '#policy'
import { exportApart, leaving } from '../../../gateway/policy/exporter.ts'
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
  const engine = PolicyEngine.unavailable()
  engine.adopt(candidate)
  const bases = await baseInputs()
  const place = { tenant: 't', gateway: 'gw1', site: 'main', timezone: 'UTC' }
  const report = (error: unknown) => {
    throw error
  }
  await using journal = await DecisionJournal.open({
    directory,
    place,
    report,
    segmentBytes: 16_000,
  })
  for (let at = 0; at < 40; at++) {
    // Two in each millisecond, of both chains.
    const point = at % 4 === 0 ? 'http.request' : 'session.open'
    const decision = engine.decide(point, bases[point], {
      decisionId: `d_${String(at).padStart(26, '0')}`,
    })
    journal.add({ point, input: bases[point], decision, at: START + Math.floor(at / 2) })
  }
  await journal.settled()
  records = await Array.fromAsync(recordsSince(directory, 0))
})

const page = async (from: number, after: string | null, maxBytes = 30_000, by = candidate) =>
  JSON.parse(
    await exportApart({ directory, from, after, candidate: by, maxBytes }),
  ) as DecisionsPage

test('page after page: every decision once, in its order, without what the policy masks', async () => {
  const items: DecisionsPage['items'] = []
  let next: DecisionsPage['next'] = { at: 0, id: '' }
  let pages = 0
  for (let after: string | null = null; next !== null; after = next?.id ?? null, pages++) {
    const found: DecisionsPage = await page(next.at, after)
    items.push(...found.items)
    ;({ next } = found)
  }
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
  const found = await page(0, null, 1)
  expect(found.items).toHaveLength(1)
  expect(found.next?.id).toBe(records[0]?.decision_id)
})

test('what stood before the cursor and is not kept any more: no later decision is left out', async () => {
  const found = await page(START + 3, `d_${'z'.repeat(26)}`, 1e9)
  expect(found.items.map((item) => item.decision_id)).toEqual(
    records
      .filter(({ timestamp }) => Date.parse(timestamp) > START + 3)
      .map((one) => one.decision_id),
  )
})

const made = (evaluation: string) => examineBundle(withModule(handmade({ evaluation })))
test.for([
  ['trap', /could not be evaluated/],
  ['[]', /no set of rules/],
  ['[{"result":["/custom/subject"]}]', /no rule of a mask/],
] as const)('a mask that answers with %s: nothing leaves', async ([evaluation, detail]) => {
  const asking = page(0, null, 1e9, await made(evaluation))
  await expect(asking).rejects.toMatchObject({
    code: 'policy.mask',
    detail: expect.stringMatching(detail),
  })
})

test('a mask that does not end: nothing leaves, and nobody waits for it for ever', async () => {
  const task = { directory, from: 0, after: null, candidate: await made('loop'), maxBytes: 1e9 }
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
  const out = (erased: string[]) => leaving({ record, erased, masked: [] })
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
