/** What the log says of a grant that takes effect, and of what that lengthens, ends, or leaves. */
import type { AuditLog, EventInput } from '#audit'
import { expiresAt, supersededBy, termsOf, unsealedBy, type Grant } from './grant.ts'
import type { GrantStore } from './store.ts'

interface Effecting {
  readonly log: Pick<AuditLog, 'append'>
  readonly store: Pick<GrantStore, 'find'>
}

/** What is recorded before a grant, or an extension of one, takes effect: `approvals` people agreed, and no more are needed. */
export async function recordEffect(
  { log }: Pick<Effecting, 'log'>,
  grant: Grant,
  approvals: number,
): Promise<void> {
  await log.append(activation(grant, approvals))
  const { extends: extended, id, devices, not_after, max_duration_s } = grant.statement
  if (extended === undefined) return
  await log.append({
    code: 'grant.extend',
    message: `grant lasts longer by ${id}`,
    status: 'success',
    disposition: 'approved',
    device: devices.join(','),
    grant: extended.grant,
    data: {
      grant_sha256: grant.hash,
      approvals,
      not_after,
      max_seconds: max_duration_s,
      extension: id,
    },
  })
}

/** What has ended with the approval of another, which said so before: the end of the grant, where there was one to end. */
export async function recordSuperseded(
  { log, store }: Effecting,
  { statement: { id, devices, supersedes: old, unseals } }: Grant,
): Promise<void> {
  if (unseals !== undefined) {
    const sealed = await store.find(unseals.grant)
    if (sealed?.ended?.reason !== unsealedBy(id)) return
    await log.append({
      code: 'grant.burn',
      message: `the seal of the grant was broken by ${id}`,
      status: 'success',
      disposition: 'revoked',
      device: devices.join(','),
      grant: unseals.grant,
      data: { grant_sha256: unseals.sha256, unseals: unseals.grant },
    })
  }
  if (old === undefined) return
  const ended = (await store.find(old.grant))?.ended
  if (ended?.reason !== supersededBy(id)) return
  await log.append({
    code: 'grant.revoke',
    message: `grant superseded by ${id}`,
    status: 'success',
    disposition: 'revoked',
    device: devices.join(','),
    grant: old.grant,
    data: { grant_sha256: old.sha256 },
  })
}

function activation(grant: Grant, approvals: number): EventInput {
  return {
    code: 'grant.activate',
    message:
      approvals === 0
        ? 'grant needs no approval; it may be used'
        : 'grant approved by all who were asked; it may be used',
    status: 'success',
    disposition: 'approved',
    device: grant.statement.devices.join(','),
    grant: grant.statement.id,
    data: {
      grant_sha256: grant.hash,
      approvals,
      not_after: expiresAt(grant),
      supersedes: grant.statement.supersedes?.grant,
    },
  }
}

/** An extension that held, or was recorded to, holds no more: how long the grant lasts now. A full disk pays for it. */
export async function recordShortened(
  { log, store }: Effecting,
  { statement }: Grant,
): Promise<void> {
  if (statement.extends === undefined) return
  const extended = await store.find(statement.extends.grant)
  if (extended === undefined) return
  const { not_after, max_duration_s } = termsOf(extended)
  await log.append({
    code: 'grant.extend',
    message: `grant lasts no longer by ${statement.id}`,
    status: 'success',
    disposition: 'revoked',
    device: statement.devices.join(','),
    grant: statement.extends.grant,
    data: { not_after, max_seconds: max_duration_s, extension: statement.id },
  })
}
