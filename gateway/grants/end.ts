/** Ending a grant for good: recorded before it holds, and before what stands on it is cut. */
import { actorOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import { findGrant } from './find.ts'
import type { Grant, GrantEvent } from './grant.ts'
import { orTakenBack, unconfirmed } from './kept.ts'
import type { GrantRoom } from './request.ts'
import { inTurn } from './turn.ts'

const ENDINGS = {
  revoke: { code: 'grant.revoke', message: 'grant revoked' },
  burn: { code: 'grant.burn', message: 'grant given back by its holder' },
  reject: { code: 'grant.reject', message: 'grant request rejected' },
} as const satisfies Partial<Record<GrantEvent, { code: string; message: string }>>
export type Ending = keyof typeof ENDINGS

interface EndAsk {
  readonly subject: Subject
  readonly source: Source
  readonly grant: Grant
  readonly ending: Ending
  readonly reason: string
  readonly decision?: { id: string; revision: string; codes: readonly string[] } | undefined
}

/**
 * Ends a grant for good, one at a time with what is approved of it, recorded first. The caller has decided that this person may, and cuts the
 * sessions afterwards. Throws Refusal `grant.state` where it has ended before.
 */
export async function endGrant(room: GrantRoom, ask: EndAsk): Promise<Grant> {
  const { id } = ask.grant.statement
  // Not between the alarm that its seal is broken and the approval that breaks it: one of the two is refused whole.
  return await inTurn(room.store, id, async () => {
    return await end(room, { ...ask, grant: await findGrant(room, id) })
  })
}

async function end(room: GrantRoom, ask: EndAsk): Promise<Grant> {
  const { grant, ending } = ask
  const row = ENDINGS[ending]
  if (grant.ended !== null)
    throw new Refusal('grant.state', `the grant is ${grant.state}; it has ended before`)
  const event = eventOf(ask)
  await room.log.append(event)
  const { id } = grant.statement
  const at = Math.floor(room.now() / 1000)
  const after = await orTakenBack(room, { ...event, ...unconfirmed(row.message, event.data) }, () =>
    room.store.apply(id, ending, at, ask.subject.id, ask.reason),
  )
  if (after === undefined) throw await refused(room, ask)
  return after
}

function eventOf({ grant, ending, subject, source, reason, decision }: EndAsk) {
  const row = ENDINGS[ending]
  return {
    code: row.code,
    message: `${row.message}: ${reason}`,
    status: 'success',
    disposition: ending === 'reject' ? 'rejected' : 'revoked',
    actor: actorOf(subject),
    src: srcOf(source),
    device: grant.statement.devices.join(','),
    grant: grant.statement.id,
    decisions: decision === undefined ? undefined : [decision],
    data: { grant_sha256: grant.hash, reason_given: reason },
  } as const
}

/** The store did not take what the log has: another gateway was first. The log says so before anybody is told. */
async function refused(room: GrantRoom, ask: EndAsk): Promise<Refusal> {
  const event = eventOf(ask)
  await room.log.append({
    ...event,
    status: 'failure',
    disposition: undefined,
    message: `${ENDINGS[ask.ending].message} without effect: the grant changed meanwhile`,
    reason: 'grant.state',
    data: { ...event.data, effect: 'none' },
  })
  const { state } = await findGrant(room, event.grant)
  if (state !== 'approved' && state !== 'active')
    return new Refusal('grant.state', 'the grant ended meanwhile')
  return new Refusal('grant.state', `the grant was approved meanwhile: it is ${state}`, {
    nextStep: `sallyport revoke ${event.grant}`,
  })
}
