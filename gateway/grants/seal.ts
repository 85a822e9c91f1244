/**
 * Break-glass: a sealed grant is approved in calm times and opens nothing. It is unsealed by a statement of its own, that a
 * quorum signs with passkeys; with that the seal is gone, everybody is told, and somebody else looks at it afterwards.
 */
import type { AuditLog } from '#audit'
import type { Statement } from '#approval'
import { actorOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { shownState, type Grant } from './grant.ts'
import { propose, type GrantRoom } from './request.ts'

/** So long an opening waits for its quorum, beside the time it is for. */
const WAIT_S = 3600

const instant = (at: number) => new Date(at * 1000).toISOString().replace('.000Z', 'Z')

export interface UnsealAsk {
  readonly subject: Subject
  readonly source: Source
  readonly grant: Grant
  readonly reason: string
  readonly ticket?: string | undefined
}

/** Why this grant cannot be unsealed at `now` (epoch seconds) for its holder, or undefined. */
export function unsealFault(
  { subject, grant }: Pick<UnsealAsk, 'subject' | 'grant'>,
  now: number,
): Refusal | undefined {
  const no = (detail: string, nextStep: string) => new Refusal('grant.state', detail, { nextStep })
  if (grant.statement.sealed === undefined)
    return no('the grant has no seal', 'use it as it is: sallyport connect')
  if (grant.statement.requester !== subject.id)
    return no('only its holder asks for a seal to be broken', 'have them run break-glass open')
  const shown = shownState(grant, now)
  if (shown === 'approved' && now < grant.statement.not_before)
    return no(
      `the sealed grant begins at ${instant(grant.statement.not_before)}`,
      'wait until then, or ask for an ordinary grant',
    )
  return shown === 'approved'
    ? undefined
    : no(`the sealed grant is ${shown}; it opens nothing any more`, 'ask for an ordinary grant')
}

/** What the quorum signs: the same access, from now on, for as long as was sealed. Pure; `now` is epoch seconds. */
export function unsealingOf(
  { grant, reason, ticket }: Pick<UnsealAsk, 'grant' | 'reason' | 'ticket'>,
  id: string,
  now: number,
): Statement {
  const { sealed: _, supersedes: __, ...statement } = grant.statement
  return {
    ...statement,
    id,
    not_before: now,
    not_after: Math.min(statement.not_after, now + WAIT_S + statement.max_duration_s),
    reason,
    ticket: ticket ?? statement.ticket,
    created_at: now,
    unseals: { grant: statement.id, sha256: grant.hash },
  }
}

/**
 * Records that the seal is to be broken; it waits for the quorum that the sealed grant names. Throws Refusal:
 * `grant.state`, and what `requestGrant` throws.
 */
export async function requestUnsealing(room: GrantRoom, ask: UnsealAsk): Promise<Grant> {
  const now = Math.floor(room.now() / 1000)
  const fault = unsealFault(ask, now)
  if (fault !== undefined) throw fault
  const statement = unsealingOf(ask, newId('g'), now)
  const [device = ''] = statement.devices
  const { statement: before, ticket_valid: valid } = ask.grant
  // In an emergency the ticket system may be down with the rest; of the same ticket it has been asked.
  const known = valid === true && statement.ticket === before.ticket
  const asking = { ...ask, device, processes: statement.processes }
  return await propose(room, asking, statement, { quorum: before.sealed?.quorum ?? 2, known })
}

/** A seal is broken by passkeys alone, and only one that is still there. Throws Refusal `passkey.refused`, `grant.state`. */
export async function mayUnseal(
  store: Pick<GrantRoom['store'], 'find'>,
  { statement }: Grant,
  signed: boolean,
  now: number,
): Promise<void> {
  if (statement.unseals === undefined) return
  if (!signed)
    throw new Refusal('passkey.refused', 'a seal is broken with a passkey, and by nothing else', {
      nextStep: `sallyport approve ${statement.id}, with a passkey of yours`,
    })
  const sealed = await store.find(statement.unseals.grant)
  const early = sealed !== undefined && now < sealed.statement.not_before
  const shown = sealed === undefined ? 'unknown' : early ? 'not begun' : shownState(sealed, now)
  if (sealed?.hash === statement.unseals.sha256 && shown === 'approved') return
  throw new Refusal('grant.state', `the sealed grant is ${shown}; there is no seal to break`, {
    nextStep: 'its holder asks for an ordinary grant',
  })
}

/** The alarm, on disk before the seal is broken by the last of `approvals` people. */
export async function recordAlarm(
  log: Pick<AuditLog, 'append'>,
  { statement, requester_email: holder }: Grant,
  last: Subject,
  approvals: number,
): Promise<void> {
  if (statement.unseals === undefined) return
  await log.append({
    code: 'finding.break_glass',
    message: `a seal is broken: ${statement.devices.join(',')}/${statement.processes.join(',')} is open`,
    status: 'success',
    actor: actorOf(last),
    device: statement.devices.join(','),
    process: statement.processes.join(','),
    grant: statement.id,
    data: {
      finding: 'break_glass.opened',
      title: 'a sealed grant was opened',
      detail: {
        sealed: statement.unseals.grant,
        holder: holder ?? statement.requester,
        people: approvals,
        not_after: statement.not_after,
        reason: statement.reason,
      },
    },
  })
}
