/**
 * Live re-authorization: whatever changes, the sessions it touches are decided again on facts as
 * they are then. Anything but allow cuts; so does an error. Deadlines are exact, one timer for all.
 */
import type { Decision, Trigger } from '#policy'
import { refOf } from '../decisions.ts'
import { isRefusal } from '../identity/index.ts'
import { Deadlines } from './deadlines.ts'
import type { LiveSession } from './live.ts'
import { unsupported } from './obligations.ts'
import { findTarget, openedFacts, sessionFacts, type SessionRoom } from './room.ts'
import { terminate, type Cause } from './terminate.ts'

export interface Withdrawal {
  readonly trigger: Trigger
  /** Monotonic milliseconds at which the change happened. */
  readonly at: number
  readonly by?: string | undefined
  /** The reason that a cut under this trigger is recorded with; default `policy_recheck`. */
  readonly reason?: Cause['reason'] | undefined
}

export interface CutSession {
  readonly id: string
  readonly time_to_cut_ms: number
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
    this.#deadlines.set(session.id, session.deadline())
    this.#arm()
  }

  /** After an allow: what is due already must not be asked again in the same turn for ever. */
  #watchOn(session: LiveSession): void {
    this.#deadlines.set(session.id, Math.max(session.deadline(), this.#room.now() + 250))
    this.#arm()
  }

  forget(session: LiveSession): void {
    this.#deadlines.clear(session.id)
  }

  /** Decides again every live session that `touches`; resolves with those that were cut, all ends durable. */
  async withdraw(
    touches: (session: LiveSession) => boolean,
    withdrawal: Withdrawal,
  ): Promise<readonly CutSession[]> {
    const touched = [...this.#room.live.values()].filter(touches)
    const cut = await Promise.all(touched.map((session) => this.#again(session, withdrawal)))
    return cut.filter((one) => one !== undefined)
  }

  /** Ends without asking: an operator's kill, a node that stops. */
  async end(session: LiveSession, cause: Cause): Promise<number | null> {
    this.forget(session)
    return await terminate(this.#room, session, cause)
  }

  async #again(session: LiveSession, withdrawal: Withdrawal): Promise<CutSession | undefined> {
    const cause = await this.#decide(session, withdrawal).catch((error: unknown): Cause => {
      this.#room.report(error, `session ${session.id} could not be decided again`)
      return {
        reason: 'policy_recheck',
        code: 'policy.error',
        message: 'the permission could not be checked again',
      }
    })
    if (cause === undefined) {
      this.#watchOn(session)
      return undefined
    }
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

  /** Why the session may not go on, or undefined where it may. */
  async #decide(session: LiveSession, withdrawal: Withdrawal): Promise<Cause | undefined> {
    const room = this.#room
    const now = room.now()
    const reason = withdrawal.reason ?? 'policy_recheck'
    const overdue = spent(session, now)
    if (overdue !== undefined) return overdue
    const subject = await room.identity.current(session.login, now)
    if (isRefusal(subject)) return { reason, code: subject.code, message: subject.detail }
    const [target, grant] = await Promise.all([
      findTarget(room, session.device, session.process),
      room.grants.find(session.grant),
    ])
    if (target === undefined || grant === undefined)
      return { reason, code: 'target.unknown', message: 'the process is no longer registered' }
    if (target.process.kind !== session.kind)
      return { reason, code: 'process.kind', message: 'the process was registered as another kind' }
    // A device that is away for a moment carries nothing; what it was when last here still stands for it.
    const presence = target.presence ?? session.presence
    const changed = session.changed
    for (const { source, observed } of session.sights(target.presence?.listeners)) {
      const decision = room.decisions.ask('session.reevaluate', {
        ...sessionFacts(subject, source, { ...target, presence }, [grant], observed),
        session: openedFacts(session, withdrawal.trigger),
      })
      const no = objection(decision, reason)
      if (no !== undefined) return no
      session.obligations = decision.obligations
      session.decided(refOf(decision), now)
    }
    if (session.changed === changed) session.changed = undefined
    session.subject = subject
    session.presence = presence
    return undefined
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

/** Why a decision ends the session, or undefined where it lets it go on. */
function objection(decision: Decision, reason: Cause['reason']): Cause | undefined {
  const ref = refOf(decision)
  if (decision.allow) {
    const missing = unsupported(decision.obligations)
    if (missing === undefined) return undefined
    const message = `policy now asks for ${missing}, which this gateway cannot do`
    return { reason, code: 'obligation.unsupported', message, decision: ref }
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
