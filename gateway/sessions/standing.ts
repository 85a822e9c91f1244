/**
 * The grant that a session was opened under must hold for as long as the session does, also where policy would let its
 * person in without one.
 */
import { expiresAt, type Grant, type GrantState } from '../grants/grant.ts'
import type { Cause } from './terminate.ts'

/** Why it holds no more, of what has been ended; what ran out says so by its time. */
const ENDED: Partial<Record<GrantState, Pick<Cause, 'code' | 'message'>>> = {
  revoked: { code: 'grant.revoked', message: 'the grant was revoked' },
  rejected: { code: 'grant.revoked', message: 'the grant was revoked' },
  spent: { code: 'grant.expired', message: 'the grant was given back' },
  requested: { code: 'grant.pending', message: 'the grant was not approved' },
}

/** Why a session under `grant` cannot go on at `now` (epoch milliseconds), or undefined. `reason`: what an end is recorded with. */
export function fallenWith(
  grant: Grant,
  now: number,
  reason: Cause['reason'],
): Pick<Cause, 'reason' | 'code' | 'message' | 'next'> | undefined {
  const next = 'ask for a new grant: sallyport request …'
  const ended = ENDED[grant.state]
  if (ended !== undefined) return { reason, ...ended, next }
  if (grant.state !== 'expired' && now < expiresAt(grant) * 1000) return undefined
  return {
    reason: 'window_end',
    code: 'window.end',
    message: 'the time of the grant is over',
    next,
  }
}
