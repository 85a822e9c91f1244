/** A grant as the API shows it: to people, and as a file that is verified without us. */
import type { Grant as GrantView, SignedGrant } from '#api'
import type { GrantSignature } from '#approval'
import { expiresAt, shownState, type Grant } from '../../grants/grant.ts'
import type { GrantRoom } from '../../grants/request.ts'
import { during } from '../../grants/window.ts'

/** A grant as the API shows it now. */
export function grantView({ now, spare }: GrantRoom, grant: Grant): GrantView {
  const nowMs = now()
  const { statement } = grant
  return {
    id: statement.id,
    hash: grant.hash,
    state: shownState(grant, Math.floor(nowMs / 1000)),
    requester: statement.requester,
    requester_email: grant.requester_email,
    vendor: statement.vendor,
    device: statement.devices[0] ?? '',
    processes: [...statement.processes],
    duration_s: statement.max_duration_s,
    not_before: statement.not_before,
    not_after: statement.not_after,
    first_used_at: grant.first_used_at,
    expires_at: expiresAt(grant),
    ...recurrence(grant, Math.floor(nowMs / 1000)),
    ot_level: statement.ot_level,
    ot_windows: [...(statement.ot_windows ?? [])],
    max_uses: statement.max_uses ?? null,
    max_bytes: statement.max_bytes ?? null,
    extends: statement.extends?.grant ?? null,
    supersedes: statement.supersedes?.grant ?? null,
    sealed: statement.sealed?.quorum ?? null,
    unseals: statement.unseals?.grant ?? null,
    extension:
      grant.extension === null
        ? null
        : {
            grant: grant.extension.statement.id,
            duration_s: grant.extension.statement.max_duration_s,
            not_after: grant.extension.statement.not_after,
          },
    uses: grant.uses,
    bytes: grant.bytes - spare(statement.id),
    reason: statement.reason,
    ticket: statement.ticket,
    approvals: grant.approvals.map(({ by, email, at, hash, decision_id, signature }) => ({
      by,
      email,
      at,
      grant_hash: hash,
      decision_id,
      signed: signature !== null,
    })),
    approvals_needed: grant.approvals_needed,
    ended: grant.ended,
    created_at: statement.created_at,
  }
}

/** When its windows are, and which is the one that is open or opens next at `now` (epoch seconds). */
function recurrence(grant: Grant, now: number): Pick<GrantView, 'recurring' | 'opens'> {
  const { recurring } = grant.statement
  if (recurring === undefined) return { recurring: null, opens: null }
  const { period } = during(grant, now)
  return {
    recurring: { ...recurring, days: [...recurring.days] },
    opens: period === undefined || period.until <= now ? null : { ...period },
  }
}

/** The grant as a file that is verified without us. */
export function signedGrant({ statement, approvals }: Grant): SignedGrant {
  const { ot_windows: windows, recurring, ...rest } = statement
  return {
    v: 1,
    statement: {
      ...rest,
      devices: [...statement.devices],
      processes: [...statement.processes],
      ...(windows === undefined ? {} : { ot_windows: [...windows] }),
      ...(recurring && { recurring: { ...recurring, days: [...recurring.days] } }),
    },
    approvals: approvals.map(({ by, email, at, decision_id, signature }) => ({
      by,
      email,
      at,
      decision_id,
      signature: signature === null ? null : copied(signature),
    })),
  }
}

function copied({ assertion, key, relying_party: { id, origins } }: GrantSignature) {
  return { assertion, key, relying_party: { id, origins: [...origins] } }
}
