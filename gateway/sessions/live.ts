/** A session while it lives: its facts, its connections, and what they have carried. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Observed, Obligations } from '#policy'
import type { DecisionRef } from '../decisions.ts'
import type { Listeners } from '../devices/presence.ts'
import type { Source } from '../facts.ts'
import type { Login, Subject } from '../identity/index.ts'
import { step, type SessionEvent, type SessionState } from './state.ts'

/** One connection of a session, as whoever carries it lets it be ended. */
export interface Carrier {
  /** Ends both directions and says why; resolves when no byte can pass any more. */
  cut(code: string, message: string): Promise<void>
}

export interface LiveStream {
  readonly observed: Observed | null
  carrier: Carrier | undefined
}

export interface LiveSessionOptions {
  readonly id: string
  readonly grant: string
  readonly device: string
  readonly process: string
  readonly kind: string
  readonly subject: Subject
  readonly login: Login
  readonly source: Source
  readonly obligations: Obligations
  readonly decision: DecisionRef
  /** 32 random octets that the client proves it holds. */
  readonly secret: Uint8Array
  /** Epoch milliseconds. */
  readonly openedAt: number
  readonly expiresAt: number
}

export class LiveSession {
  readonly id: string
  readonly grant: string
  readonly device: string
  readonly process: string
  readonly kind: string
  readonly login: Login
  readonly source: Source
  readonly secret: Uint8Array
  readonly openedAt: number
  readonly expiresAt: number
  /** The person as of the last decision. */
  subject: Subject
  obligations: Obligations
  startIdx = 0
  readonly decisions: DecisionRef[]
  readonly streams = new Set<LiveStream>()
  /** Clients that want to be told of the end although they carry nothing now. */
  readonly watchers = new Set<Carrier>()
  /** Payload octets: in is from the vendor to the target. */
  bytesIn = 0
  bytesOut = 0
  connections = 0
  denials = 0
  lastActivityAt: number
  lastDecidedAt: number
  /** What the newest connection's agent saw; undefined before the first, null where it saw nothing. */
  observed: Observed | null | undefined = undefined
  /** Settles when its start is durable, or has failed to be. */
  recorded: Promise<void> = Promise.resolve()
  timeToCutMs: number | null = null
  #state: SessionState = 'opening'

  constructor(options: LiveSessionOptions) {
    this.id = options.id
    this.grant = options.grant
    this.device = options.device
    this.process = options.process
    this.kind = options.kind
    this.subject = options.subject
    this.login = options.login
    this.source = options.source
    this.obligations = options.obligations
    this.secret = options.secret
    this.openedAt = options.openedAt
    this.expiresAt = options.expiresAt
    this.lastActivityAt = options.openedAt
    this.lastDecidedAt = options.openedAt
    this.decisions = [options.decision]
  }

  get state(): SessionState {
    return this.#state
  }

  /** False where the event cannot happen in this state; then nothing changed. */
  advance(event: SessionEvent): boolean {
    const next = step(this.#state, event)
    if (next === undefined) return false
    this.#state = next
    return true
  }

  /** Keeps the last decisions only: a session of months must not grow. */
  decided(decision: DecisionRef, now: number): void {
    this.lastDecidedAt = now
    if (this.decisions.push(decision) > 16) this.decisions.splice(1, 1)
  }

  /** What a decision about the session as a whole stands on: what was seen, else what listens. */
  seen(listeners: Listeners | undefined): Observed | null {
    return this.observed === undefined ? (listeners?.get(this.process) ?? null) : this.observed
  }

  /** The next instant at which this session must be asked about: expiry, idleness, re-decision, sign-in. */
  deadline(): number {
    const { idle_timeout_s, reeval_after_s } = this.obligations
    return Math.min(
      this.expiresAt,
      this.lastActivityAt + idle_timeout_s * 1000,
      this.lastDecidedAt + reeval_after_s * 1000,
      this.subject.token_exp * 1000,
    )
  }

  /** What carries the vendor's connection proves it holds the secret, bound to its own TLS connection. */
  provenBy(proof: Uint8Array, expected: Uint8Array): boolean {
    const digest = (octets: Uint8Array) => createHash('sha256').update(octets).digest()
    return timingSafeEqual(digest(proof), digest(expected))
  }
}
