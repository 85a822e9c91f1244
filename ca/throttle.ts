/** Wrong credentials cost their source time; tokens themselves are never locked. Bounded memory. */
import type { Instant } from './time.ts'

const WINDOW_MS = 60_000
const FAILURES = 30
const SOURCES = 10_000

interface Count {
  failures: number
  readonly until: number
}

export class Throttle {
  readonly #counts = new Map<string, Count>()

  /** Seconds this source has to wait; 0 when it may try. */
  waitSeconds(source: string, now: Instant): number {
    const count = this.#counts.get(source)
    if (count === undefined || count.failures < FAILURES || count.until <= now) return 0
    return Math.ceil((count.until - now) / 1_000)
  }

  /** Counts one wrong guess. */
  failed(source: string, now: Instant): void {
    const count = this.#counts.get(source)
    if (count !== undefined && count.until > now) {
      count.failures++
      return
    }
    this.#counts.delete(source)
    this.#counts.set(source, { failures: 1, until: now + WINDOW_MS })
    // A Map keeps insertion order: the first key is the oldest window.
    const [oldest] = this.#counts.keys()
    if (this.#counts.size > SOURCES && oldest !== undefined) this.#counts.delete(oldest)
  }
}
