/** Dates, as this room reads them: always an argument, never looked up. */

/** Milliseconds since 1970 UTC. Branded, so that a timer's reading cannot be passed for a date. */
export type Instant = number & { readonly unit: 'epoch-ms' }

/** Marks a number of epoch milliseconds as a date. */
export function instant(epochMs: number): Instant {
  return epochMs as Instant
}

/** Gives `bytes` random bytes from a source fit for keys. */
export type Random = (bytes: number) => Uint8Array
