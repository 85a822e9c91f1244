/** Grants that nobody ends: the log says when they did, whoever was there to see it. */
import { describe, expect, test, vi } from 'vitest'
import type { Statement } from '#approval'
import type { EventInput } from '#audit'
import { recordEnds, watchEnds } from '../../../gateway/grants/expiry.ts'
import { expiresAt, transitions, type Grant } from '../../../gateway/grants/grant.ts'
import { inTurn } from '../../../gateway/grants/turn.ts'
import { until } from '../../support/node.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const START = 1_700_000_000

function grantOf(id: string, change: Partial<Statement>, more: Partial<Grant> = {}): Grant {
  const statement = statementOf(START, {
    id,
    tenant: 't',
    vendor: 'Pumpworks',
    not_after: START + 1000,
    max_duration_s: 100,
    reason: 'bearing',
    ...change,
  })
  return grantAround(statement, more)
}

/** Grants and a log in memory; `now` is epoch seconds. */
function room(...held: Grant[]) {
  const grants = new Map(held.map((one) => [one.statement.id, one]))
  const events: EventInput[] = []
  const at = { now: START, broken: false, full: false }
  return {
    at,
    events,
    grants,
    now: () => at.now * 1000,
    log: {
      append: async (event: EventInput) => {
        if (at.broken) throw new Error('the disk failed')
        events.push(event)
        return { idx: events.length, uid: '', leaf: '' }
      },
    },
    store: {
      find: async (id: string) => grants.get(id),
      running: async (limit: number) =>
        [...grants.values()]
          .filter(({ ended }) => ended === null)
          .toSorted((a, b) => expiresAt(a) - expiresAt(b))
          .slice(0, limit),
      apply: async (
        id: string,
        event: 'expire' | 'use' | 'burn' | 'revoke' | 'reject',
        when: number,
        by: string,
        reason: string,
      ) => {
        if (at.full) throw new Error('the store is full')
        const one = grants.get(id)
        const state = one === undefined ? undefined : transitions[one.state][event]
        if (one === undefined || state === undefined) return undefined
        const after = { ...one, state, ended: { at: when, by, reason } }
        grants.set(id, after)
        return after
      },
    },
  }
}

const told = (events: readonly EventInput[]) =>
  events.map(({ code, grant, reason, data }) => [
    code,
    grant,
    reason,
    (data as { ended_at?: number }).ended_at,
  ])

describe('the end of a grant', () => {
  test.for([
    ['that nobody approved', grantOf('g', {}, { state: 'requested' }), 'unapproved', 1000],
    ['that nobody used', grantOf('g', {}), 'unused', 1000],
    [
      'that was used: its duration',
      grantOf('g', {}, { state: 'active', first_used_at: START + 50 }),
      'duration_end',
      150,
    ],
    [
      'that was used late: its window',
      grantOf('g', {}, { state: 'active', first_used_at: START + 950 }),
      'window_end',
      1000,
    ],
  ] as const)('%s', async ([, grant, reason, after]) => {
    const here = room(grant)
    here.at.now = START + after - 1
    expect(await recordEnds(here)).toBe(START + after)
    expect(here.events).toEqual([])
    here.at.now = START + after
    expect(await recordEnds(here)).toBeNull()
    expect(told(here.events)).toEqual([['grant.expire', 'g', reason, START + after]])
    const { state, ended } = here.grants.get('g') as Grant
    expect([state, ended?.at, ended?.by]).toEqual(['expired', START + after, 'time'])
  })

  test('that came while the gateway was down has its own time, and they stand in the order they came', async () => {
    const here = room(
      grantOf('late', { not_after: START + 500 }),
      grantOf('soon', { not_after: START + 400 }),
    )
    here.at.now = START + 86_400
    await recordEnds(here)
    expect(told(here.events).map(([, id, , at]) => [id, at])).toEqual([
      ['soon', START + 400],
      ['late', START + 500],
    ])
  })

  test('that an extension came before, since it was found: none', async () => {
    const own = grantOf('g', { not_after: START + 10 })
    const here = room(own)
    here.at.now = START + 10
    const { statement, hash, approvals } = grantOf('x', { not_after: START + 90 })
    const { promise, resolve } = Promise.withResolvers<undefined>()
    // Whoever extends it is at work on it when its end comes.
    const extending = inTurn(here.store, 'g', async () => {
      await promise
      here.grants.set('g', { ...own, extension: { statement, hash, approvals } })
    })
    const ends = recordEnds(here)
    resolve(undefined)
    await extending
    expect(await ends).toBe(START + 90)
    expect([here.events, here.grants.get('g')?.ended]).toEqual([[], null])
  })

  test('is recorded once, of however many', async () => {
    const here = room(
      ...Array.from({ length: 200 }, (_, n) => grantOf(`g${n}`, { not_after: START + n })),
      grantOf('open', { not_after: START + 5000 }),
    )
    here.at.now = START + 300
    expect(await recordEnds(here)).toBe(START + 5000)
    await recordEnds(here)
    expect(new Set(here.events.map(({ grant }) => grant)).size).toBe(200)
    expect(here.events).toHaveLength(200)
  })

  test('of thousands at once is found in few looks, each of which sorts all there are', async () => {
    const here = room(...Array.from({ length: 5000 }, (_, n) => grantOf(`g${n}`, {})))
    here.at.now = START + 1000
    const running = vi.spyOn(here.store, 'running')
    expect(await recordEnds(here)).toBeNull()
    expect(new Set(here.events.map(({ grant }) => grant)).size).toBe(5000)
    expect(running.mock.calls.length).toBeLessThan(10)
  })

  test('that is over by a clock which is ahead of the one all share: not yet', async () => {
    const here = room(grantOf('g', {}))
    here.at.now = START + 5000
    let shared = START + 999
    const time = async () => await Promise.resolve(shared)
    expect(await recordEnds({ ...here, time })).toBe(START + 1000)
    expect([here.events, here.grants.get('g')?.ended]).toEqual([[], null])
    shared = START + 1000
    expect(await recordEnds({ ...here, time })).toBeNull()
    expect(told(here.events)).toEqual([['grant.expire', 'g', 'unused', START + 1000]])
  })

  test('that the store does not take is recorded once, and marked when it does', async () => {
    const here = room(grantOf('g', {}))
    here.at.now = START + 1000
    here.at.full = true
    const recorded = new Map<string, number>()
    for (const _ of [1, 2, 3])
      await expect(recordEnds({ ...here, recorded })).rejects.toThrow('full')
    here.at.full = false
    await recordEnds({ ...here, recorded })
    expect([here.grants.get('g')?.state, here.events.length]).toEqual(['expired', 1])
    expect(recorded.size).toBe(0)
  })

  test('that cannot be recorded is not marked, and is said once', async () => {
    const here = room(grantOf('g', { not_after: START + 1 }))
    here.at.now = START + 2
    here.at.broken = true
    const said: string[] = []
    const report = (_: unknown, what: string) => void said.push(what)
    await using _watch = watchEnds({ ...here, report })
    await until('it was said', () => said.length > 0)
    expect(here.grants.get('g')?.ended).toBeNull()
    here.at.broken = false
    await recordEnds(here)
    expect(here.grants.get('g')?.state).toBe('expired')
    expect(said).toEqual(['the ends of grants could not be recorded'])
  })
})
