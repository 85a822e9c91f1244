/** What follows from a call about a grant: what stands on it is decided again, or cut, before the call is answered. */
import type { EndedGrant } from '#api'
import type { DecisionRef } from '../../decisions.ts'
import type { Source } from '../../facts.ts'
import { recordShortened, recordSuperseded } from '../../grants/effect.ts'
import { endGrant, type Ending } from '../../grants/end.ts'
import type { Grant } from '../../grants/grant.ts'
import type { GrantRoom } from '../../grants/request.ts'
import type { ReviewWatch } from '../../grants/review.ts'
import { inTurn } from '../../grants/turn.ts'
import type { Subject } from '../../identity/index.ts'
import type { CutConnection, Reauthorization } from '../../sessions/reevaluate.ts'
import { touchedBy } from '../../sessions/touched.ts'
import { StoreError } from '../../store/sqlite/thread.ts'
import { grantView } from './grant-view.ts'

/** What a call about a grant may touch. */
export interface GrantEffects {
  readonly grants: GrantRoom
  readonly reauthorization: Reauthorization
  /** Counts the seals that were broken. */
  readonly glass: Pick<ReviewWatch, 'refresh'>
  /** Told that there may be news of a grant. */
  readonly changed: () => void
}

interface Withdrawn {
  readonly grant: Grant
  readonly ending: Ending
  readonly reason: string
  readonly subject: Subject
  readonly source: Source
  readonly decision?: DecisionRef
  /** Monotonic milliseconds at which the request came in. */
  readonly at: number
}

/** A grant from now on: what it extends, supersedes or lets write is decided again, also where the log failed meanwhile. */
export async function takesEffect(
  { grants, reauthorization, glass, changed }: GrantEffects,
  grant: Grant,
  at: number,
): Promise<void> {
  changed()
  if (grant.state !== 'approved') return
  const { ot_level: level, extends: extended, supersedes: old, unseals } = grant.statement
  const touches = level === 2 || extended !== undefined || old !== undefined
  // What stands on it is looked at whatever the log makes of the rest, and waits for none of it.
  const [failed] = await Promise.all([
    failureOf(recordSuperseded(grants, grant)),
    touches ? reauthorization.withdraw(touchedBy(grant), { trigger: 'grant', at }) : undefined,
  ])
  if (unseals !== undefined) await glass.refresh()
  if (failed !== undefined) throw failed.cause
}

/** What it rejected with, for later: something must be cut first. */
async function failureOf(work: Promise<void>): Promise<{ readonly cause: unknown } | undefined> {
  try {
    await work
    return undefined
  } catch (cause) {
    return { cause }
  }
}

/**
 * Ends the grant, then all that stands on it, also where the log fails in between; the answer says how long the cuts took.
 * Where the store does not take the end, this node's sessions under the grant are cut all the same, and the call fails.
 */
export async function withdraw(room: GrantEffects, ask: Withdrawn): Promise<EndedGrant> {
  // What the node hears of its own act (sessions/changes.ts) waits: the cuts are this call's to tell.
  return await inTurn(room.reauthorization, ask.grant.statement.id, () => endAndCut(room, ask))
}

async function endAndCut(room: GrantEffects, ask: Withdrawn): Promise<EndedGrant> {
  const connections: CutConnection[] = []
  const cut = async (grant: Grant, fallen = false) =>
    await room.reauthorization.withdraw(touchedBy(grant), {
      trigger: 'grant',
      at: ask.at,
      by: ask.subject.id,
      fallen,
      narrowed: (one) => connections.push(one),
      ...(ask.ending === 'burn' ? { reason: 'grant_burned' as const } : {}),
    })
  const grant = await endGrant(room.grants, ask).catch(async (error: unknown) => {
    const held = ask.grant.state === 'approved' || ask.grant.state === 'active'
    if (error instanceof StoreError && held) await cut(ask.grant, true)
    throw error
  })
  room.changed()
  // What stands on it is cut whatever the log makes of the rest, and waits for none of it.
  const [sessions, failed] = await Promise.all([
    cut(grant),
    ask.grant.state === 'approved' ? failureOf(recordShortened(room.grants, ask.grant)) : undefined,
  ])
  if (failed !== undefined) throw failed.cause
  const times = [...sessions, ...connections].map((one) => one.time_to_cut_ms)
  const slowest = times.length === 0 ? null : Math.max(...times)
  return {
    grant: grantView(room.grants, grant),
    cut: { sessions: [...sessions], connections, slowest_ms: slowest },
  }
}
