/** How often a path is kept open, how far that may be stretched, and when a peer is dead, by hand-moved clocks. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Monotonic } from '#mux'
import { Liveness } from '../../agent-tunnel/mux/liveness.ts'
import { Pair } from '../support/pair.ts'
import { rounds } from '../support/patience.ts'

const MINUTE = 60_000
/** What NATs and firewalls on the way do: forget a connection that was idle for longer. */
class Nat {
  readonly #patience: number
  #last: number
  constructor(patience: number, now: number) {
    this.#patience = patience
    this.#last = now
  }
  passes(now: number): boolean {
    const open = now - this.#last <= this.#patience
    if (open) this.#last = now
    return open
  }
}

/** An idle tunnel behind a NAT for `ms`; gives the longest silence there was, and what became of it. */
function idle(patienceMs: number, natMs: number, ms: number) {
  const limits = { keepalivePatienceMs: patienceMs }
  const pair = Pair.ready({ dialler: limits, acceptor: { keepalivePatienceMs: 300_000 } })
  const nat = new Nat(natMs, pair.clock.now)
  const until = pair.clock.now + ms
  const ends = [pair.dialler, pair.acceptor]
  for (const _ of rounds('nothing that is due at one time is due again')) {
    if (pair.dialler.failure !== undefined) break
    const next = Math.min(...ends.map((end) => end.session.wakeAt ?? Infinity))
    if (next > until) break
    pair.clock.now = next
    for (const end of ends) end.take(end.session.tick(end.now))
    for (const end of ends) {
      while (pair.send(end));
      if (pair.other(end).arriving > 0 && !nat.passes(pair.clock.now)) pair.other(end).cut()
    }
    pair.settle()
  }
  return { pair, stats: pair.dialler.session.stats(), elapsed: pair.clock.now }
}

test('a PONG to the second PING before that to the first answers none', () => {
  const now = (ms: number) => ms as Monotonic
  const how = { range: [15_000, 25_000], patienceMs: 25_000, follows: false } as const
  const live = new Liveness({ ...how, random: () => 0.5 }, now(0))
  const [first, second] = [live.ping(now(1)), live.ping(now(2))]
  expect(live.pong(second, now(3))).toBe(false)
  expect([live.pong(first, now(4)), live.pong(second, now(5))]).toEqual([true, true])
})

describe('patience', () => {
  test('by default an idle tunnel is heard of every 15 to 25 s', () => {
    const { pair, stats } = idle(25_000, 26_000, 24 * 60 * MINUTE)
    expect(pair.dialler.failure).toBeUndefined()
    expect(stats.survivedMs).toBeLessThanOrEqual(25_000)
  })

  test('it grows to what was asked, and frames become fewer', () => {
    const { pair, stats } = idle(240_000, 300_000, 24 * 60 * MINUTE)
    expect(pair.dialler.failure ?? pair.acceptor.failure).toBeUndefined()
    expect(stats.survivedMs).toBeGreaterThan(190_000)
    expect(stats.survivedMs).toBeLessThanOrEqual(240_000)
    const plain = idle(25_000, 300_000, 24 * 60 * MINUTE).stats
    expect(stats.framesOut).toBeLessThan(plain.framesOut / 5)
  })

  test('a NAT that forgets earlier: death is noticed three plain intervals later, and what it bore is known', () => {
    const { pair, stats, elapsed } = idle(240_000, 100_000, 24 * 60 * MINUTE)
    expect(pair.dialler.failure).toBe('peer.silent')
    expect(stats.survivedMs).toBeLessThanOrEqual(100_000)
    expect(stats.survivedMs).toBeGreaterThan(60_000)
    expect(stats.triedMs).toBeGreaterThan(100_000)
    expect(stats.triedMs).toBeLessThanOrEqual(stats.survivedMs * 1.3)
    expect(elapsed).toBeLessThan(24 * 60 * MINUTE)
  })

  test('once a PING is not answered the plain intervals count, however far they had been stretched', () => {
    const pair = Pair.ready({
      dialler: { keepalivePatienceMs: 300_000 },
      acceptor: { keepalivePatienceMs: 450_000 },
    })
    pair.pass(240 * MINUTE)
    expect(pair.dialler.session.stats().survivedMs).toBeGreaterThan(200_000)
    const pings = pair.dialler.session.stats().framesOut
    while (pair.dialler.session.stats().framesOut === pings) pair.pass(100, true)
    pair.pass(3 * 25_000, true)
    expect(pair.dialler.failure).toBe('peer.silent')
  })

  test('the acceptor adds nothing while its dialler asks, and finds it dead when it does not', () => {
    const pair = Pair.ready({
      dialler: { keepalivePatienceMs: 200_000 },
      acceptor: { keepalivePatienceMs: 300_000 },
    })
    pair.pass(240 * MINUTE)
    // The dialler's PINGs and PONGs for the few of the acceptor's, and HELLO.
    const before = pair.acceptor.session.stats().framesOut
    pair.pass(60 * MINUTE)
    const asked = pair.dialler.session.stats()
    expect(pair.acceptor.session.stats().framesOut - before).toBeLessThan(30)
    expect(asked.survivedMs).toBeGreaterThan(150_000)
    pair.pass(300_000 * 1.5 + 75_000, true)
    expect(pair.acceptor.failure).toBe('peer.silent')
  })

  test('no interval is longer than the patience, nor a quarter longer than what was survived', () => {
    const draw = fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), {
      minLength: 7,
      maxLength: 60,
    })
    const patience = fc.integer({ min: 25_000, max: 300_000 })
    const nat = fc.integer({ min: 26_000, max: 400_000 })
    fc.assert(
      fc.property(patience, nat, draw, (most, forgets, draws) => {
        let drawn = 0
        const random = () => draws[drawn++ % draws.length] ?? 0
        const options = {
          range: [15_000, 25_000],
          patienceMs: most,
          follows: false,
          random,
        } as const
        const live = new Liveness(options, 0 as Monotonic)
        let now = 0
        for (let at = 0; at < 60; at++) {
          const wait = live.wakeAt - now
          expect(wait).toBeLessThanOrEqual(Math.max(25_000, Math.min(most, live.survivedMs * 1.25)))
          now = live.wakeAt
          if (live.due(now as Monotonic) !== 'ping') break
          const token = live.ping(now as Monotonic)
          if (wait > forgets) continue
          live.heard(now as Monotonic)
          live.pong(token, now as Monotonic)
        }
        expect(live.survivedMs).toBeLessThanOrEqual(Math.min(forgets, Math.max(25_000, most)))
      }),
    )
  })
})
