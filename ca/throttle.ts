/** Too much from one source costs it time: wrong credentials, or any requests. Tokens are never locked. Bounded memory. */
import type { Instant } from './time.ts'

const WINDOW_MS = 60_000
const GUESSES = 30
const SOURCES = 10_000

interface Count {
  seen: number
  readonly until: number
}

/** A window that begins after `now` is of a clock that was set back since: it would last for that long. */
function runs({ until }: Count, now: Instant): boolean {
  return until > now && until <= now + WINDOW_MS
}

export class Throttle {
  readonly #counts = new Map<string, Count>()
  readonly #most: number

  /** `most`: what a source may do within a minute. */
  constructor(most = GUESSES) {
    this.#most = most
  }

  /** Seconds this source has to wait; 0 when it may try. */
  waitSeconds(source: string, now: Instant): number {
    const count = this.#counts.get(source)
    if (count === undefined || count.seen < this.#most || !runs(count, now)) return 0
    return Math.ceil((count.until - now) / 1_000)
  }

  /** Counts one. */
  count(source: string, now: Instant): void {
    const count = this.#counts.get(source)
    if (count !== undefined && runs(count, now)) {
      count.seen++
      return
    }
    this.#counts.delete(source)
    this.#counts.set(source, { seen: 1, until: now + WINDOW_MS })
    // A Map keeps insertion order: the first key is the oldest window.
    const [oldest] = this.#counts.keys()
    if (this.#counts.size > SOURCES && oldest !== undefined) this.#counts.delete(oldest)
  }
}
