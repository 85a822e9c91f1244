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
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { inputFor, PolicyEngine } from '#policy'
import type { Bundle, Candidate, Decision, Point } from '#policy'
import { Decisions } from '../../../gateway/decisions.ts'
import { replay } from '../../../gateway/policy/impact.ts'
import {
  DecisionJournal,
  JournalError,
  recordsSince,
  type Anchor,
  type JournalOptions,
} from '../../../gateway/policy/journal.ts'
import { replayApart } from '../../../gateway/policy/replayer.ts'
import { canonicalJson } from '../../../policy/canonical.ts'
import { examineBundle } from '../../../policy/candidate.ts'
import { baseInputs } from '../../../policy/toolchain/vectors.ts'
import { builtin, handmade, withModule } from '../../policy/fixture.ts'
import { FIRST_PREV, hashOf, walk, type Decided } from '../../../gateway/policy/record.ts'

const place = { tenant: 't', gateway: 'gw1', site: 'main', timezone: 'UTC' }
const engine = PolicyEngine.unavailable()
const bases = await baseInputs()
let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-journal-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const told: string[] = []
const open = (more: Partial<JournalOptions> = {}) =>
  DecisionJournal.open({
    directory,
    place,
    report: (_error, what) => void told.push(what),
    ...more,
  })
let count = 0
function of(point: Point, more = {}): Decided {
  const subject = { id: `p${count}` }
  const input = inputFor(point, { subject, time: { epoch_s: 1 }, ...more })
  const decisionId = `d_${String(count++).padStart(26, '0')}`
  const decision = engine.decide(point, input, { decisionId })
  return { point, input, decision, at: 1e12 + count }
}
const decided = () => of('session.open')
const names = () => readdirSync(directory).toSorted()
const brokenAt = (all: readonly string[], head: string) =>
  walk(Buffer.from(`${all.join('\n')}\n`), { head, seq: 0 }).broken
const lines = () =>
  names().flatMap((name) =>
    readFileSync(join(directory, name), 'utf8')
      .split('\n')
      .filter((line) => line !== ''),
  )

test('one chain over restarts, and a line that a power cut halved is not part of it', async () => {
  for (let start = 0; start < 3; start++) {
    await using journal = await open()
    for (let at = 0; at < 5; at++) journal.add(decided())
    await journal.settled()
    const name = names().at(-1) ?? ''
    writeFileSync(join(directory, name), '{"half', { flag: 'a' })
  }
  await using journal = await open()
  journal.add(decided())
  await journal.settled()
  expect(lines()).toHaveLength(16)
  expect(brokenAt(lines(), FIRST_PREV)).toBeUndefined()
})

test('a changed, removed or exchanged line breaks the chain where it stands', async () => {
  await using journal = await open()
  for (let at = 0; at < 6; at++) journal.add(decided())
  await journal.settled()
  const whole = lines()
  expect(brokenAt(whole.with(2, (whole[2] ?? '').replace('p', 'q')), FIRST_PREV)).toBe(3)
  expect(brokenAt(whole.toSpliced(2, 1), FIRST_PREV)).toBe(2)
  expect(brokenAt([whole[1] ?? '', whole[0] ?? '', ...whole.slice(2)], FIRST_PREV)).toBe(0)
})

test('found by id, newest or oldest, on disk or still waiting; unknown is undefined', async () => {
  await using journal = await open({ segmentBytes: 8_000 })
  const all = Array.from({ length: 12 }, decided)
  for (const one of all) journal.add(one)
  for (const { decision } of all)
    expect((await journal.find(decision.decision_id))?.decision_id).toBe(decision.decision_id)
  expect(await journal.find('d_nobody')).toBeUndefined()
  await journal.settled()
  expect(await Array.fromAsync(recordsSince(directory, all[9]?.at ?? 0))).toHaveLength(3)
})

test('segments and the whole are bounded; the newest stays', async () => {
  await using journal = await open({ segmentBytes: 8_000, maxBytes: 32_000 })
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
  await using journal = await open({ segmentBytes: 1 })
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

test('a decision the full log refused, and the rest of the queue written: whoever needs that record does not go on', async () => {
  await using journal = await open({ maxWaiting: 3 })
  const decisions = new Decisions(engine, place, () => 1e12, journal)
  const asked = Array.from({ length: 5 }, () => decisions.ask('session.open', {}))
  await expect(decisions.recorded(asked.at(-1) as Decision)).rejects.toThrow(JournalError)
  await journal.settled()
  expect(journal.health()).toMatchObject({ state: 'OK', written: 3, dropped: 2 })
  for (const decision of asked.slice(0, 3)) await decisions.recorded(decision)
  for (const decision of asked.slice(3))
    await expect(decisions.recorded(decision)).rejects.toThrow(JournalError)
  expect(lines()).toHaveLength(3)
  await decisions.recorded(decisions.ask('session.open', {}))
  expect(journal.health().dropped).toBe(2)
})

test('a full queue that the disk does not take keeps all it took, the newest too', async () => {
  await using journal = await open({ maxWaiting: 3 })
  const away = `${directory}-away`
  renameSync(directory, away)
  const tickets = Array.from({ length: 4 }, () => journal.add(decided()))
  for (const ticket of tickets.slice(0, 3))
    await expect(journal.settled(ticket)).rejects.toThrow(JournalError)
  renameSync(away, directory)
  for (const ticket of tickets.slice(0, 3)) await journal.settled(ticket)
  expect(tickets[3]).toBeUndefined()
  expect(lines()).toHaveLength(3)
})

test('a later record of the session that names the decision is not taken for it, after a restart neither', async () => {
  const opened = decided()
  const id = opened.decision.decision_id
  const later = (point: Point) => of(point, { session: { id: 's_1', decision_id: id } })
  for (const start of [0, 1]) {
    await using journal = await open({ segmentBytes: 8_000 })
    if (start === 0) {
      journal.add(opened)
      for (let at = 0; at < 9; at++) {
        journal.add(later('session.reevaluate'))
        journal.add(later('http.request'))
      }
    }
    const found = await journal.find(id)
    expect([found?.decision_id, found?.custom.point]).toEqual([id, 'session.open'])
  }
})

test('finding one reads its line: what stands elsewhere in the files is not looked at', async () => {
  await using journal = await open({ segmentBytes: 8_000 })
  const all = Array.from({ length: 12 }, () => decided())
  for (const one of all) {
    journal.add(one)
    await journal.settled()
  }
  const wanted = all[5]?.decision.decision_id ?? ''
  for (const name of names()) {
    const path = join(directory, name)
    const text = readFileSync(path, 'utf8')
    // Same length, no line but the wanted one readable.
    const spoilt = text
      .split('\n')
      .map((line) => (line.includes(wanted) ? line : 'x'.repeat(line.length)))
    writeFileSync(path, spoilt.join('\n'))
  }
  expect((await journal.find(wanted))?.decision_id).toBe(wanted)
  expect(await journal.find(all[6]?.decision.decision_id ?? '')).toBeUndefined()
})

test('a record longer than one read is found whole', async () => {
  await using journal = await open()
  const long = of('session.open', { subject: { id: 'ü'.repeat(100_000) } })
  for (const one of [decided(), long, decided()]) journal.add(one)
  const found = await journal.find(long.decision.decision_id)
  expect(found?.input.subject.id).toBe('ü'.repeat(100_000))
})

test('ordinary use of sessions does not push out who opened one', async () => {
  await using journal = await open({ segmentBytes: 8_000, maxBytes: 32_000 })
  const opened = decided()
  journal.add(opened)
  let last = opened
  for (let at = 0; at < 90; at++) {
    last = at % 2 === 0 ? of('http.request') : of('ot.verb')
    journal.add(last)
    await journal.settled()
  }
  expect((await journal.find(opened.decision.decision_id))?.custom.point).toBe('session.open')
  expect(await journal.find(last.decision.decision_id)).toBeDefined()
  expect(names().filter((name) => name.startsWith('flow-')).length).toBeLessThanOrEqual(4)
})

test('allowed rechecks and looking around are flow; what is refused or changes something is an act', async () => {
  await using journal = await open()
  const rows: [Decided, boolean, 'acts' | 'flow'][] = [
    [of('session.reevaluate'), true, 'flow'],
    [of('session.reevaluate'), false, 'acts'],
    [of('admin.api', { admin: { mutating: false } }), true, 'flow'],
    [of('admin.api', { admin: { mutating: false } }), false, 'acts'],
    [of('admin.api', { admin: { mutating: true } }), true, 'acts'],
    [of('session.open'), true, 'acts'],
  ]
  for (const [one, allow, ring] of rows)
    expect(journal.add({ ...one, decision: { ...one.decision, allow } })?.ring).toBe(ring)
})

test('both chains come back as one, by time, and a replay says from when on', async () => {
  await using journal = await open({ segmentBytes: 8_000 })
  const points: Point[] = [
    'session.open',
    'http.request',
    'http.request',
    'grant.request',
    'ot.verb',
  ]
  const all = Array.from({ length: 25 }, (_, at) => of(points[at % 5] ?? 'session.open'))
  for (const one of all) journal.add(one)
  const from = all[7]?.at ?? 0
  await journal.settled()
  const found = await Array.fromAsync(recordsSince(directory, from))
  expect(found.map((record) => record.decision_id)).toEqual(
    all.slice(7).map(({ decision }) => decision.decision_id),
  )
  const past = await replay(recordsSince(directory, from), engine, engine)
  expect(past).toMatchObject({ decisions: 18, from: new Date(from).toISOString() })
  expect((await replay(recordsSince(directory, from + 1e6), engine, engine)).from).toBeNull()
})

describe('a replay in a thread of its own', () => {
  const candidate = async (more: Partial<Bundle> = {}): Promise<Candidate> =>
    examineBundle({ ...builtin, vectors: [], ...more })

  test('looks at every decision kept, and says what would turn', { timeout: 120_000 }, async () => {
    await using journal = await open({ segmentBytes: 8_000 })
    const inForce = await candidate()
    const deciding = PolicyEngine.unavailable()
    deciding.adopt(inForce)
    const input = bases['session.open']
    for (let at = 0; at < 300; at++) {
      const decision = deciding.decide('session.open', input, { decisionId: `d_${at}` })
      journal.add({ point: 'session.open', input, decision, at: 1e12 + at })
      if (at % 50 === 0) await journal.settled()
    }
    await journal.settled()
    const data = structuredClone(builtin.data) as {
      site: { zones: { default: { approvals: number } } }
    }
    data.site.zones.default.approvals = 2
    const strict = await candidate({ data, dataText: canonicalJson(data) })
    const task = { directory, from: 1e12 + 100, inForce, candidate: strict, staleness: undefined }
    const found = await replayApart(task)
    expect(found).toMatchObject({ decisions: 200, replayed: 200, truncated: false })
    expect(found.from).toBe(new Date(1e12 + 100).toISOString())
    expect(found.turned).toMatchObject([{ change: 'newly_denied', count: 200 }])
    expect((await replayApart({ ...task, candidate: inForce })).turned).toEqual([])
  })

  test('is given up when it does not end in time', async () => {
    const inForce = await candidate()
    const task = { directory, from: 0, inForce, candidate: inForce, staleness: undefined }
    await expect(replayApart(task, { totalMs: 1 })).rejects.toMatchObject({ code: 'bundle.slow' })
  })

  test('a candidate that loops over one past decision is blamed, and the time of all is not waited for', async () => {
    await using journal = await open()
    const inForce = await candidate()
    const input = bases['session.open']
    const deciding = PolicyEngine.unavailable()
    deciding.adopt(inForce)
    const decision = deciding.decide('session.open', input, { decisionId: 'd_0' })
    journal.add({ point: 'session.open', input, decision, at: 1e12 })
    await journal.settled()
    const { wasm, vectors } = withModule(handmade({ evaluation: 'loop' }))
    const looping = await candidate({ wasm, vectors })
    const task = { directory, from: 0, inForce, candidate: looping, staleness: undefined }
    const said = replayApart(task, { oneMs: 100 })
    await expect(said).rejects.toMatchObject({
      code: 'bundle.loops',
      detail: 'past decision 1 did not come to its end within 100 ms',
    })
  })

  test('a log that cannot be read is said so', async () => {
    const inForce = await candidate()
    const nowhere = join(directory, 'nowhere')
    const task = { directory: nowhere, from: 0, inForce, candidate: inForce, staleness: undefined }
    await expect(replayApart(task)).rejects.toThrow('the decision log could not be replayed')
  })
})

test('where the chains stand is written down when they moved, once a minute and at the end', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    const anchors: Anchor[] = []
    const anchor = async (where: Anchor) => void anchors.push(where)
    {
      await using journal = await open({ anchor })
      for (let at = 0; at < 5; at++) journal.add(decided())
      await journal.settled()
      vi.advanceTimersByTime(59_000)
      expect(anchors).toEqual([])
      vi.advanceTimersByTime(1_000)
      await journal.anchor()
      const [{ head } = { head: '' }] = journal.health().rings
      expect(anchors).toEqual([{ ring: 'acts', count: 5, head, before: FIRST_PREV }])
      expect(head).toBe(hashOf(lines().at(-1) ?? ''))
      await journal.anchor()
      expect(anchors).toHaveLength(1)
      journal.add(of('http.request'))
    }
    expect(anchors.slice(1)).toMatchObject([{ ring: 'flow', count: 1 }])
    await using again = await open({ anchor })
    again.add(decided())
    await again.anchor()
    expect(anchors.at(-1)).toMatchObject({ count: 6, before: anchors[0]?.head })
  } finally {
    vi.useRealTimers()
  }
})

test('an audit log that does not take it is tried again, and said', async () => {
  const anchors: Anchor[] = []
  let works = false
  const anchor = async (where: Anchor) => {
    if (!works) throw new Error('full')
    anchors.push(where)
  }
  await using journal = await open({ anchor })
  journal.add(decided())
  await journal.anchor()
  expect(told).toContain('where the decision log stands could not be recorded')
  works = true
  await journal.anchor()
  expect(anchors).toMatchObject([{ ring: 'acts', count: 1 }])
})

describe('a chain that somebody changed is said at the start, and goes on', () => {
  const rows: [string, (all: string[]) => string[], number][] = [
    ['changed', (all) => all.with(2, (all[2] ?? '').replace('"p', '"q')), 4],
    ['removed', (all) => all.toSpliced(2, 1), 3],
    ['removed at the beginning', (all) => all.slice(1), 1],
    ['no record at all', (all) => all.toSpliced(1, 0, 'nothing'), 2],
  ]
  test.for(rows)('%s', async ([, change, line]) => {
    {
      await using journal = await open()
      for (let at = 0; at < 6; at++) journal.add(decided())
    }
    const path = join(directory, names()[0] ?? '')
    writeFileSync(path, `${change(lines()).join('\n')}\n`)
    told.length = 0
    await using journal = await open()
    const broken = `line ${line} of acts-000000000000.jsonl does not name the one before`
    expect(journal.health().rings).toMatchObject([{ name: 'acts', broken }, { broken: null }])
    expect(told).toEqual(['a chain of decisions is broken'])
    const next = decided()
    await journal.settled(journal.add(next))
    expect(await journal.find(next.decision.decision_id)).toBeDefined()
  })
})

test('a chain over many segments, the oldest gone, holds; so does a log from before there were two', async () => {
  {
    await using journal = await open({ segmentBytes: 8_000, maxBytes: 32_000 })
    for (let at = 0; at < 60; at++) {
      journal.add(decided())
      await journal.settled()
    }
  }
  expect(names()[0]).not.toBe('acts-000000000000.jsonl')
  for (const name of names()) renameSync(join(directory, name), join(directory, name.slice(5)))
  await using journal = await open({ segmentBytes: 8_000, maxBytes: 32_000 })
  expect(journal.health().rings).toMatchObject([{ count: 60, broken: null }, { count: 0 }])
})

test('half a line that a full disk left is cut off before the next segment begins', async () => {
  await using journal = await open({ segmentBytes: 8_000 })
  for (let at = 0; at < 2; at++) {
    journal.add(decided())
    await journal.settled()
  }
  await journal[Symbol.asyncDispose]()
  const half = join(directory, names()[0] ?? '')
  await using again = await open({ segmentBytes: 1 })
  writeFileSync(half, '{"half', { flag: 'a' })
  again.add(decided())
  await again.settled()
  expect(brokenAt(lines(), FIRST_PREV)).toBeUndefined()
  expect(lines()).toHaveLength(3)
})
