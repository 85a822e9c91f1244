/**
 * Requests that wait for a person (RFC 7030 4.2.3): who asks, for which key, and what stands in the
 * way. Never the bytes of a request: linking changes them each time, the request stays the same.
 */
import type { Denial } from './errors.ts'
import type { Instant } from './time.ts'

export type PendingState = 'pending' | 'approved' | 'rejected'

export interface PendingRow {
  /** `e_` + 26 characters. */
  readonly id: string
  readonly tenant: string
  /** Principal, label, operation and key as one hash: what a repeated request finds again. */
  readonly key: string
  /** Who asks, such as `token:t_…` or `certificate:<serial>`. */
  readonly principal: string
  readonly operation: 'simpleenroll' | 'simplereenroll'
  readonly label: string
  readonly device: string
  readonly spkiSha256: string
  /** What a person is asked to overlook; an approval covers these codes and no other. */
  readonly denials: readonly Denial[]
  readonly decisionId: string
  readonly remoteAddress: string
  readonly createdAt: Instant
  /** Forgotten then, whatever its state. */
  readonly expiresAt: Instant
  readonly state: PendingState
  readonly decidedBy: string | null
  readonly decidedAt: Instant | null
}

/** Every method is one durable transaction. */
export interface PendingStore {
  /**
   * Gives the row of this tenant and key that has not expired at `row.createdAt`, with the denials and
   * the end brought up to date while it is pending; adds `row` if there is none. `full` when the
   * principal has `most` rows waiting already.
   */
  wait(row: PendingRow, most: number): Promise<PendingRow | 'full'>
  /** Rows that have not expired, newest first, at most 1,000. */
  list(tenant: string, at: Instant): Promise<readonly PendingRow[]>
  find(tenant: string, id: string, at: Instant): Promise<PendingRow | undefined>
  /** Decides a pending row; undefined when there is none, or it was decided or has expired. */
  decide(
    tenant: string,
    id: string,
    decision: {
      readonly state: 'approved' | 'rejected'
      readonly by: string
      readonly at: Instant
      readonly expiresAt: Instant
    },
  ): Promise<PendingRow | undefined>
}

/** A request that nobody repeats is forgotten after this. */
export const PENDING_MS = 7 * 86_400_000
/** Keys that one principal may have waiting. */
export const PENDING_MOST = 16
/** How long a person's answer counts. */
export const DECIDED_MS = 86_400_000

/** Whether an approval covers what policy asks for now. */
export function covers(row: PendingRow, denials: readonly Denial[]): boolean {
  const approved = new Set(row.denials.map(({ code }) => code))
  return row.state === 'approved' && denials.every(({ code }) => approved.has(code))
}
