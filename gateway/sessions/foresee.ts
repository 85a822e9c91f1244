/**
 * What another policy would do to the sessions that are open: which it would end, and which it would let go on with
 * less. Nothing is ended, and nothing is recorded.
 */
import {
  strictest,
  tightened,
  type Decision,
  type Input,
  type Obligations,
  type Partially,
  type Tightened,
} from '#policy'
import type { LiveSession, LiveStream } from './live.ts'
import { Looks, matterOf, objection, tooWide, type Matter } from './matter.ts'
import type { SessionRoom } from './room.ts'
import { inSlices } from './slices.ts'
import type { Cause } from './terminate.ts'

/** A live session that another policy would end. */
export interface WouldEnd {
  readonly session: LiveSession
  readonly cause: Cause
}

/** A live session that would go on with less than the policy in force leaves it. */
export interface WouldNarrow {
  readonly session: LiveSession
  readonly tightened: readonly Tightened[]
  /** Connections that would be cut because they might do more. */
  readonly connections: number
}

export interface Foreseen {
  /** How many sessions were looked at. */
  readonly sessions: number
  readonly ended: readonly WouldEnd[]
  readonly narrowed: readonly WouldNarrow[]
  /** What they stand on could not be looked up. An activation that meets the same ends them. */
  readonly unseen: readonly LiveSession[]
}

/** Answers the questions about one session in place of the policy in force, wherever that is done. */
export type Decide = (questions: readonly Partially<Input>[]) => Promise<readonly Decision[]>

/**
 * Asks about every live session, in turns of at most 8 ms. One whose facts cannot be had is named, and the others are
 * asked about all the same. Rejects with what `decide` rejects with.
 */
export async function foresee(room: SessionRoom, decide: Decide): Promise<Foreseen> {
  const sessions = [...room.live.values()]
  const ended: WouldEnd[] = []
  const narrowed: WouldNarrow[] = []
  const unseen: LiveSession[] = []
  let failure: unknown
  const known = new Looks(room)
  await inSlices(sessions, async (session) => {
    const { cause, open } = await matterOf(room, session, { trigger: 'policy' }, known).catch(
      (error: unknown): Matter => {
        failure ??= error
        unseen.push(session)
        return {}
      },
    )
    if (cause !== undefined) ended.push({ session, cause })
    if (open === undefined) return
    const found = await oneOf(room, session, open, decide)
    if (found === undefined) return
    if ('cause' in found) ended.push(found)
    else narrowed.push(found)
  })
  // Once for all: a store that is away fails as often as there are sessions.
  if (unseen.length > 0)
    room.report(failure, `a preview could not look at ${unseen.length} sessions`)
  return { sessions: sessions.length, ended, narrowed, unseen }
}

async function oneOf(
  room: SessionRoom,
  session: LiveSession,
  { questions, sights, elevation, fallen, alone }: NonNullable<Matter['open']>,
  decide: Decide,
): Promise<WouldEnd | WouldNarrow | undefined> {
  // On the session's own grant alone the question is another one only where there is one to write beside it.
  const elevated = elevation.grants.length > 0
  const answers = await decide([...questions, ...(elevated ? sights.map(alone) : [])])
  const decisions = answers.slice(0, questions.length)
  const cause = [...decisions.map((one) => objection(session, one, 'policy_recheck')), fallen].find(
    (one) => one !== undefined,
  )
  if (cause !== undefined) return { session, cause }
  const wider = new Set<LiveStream>()
  for (const [at, decision] of decisions.entries()) {
    const sight = sights[at]
    if (sight === undefined) continue
    const plainly = elevated ? (answers[questions.length + at] ?? decision) : decision
    for (const stream of tooWide(session, sight, decision, () => plainly)) wider.add(stream)
  }
  const changes = less(room, session, questions, decisions)
  if (changes.length === 0 && wider.size === 0) return undefined
  return { session, tightened: changes, connections: wider.size }
}

/**
 * What the candidate's decisions together leave less of than those of the policy in force would at this moment. That
 * one is asked only where the session would have less than it goes on under: what has run out by itself is no change of
 * the policy.
 */
function less(
  room: SessionRoom,
  session: LiveSession,
  questions: readonly Partially<Input>[],
  decisions: readonly Decision[],
): readonly Tightened[] {
  const then = together(decisions)
  if (then === undefined || tightened(session.obligations, then).length === 0) return []
  const today = questions.map((facts) => room.decisions.weigh('session.reevaluate', facts))
  const now = together(today)
  return now !== undefined && today.every(({ allow }) => allow) ? tightened(now, then) : []
}

function together(decisions: readonly Decision[]): Obligations | undefined {
  const [first, ...others] = decisions.map(({ obligations }) => obligations)
  return first && strictest(first, ...others)
}
