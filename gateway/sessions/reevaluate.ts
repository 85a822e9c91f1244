/**
 * Live re-authorization: whatever changes, the sessions it touches are decided again on facts as
 * they are then. Anything but allow cuts; so does an error. Deadlines are exact, one timer for all.
 */
import type { Decision, Input, Partially, Trigger } from '#policy'
import { refOf } from '../decisions.ts'
import type { Presence } from '../devices/presence.ts'
import { actorOf, sessionOf } from '../events.ts'
import type { Elevation } from '../grants/elevation.ts'
import type { Grant } from '../grants/grant.ts'
import type { Subject } from '../identity/index.ts'
import { Deadlines } from './deadlines.ts'
import { follow, isNews } from './extend.ts'
import type { Footing, LiveSession, LiveStream, Sight } from './live.ts'
import { Looks, matterOf, objection, spent, tooWide } from './matter.ts'
import { findStanding, type SessionRoom } from './room.ts'
import { byDanger, inSlices } from './slices.ts'
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
  /**
   * What it touches ends, whatever the store still says of its grant: somebody took that back, and the store did not take it.
   * Where it is of something else that it ends, in these words.
   */
  readonly fallen?: boolean | Pick<Cause, 'code' | 'message' | 'next'> | undefined
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

/** What was decided about a session: why it ends, or what it goes on under. */
interface Judgement {
  readonly cause?: Cause
  readonly kept?: {
    readonly subject: Subject
    readonly presence: Presence
    readonly decisions: readonly Decision[]
    /** What each of them is about, in the same order. */
    readonly sights: readonly Sight[]
    readonly elevation: Elevation
    readonly footing: Footing
    /** Connections that might do more than is allowed now. */
    readonly wider: readonly LiveStream[]
  }
}

/** One withdrawal under way. */
interface Round {
  readonly withdrawal: Withdrawal
  readonly known: Looks
  /** Connections that are being cut in sessions that go on. */
  readonly narrowing: Promise<void>[]
}

function takenBack({ reason = 'policy_recheck', fallen }: Withdrawal): Cause {
  if (typeof fallen === 'object') return { reason, ...fallen }
  return {
    reason,
    code: reason === 'grant_burned' ? 'grant.expired' : 'grant.revoked',
    message: 'the grant was taken back',
    next: 'ask for a new grant: sallyport request …',
  }
}

// Timers stand still while the machine sleeps, and know nothing of a clock that is set forward: no end is later than this for it.
const LOOK_MS = 1_000

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
    // Many may be decided before its turn comes: until then nothing is answered out of memory.
    for (const session of touched) session.stirred++
    const round = this.#round(withdrawal)
    // An end waits for the log; the next session must not wait for that before it is decided and cut.
    const ends: Promise<CutSession>[] = []
    await inSlices(touched, async (session) => {
      const cause = await this.#cause(session, round)
      if (cause === undefined) this.#watchOn(session)
      else ends.push(this.#cut(session, withdrawal, cause))
    })
    await Promise.all(round.narrowing)
    return await Promise.all(ends)
  }

  /** Ends without asking: an operator's kill, a node that stops. */
  async end(session: LiveSession, cause: Cause): Promise<number | null> {
    this.forget(session)
    return await terminate(this.#room, session, cause)
  }

  async #again(session: LiveSession, withdrawal: Withdrawal): Promise<void> {
    session.stirred++
    const round = this.#round(withdrawal)
    const cause = await this.#cause(session, round)
    if (cause === undefined) this.#watchOn(session)
    else await this.#cut(session, withdrawal, cause)
    await Promise.all(round.narrowing)
  }

  #round(withdrawal: Withdrawal): Round {
    return { withdrawal, known: new Looks(this.#room), narrowing: [] }
  }

  /** Why it ends, or undefined where it goes on. An error is a reason to end. */
  #cause(session: LiveSession, round: Round): Promise<Cause | undefined> {
    return this.#decide(session, round).catch((error: unknown): Cause => {
      this.#room.report(error, `session ${session.id} could not be decided again`)
      return {
        reason: 'policy_recheck',
        code: 'policy.error',
        message: 'the permission could not be checked again',
        next: 'connect again; where that fails too, tell the security engineer of the plant',
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
  async #decide(session: LiveSession, round: Round): Promise<Cause | undefined> {
    const changed = session.changed
    const now = this.#room.now()
    if (round.withdrawal.fallen !== undefined && round.withdrawal.fallen !== false)
      return takenBack(round.withdrawal)
    const { cause, kept } = await this.#judge(session, round)
    if (cause !== undefined || kept === undefined) return cause
    for (const decision of kept.decisions) session.decided(refOf(decision), now)
    // All that it stands on was decided: this takes the place of whatever held before. Bound once: in between it
    // would be let go, and held anew.
    session.rebind(
      kept.sights.flatMap((sight, at) => {
        const { obligations } = kept.decisions[at] ?? {}
        return obligations === undefined ? [] : [{ sight, obligations }]
      }),
    )
    if (session.changed === changed) session.changed = undefined
    session.subject = kept.subject
    session.presence = kept.presence
    session.stands(kept.elevation, kept.footing)
    // What may do too much is silent before anybody hears of a later end.
    for (const stream of kept.wider)
      round.narrowing.push(this.#narrow(session, stream, round.withdrawal))
    const [own] = kept.footing.grants
    if (own !== undefined) await this.#follow(session, own)
    return undefined
  }

  /**
   * To the end of its grant. What one round has looked up may have been taken back since, and by a round that is through
   * with this session: longer it becomes only by the grant as it is.
   */
  async #follow(session: LiveSession, known: Grant): Promise<void> {
    const own = isNews(session, known) ? await findStanding(this.#room, session.grant) : known
    if (own !== undefined) follow(this.#room, session, own)
  }

  /** Ends one connection; the session goes on with less. Silent first, then recorded. */
  async #narrow(session: LiveSession, stream: LiveStream, withdrawal: Withdrawal): Promise<void> {
    if (stream.narrowed !== undefined) return
    stream.narrowed = {
      code: 'grant.narrowed',
      message: 'what the session may do is less now: connect again',
      decision: session.decisions.at(-1),
    }
    const { code } = stream.narrowed
    try {
      // One that is still being opened finds out before it carries anything.
      await stream.carrier?.cut(stream.narrowed, 'goes on')
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
        ...sessionOf(session),
        decisions: session.decisions.slice(-1),
        data: { scope: 'connection', time_to_cut_ms: Math.ceil(took) },
      })
      .catch((error: unknown) =>
        this.#room.report(error, `a cut in session ${session.id} could not be recorded`),
      )
  }

  /** The questions on facts as they are now, decided up to the first that is not allowed. */
  async #judge(session: LiveSession, { withdrawal, known }: Round): Promise<Judgement> {
    const { cause, open } = await matterOf(this.#room, session, withdrawal, known)
    if (open === undefined) return cause === undefined ? {} : { cause }
    const { subject, presence, questions, sights, elevation, footing, fallen, alone } = open
    const ask = (facts: Partially<Input>) => this.#room.decisions.ask('session.reevaluate', facts)
    const decisions: Decision[] = []
    const wider: LiveStream[] = []
    for (const [at, facts] of questions.entries()) {
      const decision = ask(facts)
      const against = objection(session, decision, withdrawal.reason ?? 'policy_recheck')
      // Between two windows of its grant nobody is told to wait for the first.
      const between = against?.code === 'grant.not_yet' ? fallen : undefined
      if (against !== undefined) {
        // Its time ran out while it was looked up: that is why, as it would be a moment later.
        const late = spent(session, this.#room.now()) !== undefined
        const { cause: over } = late ? await matterOf(this.#room, session, withdrawal, known) : {}
        return { cause: over ?? { ...against, ...between } }
      }
      decisions.push(decision)
      const sight = sights[at]
      if (sight !== undefined)
        wider.push(...tooWide(session, sight, decision, () => ask(alone(sight))))
    }
    // Policy is asked first, for its own words; what it lets in without a grant does not stand in for this one.
    if (fallen !== undefined) return { cause: fallen }
    return { kept: { subject, presence, decisions, sights, elevation, footing, wider } }
  }

  #arm(): void {
    clearTimeout(this.#timer)
    const next = this.#deadlines.next()
    if (next === undefined) return
    const wait = Math.min(Math.max(0, next - this.#room.now()), LOOK_MS)
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
