/**
 * The grant that a session was opened under must hold for as long as the session does, also where policy would let its
 * person in without one.
 */
import type { Decision } from '#policy'
import { toRefusal } from '../decisions.ts'
import { expiresAt, type Grant, type GrantState } from '../grants/grant.ts'
import { opensInWords, opensNext } from '../grants/window.ts'
import type { Refusal } from '../problem.ts'
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
  // Of one that comes back, no window may be open.
  const begun = grant.period === undefined || grant.period.from * 1000 <= now
  if (grant.state !== 'expired' && begun && now < expiresAt(grant) * 1000) return undefined
  return {
    reason: 'window_end',
    code: 'window.end',
    message: 'the time of the grant is over',
    next,
    ...reopening(grant, now),
  }
}

/** What is said of the end of a window that comes back at `now` (epoch milliseconds); nothing of any other. */
export function reopening(grant: Grant, now: number): Partial<Pick<Cause, 'message' | 'next'>> {
  if (grant.statement.recurring === undefined) return {}
  const opens = opensInWords(grant, Math.floor(now / 1000))
  return opens === undefined
    ? {}
    : { message: 'this window of the grant is over', next: `connect again then: ${opens}` }
}

/** Who holds a grant that opens later is told when that is. `now` is epoch milliseconds. */
export function untilOpen(decision: Decision, grants: readonly Grant[], now: number): Refusal {
  const seconds = Math.floor(now / 1000)
  const opening = (grant: Grant) => opensNext(grant, seconds)?.from ?? Infinity
  const [next] = grants
    .filter(({ state }) => state === 'approved' || state === 'active')
    .toSorted((a, b) => opening(a) - opening(b))
  const step = next === undefined ? undefined : opensInWords(next, seconds)
  if (step === undefined) return toRefusal(decision)
  return toRefusal({
    ...decision,
    denials: decision.denials.map((denial) =>
      denial.code === 'grant.not_yet' ? { ...denial, next: `connect then: ${step}` } : denial,
    ),
  })
}
