/**
 * How long the network between here and the gateway may be left idle. Each tunnel stretches its
 * silences by itself; what one died of is not tried again by those after it.
 */

/** As long as this every network is left idle by a tunnel that stretches nothing. */
export const PLAIN_MS = 25_000
/** Ends that a forgotten connection looks like. */
const LOST: ReadonlySet<string> = new Set(['peer.silent', 'peer.lost', 'carrier.failed'])

/** What a tunnel knew of silences when it ended, in milliseconds. */
export interface Ended {
  readonly code: string
  readonly survivedMs: number
  readonly triedMs: number
}

/** The patience for the next tunnel, after one that had `patienceMs` has ended. */
export function patienceAfter(patienceMs: number, { code, survivedMs, triedMs }: Ended): number {
  const tooLong = LOST.has(code) && triedMs > Math.max(PLAIN_MS, survivedMs)
  return tooLong ? Math.min(patienceMs, Math.max(PLAIN_MS, survivedMs)) : patienceMs
}
