/**
 * Making a grant last longer: a statement of its own that refers to the grant's hash, asked for and approved like any. The
 * grant itself never changes; while the extension holds, its window and duration hold in place of the grant's.
 */
import type { Statement } from '#approval'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { expiresAt, shownState, termsOf, type Grant } from './grant.ts'
import { propose, type GrantRoom } from './request.ts'

export interface ExtensionAsk {
  readonly subject: Subject
  readonly source: Source
  readonly grant: Grant
  /** By how much later it is to end, in seconds. */
  readonly longer_s: number
  readonly reason: string
  readonly ticket?: string | undefined
}

/** As long as a window of a request may be. */
const LONGEST_S = 366 * 86_400

/** Why this grant cannot be extended at `now` (epoch seconds) by its holder, or undefined. */
export function extensionFault(
  { subject, grant, longer_s }: Pick<ExtensionAsk, 'subject' | 'grant' | 'longer_s'>,
  now: number,
): Refusal | undefined {
  const { requester, extends: other } = grant.statement
  const no = (detail: string, nextStep: string) => new Refusal('grant.state', detail, { nextStep })
  if (requester !== subject.id)
    return no('only its holder asks for more time', 'have them run sallyport extend')
  if (other !== undefined)
    return no(`it is itself an extension, of ${other.grant}`, `extend ${other.grant}`)
  if (grant.statement.sealed !== undefined || grant.statement.unseals !== undefined)
    return no('a seal, or what broke one, lasts no longer', 'ask for an ordinary grant')
  const shown = shownState(grant, now)
  if (shown !== 'approved' && shown !== 'active')
    return no(`the grant is ${shown}; what does not hold is not extended`, 'ask for a new grant')
  if (termsOf(grant).max_duration_s + longer_s > LONGEST_S)
    return new Refusal('grant.window', 'no grant lasts longer than 366 days')
  return undefined
}

/** What is to be approved: the same grant, but for when it ends, why, and the ticket. Pure; `now` is epoch seconds. */
export function extensionOf(
  { grant, longer_s, reason, ticket }: Omit<ExtensionAsk, 'subject' | 'source'>,
  id: string,
  now: number,
): Statement {
  const { supersedes: _, ...statement } = grant.statement
  const { not_after, max_duration_s } = termsOf(grant)
  return {
    ...statement,
    id,
    not_after: Math.max(not_after, expiresAt(grant) + longer_s),
    max_duration_s: max_duration_s + longer_s,
    reason,
    ticket: ticket ?? statement.ticket,
    created_at: now,
    extends: { grant: statement.id, sha256: grant.hash },
  }
}

/**
 * Records that more time is asked for; it waits for approvals like any request, and ends nothing meanwhile. Throws
 * Refusal: `grant.state`, `grant.window`, and what `requestGrant` throws.
 */
export async function requestExtension(room: GrantRoom, ask: ExtensionAsk): Promise<Grant> {
  const now = Math.floor(room.now() / 1000)
  const fault = extensionFault(ask, now)
  if (fault !== undefined) throw fault
  const statement = extensionOf(ask, newId('g'), now)
  const [device = ''] = statement.devices
  return await propose(room, { ...ask, device, processes: statement.processes }, statement)
}
