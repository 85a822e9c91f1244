/**
 * How long a session may still live, counted on the monotonic clock of this device: a clock set back
 * does not lengthen it, and a gateway that is gone does not either.
 */
import type { Clock } from '#tunnel'

/** A timer cannot wait longer than 2^31-1 ms (about 24 days); longer leases wake in between. */
const LONGEST_WAIT_MS = 86_400_000

/**
 * Calls `spent` once, `remainingMs` from now. The result takes it back. Zero or less is spent at the
 * next turn, never at once.
 */
export function startLease(remainingMs: number, clock: Clock, spent: () => void): () => void {
  const ends = clock.now() + remainingMs
  let cancel = () => {}
  const wait = () => {
    const left = ends - clock.now()
    cancel = clock.after(Math.max(0, Math.min(left, LONGEST_WAIT_MS)), () => {
      if (clock.now() >= ends) spent()
      else wait()
    })
  }
  wait()
  return () => cancel()
}
