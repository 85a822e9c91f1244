/** Gateways on one store side by side: when they differ, what is told of it, and what is known when the store is away. */
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import type { EventInput } from '#audit'
import type { GatewayPolicy } from '#api'
import { PolicyComparison, type ComparisonRoom } from '../../../gateway/policy/comparison.ts'
import { differ, followed, nextStepOf, sideBySide } from '../../../gateway/policy/gateways.ts'
import { policyOfGateway } from '../store/contracts/policies.ts'

const other = (letter: string, seq: number | null) =>
  ({ bundle_digest: letter.repeat(64), seq, revision: `site-${letter}` }) as const
const gw1 = policyOfGateway('gw1', other('a', 1))
const gw2 = policyOfGateway('gw2', other('a', 1))
const ahead = policyOfGateway('gw2', other('b', 2))
const nothing = { revision: null, seq: null, bundle_digest: null }

test('they differ by the archive in force: its name does not matter, and none is another', () => {
  expect(differ([gw1])).toBe(false)
  expect(differ([gw1, { ...gw2, revision: 'else' }])).toBe(false)
  expect(differ([gw1, { ...gw2, bundle_digest: 'b'.repeat(64) }])).toBe(true)
  expect(differ([gw1, { ...gw2, ...nothing }])).toBe(true)
})

test('a difference is told once when it has lasted, and once when it is over; a shorter one never', () => {
  let difference: ReturnType<typeof followed>['difference']
  const told = []
  for (const [at, row] of [
    [0, ahead],
    [999, ahead],
    [1000, gw2],
    [2000, ahead],
    [2999, ahead],
    [3000, ahead],
    [4000, ahead],
    [5000, gw2],
    [6000, gw2],
  ] as const) {
    const after = followed(difference, [gw1, row], at, 1000)
    difference = after.difference
    if (after.news !== null) told.push([at, after.news])
  }
  expect(told).toEqual([
    [3000, 'differ'],
    [5000, 'alike'],
  ])
})

test('two archives of one revision are told apart by what they begin with', () => {
  expect(sideBySide([gw1, ahead])).toBe('gw1 site-a, gw2 site-b')
  const named = { ...ahead, revision: 'site-a' }
  expect(sideBySide([gw1, named, policyOfGateway('gw3', nothing)])).toBe(
    'gw1 site-a (sha256 aaaaaaaaaaaa), gw2 site-a (sha256 bbbbbbbbbbbb), gw3 no policy',
  )
})

test('the next step brings the newest to the others, by hand or by their own source, or gives it up', () => {
  const givenUp = '; or, where site-b is being given up: sallyport policy rollback at gw2'
  const steps = (...rows: readonly GatewayPolicy[]) => nextStepOf(rows)?.split(givenUp)
  expect(nextStepOf([gw1, gw2])).toBeNull()
  expect(steps(gw1, ahead)).toEqual([
    expect.stringMatching(/^push site-b to gw1 and activate it there[^;]*$/),
    '',
  ])
  const sourced = { ...gw1, by_itself: true }
  expect(steps(sourced, ahead)).toEqual([
    expect.stringMatching(/^gw1 takes bundles from its source[^;]*$/),
    '',
  ])
  const third = policyOfGateway('gw3', nothing)
  expect(nextStepOf([sourced, ahead, third])).toMatch(/^push site-b to gw3 .*; gw1 takes/)
})

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** gw1 beside what `others` says, at a time that the row sets; it looks once when `look` is called. */
async function comparing(more: Partial<ComparisonRoom> = {}) {
  const state = { at: 0, others: [gw2] as readonly GatewayPolicy[], away: false }
  const events: EventInput[] = []
  const reported: string[] = []
  const said: GatewayPolicy[] = []
  const fallen: (readonly [string, string])[] = []
  const answered = async <T>(value: () => T) => {
    if (state.away) throw new Error('no answer')
    return value()
  }
  const comparison = new PolicyComparison({
    policies: {
      say: async (row) => await answered(() => said.push(row) > 0),
      list: async () => await answered(() => [gw1, ...state.others]),
    },
    own: () => gw1,
    fall: (...why) => void fallen.push(why),
    log: { append: async (event) => ({ idx: events.push(event), uid: 'u', leaf: '' }) },
    boundMs: 60_000,
    now: () => 1_000_000 + state.at,
    monotonic: () => state.at,
    report: (_error, what) => void reported.push(what),
    ...more,
  })
  onTestFinished(async () => await comparison[Symbol.asyncDispose]())
  const look = async (at: number) => {
    state.at = at
    await vi.advanceTimersByTimeAsync(2_000)
  }
  await vi.advanceTimersByTimeAsync(0)
  return { state, events, reported, said, fallen, comparison, look }
}
const findings = (events: readonly EventInput[]) =>
  events.map(({ code, status, data }) => [code, status, (data as { finding: string }).finding])

test('a difference that lasts is one event, with who decides by what, and its end is another', async () => {
  const { state, events, comparison, look } = await comparing()
  state.others = [ahead]
  await look(10_000)
  expect(comparison.health()).toEqual({ state: 'differ', gateways: 2, differ_s: 0, told: false })
  await look(69_999)
  expect(events).toEqual([])
  for (const at of [70_000, 72_000, 74_000]) await look(at)
  expect(comparison.health()).toEqual({ state: 'differ', gateways: 2, differ_s: 64, told: true })
  const { since, told, items } = comparison.shown()
  expect([since, told]).toEqual([1010, true])
  expect(items.map(({ gateway, here, seq }) => [gateway, here, seq])).toEqual([
    ['gw1', true, 1],
    ['gw2', false, 2],
  ])
  state.others = [gw2]
  for (const at of [76_000, 78_000]) await look(at)
  expect(comparison.health()).toEqual({ state: 'alike', gateways: 2, differ_s: null, told: false })
  expect(findings(events)).toEqual([
    ['finding.policy', 'failure', 'policy.differ'],
    ['finding.policy', 'success', 'policy.alike'],
  ])
  expect(events[0]?.message).toBe('gateways decide by different policies: gw1 site-a, gw2 site-b')
  expect(events[0]?.data).toMatchObject({ detail: { gateways: [{ gateway: 'gw1' }, { seq: 2 }] } })
})

test('an event that the log does not take is not told yet, and is tried again', async () => {
  let full = true
  const written: EventInput[] = []
  const append = async (event: EventInput) => {
    if (full) throw new Error('full')
    return { idx: written.push(event), uid: 'u', leaf: '' }
  }
  const { state, reported, comparison, look } = await comparing({ log: { append } })
  state.others = [ahead]
  for (const at of [0, 60_000, 62_000]) await look(at)
  expect(comparison.health().told).toBe(false)
  expect(reported).toEqual(['whether the gateways decide alike could not be recorded'])
  full = false
  await look(64_000)
  expect(comparison.health()).toMatchObject({ told: true, differ_s: 64 })
  state.others = [gw2]
  full = true
  await look(66_000)
  full = false
  await look(68_000)
  expect(findings(written).map(([, , what]) => what)).toEqual(['policy.differ', 'policy.alike'])
})

test('of a store that does not answer nothing is concluded: others are unknown, and no difference begins or ends', async () => {
  const { state, events, reported, comparison, look } = await comparing()
  state.others = [ahead]
  for (const at of [2_000, 62_000]) await look(at)
  state.away = true
  await look(64_000)
  expect(comparison.shown()).toMatchObject({ state: 'differ', looked_at: 1062 })
  await look(77_000)
  expect(comparison.shown()).toMatchObject({ state: 'unknown', looked_at: 1062, next_step: null })
  expect(comparison.shown().items.map(({ gateway }) => gateway)).toEqual(['gw1'])
  // Each kind is said once.
  expect(reported.toSorted()).toEqual([
    'what the other gateways decide by is not known',
    'what this gateway decides by is not told to the others',
  ])
  expect(events).toHaveLength(1)
  state.away = false
  state.others = [gw2]
  await look(90_000)
  expect(comparison.shown().state).toBe('alike')
  await look(105_000)
  expect(events).toHaveLength(2)
})

test('who could not say it again while the store was away does not decide alike', async () => {
  const { state, events, comparison, look } = await comparing()
  state.others = [ahead]
  for (const at of [2_000, 62_000]) await look(at)
  state.away = true
  for (const at of [64_000, 80_000]) await look(at)
  state.away = false
  state.others = []
  for (const at of [82_000, 96_999]) await look(at)
  expect(events).toHaveLength(1)
  state.others = [ahead]
  await look(97_000)
  expect(comparison.health()).toMatchObject({ state: 'differ', differ_s: 95, told: true })
  state.others = []
  await look(99_000)
  expect(events.map(({ message }) => message)).toEqual([
    'gateways decide by different policies: gw1 site-a, gw2 site-b',
    'no gateway that decides by another policy is heard of any more: gw1 site-a',
  ])
})

test('a change here while the store is away ends no difference: nobody knows what the others did meanwhile', async () => {
  let own = gw1
  const { state, events, look } = await comparing({ own: () => own })
  state.others = [ahead]
  for (const at of [2_000, 62_000]) await look(at)
  state.away = true
  own = { ...gw1, ...other('b', 2) }
  await look(64_000)
  expect(events).toHaveLength(1)
})

test('a gateway that has not looked yet knows of no other', async () => {
  const silent = Promise.withResolvers<boolean>()
  const policies = { say: async () => await silent.promise, list: async () => [gw2] }
  const { comparison, look } = await comparing({ policies })
  expect(comparison.health()).toEqual({
    state: 'unknown',
    gateways: 1,
    differ_s: null,
    told: false,
  })
  expect(comparison.shown().looked_at).toBeNull()
  silent.resolve(true)
  await look(2_000)
  expect(comparison.health()).toMatchObject({ state: 'alike', gateways: 2 })
})

test('what does not change is said again before it is over, and not at each look', async () => {
  const { said, look } = await comparing()
  for (const at of [2_000, 4_000, 6_000, 8_000, 10_000, 12_000]) await look(at)
  expect(said).toHaveLength(3)
})

test('a verdict on a canary is followed once, and another one by the same gateway again', async () => {
  const { state, fallen, look } = await comparing()
  const verdict = (at: number) => ({
    ...gw2,
    verdict: { digest: 'c'.repeat(64), revision: 'next', reason: 'too many were denied', at },
  })
  state.others = [verdict(1)]
  for (const at of [2_000, 4_000]) await look(at)
  expect(fallen).toEqual([['c'.repeat(64), 'gateway gw2: too many were denied']])
  // It was away for a while: what it says is not new.
  state.others = []
  await look(6_000)
  state.others = [verdict(1)]
  await look(8_000)
  expect(fallen).toHaveLength(1)
  state.others = [verdict(2)]
  await look(10_000)
  expect(fallen).toHaveLength(2)
  // Many that come and go make nobody forget one that is heard of.
  for (let many = 0; many < 4; many++) {
    const gone = Array.from({ length: 60 }, (_, at) => ({
      ...verdict(1),
      gateway: `gw-${many}-${at}`,
    }))
    state.others = [verdict(2), ...gone]
    await look(12_000 + many * 2_000)
  }
  await look(30_000)
  expect(fallen).toHaveLength(2 + 4 * 60)
})
