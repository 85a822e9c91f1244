/**
 * A bundle past its max_age_s: somebody who holds the delivery back must not keep an old policy in force
 * for ever. Only an allow is turned, and never the call that brings a newer bundle.
 */
import type { Input, Point } from './envelope.ts'

/** `warn` shows it in the status, for sites without a line to the outside. */
export type Staleness = 'warn' | 'deny_new' | 'deny_all'

interface Aged {
  /** Epoch seconds. */
  readonly issuedAt: number
  /** 0: never stale. */
  readonly maxAgeSeconds: number
}

/** So much a signer's clock may be ahead. Earlier than that, the clock here was set back, and the age is not known. */
const AHEAD_S = 3600

/** What begins something; the rest keeps what runs running, or ends it. */
const BEGINS: ReadonlySet<Point> = new Set([
  'device.enroll',
  'grant.request',
  'grant.approve',
  'session.open',
])

/** Epoch seconds from which a bundle is stale; null: never. */
export function staleAt({ issuedAt, maxAgeSeconds }: Aged): number | null {
  return maxAgeSeconds === 0 ? null : issuedAt + maxAgeSeconds
}

/** Whether an allow of this point is turned into `policy.stale`. */
export function deniesStale(rule: Staleness, bundle: Aged, point: Point, input: Input): boolean {
  const at = staleAt(bundle)
  const now = input.time.epoch_s ?? Infinity
  if (at === null || rule === 'warn') return false
  if (now < at && now >= bundle.issuedAt - AHEAD_S) return false
  return rule === 'deny_all' ? point !== 'admin.api' : BEGINS.has(point)
}
