/** A grant whose window comes back: which one counts, what policy is shown of it, and what is said between two. */
import { describe, expect, test } from 'vitest'
import type { Recurrence, Statement } from '#approval'
import { standingFacts } from '../../../gateway/facts.ts'
import { writeFault } from '../../../gateway/grants/addresses.ts'
import { elevationOf } from '../../../gateway/grants/elevation.ts'
import { expiresAt, type Grant } from '../../../gateway/grants/grant.ts'
import {
  during,
  longestUse,
  opensInWords,
  recurrenceFault,
} from '../../../gateway/grants/window.ts'
import type { Allotments } from '../../../gateway/sessions/allotment.ts'
import { fallenWith } from '../../../gateway/sessions/standing.ts'
import { usable } from '../../../gateway/sessions/uses.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const at = (text: string) => Date.parse(text) / 1000
const DAY = 86_400
/** Tuesdays, 02:00 to 04:00 in Berlin: in December 01:00 to 03:00 UTC. */
const TUESDAYS: Recurrence = { tz: 'Europe/Berlin', days: [2], from_min: 120, to_min: 240 }
const [OPENS, CLOSES] = [at('2026-12-01T01:00:00Z'), at('2026-12-01T03:00:00Z')]
const statement = statementOf(at('2026-11-26T00:00:00Z'), {
  max_duration_s: 16 * DAY,
  recurring: TUESDAYS,
  not_after: at('2026-12-12T00:00:00Z'),
})
const grant = (change: Partial<Statement> = {}, more: Partial<Grant> = {}) =>
  grantAround({ ...statement, ...change }, { state: 'active', ...more })
const nothingSpare: Pick<Allotments, 'spare'> = { spare: () => 0 }
const lets = (one: Grant, now: number) => usable([one], now, nothingSpare) !== undefined
const why = (one: Grant, now: number) => fallenWith(during(one, now), now * 1000, 'policy_recheck')

describe('a session under it', () => {
  test.for([
    { name: 'a second too early', now: OPENS - 1, open: false },
    { name: 'at the beginning', now: OPENS, open: true },
    { name: 'in the last second', now: CLOSES - 1, open: true },
    { name: 'at the end', now: CLOSES, open: false },
    { name: 'a week later', now: OPENS + 7 * DAY, open: true },
    { name: 'on the Tuesday after its last', now: OPENS + 14 * DAY, open: false },
  ])('$name', ({ now, open }) => {
    expect(lets(grant(), now)).toBe(open)
    expect(why(grant(), now) === undefined).toBe(open)
    const [facts] = standingFacts(during(grant(), now))
    const between = (facts?.not_before ?? 0) <= now && now < (facts?.expires_at ?? 0)
    expect(between && now < (facts?.not_after ?? 0)).toBe(open)
  })

  test('ends with the window, or sooner: when its time from the first use is over, or its last day', () => {
    expect(expiresAt(during(grant(), OPENS))).toBe(CLOSES)
    const used = grant({ max_duration_s: 600 }, { first_used_at: OPENS })
    expect(expiresAt(during(used, OPENS))).toBe(OPENS + 600)
    expect(lets(used, OPENS + 7 * DAY)).toBe(false)
    expect(expiresAt(during(grant({ not_after: OPENS + 60 }), OPENS))).toBe(OPENS + 60)
  })

  test('is told when it opens next, and nothing of that after the last', () => {
    expect(why(grant(), CLOSES)).toMatchObject({
      reason: 'window_end',
      message: 'this window of the grant is over',
      next: 'connect again then: it opens Tue 2026-12-08 02:00 Europe/Berlin (2026-12-08T01:00:00Z)',
    })
    expect(why(grant(), CLOSES + 7 * DAY)?.message).toBe('the time of the grant is over')
    expect(opensInWords(grant(), CLOSES + 7 * DAY)).toBeUndefined()
  })

  test('under a grant that nobody looked at for this instant: policy sees none that is open', () => {
    const [facts] = standingFacts(grant())
    expect(facts?.expires_at).toBe(facts?.not_before)
  })

  test('under an extension that lasts longer: its windows come back until then', () => {
    const { not_after, ...rest } = statement
    const longer: Statement = { ...rest, not_after: not_after + 7 * DAY, id: 'g_2' }
    const extended = grant({}, { extension: { statement: longer, hash: 'h', approvals: [] } })
    expect([lets(grant(), OPENS + 14 * DAY), lets(extended, OPENS + 14 * DAY)]).toEqual([
      false,
      true,
    ])
  })
})

describe('one to write beside it', () => {
  const window = { unit: 1, from: 0, to: 9 }
  const write = grantAround({
    ...statement,
    id: 'g_w',
    ot_level: 2,
    ot_windows: [window],
    not_before: OPENS,
    not_after: OPENS + 600,
  })
  const { recurring: _, ...once } = write.statement
  const plainly = { ...write, statement: once }
  test('adds to the window that is open, until that ends', () => {
    const own = (now: number) => during(grant(), now)
    expect(elevationOf(own(OPENS), [plainly], OPENS).grants).toHaveLength(1)
    const outlasting = { ...plainly, statement: { ...once, not_after: CLOSES } }
    expect(elevationOf(own(OPENS), [outlasting], OPENS).grants).toEqual([])
    expect(elevationOf(own(CLOSES), [plainly], CLOSES).grants).toEqual([])
  })
  test('is asked for within that window', () => {
    const asked = (not_after: number) => writeFault({ ...once, not_after }, [grant()], DAY, OPENS)
    expect(asked(CLOSES - 1)).toBeUndefined()
    expect(asked(CLOSES)?.detail).toContain('2026-12-01T03:00:00Z')
  })
})

describe('asked for', () => {
  test.for<readonly [string, Partial<Statement>, boolean]>([
    ['as it may be', {}, true],
    ['once a week, and the week ends before', { not_after: OPENS }, false],
    ['from the end of the last one on', { not_before: CLOSES, not_after: OPENS + 7 * DAY }, false],
    ['to write', { ot_level: 2 }, false],
    ['for 367 days', { not_after: statement.not_before + 367 * DAY }, false],
    ['for 366 days', { not_after: statement.not_before + 366 * DAY }, true],
    ['on a day twice', { recurring: { ...TUESDAYS, days: [2, 2] } }, false],
    ['nowhere', { recurring: { ...TUESDAYS, tz: 'Nowhere/Here' } }, false],
  ])('%s', ([, change, allowed]) => {
    const fault = recurrenceFault({ ...statement, ...change })
    expect(fault?.code).toBe(allowed ? undefined : 'grant.window')
  })
  test('policy weighs the length of one window, and a duration that is shorter', () => {
    expect(longestUse(statement)).toBe(7200)
    expect(longestUse({ ...statement, max_duration_s: 600 })).toBe(600)
    const { recurring: _, ...once } = statement
    expect(longestUse(once)).toBe(16 * DAY)
  })
})
