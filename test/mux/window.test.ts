/** Credit arithmetic by itself: what windows aim at, alone and beside others. protocol.md section 6. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Monotonic } from '#mux'
import { Budget, Growth, ReceiveWindow } from '../../agent-tunnel/mux/window.ts'

const KiB = 1024
const MiB = 1024 * KiB
const RTT = 10

class Reader {
  readonly window: ReceiveWindow
  #at = 0

  constructor(growth: Growth) {
    this.window = new ReceiveWindow(growth, this.now)
  }
  get now(): Monotonic {
    return this.#at as Monotonic
  }

  pause(roundTrips: number): void {
    this.#at += roundTrips * RTT
  }

  /** Takes what the peer may send, `roundTrips` after the last time. */
  use(roundTrips: number): number {
    const bytes = this.window.available
    expect(this.window.receive(bytes, this.now, RTT)).toBe(true)
    this.#at += roundTrips * RTT
    return this.window.consume(bytes, this.now, RTT)
  }
}

function tunnel(most = 16 * MiB, budget = 64 * MiB) {
  const limit = new Budget(budget)
  return { budget: limit, growth: new Growth(256 * KiB, most, limit) }
}

test.for<[string, number, number]>([
  ['used up in one round trip: the window is what is short', 1, 16 * MiB],
  ['used up in three: it is as long as the path', 3, 256 * KiB],
  ['used up in twenty: the path is full', 20, 256 * KiB],
])('%s', ([, roundTrips, target]) => {
  const reader = new Reader(tunnel().growth)
  for (let turn = 0; turn < 12; turn++) reader.use(roundTrips)
  expect(reader.window.target).toBe(target)
})

test('a window that has grown alone is no longer than a newcomer’s once the path is full', () => {
  const { growth, budget } = tunnel()
  const first = new Reader(growth)
  for (let turn = 0; turn < 12; turn++) first.use(1)
  expect(first.window.target).toBe(16 * MiB)
  const second = new Reader(growth)
  for (let turn = 0; turn < 12; turn++) for (const reader of [first, second]) reader.use(20)
  expect([first.window.target, second.window.target]).toEqual([256 * KiB, 256 * KiB])
  expect(budget.used).toBe(0)
})

test('after a pause a window is what it was: nothing to send says nothing of the path', () => {
  const reader = new Reader(tunnel().growth)
  for (let turn = 0; turn < 12; turn++) reader.use(1)
  reader.pause(1000)
  reader.use(1)
  expect(reader.window.target).toBe(16 * MiB)
})

test('a newcomer on a path with room follows at once', () => {
  const { growth } = tunnel()
  const first = new Reader(growth)
  for (let turn = 0; turn < 12; turn++) first.use(1)
  const second = new Reader(growth)
  second.use(4)
  expect(second.window.target).toBe(16 * MiB)
})

test('many that grow have an equal share of the budget', () => {
  const { growth, budget } = tunnel(16 * MiB, 8 * MiB)
  const readers = Array.from({ length: 16 }, () => new Reader(growth))
  for (let turn = 0; turn < 24; turn++) {
    for (const reader of readers) reader.use(1)
    growth.sharers = readers.filter(({ window }) => window.grown).length
  }
  expect(new Set(readers.map(({ window }) => window.target))).toEqual(new Set([768 * KiB]))
  expect(budget.used).toBe(8 * MiB)
})

test('whatever readers do: credit stays within the largest target, and the budget is conserved', () => {
  const step = fc.record({
    reader: fc.nat(3),
    part: fc.double({ min: 0, max: 1, noNaN: true }),
    roundTrips: fc.double({ min: 0, max: 30, noNaN: true }),
    decay: fc.boolean(),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const { growth, budget } = tunnel(4 * MiB, 5 * MiB)
      const windows = Array.from({ length: 4 }, () => new ReceiveWindow(growth, 0 as Monotonic))
      let now = 0
      for (const { reader, part, roundTrips, decay } of steps) {
        const window = windows[reader]!
        const bytes = Math.floor(window.available * part)
        expect(window.receive(bytes, now as Monotonic, RTT)).toBe(true)
        expect(window.receive(window.available + 1, now as Monotonic, RTT)).toBe(false)
        now += roundTrips * RTT
        const before = window.available
        const credit = window.consume(bytes, now as Monotonic, RTT)
        expect(window.available).toBe(before + credit)
        if (decay) window.decay()
        growth.sharers = windows.filter(({ grown }) => grown).length
        expect(window.outstanding).toBeLessThanOrEqual(4 * MiB)
        expect(budget.used).toBeLessThanOrEqual(budget.most)
        const above = windows.map((each) => Math.max(0, each.outstanding - 256 * KiB))
        expect(above.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(budget.used)
      }
      for (const window of windows) window.close()
      expect(budget.used).toBe(0)
    }),
  )
})
