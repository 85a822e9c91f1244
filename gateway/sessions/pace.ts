/** A byte rate as a pure token bucket: how long to wait before the next bytes are asked for. */
export class Pace {
  readonly #bytesPerMs: number
  readonly #burst: number
  #level: number
  #at: number

  /** `bitsPerSecond` of the obligation; a tenth of a second may be spent at once. */
  constructor(bitsPerSecond: number, now: number) {
    this.#bytesPerMs = bitsPerSecond / 8000
    this.#burst = Math.max(16_384, this.#bytesPerMs * 100)
    this.#level = this.#burst
    this.#at = now
  }

  /** Takes `bytes` and gives the milliseconds until they are paid for; 0 while within the burst. */
  take(bytes: number, now: number): number {
    this.#level = Math.min(this.#burst, this.#level + (now - this.#at) * this.#bytesPerMs)
    this.#at = now
    this.#level -= bytes
    return this.#level >= 0 ? 0 : -this.#level / this.#bytesPerMs
  }
}
