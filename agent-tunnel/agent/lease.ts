/**
 * How long a session may still live, counted on the monotonic clock of this device: a clock set back
 * does not lengthen it, and a gateway that is gone does not either.
 */
import type { Clock } from '#tunnel'

/** A lease that runs until it ends or is renewed. */
export interface Lease {
  /** From now on it lasts `remainingMs`, longer than before or shorter. */
  renew(remainingMs: number): void
  /** Takes it back: `spent` is not called any more. */
  end(): void
}

/** As `startLease`, and may be renewed while it runs. */
export function openLease(remainingMs: number, clock: Clock, spent: () => void): Lease {
  let cancel = startLease(remainingMs, clock, spent)
  let over = false
  return {
    renew(ms) {
      if (over) return
      cancel()
      cancel = startLease(ms, clock, spent)
    },
    end() {
      over = true
      cancel()
    },
  }
}

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
