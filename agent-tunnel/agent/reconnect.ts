/**
 * When to dial again. Pure: what happened and when goes in, a wait comes out. Full jitter (a wait drawn
 * from zero to the whole backoff) spreads a plant's devices after the gateway they all lost comes back.
 */
import type { Monotonic } from '#tunnel'

/** How often in a row it went wrong, and since when a tunnel has been up. */
export interface Standing {
  readonly failures: number
  readonly upSince: Monotonic | undefined
}

export type Happening =
  /** No tunnel came to be. */
  | { readonly type: 'failed' }
  /** A tunnel is up. */
  | { readonly type: 'up' }
  /** The tunnel ended without a word. */
  | { readonly type: 'lost' }
  /** The gateway said GOAWAY: it is going, or does not want this one, and said when to come back. */
  | { readonly type: 'goaway'; readonly retryAfterMs: number }

export const FIRST_BACKOFF_MS = 1000
export const LONGEST_BACKOFF_MS = 60_000
/** A tunnel that lived this long was a good one: the next failure is a first one. */
export const STABLE_MS = 30_000
/** A gateway may not send a device away for longer. */
export const LONGEST_RETRY_AFTER_MS = 600_000

export const fresh: Standing = { failures: 0, upSince: undefined }

/** The standing after `happening`, and how long to wait before dialling. `random`: uniform in [0, 1). */
export function after(
  standing: Standing,
  happening: Happening,
  now: Monotonic,
  random: () => number,
): { readonly standing: Standing; readonly waitMs: number } {
  switch (happening.type) {
    case 'up':
      return { standing: { ...standing, upSince: now }, waitMs: 0 }
    case 'goaway':
    case 'failed':
    case 'lost': {
      const stable = standing.upSince !== undefined && now - standing.upSince >= STABLE_MS
      const before = stable ? 0 : standing.failures
      const backoff = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(before, 16))
      const asked = happening.type === 'goaway' ? happening.retryAfterMs : 0
      return {
        standing: { failures: before + 1, upSince: undefined },
        waitMs: Math.min(Math.max(0, asked), LONGEST_RETRY_AFTER_MS) + random() * backoff,
      }
    }
  }
}
