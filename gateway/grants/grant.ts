/**
 * A grant: what was asked, frozen, and what became of it. The statement never changes; approvals
 * name its hash, so a changed statement would be another grant.
 */
import { createHash } from 'node:crypto'

/** What the requester asks for and approvers approve. Instants are epoch seconds. */
export interface Statement {
  readonly v: 1
  readonly id: string
  readonly tenant: string
  readonly requester: string
  readonly vendor: string | null
  readonly devices: readonly string[]
  readonly processes: readonly string[]
  readonly ot_level: number
  readonly not_before: number
  readonly not_after: number
  readonly max_duration_s: number
  readonly reason: string
  readonly ticket: string | null
  readonly created_at: number
}

export interface Approval {
  readonly by: string
  readonly email: string | null
  readonly at: number
  readonly hash: string
  readonly decision_id: string
}

export type GrantState = 'requested' | 'approved' | 'active' | 'spent' | 'revoked' | 'rejected'
export type GrantEvent = 'approve' | 'use' | 'burn' | 'revoke' | 'reject'

/** States × events; what is absent cannot happen. */
export const transitions: Readonly<
  Record<GrantState, Readonly<Partial<Record<GrantEvent, GrantState>>>>
> = {
  requested: { approve: 'approved', reject: 'rejected', revoke: 'revoked', burn: 'spent' },
  approved: { use: 'active', revoke: 'revoked', burn: 'spent' },
  active: { use: 'active', revoke: 'revoked', burn: 'spent' },
  spent: {},
  revoked: {},
  rejected: {},
}

export interface Grant {
  readonly statement: Statement
  readonly hash: string
  readonly state: GrantState
  readonly requester_email: string | null
  readonly approvals: readonly Approval[]
  /** How many distinct people policy wanted when it was requested. */
  readonly approvals_needed: number
  readonly first_used_at: number | null
  readonly ended: { readonly at: number; readonly by: string; readonly reason: string } | null
}

/** The bytes that are hashed and approved: RFC 8785 for values that are strings and integers. */
export function canonical(statement: Statement): string {
  return JSON.stringify(statement, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  )
}

export function hashOf(statement: Statement): string {
  return createHash('sha256').update(canonical(statement)).digest('hex')
}

/** The end of what the grant allows: its window, or its duration from first use, whichever is first. */
export function expiresAt(grant: Grant): number {
  const { not_after, max_duration_s } = grant.statement
  return grant.first_used_at === null
    ? not_after
    : Math.min(not_after, grant.first_used_at + max_duration_s)
}

/** What a person is shown: the stored state, or `expired` where time has passed it by. */
export function shownState(grant: Grant, nowSeconds: number): GrantState | 'expired' {
  const over = grant.state === 'requested' || grant.state === 'approved' || grant.state === 'active'
  return over && nowSeconds >= expiresAt(grant) ? 'expired' : grant.state
}
