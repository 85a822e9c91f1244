/**
 * Whether a web request may be carried. What may change something is decided by itself, and is on disk before it goes.
 * Of what only reads, the same question is asked once in a second: the answer holds for those like it until the second is
 * over or anything that it stands on may have changed, and how many they were is recorded behind them.
 */
import type { AuditLog } from '#audit'
import { httpFacts } from '#policy'
import { systemClock } from '#tunnel'
import { refOf, toRefusal, type DecisionRef } from '../decisions.ts'
import { actorOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import { Refusal } from '../problem.ts'
import type { LiveSession } from '../sessions/live.ts'
import { unheld } from '../sessions/obligations.ts'
import { openedFacts, sessionFacts, type SessionRoom } from '../sessions/room.ts'
import { Ground, nameOf } from './ground.ts'
import type { Footing, Held, Http, LookedIn, WebAnswer, WebQuestion } from './ground.ts'

type Room = LookedIn & Pick<SessionRoom, 'live' | 'report'>
type Log = Pick<AuditLog, 'append'>

/** So often it is looked up again because something changed meanwhile. */
const LOOKS = 3
/** What goes on to the device is the first of its kind, and recorded as that. */
const first = (): void => undefined
/** So long what was told of is kept, should the log not have taken it. Milliseconds. */
const TOLD_MS = 1000

export class Permits implements Disposable {
  readonly #room: Room
  readonly #log: Log
  readonly #grounds = new Map<string, Ground>()

  constructor(room: Room, log: Log) {
    this.#room = room
    this.#log = log
  }

  /** The answer that one like it has had, on what stands still; undefined where it must be asked. */
  find(session: LiveSession, asked: WebQuestion): WebAnswer | undefined {
    const ground = this.#grounds.get(session.id)
    if (!asked.reads || ground === undefined || !ground.stands(this.#room)) return undefined
    const held = ground.held.get(nameOf(asked))
    if (held === undefined || unheld(held.obligations, session) !== undefined) return undefined
    return held.answer
  }

  /**
   * Asks policy, on facts of this second. Throws Refusal: `app.target` for an address that could be read in two ways,
   * `session.ended`, `device.offline`, `store.unavailable` (whatever is looked up is withdrawn meanwhile, again and
   * again); rejects with StoreError.
   */
  async ask(session: LiveSession, asked: WebQuestion): Promise<WebAnswer> {
    const http = httpFacts(asked.method, asked.host, asked.path)
    if (http === null)
      throw new Refusal('app.target', 'the address of this request could be read in two ways', {
        nextStep: 'use a plain path without encoded slashes or NUL',
      })
    const { ground, footing } = await this.#footing(session)
    if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
    // Others that waited for the same look may have asked it.
    const before = this.find(session, asked)
    if (before !== undefined) return before
    const decided = this.#decide(session, asked, http, footing)
    const { answer } = decided
    const name = nameOf(asked)
    if (asked.reads && answer.refusal === undefined && ground.remembers(name)) {
      const again = { ...answer, carried: () => this.#count(session.id, ground, held) }
      const held: Held = { ...decided, answer: again, http, repeats: 0 }
      ground.held.set(name, held)
      // What could not be recorded is nobody else's answer.
      answer.recorded.catch(() => ground.held.delete(name))
    }
    return answer
  }

  /** Tells of what is not told yet, and remembers nothing of the session. */
  end(session: string): void {
    const ground = this.#grounds.get(session)
    this.#grounds.delete(session)
    if (ground !== undefined) this.#tell(session, ground)
  }

  /** Its second is over: nothing of it is kept, once all is told of. */
  #lapse(session: string, ground: Ground): void {
    const owing = [...ground.held.values()].some(({ repeats }) => repeats > 0)
    this.#tell(session, ground)
    if (this.#grounds.get(session) !== ground) return
    if (owing) ground.forget = systemClock.after(TOLD_MS, () => this.#lapse(session, ground))
    else this.#grounds.delete(session)
  }

  /** One more had the answer, and goes on. Nobody comes to tell of it later where its second is told of already. */
  #count(session: string, ground: Ground, held: Held): void {
    held.repeats++
    if (this.#grounds.get(session) !== ground) this.#tell(session, ground)
  }

  /** Looked up anew where something changed in between: what is answered is answered on what stands then. */
  async #footing(session: LiveSession): Promise<{ ground: Ground; footing: Footing }> {
    for (let left = LOOKS; ; left--) {
      const ground = this.#ground(session)
      const footing = await ground.footing
      if (ground.stands(this.#room)) return { ground, footing }
      if (left > 0) continue
      // A slow store, or one connection after the other: what was looked up is as it was.
      if (ground.holds(this.#room)) return { ground, footing }
      throw new Refusal('store.unavailable', 'what this stands on changes while it is looked up', {
        nextStep: 'wait a moment and load the page again',
      })
    }
  }

  #ground(session: LiveSession): Ground {
    const kept = this.#grounds.get(session.id)
    if (kept?.stands(this.#room) === true) return kept
    if (kept !== undefined) this.#tell(session.id, kept)
    const ground = new Ground(this.#room, session)
    // It may have ended while somebody waited: then nobody would take it away.
    if (this.#room.live.get(session.id) !== session) return ground
    this.#grounds.set(session.id, ground)
    const left = ground.left(this.#room.now())
    ground.forget = systemClock.after(left, () => this.#lapse(session.id, ground))
    // What could not be looked up is looked up again by whoever comes next.
    ground.footing.catch(() => {
      if (this.#grounds.get(session.id) === ground) this.#grounds.delete(session.id)
    })
    return ground
  }

  #decide(
    session: LiveSession,
    { source }: WebQuestion,
    http: Http,
    { target, grant }: Footing,
  ): Omit<Held, 'http' | 'repeats'> {
    const observed = session.seen(target.presence.listeners)
    const asked = { ...target, consent: session.consent }
    const decision = this.#room.decisions.ask('http.request', {
      ...sessionFacts(session.subject, source, asked, [grant], observed),
      session: openedFacts(session, null),
      http,
    })
    const missing = decision.allow ? unheld(decision.obligations, session) : undefined
    const allowed =
      decision.allow && missing === undefined && decision.obligations.methods.includes(http.method)
    const { obligations } = decision
    const ref = refOf(decision)
    const event = eventOf(session, source, http, ref)
    if (allowed) {
      const recorded = this.#log.append(event)
      const answer = { id: ref.id, refusal: undefined, code: undefined, recorded, carried: first }
      return { answer, event, obligations }
    }
    session.denials++
    const code = missing?.code ?? decision.denials[0]?.code ?? 'http.method_refused'
    const refused = {
      ...event,
      message: `${http.method} refused`,
      status: 'failure' as const,
      disposition: 'blocked' as const,
      reason: code,
    }
    const refusal = decision.allow ? refusalOf(ref.id, http, missing) : toRefusal(decision)
    const answer = {
      id: ref.id,
      refusal,
      code,
      recorded: this.#log.append(refused),
      carried: first,
    }
    return { answer, event, obligations }
  }

  /** How many had an answer after the one that it was recorded for. */
  #tell(session: string, ground: Ground): void {
    ground.forget()
    for (const held of ground.held.values()) {
      const { event, http, repeats } = held
      if (repeats === 0) continue
      held.repeats = 0
      const message = `${http.method} forwarded, ${repeats === 1 ? 'once' : `${repeats} times`} more`
      this.#log
        .append({ ...event, message, data: { ...event.data, count: repeats } })
        .catch((error: unknown) => {
          this.#room.report(error, `web requests of session ${session} could not be recorded`)
          // Told again with those that follow, at the latest when the session ends.
          if (this.#grounds.get(session) === ground) held.repeats += repeats
        })
    }
  }

  [Symbol.dispose](): void {
    for (const session of this.#grounds.keys()) this.end(session)
  }
}

function eventOf(session: LiveSession, source: Source, http: Http, decision: DecisionRef) {
  const { method, path, host } = http
  return {
    code: 'http.request' as const,
    message: `${method} forwarded`,
    status: 'success' as const,
    disposition: 'allowed' as const,
    actor: actorOf(session.subject),
    src: srcOf(source),
    decisions: [decision],
    device: session.device,
    process: session.process,
    grant: session.grant,
    session: session.id,
    data: { method, path, host },
  }
}

function refusalOf(
  decisionId: string,
  { method }: Http,
  missing: ReturnType<typeof unheld>,
): Refusal {
  return missing === undefined
    ? new Refusal('policy.denied', `policy does not allow ${method} here`, { decisionId })
    : new Refusal('policy.denied', missing.msg, {
        decisionId,
        denials: [missing],
        nextStep: missing.next,
      })
}
