/**
 * What one stream has written and not sent, in order. Data is copied into blocks of the pool, small
 * writes one behind the other; a signal and a datagram stay whole.
 */
import type { SlabPool } from './outbox.ts'

const BLOCK = 16 * 1024
/** What is little waits in a small block of its own: many streams may wait with a few octets each. */
const SMALL = 1024
/** Signals that wait on one stream, each with what it costs to keep; more are not taken. */
const MAX_SIGNALS = 64 * 1024
const KEEPING = 64

export interface Waiting {
  readonly bytes: Uint8Array
  /** The octets of `bytes` that count. */
  end: number
  readonly signal: boolean
}

export class Backlog {
  readonly #waiting: Waiting[] = []
  #head = 0
  #offset = 0
  /** Octets of data and datagrams that wait; signals do not count. */
  bytes = 0
  /** What the signals that wait cost. */
  #signals = 0

  /** The first of what waits; its octets that have not left start at `offset`. */
  get first(): Waiting | undefined {
    return this.#waiting[this.#head]
  }
  get offset(): number {
    return this.#offset
  }
  /** Entries: whole signals and datagrams, and blocks of data. */
  get length(): number {
    return this.#waiting.length - this.#head
  }

  /** Copies the data from `start` on. */
  data(source: Uint8Array, start: number, pool: SlabPool): void {
    this.bytes += source.length - start
    let at = start + this.#extend(source, start)
    while (at < source.length) {
      const left = source.length - at
      const bytes = left <= SMALL ? new Uint8Array(SMALL) : pool.take(BLOCK)
      const end = Math.min(left, bytes.length)
      bytes.set(end === source.length ? source : source.subarray(at, at + end))
      this.#waiting.push({ bytes, end, signal: false })
      at += end
    }
  }

  /** Copies into the room that the last block has left; gives how much. What is whole has none. */
  #extend(source: Uint8Array, start: number): number {
    const last = this.#waiting.at(-1)
    if (last === undefined) return 0
    const length = Math.min(last.bytes.length - last.end, source.length - start)
    if (length === 0) return 0
    last.bytes.set(source.subarray(start, start + length), last.end)
    last.end += length
    return length
  }

  /** Copies a datagram. */
  datagram(payload: Uint8Array): void {
    this.#waiting.push({ bytes: new Uint8Array(payload), end: payload.length, signal: false })
    this.bytes += payload.length
  }

  /** Copies a signal; false when too many wait. */
  signal(payload: Uint8Array): boolean {
    const cost = payload.length + KEEPING
    if (this.#signals + cost > MAX_SIGNALS) return false
    this.#signals += cost
    this.#waiting.push({ bytes: new Uint8Array(payload), end: payload.length, signal: true })
    return true
  }

  /** `bytes` of the first entry have left; the entry goes with its last, its block to the pool. */
  advance(bytes: number, pool: SlabPool): void {
    const first = this.first
    if (first === undefined) return
    this.#offset += bytes
    if (!first.signal) this.bytes -= bytes
    if (this.#offset < first.end) return
    if (first.signal) this.#signals -= first.end + KEEPING
    if (first.bytes.length === BLOCK) pool.give(first.bytes)
    this.#offset = 0
    this.#head++
    if (this.#head === this.#waiting.length || this.#head > 64) {
      this.#waiting.splice(0, this.#head)
      this.#head = 0
    }
  }

  /** Forgets what waits, and gives back the signals among it. */
  drop(): Uint8Array[] {
    const signals = this.#waiting.slice(this.#head).filter((waiting) => waiting.signal)
    this.#waiting.length = 0
    this.#head = 0
    this.#offset = 0
    this.bytes = 0
    this.#signals = 0
    return signals.map((waiting) => waiting.bytes)
  }
}
