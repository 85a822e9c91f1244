/** A rate, held over any sequence of sizes and times. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Allowance, Pace } from '../../../gateway/sessions/pace.ts'

test('who waits as told never exceeds the rate by more than the burst', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 8_000, max: 1_000_000_000 }),
      fc.array(fc.tuple(fc.integer({ min: 1, max: 262_144 }), fc.integer({ min: 0, max: 500 })), {
        minLength: 1,
        maxLength: 100,
      }),
      (bps, steps) => {
        let now = 0
        const pace = new Pace(bps, now)
        const burst = Math.max(16_384, (bps / 8000) * 100)
        let sent = 0
        for (const [bytes, pause] of steps) {
          sent += bytes
          now += pace.take(bytes, now)
          expect(sent).toBeLessThanOrEqual(burst + (now * bps) / 8000 + 1e-3 * sent + 1)
          now += pause
        }
      },
    ),
  )
})

test('an idle minute does not save up a minute of bytes', () => {
  const pace = new Pace(8_000_000, 0)
  expect(pace.take(100_000, 60_000)).toBe(0)
  expect(pace.take(1_000_000, 60_000)).toBeCloseTo(1000)
})

test('a lower rate holds from the next byte on, and what was saved up for the higher one is gone', () => {
  const pace = new Pace(80_000_000, 0)
  pace.keep(8_000_000, 1000)
  expect(pace.take(100_000, 1000)).toBe(0)
  expect(pace.take(1_000_000, 1000)).toBeCloseTo(1000)
  pace.keep(80_000_000, 1000)
  expect(pace.take(0, 1000)).toBeCloseTo(100)
})

test('an allowance gives so many at once and so many a second, however long nobody asked', () => {
  const allowance = new Allowance(50, 3, 0)
  const given = (now: number) => [1, 2, 3, 4, 5].filter(() => allowance.take(now)).length
  expect([given(0), given(19), given(20), given(60), given(60_000)]).toEqual([3, 0, 1, 2, 3])
})

test('who waits as told gets there: a rest too small for the clock to go on by is waited for as well', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1_000 }),
      fc.array(fc.double({ min: 0, max: 30, noNaN: true }), { minLength: 20, maxLength: 40 }),
      (perSecond, pauses) => {
        const allowance = new Allowance(perSecond, 1, 0)
        let now = 0
        for (const pause of pauses) {
          // What is rounded up may be short of a whole one by the last digit, once.
          for (let waits = 0; !allowance.take(now); waits++) {
            expect(waits).toBeLessThan(3)
            now += allowance.wait(now)
          }
          now += pause
        }
      },
    ),
  )
})
