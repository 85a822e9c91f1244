/**
 * Which grant a session is a use of, and that use counted, in sessions and in octets, before the session opens: a crash
 * between the two leaves a use that opened nothing, and never a second one.
 */
import type { EventInput } from '#audit'
import { beginsAt, expiresAt, usedUp, type Grant } from '../grants/grant.ts'
import { inTurn } from '../grants/turn.ts'
import { during } from '../grants/window.ts'
import { Refusal } from '../problem.ts'
import { portionOf, type Allotments } from './allotment.ts'
import type { LiveSession } from './live.ts'
import type { SessionRoom } from './room.ts'

type Spare = Pick<Allotments, 'spare'>

const isGlass = ({ statement }: Grant) => statement.unseals !== undefined

/**
 * Of these grants those that are approved and whose time it is at `now` (epoch seconds); first what broke a seal, for the
 * windows of a zone do not keep that out, then what ends last.
 */
function inTime(grants: readonly Grant[], now: number): Grant[] {
  return grants
    .filter((grant) => grant.state === 'approved' || grant.state === 'active')
    .map((grant) => during(grant, now))
    .filter((grant) => beginsAt(grant) <= now && now < expiresAt(grant))
    .toSorted((a, b) => Number(isGlass(b)) - Number(isGlass(a)) || expiresAt(b) - expiresAt(a))
}

const isUsedUp = (grant: Grant, allotments: Spare) =>
  usedUp(grant, allotments.spare(grant.statement.id))

/** Of these grants the one that a session can be opened under at `now` (epoch seconds); of several, what ends last. */
export function usable(
  grants: readonly Grant[],
  now: number,
  allotments: Spare,
): Grant | undefined {
  return inTime(grants, now).find((grant) => !isUsedUp(grant, allotments))
}

/** Why nobody gets in where one of these would let them in, had it not done so as often as it may; else undefined. */
export function exhausted(
  grants: readonly Grant[],
  now: number,
  allotments: Spare,
): Refusal | undefined {
  if (usable(grants, now, allotments) !== undefined) return undefined
  const [over] = inTime(grants, now)
  return over === undefined ? undefined : spent(over)
}

function spent({ statement: { id, max_uses, max_bytes }, uses }: Grant): Refusal {
  const often = max_uses !== undefined && uses >= max_uses
  return new Refusal(
    'grant.used_up',
    often
      ? `grant ${id} has let in ${max_uses} of ${max_uses} sessions`
      : `the sessions of grant ${id} have carried all of its ${max_bytes} bytes`,
    { nextStep: 'ask for another grant: sallyport request …' },
  )
}

type Facts = Pick<
  EventInput,
  'actor' | 'src' | 'device' | 'process' | 'grant' | 'session' | 'ticket' | 'decisions'
>

/**
 * Counts one more session under `grant`, recorded first. Throws Refusal `grant.used_up` (of several that want the last
 * use one is let in, and the log says so of no other), `grant.state`; else what log and store throw.
 */
export async function countUse(
  room: SessionRoom,
  session: LiveSession,
  grant: Grant,
  facts: Facts,
): Promise<void> {
  if (grant.statement.max_bytes !== undefined) {
    const portion = portionOf(session.obligations.max_bandwidth_bps)
    session.share = await room.allotments.share(grant, portion)
    if (session.share === undefined) throw spent(grant)
  }
  if (grant.statement.max_uses === undefined) return await use(room, session, grant, facts)
  await inTurn(room.grants, session.grant, async () => {
    const current = (await room.grants.find(session.grant)) ?? grant
    if (isUsedUp(current, room.allotments)) throw spent(current)
    await use(room, session, current, facts)
  })
}

async function use(
  room: SessionRoom,
  session: LiveSession,
  { statement, first_used_at, uses }: Grant,
  facts: Facts,
): Promise<void> {
  const first = first_used_at === null
  const counted = statement.max_uses !== undefined
  if (first || counted)
    await room.log.append({
      code: 'grant.use',
      message: first ? 'grant used for the first time' : 'grant used once more',
      status: 'success',
      ...facts,
      ...(counted ? { data: { uses: uses + 1 } } : {}),
    })
  const at = Math.floor(session.openedAt / 1000)
  const used = await room.grants.apply(session.grant, 'use', at, session.subject.id, '')
  if (used === undefined)
    throw new Refusal('grant.state', 'the grant ended while the session was being opened', {
      nextStep: 'request a new grant',
    })
}
