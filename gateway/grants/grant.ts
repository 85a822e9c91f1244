/**
 * A grant: what was asked, frozen (`#approval`), and what became of it. Approvals name the statement's hash, so a
 * changed statement would be another grant.
 */
import type { GrantSignature, Period, Statement } from '#approval'

export interface Approval {
  readonly by: string
  readonly email: string | null
  readonly at: number
  readonly hash: string
  readonly decision_id: string
  /** The approver's passkey over that hash; null for an approval without one. */
  readonly signature: GrantSignature | null
}

export type GrantState =
  | 'requested'
  | 'approved'
  | 'active'
  | 'spent'
  | 'revoked'
  | 'rejected'
  | 'expired'
export type GrantEvent = 'approve' | 'use' | 'burn' | 'revoke' | 'reject' | 'expire'

/** States × events; what is absent cannot happen. */
export const transitions: Readonly<
  Record<GrantState, Readonly<Partial<Record<GrantEvent, GrantState>>>>
> = {
  requested: {
    approve: 'approved',
    reject: 'rejected',
    revoke: 'revoked',
    burn: 'spent',
    expire: 'expired',
  },
  approved: { use: 'active', revoke: 'revoked', burn: 'spent', expire: 'expired' },
  active: { use: 'active', revoke: 'revoked', burn: 'spent', expire: 'expired' },
  spent: {},
  revoked: {},
  rejected: {},
  expired: {},
}

/** What makes a grant last longer: a statement of its own, that was approved like any. */
export type Extension = Pick<Grant, 'statement' | 'hash' | 'approvals' | 'ticket_valid'>

export interface Grant {
  readonly statement: Statement
  readonly hash: string
  readonly state: GrantState
  readonly requester_email: string | null
  readonly approvals: readonly Approval[]
  /** How many distinct people policy wanted when it was requested; no later policy asks for fewer. */
  readonly approvals_asked: number
  /** `approvals_asked`, or what policy wanted at the latest approval where that is more: it falls again with the policy. */
  readonly approvals_needed: number
  readonly first_used_at: number | null
  /** Sessions that were opened under it. */
  readonly uses: number
  /** Octets that its sessions carried, or have been set aside for those that are open. */
  readonly bytes: number
  /** Of the approved extensions the one that lasts longest: its terms hold in place of the statement's. */
  readonly extension: Extension | null
  /** Whether its ticket was found valid when it was asked for; absent where nobody looks at tickets, or it has none. */
  readonly ticket_valid?: boolean
  /** Of one that comes back, the window that counts: window.ts says at which instant. Never stored. */
  readonly period?: Period
  readonly ended: { readonly at: number; readonly by: string; readonly reason: string } | null
}

/** The window and the duration that hold: its own, or those of its extension. */
export function termsOf({
  statement,
  extension,
}: Grant): Pick<Statement, 'not_after' | 'max_duration_s'> {
  return extension?.statement ?? statement
}

/** The end of what the grant allows: its window, or its duration from first use, whichever is first. */
export function expiresAt(grant: Grant): number {
  const { not_after, max_duration_s } = termsOf(grant)
  const end = Math.min(not_after, grant.period?.until ?? Infinity)
  return grant.first_used_at === null ? end : Math.min(end, grant.first_used_at + max_duration_s)
}

/** The first second at which it may be used. */
export function beginsAt({ statement, period }: Grant): number {
  return period?.from ?? statement.not_before
}

/**
 * Whether it has let in as many sessions, or carried as many octets, as it may; what is open then goes on. `spare` are
 * octets of `bytes` that are set aside for open sessions and were not carried.
 */
export function usedUp(
  { statement: { max_uses, max_bytes }, uses, bytes }: Grant,
  spare: number,
): boolean {
  return uses >= (max_uses ?? Infinity) || bytes - spare >= (max_bytes ?? Infinity)
}

/** The words that the end of a grant has where this one ended it. */
export function supersededBy(id: string): string {
  return `superseded by ${id}`
}

/** The words that the end of a sealed grant has where this one broke the seal. */
export function unsealedBy(id: string): string {
  return `unsealed by ${id}`
}

/** What a person is shown: the stored state, or `expired` where time has passed it by and it is not recorded yet. */
export function shownState(grant: Grant, nowSeconds: number): GrantState {
  const over = grant.state === 'requested' || grant.state === 'approved' || grant.state === 'active'
  return over && nowSeconds >= expiresAt(grant) ? 'expired' : grant.state
}
