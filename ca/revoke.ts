/** Revocation: logged, then a durable row with its own epoch; everyone who admits peers reads those rows. */
import { relying } from './errors.ts'
import type { IssuingDesk } from './issue.ts'
import type { RevocationReason, RevocationRow, RevocationTarget } from './store.ts'
import type { Instant } from './time.ts'

/**
 * Ends one certificate, all of a device, or all of an issuer. When it resolves, `verifyPeer` and
 * `stillStands` refuse them; the row's epoch and serials are what to cut. Revoking what ended
 * before adds a row without serials. Throws CaError `log.unavailable`, `store.unavailable`.
 */
export async function revoke(
  target: RevocationTarget,
  request: {
    readonly tenant: string
    readonly reason: RevocationReason
    readonly now: Instant
    readonly requestId?: string
  },
  { store, log }: IssuingDesk,
): Promise<RevocationRow> {
  const { tenant, reason, now: at, requestId = null } = request
  const event = { at, tenant, requestId, remoteAddress: null, target, reason } as const
  await relying('log.unavailable', () => log({ code: 'cert.revoke', ...event }))
  return await relying('store.unavailable', () => store.revoke(tenant, target, reason, at))
}
