/**
 * How often one who has proven who they are may do what is recorded each time: a device that connects
 * in a circle, or reports without end, must not fill the log or the node's time.
 */

interface Standing {
  tokens: number
  at: number
}

export class Allowance {
  readonly #perSecond: number
  readonly #burst: number
  readonly #names: number
  readonly #standings = new Map<string, Standing>()

  /** By default one each two seconds and thirty at once, of 100,000 names. */
  constructor(perSecond = 0.5, burst = 30, names = 100_000) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#names = names
  }

  /** Whether `name` may once more, at `now` (monotonic milliseconds). */
  take(name: string, now: number): boolean {
    const tokens = this.#tokens(name, now)
    const may = tokens >= 1
    // The last to be heard of is the last to be forgotten.
    this.#standings.delete(name)
    this.#standings.set(name, { tokens: may ? tokens - 1 : tokens, at: now })
    const [oldest] = this.#standings.size > this.#names ? this.#standings.keys() : []
    if (oldest !== undefined) this.#standings.delete(oldest)
    return may
  }

  /** How long until `name` may once more, in milliseconds. */
  wait(name: string, now: number): number {
    return (Math.max(0, 1 - this.#tokens(name, now)) * 1000) / this.#perSecond
  }

  /** One that was taken for what costs nothing. */
  giveBack(name: string): void {
    const standing = this.#standings.get(name)
    if (standing !== undefined) standing.tokens = Math.min(this.#burst, standing.tokens + 1)
  }

  #tokens(name: string, now: number): number {
    const before = this.#standings.get(name)
    const earned = before === undefined ? 0 : ((now - before.at) * this.#perSecond) / 1000
    return Math.min(this.#burst, (before?.tokens ?? this.#burst) + earned)
  }
}
