/**
 * Who watches a session, and who may hold it: a supervisor is present as long as their own program says so every few
 * seconds. Where policy wants one and none is there, the session is held, not cut, and ends when nobody comes.
 * docs/operations.md section "Watching a session".
 */
import type { AuditLog } from '#audit'
import type { DecisionRef } from '../decisions.ts'
import { actorOf, sessionOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import type { LiveSession } from './live.ts'
import type { SessionRoom } from './room.ts'
import type { Cause } from './terminate.ts'

/** A supervisor who has not been heard of for so long has left. */
export const PRESENT_MS = 10_000
/** So long a session waits for a supervisor before it ends. */
export const ABSENT_MS = 300_000
/** Watching that begins again after so long is an event again. */
const SILENCE_MS = 60_000

type Room = Pick<SessionRoom, 'now' | 'report'> & { readonly log: Pick<AuditLog, 'append'> }
type End = (session: LiveSession, cause: Cause) => Promise<unknown>

/** Whether two identities are one person. */
type Same = (a: string, b: string) => Promise<boolean>

/** Somebody of the plant, and what let them. */
export interface Watcher {
  readonly subject: Subject
  readonly source: Source
  readonly decision: DecisionRef
}

/** What is kept of a session while it lives. */
interface Watch {
  readonly present: Map<string, NodeJS.Timeout>
  /** When each was heard of last; monotonic milliseconds. */
  readonly seen: Map<string, number>
  absent: NodeJS.Timeout | undefined
  /** Since when it waits for a supervisor; epoch milliseconds. */
  since: number
  /** Settles when the last pause or resume that was asked for is done: the next begins then. */
  turn: Promise<unknown>
  stop(): void
}

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** What a client is told while its session is held, and when it goes on. */
export function holdSignal({ hold }: Pick<LiveSession, 'hold'>): Uint8Array {
  if (!hold.held) return encode({ t: 'resumed' })
  const msg = hold.is('operator')
    ? 'the plant has paused this session: what you send waits'
    : 'a supervisor must watch this session, and none is there: what you send waits'
  return encode({ t: 'paused', by: hold.by, msg })
}

export class Supervision implements Disposable {
  readonly #room: Room
  readonly #end: End
  readonly #waits: () => void
  readonly #watched = new Map<LiveSession, Watch>()

  /** `end` ends a session without asking policy; `waits` is told when one begins to wait for a supervisor. */
  constructor(room: Room, end: End, waits: () => void = () => {}) {
    this.#room = room
    this.#end = end
    this.#waits = waits
  }

  /** From its opening to its end: what holds it, and whether somebody has to come. */
  follow(session: LiveSession): void {
    if (session.state !== 'open' || this.#watched.has(session)) return
    const watch: Watch = {
      present: new Map(),
      seen: new Map(),
      absent: undefined,
      since: 0,
      turn: Promise.resolve(),
      stop: session.hold.follow(() => this.#changed(session, watch)),
    }
    this.#watched.set(session, watch)
    this.#arm(session, watch)
  }

  /** The sessions that wait for a supervisor, and since when (epoch milliseconds). */
  waiting(): readonly { readonly session: LiveSession; readonly since: number }[] {
    return [...this.#watched].flatMap(([session, { absent, since }]) =>
      absent === undefined ? [] : [{ session, since }],
    )
  }

  forget(session: LiveSession): void {
    const watch = this.#watched.get(session)
    if (watch === undefined) return
    this.#watched.delete(session)
    watch.stop()
    clearTimeout(watch.absent)
    for (const timer of watch.present.values()) clearTimeout(timer)
  }

  /** Somebody looks at it; the first look, and one after a minute without, is an event before anything is shown. */
  async look(session: LiveSession, who: Watcher): Promise<void> {
    const watch = this.#of(session)
    await this.#record(session, watch, who, 'watch')
  }

  /**
   * Somebody watches it and answers for it, for `PRESENT_MS` from now: recorded first, then it goes on. `same`: whether
   * two identities are one person. Throws Refusal `session.ended`, `session.supervisor`.
   */
  async join(session: LiveSession, who: Watcher, same: Same): Promise<void> {
    const { id, kind, party, email } = who.subject
    if (kind !== 'human' || party !== 'staff' || (await same(id, session.subject.id)))
      throw new Refusal(
        'session.supervisor',
        'nobody supervises a session of their own, and no vendor or program does',
        {
          nextStep: 'let somebody of the plant supervise it who is not the one inside',
        },
      )
    const watch = this.#of(session)
    await this.#record(session, watch, who, 'supervise')
    // Ended while that was written down.
    this.#of(session)
    clearTimeout(watch.present.get(id))
    const timer = setTimeout(() => this.#left(session, id), PRESENT_MS)
    timer.unref()
    watch.present.set(id, timer)
    session.supervised(id, { email, since: this.#room.now() })
  }

  /** Holds it: no byte passes from here on. Throws Refusal `session.ended`, and as `append` does. */
  async pause(session: LiveSession, who: Watcher, reason: string): Promise<void> {
    await this.#inTurn(session, async () => {
      if (session.hold.is('operator')) return
      await this.#tell(session, 'session.pause', who, `session paused: ${reason}`)
      this.#of(session)
      session.hold.set('operator', true)
    })
  }

  /**
   * Lets it go on, unless a supervisor is missing; `same` as for `join`. Throws Refusal `session.ended`,
   * `session.supervisor`, and as `append` does.
   */
  async resume(session: LiveSession, who: Watcher, reason: string, same: Same): Promise<void> {
    await this.#inTurn(session, async () => {
      if (await same(who.subject.id, session.subject.id))
        throw new Refusal('session.supervisor', 'nobody lets a session of their own go on', {
          nextStep: 'let somebody of the plant resume it who is not the one inside',
        })
      if (!session.hold.is('operator')) return
      await this.#tell(session, 'session.resume', who, `session resumed: ${reason}`)
      this.#of(session)
      session.hold.set('operator', false)
    })
  }

  /** One at a time: what is answered is what holds then, and each that changes anything is recorded. */
  async #inTurn(session: LiveSession, act: () => Promise<void>): Promise<void> {
    const watch = this.#of(session)
    const done = watch.turn.then(async () => {
      this.#of(session)
      await act()
    })
    // Whoever asked is told of an error; who comes next begins all the same.
    watch.turn = done.catch(() => undefined)
    await done
  }

  #of(session: LiveSession): Watch {
    const watch = this.#watched.get(session)
    if (watch === undefined || session.state !== 'open')
      throw new Refusal('session.ended', 'the session has ended')
    return watch
  }

  async #record(
    session: LiveSession,
    watch: Watch,
    who: Watcher,
    how: 'watch' | 'supervise',
  ): Promise<void> {
    const { id, email } = who.subject
    const key = `${how} ${id}`
    const now = performance.now()
    const before = watch.seen.get(key)
    const news = before === undefined || now - before > SILENCE_MS
    const absent = how === 'supervise' && !watch.present.has(id)
    if (news || absent)
      await this.#tell(
        session,
        'session.watch',
        who,
        `${email ?? id} ${how === 'watch' ? 'watches' : 'supervises'} the session`,
        how,
      )
    watch.seen.set(key, now)
  }

  async #tell(
    session: LiveSession,
    code: 'session.watch' | 'session.pause' | 'session.resume',
    who: Watcher | null,
    message: string,
    reason?: string,
  ): Promise<void> {
    await this.#room.log.append({
      code,
      message,
      status: 'success',
      ...(reason === undefined ? {} : { reason }),
      ...(who === null
        ? {}
        : { actor: actorOf(who.subject), src: srcOf(who.source), decisions: [who.decision] }),
      ...sessionOf(session),
      data: {},
    })
  }

  /** Held at once, and then recorded, as a cut is. */
  #left(session: LiveSession, id: string): void {
    const watch = this.#watched.get(session)
    if (watch === undefined) return
    watch.present.delete(id)
    session.unsupervised(id)
    if (!session.hold.is('supervisor')) return
    this.#tell(
      session,
      'session.pause',
      null,
      'session paused: its supervisor has left',
      'supervisor.left',
    ).catch((error: unknown) =>
      this.#room.report(error, `a pause of session ${session.id} could not be recorded`),
    )
  }

  #changed(session: LiveSession, watch: Watch): void {
    this.#arm(session, watch)
    const told = holdSignal(session)
    const carriers = [...session.streams].flatMap(({ carrier }) => carrier ?? [])
    for (const carrier of [...carriers, ...session.watchers])
      try {
        carrier.tell?.(told)
      } catch (error) {
        this.#room.report(error, `a client of session ${session.id} could not be told`)
      }
  }

  #arm(session: LiveSession, watch: Watch): void {
    if (!session.hold.is('supervisor')) {
      clearTimeout(watch.absent)
      watch.absent = undefined
      return
    }
    if (watch.absent !== undefined) return
    watch.since = this.#room.now()
    watch.absent = setTimeout(() => {
      this.#end(session, {
        reason: 'policy_recheck',
        code: 'supervisor.absent',
        message: 'a supervisor must watch this session, and none came',
        next: 'ask the plant to have somebody at hand, then connect again',
      }).catch((error: unknown) =>
        this.#room.report(error, `the end of session ${session.id} could not be recorded`),
      )
    }, ABSENT_MS)
    watch.absent.unref()
    // Whoever is told looks at once, and finds it among those that wait.
    this.#waits()
  }

  [Symbol.dispose](): void {
    for (const session of this.#watched.keys()) this.forget(session)
  }
}
