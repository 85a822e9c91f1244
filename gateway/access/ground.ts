/**
 * What the answers to web requests of one session stand on, for one second at most and as long as nothing of it changes; and
 * the answers that were given on it.
 */
import type { EventOf } from '#audit'
import type { httpFacts, Obligations } from '#policy'
import type { Source } from '../facts.ts'
import type { Grant } from '../grants/grant.ts'
import { Refusal } from '../problem.ts'
import type { LiveSession } from '../sessions/live.ts'
import { findStanding, findTarget, type SessionRoom, type Target } from '../sessions/room.ts'

/** What policy is asked about a request. Nothing else of it bears on the answer. */
export interface WebQuestion {
  readonly method: string
  /** As in `Host`. */
  readonly host: string
  /** The target without its query. */
  readonly path: string
  readonly source: Source
  /** It can change nothing: GET or HEAD without a body, and no other protocol behind it. */
  readonly reads: boolean
}

export interface WebAnswer {
  /** Of the decision. */
  readonly id: string
  /** Undefined: it may be carried once `recorded` has resolved. */
  readonly refusal: Refusal | undefined
  /** What the refusal is called in the log. */
  readonly code: string | undefined
  /** Resolves when the answer is on disk; rejects as `append` does. */
  readonly recorded: Promise<unknown>
  /** To be called when what has this answer goes on: what was recorded speaks of the first alone. */
  readonly carried: () => void
}

export type Http = NonNullable<ReturnType<typeof httpFacts>>
export type LookedIn = Pick<SessionRoom, 'decisions' | 'devices' | 'grants' | 'now' | 'registry'>

/** What every question about a session stands on beside the request. */
export interface Footing {
  readonly target: Target & { readonly presence: NonNullable<Target['presence']> }
  readonly grant: Grant
}

/** An answer that others may have too. */
export interface Held {
  /** As those have it that come after the first. */
  readonly answer: WebAnswer
  /** What was recorded of it. */
  readonly event: EventOf<'http.request'>
  readonly http: Http
  readonly obligations: Obligations
  /** Who had it since it was recorded. */
  repeats: number
}

/** Questions of one session in one second that are remembered; the others are asked one by one. */
const MOST = 256
/** And none whose name is longer. */
const MOST_NAME = 2048

/** One second of a session, as long as nothing changes in it. */
export class Ground {
  readonly footing: Promise<Footing>
  readonly held = new Map<string, Held>()
  /** Takes back what was planned for the end of its second. */
  forget: () => void = () => undefined
  readonly #session: LiveSession
  readonly #second: number
  readonly #stirred: number
  readonly #bound: number
  readonly #subject: LiveSession['subject']
  readonly #consent: LiveSession['consent']
  readonly #observed: LiveSession['observed']
  readonly #presence: Target['presence']
  readonly #island: boolean
  readonly #answersAnew: () => boolean

  constructor(room: LookedIn, session: LiveSession) {
    this.#session = session
    // All of it before anything is looked up: what changes in between is seen.
    this.#second = Math.floor(room.now() / 1000)
    this.#stirred = session.stirred
    this.#bound = session.bound
    this.#subject = session.subject
    this.#consent = session.consent
    this.#observed = session.observed
    this.#presence = room.registry.find(session.device)
    this.#island = room.registry.isCutOff(session.device)
    this.#answersAnew = room.decisions.answersAnew()
    this.footing = look(room, session)
  }

  /** Whether the same would be answered to the same, but for what was carried since. */
  stands(room: Pick<LookedIn, 'now' | 'registry'>): boolean {
    const second = Math.floor(room.now() / 1000)
    return second === this.#second && this.#session.bound === this.#bound && this.holds(room)
  }

  /** Whether nothing that was looked up may be another by now: time passes, and connections come and go, all the same. */
  holds({ registry }: Pick<LookedIn, 'registry'>): boolean {
    const { device, stirred, subject, consent, observed } = this.#session
    return (
      stirred === this.#stirred &&
      subject === this.#subject &&
      consent === this.#consent &&
      observed === this.#observed &&
      registry.find(device) === this.#presence &&
      registry.isCutOff(device) === this.#island &&
      !this.#answersAnew()
    )
  }

  /** Milliseconds until its second is over. */
  left(now: number): number {
    return Math.max(0, Math.min(1000, (this.#second + 1) * 1000 - now))
  }

  remembers(name: string): boolean {
    return this.held.size < MOST && name.length <= MOST_NAME
  }
}

async function look(room: LookedIn, session: LiveSession): Promise<Footing> {
  // In one turn of the store.
  const [target, grant] = await Promise.all([
    findTarget(room, session.device, session.process),
    findStanding(room, session.grant),
  ])
  if (target === undefined || grant === undefined)
    throw new Refusal('session.ended', 'the process is no longer registered')
  const { presence } = target
  if (presence === undefined)
    throw new Refusal('device.offline', 'the device has no tunnel to this gateway', {
      nextStep: 'wait a moment and load the page again; the device dials in by itself',
    })
  return { target: { ...target, presence }, grant }
}

/** A blank is in none of its parts but the path, which is last. */
export function nameOf({ method, host, path, source: { ip, tls } }: WebQuestion): string {
  return `${ip ?? ''} ${tls?.version ?? ''} ${tls?.cipher ?? ''} ${method} ${host} ${path}`
}
