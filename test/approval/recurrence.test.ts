/** Windows that come back, by the clocks of a place: what is open when, also where those clocks are changed. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  instantInZone,
  isRecurrence,
  nextPeriod,
  periodAt,
  readStatement,
  recurrenceInWords,
  type Recurrence,
} from '#approval'

const at = (text: string) => Date.parse(text) / 1000
const EVER = { not_before: at('2010-01-01T00:00:00Z'), not_after: at('2040-01-01T00:00:00Z') }
const said = (period: { from: number; until: number } | undefined) =>
  period === undefined
    ? null
    : [period.from, period.until].map((second) =>
        new Date(second * 1000).toISOString().slice(0, 19),
      )
const rule = (tz: string, days: readonly number[], from: string, to: string): Recurrence => {
  const minutes = (text: string) => Number(text.slice(0, 2)) * 60 + Number(text.slice(3))
  const [from_min, end] = [minutes(from), minutes(to)]
  return { tz, days, from_min, to_min: end > from_min ? end : end + 1440 }
}
const DAILY = [0, 1, 2, 3, 4, 5, 6]

describe('the window that is open or opens next', () => {
  const berlin = rule('Europe/Berlin', [2], '02:00', '04:00')
  const rows: readonly (readonly [string, Recurrence, string, readonly string[]])[] = [
    ['in winter', berlin, '2026-11-26T12:00:00Z', ['2026-12-01T01:00:00', '2026-12-01T03:00:00']],
    ['in summer', berlin, '2026-07-01T00:00:00Z', ['2026-07-07T00:00:00', '2026-07-07T02:00:00']],
    [
      'its first second',
      berlin,
      '2026-12-01T01:00:00Z',
      ['2026-12-01T01:00:00', '2026-12-01T03:00:00'],
    ],
    [
      'its last second',
      berlin,
      '2026-12-01T02:59:59Z',
      ['2026-12-01T01:00:00', '2026-12-01T03:00:00'],
    ],
    [
      'its end is the next one',
      berlin,
      '2026-12-01T03:00:00Z',
      ['2026-12-08T01:00:00', '2026-12-08T03:00:00'],
    ],
    [
      'begun the day before',
      rule('Europe/Berlin', [1], '22:00', '02:00'),
      '2026-11-30T23:30:00Z',
      ['2026-11-30T21:00:00', '2026-12-01T01:00:00'],
    ],
    [
      'over the end of a week',
      rule('UTC', [6], '23:00', '01:00'),
      '2026-11-29T00:30:00Z',
      ['2026-11-28T23:00:00', '2026-11-29T01:00:00'],
    ],
    [
      'clocks skip its beginning: it opens when they do',
      rule('Europe/Berlin', [0], '02:30', '04:00'),
      '2026-03-28T12:00:00Z',
      ['2026-03-29T01:00:00', '2026-03-29T02:00:00'],
    ],
    [
      'clocks skip its end',
      rule('Europe/Berlin', [0], '01:00', '02:30'),
      '2026-03-28T12:00:00Z',
      ['2026-03-29T00:00:00', '2026-03-29T01:00:00'],
    ],
    [
      'clocks skip all of it: a week later',
      rule('Europe/Berlin', [0], '02:00', '03:00'),
      '2026-03-28T12:00:00Z',
      ['2026-04-05T00:00:00', '2026-04-05T01:00:00'],
    ],
    [
      'clocks go back within it',
      rule('Europe/Berlin', [0], '02:00', '04:00'),
      '2026-10-24T12:00:00Z',
      ['2026-10-25T00:00:00', '2026-10-25T03:00:00'],
    ],
    [
      'an hour that comes twice is the first',
      rule('Europe/Berlin', [0], '02:00', '03:00'),
      '2026-10-24T12:00:00Z',
      ['2026-10-25T00:00:00', '2026-10-25T02:00:00'],
    ],
    [
      'minutes that come twice are the first',
      rule('America/New_York', [0], '01:10', '01:20'),
      '2026-11-01T00:00:00Z',
      ['2026-11-01T05:10:00', '2026-11-01T05:20:00'],
    ],
    [
      'clocks that go by half an hour',
      rule('Australia/Lord_Howe', [0], '02:15', '03:00'),
      '2026-10-03T00:00:00Z',
      ['2026-10-03T15:30:00', '2026-10-03T16:00:00'],
    ],
    [
      'a day that was left out',
      rule('Pacific/Apia', [5], '10:00', '11:00'),
      '2011-12-27T00:00:00Z',
      ['2012-01-05T20:00:00', '2012-01-05T21:00:00'],
    ],
  ]
  test.for(rows)('%s', ([, recurring, now, wanted]) => {
    expect(said(periodAt(recurring, EVER, at(now)))).toEqual(wanted)
  })

  test('not before, and not after, the window of its grant', () => {
    const bounds = { not_before: at('2026-12-01T02:00:00Z'), not_after: at('2026-12-08T01:30:00Z') }
    const first = periodAt(berlin, bounds, at('2026-01-01T00:00:00Z'))
    expect(said(first)).toEqual(['2026-12-01T02:00:00', '2026-12-01T03:00:00'])
    const last = nextPeriod(berlin, bounds, at('2026-12-01T02:30:00Z'))
    expect(said(last)).toEqual(['2026-12-08T01:00:00', '2026-12-08T01:30:00'])
    expect(nextPeriod(berlin, bounds, at('2026-12-08T01:10:00Z'))).toBeUndefined()
    expect(periodAt(berlin, bounds, at('2026-12-08T01:30:00Z'))).toBeUndefined()
  })

  test('they never meet, are never behind, and each is where clocks say', () => {
    const zones = [
      'Europe/Berlin',
      'America/New_York',
      'Australia/Lord_Howe',
      'Africa/Casablanca',
      'UTC',
    ]
    const rules = fc
      .record({
        tz: fc.constantFrom(...zones),
        days: fc.subarray(DAILY, { minLength: 1 }),
        from_min: fc.nat(1439),
        length: fc.integer({ min: 1, max: 1439 }),
      })
      .map(({ length, ...rest }) => ({ ...rest, to_min: rest.from_min + length }))
    const instants = fc.integer({
      min: at('2025-01-01T00:00:00Z'),
      max: at('2027-01-01T00:00:00Z'),
    })
    fc.assert(
      fc.property(rules, instants, (recurring, now) => {
        expect(isRecurrence(recurring)).toBe(true)
        const one = periodAt(recurring, EVER, now)
        if (one === undefined) throw new Error('none is left')
        expect(one.until).toBeGreaterThan(Math.max(now, one.from))
        // Any instant within leads to the same one, and its end to a later one.
        for (const within of [one.from, one.until - 1])
          expect(periodAt(recurring, EVER, within)).toEqual(one)
        const after = periodAt(recurring, EVER, one.until)
        expect(after?.from).toBeGreaterThanOrEqual(one.until)
        // A day has 23 to 25 hours.
        expect(one.until - one.from).toBeLessThanOrEqual(
          (recurring.to_min - recurring.from_min + 60) * 60,
        )
      }),
      { numRuns: 300 },
    )
  })
})

describe('what is no such rule', () => {
  const good = rule('Europe/Berlin', [2], '02:00', '04:00')
  test.for<readonly [string, unknown]>([
    ['an offset, which follows no clocks', { ...good, tz: '+02:00' }],
    ['a zone that is not there', { ...good, tz: 'Mars/Olympus' }],
    ...['PST', 'IST', 'JST', 'ECT', 'SystemV/EST5'].map(
      (tz) => [`${tz}, which is a zone to Intl alone`, { ...good, tz }] as const,
    ),
    ['no day', { ...good, days: [] }],
    ['a day twice', { ...good, days: [2, 2] }],
    ['days out of order', { ...good, days: [3, 2] }],
    ['an eighth day', { ...good, days: [7] }],
    ['half a minute', { ...good, from_min: 0.5 }],
    ['no time', { ...good, to_min: good.from_min }],
    ['a whole day', { ...good, to_min: good.from_min + 1440 }],
    ['from another day', { ...good, from_min: 1440, to_min: 1450 }],
    ['a member more', { ...good, until: 7 }],
    ['a member less', { tz: good.tz, days: good.days, from_min: 1 }],
    ['null', null],
  ])('%s', ([, value]) => {
    expect(isRecurrence(value)).toBe(false)
    const statement = {
      v: 1,
      id: 'g_1',
      tenant: 't',
      requester: 'iss|a',
      vendor: null,
      devices: ['d'],
      processes: ['p'],
      ot_level: 1,
      not_before: 1,
      not_after: 2,
      max_duration_s: 1,
      reason: 'r',
      ticket: null,
      created_at: 1,
    }
    expect(readStatement({ ...statement, recurring: good })).toBeDefined()
    expect(readStatement({ ...statement, recurring: value })).toBeUndefined()
  })
})

test('in words', () => {
  const words = (days: readonly number[], from: string, to: string) =>
    recurrenceInWords(rule('Europe/Berlin', days, from, to))
  expect(words([2], '02:00', '04:00')).toBe('every Tuesday 02:00 to 04:00, Europe/Berlin')
  expect(words([1, 4], '22:00', '02:30')).toBe(
    'every Monday, Thursday 22:00 to 02:30 the next day, Europe/Berlin',
  )
  expect(words(DAILY, '22:00', '24:00')).toBe('every day 22:00 to 24:00, Europe/Berlin')
  expect(instantInZone(at('2026-12-01T01:00:00Z'), 'Europe/Berlin')).toBe(
    'Tue 2026-12-01 02:00 Europe/Berlin (2026-12-01T01:00:00Z)',
  )
})
