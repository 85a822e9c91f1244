/** The decision log's files: a chain that survives restarts and torn ends, bounded, honest about a disk that fails. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { inputFor, PolicyEngine } from '#policy'
import { DecisionJournal, JournalError } from '../../../gateway/policy/journal.ts'
import { brokenAt, FIRST_PREV, type Decided } from '../../../gateway/policy/record.ts'

const place = { tenant: 't', gateway: 'gw1', site: 'main', timezone: 'UTC' }
const engine = PolicyEngine.unavailable()
let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-journal-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const told: string[] = []
const open = (more: { segmentBytes?: number; maxBytes?: number } = {}) =>
  DecisionJournal.open({
    directory,
    place,
    report: (_error, what) => void told.push(what),
    ...more,
  })
let count = 0
function decided(): Decided {
  const input = inputFor('session.open', { subject: { id: `p${count}` }, time: { epoch_s: 1 } })
  const decisionId = `d_${String(count++).padStart(26, '0')}`
  return {
    point: 'session.open',
    input,
    decision: engine.decide('session.open', input, { decisionId }),
    at: 1e12 + count,
  }
}
const names = () => readdirSync(directory).toSorted()
const lines = () =>
  names().flatMap((name) =>
    readFileSync(join(directory, name), 'utf8')
      .split('\n')
      .filter((line) => line !== ''),
  )

test('one chain over restarts, and a line that a power cut halved is not part of it', async () => {
  for (let start = 0; start < 3; start++) {
    await using journal = open()
    for (let at = 0; at < 5; at++) journal.add(decided())
    await journal.settled()
    const name = names().at(-1) ?? ''
    writeFileSync(join(directory, name), '{"half', { flag: 'a' })
  }
  await using journal = open()
  journal.add(decided())
  await journal.settled()
  expect(lines()).toHaveLength(16)
  expect(brokenAt(lines(), FIRST_PREV)).toBeUndefined()
})

test('a changed, removed or exchanged line breaks the chain where it stands', async () => {
  await using journal = open()
  for (let at = 0; at < 6; at++) journal.add(decided())
  await journal.settled()
  const whole = lines()
  expect(brokenAt(whole.with(2, (whole[2] ?? '').replace('p', 'q')), FIRST_PREV)).toBe(3)
  expect(brokenAt(whole.toSpliced(2, 1), FIRST_PREV)).toBe(2)
  expect(brokenAt([whole[1] ?? '', whole[0] ?? '', ...whole.slice(2)], FIRST_PREV)).toBe(0)
})

test('found by id, newest or oldest, on disk or still waiting; unknown is undefined', async () => {
  await using journal = open({ segmentBytes: 8_000 })
  const all = Array.from({ length: 12 }, decided)
  for (const one of all) journal.add(one)
  for (const { decision } of all)
    expect((await journal.find(decision.decision_id))?.decision_id).toBe(decision.decision_id)
  expect(await journal.find('d_nobody')).toBeUndefined()
  expect(await Array.fromAsync(journal.since(all[9]?.at ?? 0))).toHaveLength(3)
})

test('segments and the whole are bounded; the newest stays', async () => {
  await using journal = open({ segmentBytes: 8_000, maxBytes: 32_000 })
  let last = ''
  for (let at = 0; at < 60; at++) {
    const one = decided()
    last = one.decision.decision_id
    journal.add(one)
    await journal.settled()
  }
  expect(names().length).toBeLessThanOrEqual(4)
  for (const name of names())
    expect(statSync(join(directory, name)).size).toBeLessThanOrEqual(8_000)
  expect(await journal.find(last)).toBeDefined()
})

test('a disk that fails is said, nobody goes on, and nothing is lost when it works again', async () => {
  await using journal = open({ segmentBytes: 1 })
  journal.add(decided())
  await journal.settled()
  const away = `${directory}-away`
  renameSync(directory, away)
  journal.add(decided())
  await expect(journal.settled()).rejects.toThrow(JournalError)
  expect(journal.health()).toMatchObject({ state: 'FAILED', waiting: 1 })
  expect(told).toContain('decision log cannot be written')
  mkdirSync(directory)
  rmSync(directory, { recursive: true })
  renameSync(away, directory)
  await journal.settled()
  expect(journal.health()).toMatchObject({ state: 'OK', waiting: 0 })
  expect(brokenAt(lines(), FIRST_PREV)).toBeUndefined()
  expect(lines()).toHaveLength(2)
})
