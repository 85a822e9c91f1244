/**
 * What has to be asked about a live session for it to go on, on facts as they are at the moment, and what an answer
 * means for it. Whether anything then happens is whose asks: reevaluate.ts acts on it, foresee.ts only says so.
 */
import type { Decision, Input, Partially, Trigger } from '#policy'
import { nextStepOf, refOf } from '../decisions.ts'
import type { Presence } from '../devices/presence.ts'
import type { Elevation } from '../grants/elevation.ts'
import type { Grant } from '../grants/grant.ts'
import { isRefusal, type Subject } from '../identity/index.ts'
import { isNews } from './extend.ts'
import { sightName, type Footing, type LiveSession, type LiveStream, type Sight } from './live.ts'
import { isHeld, unheld } from './obligations.ts'
import {
  findElevation,
  findStanding,
  findTarget,
  openedFacts,
  sessionFacts,
  type SessionRoom,
} from './room.ts'
import { fallenWith, reopening } from './standing.ts'
import type { Cause } from './terminate.ts'

/** Why it is asked. */
interface Asking {
  readonly trigger: Trigger
  /** The reason that an end under this trigger is recorded with; default `policy_recheck`. */
  readonly reason?: Cause['reason'] | undefined
}

/** What is asked about a session as things stand, one question for each process seen; or why it ends unasked. */
export interface Matter {
  readonly cause?: Cause
  readonly open?: {
    readonly subject: Subject
    readonly presence: Presence
    readonly questions: readonly Partially<Input>[]
    /** What each question is about, in the same order. */
    readonly sights: readonly Sight[]
    readonly elevation: Elevation
    readonly footing: Footing
    /** Why it ends though policy let it go on: the grant it stands on holds no more. */
    readonly fallen: ReturnType<typeof fallenWith>
    /** The question about one of them on the session's own grant alone. */
    readonly alone: (sight: Sight) => Partially<Input>
  }
}

/**
 * What one withdrawal has looked up: sessions of one device or one grant ask the store once. What
 * changes after the first look is a withdrawal of its own.
 */
export class Looks {
  readonly #room: SessionRoom
  readonly #targets = new Map<string, ReturnType<typeof findTarget>>()
  readonly #grants = new Map<string, ReturnType<typeof findStanding>>()
  readonly #elevations = new Map<string, Promise<Elevation>>()

  constructor(room: SessionRoom) {
    this.#room = room
  }

  target({ device, process }: LiveSession): ReturnType<typeof findTarget> {
    const name = `${device}/${process}`
    const look = this.#targets.get(name) ?? findTarget(this.#room, device, process)
    this.#targets.set(name, look)
    return look
  }

  grant({ grant }: LiveSession): ReturnType<typeof findStanding> {
    const look = this.#grants.get(grant) ?? findStanding(this.#room, grant)
    this.#grants.set(grant, look)
    return look
  }

  elevation(session: LiveSession, own: Grant): Promise<Elevation> {
    const name = `${session.grant} ${session.device}/${session.process}`
    const look = this.#elevations.get(name) ?? findElevation(this.#room, session, own)
    this.#elevations.set(name, look)
    return look
  }
}

/** Looks the session up as it is now. `known` is what others of the same withdrawal have looked up already. */
export async function matterOf(
  room: SessionRoom,
  session: LiveSession,
  { trigger, reason = 'policy_recheck' }: Asking,
  known: Looks,
): Promise<Matter> {
  const now = room.now()
  const overdue = spent(session, now)
  const cause = overdue && (await unlessOutlived(session, overdue, known, now))
  if (cause !== undefined) return { cause }
  const subject = await room.identity.current(session.login, now)
  if (isRefusal(subject)) {
    const { code, detail: message, nextStep: next } = subject
    return { cause: { reason, code, message, next } }
  }
  const [target, grant] = await Promise.all([known.target(session), known.grant(session)])
  if (target === undefined || grant === undefined)
    return {
      cause: {
        reason,
        code: 'target.unknown',
        message: 'the process is no longer registered',
        next: 'ask the plant what has become of it',
      },
    }
  if (target.process.kind !== session.kind)
    return {
      cause: {
        reason,
        code: 'process.kind',
        message: 'the process was registered as another kind',
        next: 'connect again, as what it is now',
      },
    }
  const elevation = await known.elevation(session, grant)
  // A device that is away for a moment carries nothing; what it was when last here still stands for it.
  const presence = target.presence ?? session.presence
  const footing = { target: { ...target, presence }, grants: [grant, ...elevation.grants] }
  const asked = { ...footing.target, consent: session.consent }
  const question = ({ source, observed }: Sight, grants: readonly Grant[]) => ({
    ...sessionFacts(subject, source, asked, grants, observed),
    session: openedFacts(session, trigger),
  })
  const sights = session.sights(target.presence?.listeners)
  const questions = sights.map((sight) => question(sight, footing.grants))
  const alone = (sight: Sight) => question(sight, [grant])
  const fallen = fallenWith(grant, now, reason)
  return { open: { subject, presence, questions, sights, elevation, footing, fallen, alone } }
}

/**
 * Undefined where its time by the grant that it knows is over, and the grant has been extended meanwhile: policy is asked.
 * Else why it ends, and when it may be opened again.
 */
async function unlessOutlived(
  session: LiveSession,
  overdue: Cause,
  known: Looks,
  now: number,
): Promise<Cause | undefined> {
  const grant = overdue.reason === 'window_end' ? await known.grant(session) : undefined
  if (grant === undefined) return overdue
  return isNews(session, grant) ? undefined : { ...overdue, ...reopening(grant, now) }
}

/** The connections of one sight that might do more than is allowed now; `plainly` decides on the session's own grant alone. */
export function tooWide(
  session: LiveSession,
  sight: Sight,
  decision: Decision,
  plainly: () => Decision,
): LiveStream[] {
  const name = sightName(sight.source, sight.observed)
  let alone: Decision | undefined
  return [...session.streams].filter(
    ({ gate, source, observed }) =>
      gate !== undefined &&
      sightName(source, observed) === name &&
      !isHeld(gate, decision, () => (alone ??= plainly())),
  )
}

/** Why a decision ends the session, or undefined where it lets it go on. */
export function objection(
  session: LiveSession,
  decision: Decision,
  reason: Cause['reason'],
): Cause | undefined {
  const ref = refOf(decision)
  if (decision.allow) {
    // Who is to be supervised from now on is held until somebody comes.
    const missing = unheld({ ...decision.obligations, supervise: false }, session)
    if (missing === undefined) return undefined
    const { code, msg: message, next } = missing
    return { reason, code, message, next, decision: ref }
  }
  const first = decision.denials[0]
  return {
    reason: first?.code === 'process.mismatch' ? 'process_mismatch' : reason,
    code: first?.code ?? 'policy.denied',
    message: first?.msg ?? 'policy no longer allows this',
    next: decision.denials.map(nextStepOf).find((step) => step !== undefined),
    decision: ref,
  }
}

/** What time alone ends, whatever policy would say. */
export function spent(session: LiveSession, now: number): Cause | undefined {
  if (session.isOver(now))
    return {
      reason: 'window_end',
      code: 'window.end',
      message: 'the time of the grant is over',
      next: `connect again where another grant is left, or ask for one: sallyport request ${session.device}/${session.process} --for 2h --reason …`,
    }
  const idle = session.obligations.idle_timeout_s * 1000
  if (now - session.lastActivityAt >= idle)
    return {
      reason: 'idle',
      code: 'session.idle',
      message: 'nothing used the session for too long',
      next: 'connect again; the grant is yours until its end',
    }
  return undefined
}
