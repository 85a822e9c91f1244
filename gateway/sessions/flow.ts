/** What passes through a session, second by second: the flow record that every session has, recorded or not. */

/** Epoch second, octets from the vendor to the target, octets back. */
export type Bucket = readonly [second: number, bytesIn: number, bytesOut: number]

/** A record is told each minute; what could not be told is summed up, so that it never grows without bound. */
const MAX_BUCKETS = 120

export class Flow {
  #told: number
  #buckets: [number, number, number][] = []

  /** `now` is epoch milliseconds. */
  constructor(now: number) {
    this.#told = now
  }

  add(direction: 'in' | 'out', bytes: number, now: number): void {
    const second = Math.floor(now / 1000)
    let last = this.#buckets.at(-1)
    // A clock that was put back, and a record that nobody takes, go on in the last second.
    if (last === undefined || (second > last[0] && this.#buckets.length < MAX_BUCKETS)) {
      last = [second, 0, 0]
      this.#buckets.push(last)
    }
    last[direction === 'in' ? 1 : 2] += bytes
  }

  /** What passed since the last time, and takes it away; undefined where nothing did. */
  take(
    now: number,
  ): { readonly buckets: readonly Bucket[]; readonly duration_ms: number } | undefined {
    const duration = Math.max(0, Math.round(now - this.#told))
    this.#told = now
    if (this.#buckets.length === 0) return undefined
    const buckets = this.#buckets
    this.#buckets = []
    return { buckets, duration_ms: duration }
  }
}

/** The sums of buckets. */
export function sumOf(buckets: readonly Bucket[]): { bytes_in: number; bytes_out: number } {
  let [bytesIn, bytesOut] = [0, 0]
  for (const [, a, b] of buckets) {
    bytesIn += a
    bytesOut += b
  }
  return { bytes_in: bytesIn, bytes_out: bytesOut }
}
