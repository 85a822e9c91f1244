/** Token buckets against floods, and the price of streams that die young. docs/protocol.md section 8. */
import type { Monotonic } from './limits.ts'

/** A rate with a burst of two seconds' worth. */
export class Rate {
  readonly #perSecond: number
  #tokens: number
  #at: Monotonic

  constructor(perSecond: number, now: Monotonic) {
    this.#perSecond = perSecond
    this.#tokens = 2 * perSecond
    this.#at = now
  }

  /** Adds tokens that the peer has earned otherwise, to at most a full burst of earlier ones. */
  earn(tokens: number): void {
    this.#tokens = Math.min(2 * this.#perSecond, this.#tokens) + tokens
  }

  /** Takes `cost` tokens; false when the peer is over its rate. */
  take(now: Monotonic, cost = 1): boolean {
    if (this.#tokens < cost) {
      const earned = ((now - this.#at) * this.#perSecond) / 1000
      this.#tokens = Math.min(2 * this.#perSecond, this.#tokens + earned)
      this.#at = now
      if (this.#tokens < cost) return false
    }
    this.#tokens -= cost
    return true
  }
}

/** What is over a rate is refused; at so many times the rate it is no longer answered. */
const BAND = 5

/** OPENs: within the rate, over it, or so many that even a refusal is too good for them. */
export class Opens {
  readonly #rate: Rate
  readonly #band: Rate

  constructor(perSecond: number, now: Monotonic) {
    this.#rate = new Rate(perSecond, now)
    this.#band = new Rate(BAND * perSecond, now)
  }

  take(now: Monotonic): 'taken' | 'refused' | 'flood' {
    if (!this.#band.take(now)) return 'flood'
    return this.#rate.take(now) ? 'taken' : 'refused'
  }
}

const YOUNG_MS = 1000
const STEP_MS = 5
const MOST_MS = 2000

/**
 * Streams that their opener resets soon after OPEN (rapid reset). Up to `perSecond` cost nothing;
 * above it every OPEN waits longer, and at five times as many the tunnel ends.
 */
export class YoungDeaths {
  readonly #perSecond: number
  #score = 0
  #at: Monotonic

  constructor(perSecond: number, now: Monotonic) {
    this.#perSecond = perSecond
    this.#at = now
  }

  #cool(now: Monotonic): void {
    this.#score = Math.max(0, this.#score - ((now - this.#at) * this.#perSecond) / 1000)
    this.#at = now
  }

  /** Counts a stream opened at `openedAt` and reset now; false when that was one too many. */
  count(openedAt: Monotonic, now: Monotonic): boolean {
    if (now - openedAt > YOUNG_MS) return true
    this.#cool(now)
    this.#score++
    return this.#score <= 5 * this.#perSecond
  }

  /** How many milliseconds the next OPEN waits before anybody looks at it. */
  delay(now: Monotonic): number {
    if (this.#score === 0) return 0
    this.#cool(now)
    return Math.min(MOST_MS, Math.max(0, this.#score - this.#perSecond) * STEP_MS)
  }
}
