/** The time of a node on a machine whose clock is set. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SteadyClock } from '../../gateway/clock.ts'

const DAY = 86_400_000

function machine(wall = 1_000 * DAY) {
  const clock = { wall, monotonic: 17 }
  const pass = (ms: number) => {
    clock.wall += ms
    clock.monotonic += ms
  }
  return {
    clock,
    pass,
    steady: new SteadyClock(
      () => clock.wall,
      () => clock.monotonic,
    ),
  }
}

test('set back by a day: time goes on as before, and is the wall clock’s again when that has caught up', () => {
  const { clock, pass, steady } = machine()
  const before = steady.now()
  clock.wall -= DAY
  expect(steady.now()).toBe(before)
  pass(1_000)
  expect([steady.now(), steady.held()]).toEqual([before + 1_000, DAY])
  clock.wall += DAY + 60_000
  expect([steady.now(), steady.held()]).toEqual([before + 61_000, 0])
})

test('a clock that is kept right in small steps is followed both ways', () => {
  const { clock, pass, steady } = machine()
  for (let at = 0; at < 1_000; at++) {
    pass(60_000)
    clock.wall -= 40
    expect([steady.now(), steady.held()]).toEqual([clock.wall, 0])
  }
})

test('whatever is done to the clock: no step back of more than what is followed, and never slower than time', () => {
  const step = fc.record({ pass: fc.nat(DAY), set: fc.integer({ min: -DAY, max: DAY }) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const { clock, pass, steady } = machine()
      let before = steady.now()
      for (const { pass: ms, set } of steps) {
        clock.wall += set
        const now = steady.now()
        expect(now).toBeGreaterThan(before - 5_000)
        pass(ms)
        expect(steady.now()).toBe(now + ms)
        before = steady.now()
      }
    }),
  )
})
