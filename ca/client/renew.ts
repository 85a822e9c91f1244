/** When to renew: two thirds into the life, spread out, so that a plant does not renew in one second. */

/**
 * Epoch ms: 2/3 of the life after `notBefore`, moved by `jitter` (-1 to 1, clamped) times 5 % of the life.
 */
export function renewAt(notBefore: number, notAfter: number, jitter: number): number {
  const life = notAfter - notBefore
  const spread = Math.max(-1, Math.min(1, jitter)) * 0.05
  return Math.round(notBefore + life * (2 / 3 + spread))
}

/** Milliseconds until the next try after a failed renewal: 1/20 of what is left, at least 30 s; past expiry too. */
export function retryAfter(now: number, notAfter: number): number {
  return Math.max(30_000, Math.round((notAfter - now) / 20))
}
