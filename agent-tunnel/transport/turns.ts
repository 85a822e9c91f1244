/**
 * How much of one connection is read before the others of the process have their turn. libuv reads up to 32
 * times in a row of one that has more; a small request on another waits for all that is then done with a
 * megabyte. docs/decisions/0010-what-is-on-its-way-is-bounded.md has the measurements.
 */
import { LITTLE_EXPECTED_MS } from '#mux'

/** What is read of one connection in a turn of the event loop, or little more, while others ask little. */
const SHARED_TURN = 128 * 1024

/** One tunnel among the others. */
export class Seat {
  readonly #turns: Turns
  #littleAt = -Infinity

  constructor(turns: Turns) {
    this.#turns = turns
  }

  /** A stream of it last sent little at that time, milliseconds of the clock that all of them have. */
  sentLittle(at: number): void {
    if (at === this.#littleAt) return
    this.#littleAt = at
    this.#turns.sentLittle(this, at)
  }

  /** Whether so many octets are enough for one turn: more than a few, and small requests are expected on another. */
  isEnough(octets: number, now: number): boolean {
    return octets >= SHARED_TURN && now - this.#turns.littleBeside(this) < LITTLE_EXPECTED_MS
  }
}

export class Turns {
  /** Who last sent little, and when; and when anybody else last did. */
  #last: Seat | undefined
  #lastAt = -Infinity
  #othersAt = -Infinity

  sentLittle(seat: Seat, at: number): void {
    if (seat !== this.#last) this.#othersAt = this.#lastAt
    this.#last = seat
    this.#lastAt = at
  }

  /** When anybody else last sent little; -Infinity for never. */
  littleBeside(seat: Seat): number {
    return seat === this.#last ? this.#othersAt : this.#lastAt
  }
}

/** Those of all tunnels of the process. */
export const turns = new Turns()
