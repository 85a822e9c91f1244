/**
 * Who sends little, a key or a poll of a device, and whether more of it is to be expected beside bulk:
 * then what is on its way is kept short, so that the next request meets no queue either.
 * docs/decisions/0010-what-is-on-its-way-is-bounded.md has the measurements.
 */
import type { Monotonic } from './limits.ts'
import type { MuxStream } from './stream.ts'

/** A stream that has sent no more than this in the turn and the one before, what waits included, sends little. */
const LITTLE = 8 * 1024
/** Who sent little is expected to do so again within this time; who sent more at once is not, for as long. */
export const LITTLE_EXPECTED_MS = 3000

export class Little {
  /** Output turns so far: each slab that is given to the connection ends one. */
  turn = 0
  #now = -Infinity
  /** A stream that sends little was served before others that wait. */
  #servedFirst = false
  /** Who wrote last in this turn and had sent little until then. */
  #writer: MuxStream | undefined
  /** Who last sent little, and when. */
  #last: MuxStream | undefined
  #lastAt = -Infinity
  /** The last turn in which somebody sent more than little. */
  #bulkTurn = -1

  /** Octets of a stream leave in this turn. */
  sent(stream: MuxStream, octets: number): void {
    stream.turnBytes += octets
    if (octets <= LITTLE) return
    this.#bulkTurn = this.turn
    stream.bulkAt = this.#now
  }

  /** Octets of it that have left in this turn and the one before, and those that wait, are few. */
  isFew(stream: MuxStream): boolean {
    const recent = stream.turn >= this.turn - 1 ? stream.turnBytes : 0
    return recent + stream.pendingBytes <= LITTLE
  }

  // Of a stream that sends bulk there is often little left when its turn comes: that is nobody who waits
  // for an answer.
  #is(stream: MuxStream): boolean {
    if (stream.state === 'closed' || stream.state === 'reset') return false
    // Two programs that keep each other informed; nobody types.
    if (stream.kind === 'control') return false
    if (this.#now - stream.bulkAt < LITTLE_EXPECTED_MS) return false
    return this.isFew(stream)
  }

  /** The application has written on it. */
  wrote(stream: MuxStream): void {
    if (this.#is(stream)) this.#writer = stream
  }

  /** It is served before others that wait. */
  first(stream: MuxStream): void {
    this.#servedFirst ||= this.#is(stream)
  }

  /** When somebody last sent little, known since the clock was last looked at. */
  get lastAt(): number {
    return this.#lastAt
  }

  /** Looks at the clock: whether small requests are to be expected beside bulk. `waits`: something waits for room. */
  expected(now: Monotonic, waits: boolean): boolean {
    this.#now = now
    const beside = this.#follows(now, waits) || this.#servedFirst
    this.#servedFirst = false
    return beside
  }

  #follows(now: Monotonic, waits: boolean): boolean {
    const writer = this.#writer
    this.#writer = undefined
    if (writer !== undefined && this.#is(writer)) {
      this.#last = writer
      this.#lastAt = now
    }
    const last = this.#last
    // Bulk that waits for credit is none the less on its way.
    const alone = !waits && this.#bulkTurn !== this.turn
    if (last === undefined || alone) return false
    if (now - this.#lastAt < LITTLE_EXPECTED_MS && this.#is(last)) return true
    this.#last = undefined
    return false
  }
}
