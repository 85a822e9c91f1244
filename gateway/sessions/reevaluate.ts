/**
 * Live re-authorization: whatever changes, the sessions it touches are decided again on facts as
 * they are then. Anything but allow cuts; so does an error. Deadlines are exact, one timer for all.
 */
import { setImmediate } from 'node:timers/promises'
import type { Decision, Input, Partially, Trigger } from '#policy'
import { refOf } from '../decisions.ts'
import type { Presence } from '../devices/presence.ts'
import { actorOf } from '../events.ts'
import type { Elevation } from '../grants/elevation.ts'
import type { Grant } from '../grants/grant.ts'
import { isRefusal, type Subject } from '../identity/index.ts'
import { Deadlines } from './deadlines.ts'
import { sightName, type Footing, type LiveSession, type LiveStream, type Sight } from './live.ts'
import { isHeld, unheld } from './obligations.ts'
import { findElevation, findTarget, openedFacts, sessionFacts, type SessionRoom } from './room.ts'
import { terminate, type Cause } from './terminate.ts'

export interface Withdrawal {
  readonly trigger: Trigger
  /** Monotonic milliseconds at which the change happened. */
  readonly at: number
  readonly by?: string | undefined
  /** Ids of sessions that are expected to end, from a preview: they are decided before all others. */
  readonly first?: ReadonlySet<string> | undefined
  /** Told of every connection that is cut in a session that goes on. */
  readonly narrowed?: ((cut: CutConnection) => void) | undefined
  /** The reason that a cut under this trigger is recorded with; default `policy_recheck`. */
  readonly reason?: Cause['reason'] | undefined
}

export interface CutSession {
  readonly id: string
  readonly time_to_cut_ms: number
}

/** A connection that might do more than its session may now. */
export interface CutConnection {
  readonly session: string
  readonly time_to_cut_ms: number
}

/** A live session that another policy would end. */
export interface WouldEnd {
  readonly session: LiveSession
  readonly cause: Cause
}

/** What is asked about a session as things stand, one question for each process seen; or why it ends unasked. */
interface Matter {
  readonly cause?: Cause
  readonly open?: {
    readonly subject: Subject
    readonly presence: Presence
    readonly questions: readonly Partially<Input>[]
    /** What each question is about, in the same order. */
    readonly sights: readonly Sight[]
    readonly elevation: Elevation
    readonly footing: Footing
    /** The question about one of them on the session's own grant alone. */
    readonly alone: (sight: Sight) => Partially<Input>
  }
}

/** What was decided about a session: why it ends, or what it goes on under. */
interface Judgement {
  readonly cause?: Cause
  readonly kept?: {
    readonly subject: Subject
    readonly presence: Presence
    readonly decisions: readonly Decision[]
    readonly elevation: Elevation
    readonly footing: Footing
    /** Connections that might do more than is allowed now. */
    readonly wider: readonly LiveStream[]
  }
}

/**
 * What one withdrawal has looked up: sessions of one device or one grant ask the store once. What
 * changes after the first look is a withdrawal of its own.
 */
class Looks {
  readonly #room: SessionRoom
  readonly #targets = new Map<string, ReturnType<typeof findTarget>>()
  readonly #grants = new Map<string, ReturnType<SessionRoom['grants']['find']>>()
  readonly #elevations = new Map<string, Promise<Elevation>>()
  /** Connections that are being cut in sessions that go on. */
  readonly narrowing: Promise<void>[] = []

  constructor(room: SessionRoom) {
    this.#room = room
  }

  target({ device, process }: LiveSession): ReturnType<typeof findTarget> {
    const name = `${device}/${process}`
    const look = this.#targets.get(name) ?? findTarget(this.#room, device, process)
    this.#targets.set(name, look)
    return look
  }

  grant({ grant }: LiveSession): ReturnType<SessionRoom['grants']['find']> {
    const look = this.#grants.get(grant) ?? this.#room.grants.find(grant)
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

/** So long one turn of the loop decides, in milliseconds, and so many sessions are asked about at once. */
const SLICE_MS = 8
const AT_ONCE = 16

/** Does `work` for each, a bounded number at once, and lets the loop turn at least every 8 ms. */
async function inSlices<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  let began = performance.now()
  let pause: Promise<void> | undefined
  const worker = async (): Promise<void> => {
    for (let at = next++; at < items.length; at = next++) {
      if (performance.now() - began > SLICE_MS)
        pause ??= setImmediate().then(() => {
          began = performance.now()
          pause = undefined
        })
      await pause
      const item = items[at]
      if (item !== undefined) await work(item)
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker))
}

/**
 * The order to decide in: whom a preview named, then who may write to a controller, then vendors. The
 * order changes nothing of what is decided, only how long what may do most harm goes on.
 */
export function byDanger<
  S extends Pick<LiveSession, 'id'> & {
    readonly obligations: Pick<LiveSession['obligations'], 'ot_level'>
    readonly subject: Pick<Subject, 'party'>
  },
>(sessions: readonly S[], first: ReadonlySet<string> = new Set()): S[] {
  const rank = ({ id, obligations, subject }: S): number =>
    (first.has(id) ? 0 : 4) +
    (obligations.ot_level > 1 ? 0 : 2) +
    (subject.party === 'vendor' ? 0 : 1)
  const ranks: S[][] = [[], [], [], [], [], [], [], []]
  for (const session of sessions) ranks[rank(session)]?.push(session)
  return ranks.flat()
}

// Longer timers overflow in Node and would fire at once.
const LONGEST_TIMER_MS = 2_000_000_000

export class Reauthorization implements Disposable {
  readonly #room: SessionRoom
  readonly #deadlines = new Deadlines()
  #timer: NodeJS.Timeout | undefined

  constructor(room: SessionRoom) {
    this.#room = room
  }

  /** Starts watching a session's own deadlines. */
  watch(session: LiveSession): void {
    session.rearm = () => this.watch(session)
    this.#deadlines.set(session.id, session.deadline())
    this.#arm()
  }

  /** After an allow: what is due already must not be asked again in the same turn for ever. */
  #watchOn(session: LiveSession): void {
    session.rearm = () => this.watch(session)
    this.#deadlines.set(session.id, Math.max(session.deadline(), this.#room.now() + 250))
    this.#arm()
  }

  forget(session: LiveSession): void {
    session.rearm = () => undefined
    this.#deadlines.clear(session.id)
  }

  /** Decides again every live session that `touches`; resolves with those that were cut, all ends durable. */
  async withdraw(
    touches: (session: LiveSession) => boolean,
    withdrawal: Withdrawal,
  ): Promise<readonly CutSession[]> {
    const touched = byDanger([...this.#room.live.values()].filter(touches), withdrawal.first)
    const known = new Looks(this.#room)
    // An end waits for the log; the next session must not wait for that before it is decided and cut.
    const ends: Promise<CutSession>[] = []
    await inSlices(touched, async (session) => {
      const cause = await this.#cause(session, withdrawal, known)
      if (cause === undefined) this.#watchOn(session)
      else ends.push(this.#cut(session, withdrawal, cause))
    })
    await Promise.all(known.narrowing)
    return await Promise.all(ends)
  }

  /**
   * Asks about every live session without ending any: `decide` answers the questions of one session in
   * place of the policy in force, wherever it does that. Gives those that would end, and why.
   */
  async preview(
    decide: (questions: readonly Partially<Input>[]) => Promise<readonly Decision[]>,
  ): Promise<readonly WouldEnd[]> {
    const found: WouldEnd[] = []
    const known = new Looks(this.#room)
    const withdrawal: Withdrawal = { trigger: 'policy', at: 0 }
    await inSlices([...this.#room.live.values()], async (session) => {
      const matter = await this.#matter(session, withdrawal, known)
      const decisions = matter.open === undefined ? [] : await decide(matter.open.questions)
      const causes = decisions.map((decision) => objection(session, decision, 'policy_recheck'))
      const cause = matter.cause ?? causes.find((one) => one !== undefined)
      if (cause !== undefined) found.push({ session, cause })
    })
    return found
  }

  /** Ends without asking: an operator's kill, a node that stops. */
  async end(session: LiveSession, cause: Cause): Promise<number | null> {
    this.forget(session)
    return await terminate(this.#room, session, cause)
  }

  async #again(session: LiveSession, withdrawal: Withdrawal): Promise<void> {
    const known = new Looks(this.#room)
    const cause = await this.#cause(session, withdrawal, known)
    if (cause === undefined) this.#watchOn(session)
    else await this.#cut(session, withdrawal, cause)
    await Promise.all(known.narrowing)
  }

  /** Why it ends, or undefined where it goes on. An error is a reason to end. */
  #cause(session: LiveSession, withdrawal: Withdrawal, known: Looks): Promise<Cause | undefined> {
    return this.#decide(session, withdrawal, known).catch((error: unknown): Cause => {
      this.#room.report(error, `session ${session.id} could not be decided again`)
      return {
        reason: 'policy_recheck',
        code: 'policy.error',
        message: 'the permission could not be checked again',
      }
    })
  }

  async #cut(session: LiveSession, withdrawal: Withdrawal, cause: Cause): Promise<CutSession> {
    const took = await this.end(session, {
      ...cause,
      by: withdrawal.by,
      withdrawnAt: withdrawal.at,
    }).catch((error: unknown) => {
      this.#room.report(error, `the end of session ${session.id} could not be recorded`)
      return session.timeToCutMs
    })
    return { id: session.id, time_to_cut_ms: took ?? 0 }
  }

  /** Why the session may not go on, or undefined where it may; then it goes on under what was decided. */
  async #decide(
    session: LiveSession,
    withdrawal: Withdrawal,
    known: Looks,
  ): Promise<Cause | undefined> {
    const changed = session.changed
    const now = this.#room.now()
    const { cause, kept } = await this.#judge(session, withdrawal, known)
    if (cause !== undefined || kept === undefined) return cause
    for (const decision of kept.decisions) {
      session.obligations = decision.obligations
      session.decided(refOf(decision), now)
    }
    if (session.changed === changed) session.changed = undefined
    session.subject = kept.subject
    session.presence = kept.presence
    session.stands(kept.elevation, kept.footing)
    for (const stream of kept.wider) known.narrowing.push(this.#narrow(session, stream, withdrawal))
    return undefined
  }

  /** Ends one connection; the session goes on with less. Silent first, then recorded. */
  async #narrow(session: LiveSession, stream: LiveStream, withdrawal: Withdrawal): Promise<void> {
    if (stream.narrowed !== undefined) return
    stream.narrowed = {
      code: 'grant.narrowed',
      message: 'what the session may do is less now: connect again',
    }
    const { code, message } = stream.narrowed
    try {
      // One that is still being opened finds out before it carries anything.
      await stream.carrier?.cut(code, message)
    } catch (error) {
      this.#room.report(error, `a connection of session ${session.id} resisted its cut`)
    }
    const took = performance.now() - withdrawal.at
    withdrawal.narrowed?.({ session: session.id, time_to_cut_ms: Math.round(took * 1000) / 1000 })
    await this.#room.log
      .append({
        code: 'session.kill',
        message: `a connection of the session was cut: ${code}`,
        status: 'success',
        disposition: 'revoked',
        reason: code,
        actor: actorOf(session.subject),
        device: session.device,
        process: session.process,
        grant: session.grant,
        session: session.id,
        decisions: session.decisions.slice(-1),
        data: { scope: 'connection', time_to_cut_ms: Math.ceil(took) },
      })
      .catch((error: unknown) =>
        this.#room.report(error, `a cut in session ${session.id} could not be recorded`),
      )
  }

  /** The questions on facts as they are now, decided up to the first that is not allowed. */
  async #judge(session: LiveSession, withdrawal: Withdrawal, known: Looks): Promise<Judgement> {
    const { cause, open } = await this.#matter(session, withdrawal, known)
    if (open === undefined) return cause === undefined ? {} : { cause }
    const { subject, presence, questions, sights, elevation, footing, alone } = open
    const ask = (facts: Partially<Input>) => this.#room.decisions.ask('session.reevaluate', facts)
    const decisions: Decision[] = []
    const wider: LiveStream[] = []
    for (const [at, facts] of questions.entries()) {
      const decision = ask(facts)
      const against = objection(session, decision, withdrawal.reason ?? 'policy_recheck')
      if (against !== undefined) return { cause: against }
      decisions.push(decision)
      const sight = sights[at]
      if (sight !== undefined)
        wider.push(...tooWide(session, sight, decision, () => ask(alone(sight))))
    }
    return { kept: { subject, presence, decisions, elevation, footing, wider } }
  }

  async #matter(session: LiveSession, withdrawal: Withdrawal, known: Looks): Promise<Matter> {
    const room = this.#room
    const now = room.now()
    const reason = withdrawal.reason ?? 'policy_recheck'
    const overdue = spent(session, now)
    if (overdue !== undefined) return { cause: overdue }
    const subject = await room.identity.current(session.login, now)
    if (isRefusal(subject))
      return { cause: { reason, code: subject.code, message: subject.detail } }
    const [target, grant] = await Promise.all([known.target(session), known.grant(session)])
    if (target === undefined || grant === undefined)
      return {
        cause: { reason, code: 'target.unknown', message: 'the process is no longer registered' },
      }
    if (target.process.kind !== session.kind)
      return {
        cause: {
          reason,
          code: 'process.kind',
          message: 'the process was registered as another kind',
        },
      }
    const elevation = await known.elevation(session, grant)
    // A device that is away for a moment carries nothing; what it was when last here still stands for it.
    const presence = target.presence ?? session.presence
    const footing = { target: { ...target, presence }, grants: [grant, ...elevation.grants] }
    const question = ({ source, observed }: Sight, grants: readonly Grant[]) => ({
      ...sessionFacts(subject, source, footing.target, grants, observed),
      session: openedFacts(session, withdrawal.trigger),
    })
    const sights = session.sights(target.presence?.listeners)
    const questions = sights.map((sight) => question(sight, footing.grants))
    const alone = (sight: Sight) => question(sight, [grant])
    return { open: { subject, presence, questions, sights, elevation, footing, alone } }
  }

  #arm(): void {
    clearTimeout(this.#timer)
    const next = this.#deadlines.next()
    if (next === undefined) return
    const wait = Math.min(Math.max(0, next - this.#room.now()), LONGEST_TIMER_MS)
    this.#timer = setTimeout(() => this.#wake(), wait)
    this.#timer.unref()
  }

  #wake(): void {
    const at = performance.now()
    for (const id of this.#deadlines.due(this.#room.now())) {
      const session = this.#room.live.get(id)
      if (session !== undefined) void this.#again(session, { trigger: 'deadline', at })
    }
    this.#arm()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }
}

/** The connections of one sight that might do more than is allowed now; `plainly` decides on the session's own grant alone. */
function tooWide(
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
function objection(
  session: LiveSession,
  decision: Decision,
  reason: Cause['reason'],
): Cause | undefined {
  const ref = refOf(decision)
  if (decision.allow) {
    const missing = unheld(decision.obligations, session)
    if (missing === undefined) return undefined
    return { reason, code: missing.code, message: missing.msg, decision: ref }
  }
  const first = decision.denials[0]
  return {
    reason: first?.code === 'process.mismatch' ? 'process_mismatch' : reason,
    code: first?.code ?? 'policy.denied',
    message: first?.msg ?? 'policy no longer allows this',
    decision: ref,
  }
}

/** What time alone ends, whatever policy would say. */
function spent(session: LiveSession, now: number): Cause | undefined {
  if (now >= session.end())
    return { reason: 'window_end', code: 'window.end', message: 'the time of the grant is over' }
  const idle = session.obligations.idle_timeout_s * 1000
  if (now - session.lastActivityAt >= idle)
    return {
      reason: 'idle',
      code: 'session.idle',
      message: 'nothing used the session for too long',
    }
  return undefined
}
