/**
 * The time of a node: never set back while it runs. Windows, grants, sign-ins, certificates and the age of a bundle all
 * go by it, so whoever sets the clock of the machine back gives nobody more time.
 */

/** A step back by less is what keeping time looks like; it is followed. Milliseconds. */
const FOLLOWED_MS = 5_000

export class SteadyClock {
  readonly #wall: () => number
  readonly #monotonic: () => number
  /** What the wall clock was ahead of the monotonic one. */
  #ahead: number
  #held = 0

  /** `wall` gives epoch milliseconds and may be set; `monotonic` milliseconds of any clock that goes on. */
  constructor(wall: () => number, monotonic: () => number) {
    this.#wall = wall
    this.#monotonic = monotonic
    this.#ahead = wall() - monotonic()
  }

  /** Epoch milliseconds, whole. Forward it goes with the wall clock; of a step back nothing is seen. */
  readonly now = (): number => {
    const at = this.#monotonic()
    const ahead = this.#wall() - at
    this.#held = this.#ahead - ahead
    if (this.#held < FOLLOWED_MS) {
      this.#ahead = ahead
      this.#held = 0
    }
    return Math.floor(at + this.#ahead)
  }

  /** Milliseconds that the wall clock is behind this one; 0 where they agree. */
  readonly held = (): number => {
    this.now()
    return this.#held
  }
}
