/** So many at once, and so many a second: a pure token bucket of whole things. */
export class Allowance {
  readonly #perMs: number
  readonly #burst: number
  #left: number
  #at: number

  /** `now` is monotonic milliseconds, here and in `take`. */
  constructor(perSecond: number, burst: number, now: number) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#left = burst
    this.#at = now
  }

  /** Whether one more fits now; then it is taken. */
  take(now: number): boolean {
    if (this.#earned(now) < 1) return false
    this.#left--
    return true
  }

  /**
   * Whole milliseconds until one more fits; 0: it does now. The rest of one is rounded up: a clock that is asked to go on
   * by less than its numbers can tell stands still, and whoever waits so would ask again for ever.
   */
  wait(now: number): number {
    return Math.ceil(Math.max(0, 1 - this.#earned(now)) / this.#perMs)
  }

  /** Whether nothing is taken that has not come back since. */
  isWhole(now: number): boolean {
    return this.#earned(now) === this.#burst
  }

  #earned(now: number): number {
    this.#left = Math.min(this.#burst, this.#left + (now - this.#at) * this.#perMs)
    this.#at = now
    return this.#left
  }
}

/** A byte rate as a pure token bucket: how long to wait before the next bytes are asked for. */
export class Pace {
  #bytesPerMs: number
  #level: number
  #at: number

  /** `bitsPerSecond` of the obligation; a tenth of a second may be spent at once. */
  constructor(bitsPerSecond: number, now: number) {
    this.#bytesPerMs = bitsPerSecond / 8000
    this.#level = this.#burst
    this.#at = now
  }

  /** Another rate from now on. What is owed stays owed; what was saved up counts up to the new burst. */
  keep(bitsPerSecond: number, now: number): void {
    this.take(0, now)
    this.#bytesPerMs = bitsPerSecond / 8000
    this.#level = Math.min(this.#level, this.#burst)
  }

  get #burst(): number {
    return Math.max(16_384, this.#bytesPerMs * 100)
  }

  /** Takes `bytes` and gives the milliseconds until they are paid for; 0 while within the burst. */
  take(bytes: number, now: number): number {
    this.#level = Math.min(this.#burst, this.#level + (now - this.#at) * this.#bytesPerMs)
    this.#at = now
    this.#level -= bytes
    return this.#level >= 0 ? 0 : -this.#level / this.#bytesPerMs
  }
}
