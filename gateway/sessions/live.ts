/** A session while it lives: its facts, its connections, and what they have carried. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Assertion, Statement } from '#approval'
import type { Rules } from '#ot'
import type { Observed, Obligations } from '#policy'
import type { DecisionRef } from '../decisions.ts'
import type { Listeners, Presence } from '../devices/presence.ts'
import type { Source } from '../facts.ts'
import type { Login, Subject } from '../identity/index.ts'
import type { SessionRecording } from '../recordings/recordings.ts'
import { NOT_ELEVATED, type Elevation } from '../grants/elevation.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import type { Share } from './allotment.ts'
import { Bounds } from './bounds.ts'
import type { Consent } from './consent.ts'
import { Flow } from './flow.ts'
import { Hold } from './hold.ts'
import { Allowance, Pace } from './pace.ts'
import type { Target } from './room.ts'
import { step, type SessionEvent, type SessionState } from './state.ts'

/** So many writes a session makes a second, and at once: each is an event on disk and a decision before it goes. */
const WRITES_PER_S = 50
const WRITES_AT_ONCE = 100

/** What the person's client is told of an end. */
export interface Goodbye {
  /** A code of policy's or ours, and a sentence. */
  readonly code: string
  readonly message: string
  /** What the person can do about it. */
  readonly next?: string | undefined
  /** What was decided, for `policy why`. */
  readonly decision?: Pick<DecisionRef, 'id'> | undefined
}

/** One connection of a session, as whoever carries it lets it be ended. */
export interface Carrier {
  /** Ends both directions and says why; resolves when no byte can pass any more. The session is over with it, or goes on. */
  cut(why: Goodbye, session: 'over' | 'goes on'): Promise<void>
  /** Tells the client something in between; absent where the client is a browser. */
  tell?(message: Uint8Array): void
}

export interface LiveStream {
  /** Where the connection comes from that this stream carries. */
  readonly source: Source
  /** Who accepted it; undefined until the agent has said so, null where it saw nobody. */
  observed: Observed | null | undefined
  carrier: Carrier | undefined
  /** Tells the device how long it lasts from now on; undefined until bytes may flow. */
  lease: ((told: Uint8Array) => void) | undefined
  /** The end that its device was told last; epoch milliseconds. */
  toldEnd: number
  /** What a Modbus connection is held to on both ends, as it was opened; undefined for all others. */
  gate: Rules | undefined
  /** Set once it may do more than its session may now: it ends, and carries nothing from then on. */
  narrowed: Narrowed | undefined
}

export interface Narrowed extends Goodbye {
  readonly code: 'grant.narrowed'
}

/** What the last decision about a session stood on, for those about single operations. */
export interface Footing {
  readonly target: Target
  readonly grants: readonly Grant[]
}

export interface Supervisor {
  readonly email: string | null
  /** Epoch milliseconds. */
  readonly since: number
}

/** What one decision about an open session stands on. */
export interface Sight {
  readonly source: Source
  readonly observed: Observed | null
}

/** What was decided of one of them. */
interface Sighted {
  readonly sight: Sight
  readonly obligations: Obligations
}

function isSeen({ source, observed }: LiveStream, sight: Sight): boolean {
  if (observed === undefined) return false
  if (source === sight.source && observed === sight.observed) return true
  return sightName(source, observed) === sightName(sight.source, sight.observed)
}

/** Two that are the same are decided on once. */
export function sightName(source: Source, observed: Observed | null | undefined): string {
  return JSON.stringify([source, observed])
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
  /** The tunnel of the device as it was when the session was decided. */
  readonly presence: Presence
  /** Epoch milliseconds. */
  readonly openedAt: number
  readonly expiresAt: number
  /** SHA-256 of the extension of its grant that was in force when it was opened; null or absent: none. */
  readonly extension?: string | null
  /** What the approvers signed, for a device that asks for it; null: nobody signed. */
  readonly signed?: SignedOpening | null
  readonly elevation?: Elevation
  /** Who at the device said yes to it before it was opened; null or absent: nobody was asked. */
  readonly consent?: Consent | null
}

/** The grant as a device in two-key mode checks it. */
export interface SignedOpening {
  readonly statement: Statement
  readonly assertions: readonly Assertion[]
}

/** When each of the grants that were used was used first. */
function usedAmong(grants: readonly Grant[]): ReadonlyMap<string, number> {
  return new Map(
    grants.flatMap(({ statement, first_used_at: used }) =>
      used === null ? [] : [[statement.id, used] as const],
    ),
  )
}

/** A first use is never taken back: a grant that was read as unused was read before it. */
function stillUsed(grant: Grant, used: ReadonlyMap<string, number>): Grant {
  const at = used.get(grant.statement.id)
  if (grant.first_used_at !== null || at === undefined) return grant
  const state = grant.state === 'approved' ? 'active' : grant.state
  return { ...grant, state, first_used_at: at }
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
  signed: SignedOpening | null
  /** The end that whoever carries it was told last; epoch milliseconds. */
  toldEnd: number
  /** The grants to write that the last decision counted in. */
  elevation: Elevation
  /** Who at the device said yes to it: before it was opened, or to its first connection. */
  consent: Consent | null
  footing: Footing | undefined
  /** Has whoever keeps its deadlines look at them again. */
  rearm: () => void = () => undefined
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
  /** Failed connections since the last event about them, and when that was. */
  refusals = 0
  refusedAt = 0
  lastActivityAt: number
  lastDecidedAt: number
  /** How often all that it stands on was decided again. */
  round = 0
  /** Another number where something that decisions about it stand on may have changed: what was looked up is looked up again. */
  stirred = 0
  /** Another number where a connection has come or gone that bound it: its own obligations, and nothing that is looked up. */
  bound = 0
  /** What the newest connection's agent saw; undefined before the first, null where it saw nothing. */
  observed: Observed | null | undefined = undefined
  /** What the agent says owns a connection now, until that has been decided. */
  changed: Observed | null | undefined = undefined
  /** The last tunnel of the device that a decision stood on. */
  presence: Presence
  /** The rate of the whole session, whatever carries it. */
  readonly pace: { readonly in: Pace; readonly out: Pace }
  /** Its writes to a controller, whatever carries them. */
  readonly writes = new Allowance(WRITES_PER_S, WRITES_AT_ONCE, performance.now())
  /** Room on the disk for what it will write, given back when its end is there. */
  room: { release(): void } = { release: () => undefined }
  /** Settles when its start is durable, or has failed to be. */
  recorded: Promise<void> = Promise.resolve()
  timeToCutMs: number | null = null
  /** Of what its grant may carry in all; undefined where that states no limit. */
  share: Share | undefined
  /** What passes is recorded; undefined where policy asked for nothing when it was opened. */
  recording: SessionRecording | undefined
  /** A notice of it stands in the log: what policy asks for by `notify`. */
  noticed = false
  readonly flow: Flow
  /** While it is held nothing passes. */
  readonly hold = new Hold()
  /** Who of the plant watches and answers for it now. */
  readonly supervisors = new Map<string, Supervisor>()
  /** Modbus requests of all its connections, as they were judged. */
  readonly verdicts = { passed: 0, refused: 0, writes: 0 }
  #state: SessionState = 'opening'
  #expiresAt: number
  #extension: string | null
  readonly #bounds: Bounds

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
    this.#bounds = new Bounds(options.obligations)
    this.hold.set('supervisor', this.obligations.supervise === true)
    this.secret = options.secret
    this.openedAt = options.openedAt
    this.#expiresAt = options.expiresAt
    this.#extension = options.extension ?? null
    this.signed = options.signed ?? null
    this.elevation = options.elevation ?? NOT_ELEVATED
    this.consent = options.consent ?? null
    this.presence = options.presence
    const { max_bandwidth_bps: rate } = options.obligations
    const now = performance.now()
    this.pace = { in: new Pace(rate, now), out: new Pace(rate, now) }
    this.lastActivityAt = options.openedAt
    this.lastDecidedAt = options.openedAt
    this.flow = new Flow(options.openedAt)
    this.toldEnd = this.end()
    this.decisions = [options.decision]
  }

  /** When its grant, with the extension below, ends it. Epoch milliseconds. */
  get expiresAt(): number {
    return this.#expiresAt
  }

  /** SHA-256 of the extension that its end comes from; null: from the grant itself. */
  get extension(): string | null {
    return this.#extension
  }

  /** Its grant lasts longer, or again no longer than by itself. */
  lasts(expiresAt: number, extension: string | null): void {
    this.#expiresAt = expiresAt
    this.#extension = extension
    this.rearm()
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

  /** What decisions about all that it stands on let it go on under, in place of what was decided before. */
  rebind(decided: readonly Sighted[]): void {
    this.round++
    const whole = new Set(decided)
    for (const stream of this.streams) {
      const one = decided.find(({ sight }) => isSeen(stream, sight))
      if (one === undefined) continue
      this.#bounds.add(stream, one.obligations)
      whole.delete(one)
    }
    this.#bounds.renew([...whole].map(({ obligations }) => obligations))
    this.stirred++
    this.bind(this.#bounds.together() ?? this.obligations)
  }

  /**
   * What a decision about one more connection adds: the session stands under the strictest of both until all of it is
   * decided again, which is not put off, or the connection goes. What the connection may read and write is its own
   * gate's alone: one that reads takes nothing from the next, which may write, nor does that take anything from it.
   */
  bindAlso(stream: LiveStream, obligations: Obligations): void {
    const { ot_level, ot_windows } = this.obligations
    this.#bounds.add(stream, { ...obligations, ot_level, ot_windows })
    this.bound++
    this.bind(this.#bounds.together() ?? this.obligations)
    this.rearm()
  }

  /**
   * A connection is over, and with it what only that was bound to. Where nothing else was decided since, the session
   * stands as it stood until it is asked about, which is at the connection's end at the latest.
   */
  leave(stream: LiveStream): void {
    this.streams.delete(stream)
    if (!this.#bounds.drop(stream) || this.#state !== 'open') return
    this.bound++
    this.bind(this.#bounds.together() ?? this.obligations)
    this.rearm()
  }

  /** What it goes on under; a rate that is another one holds from the next byte on. */
  bind(obligations: Obligations): void {
    const { max_bandwidth_bps: rate } = obligations
    if (rate !== this.obligations.max_bandwidth_bps) {
      const now = performance.now()
      for (const pace of [this.pace.in, this.pace.out]) pace.keep(rate, now)
    }
    this.obligations = obligations
    this.#wantSupervisor()
  }

  supervised(identity: string, supervisor: Supervisor): void {
    const { since } = this.supervisors.get(identity) ?? supervisor
    this.supervisors.set(identity, { ...supervisor, since })
    this.#wantSupervisor()
  }

  unsupervised(identity: string): void {
    this.supervisors.delete(identity)
    this.#wantSupervisor()
  }

  #wantSupervisor(): void {
    this.hold.set('supervisor', this.obligations.supervise && this.supervisors.size === 0)
  }

  /**
   * What the last decision that let it go on stood on. It may have been looked up before a connection was the first use
   * of one of its grants: what was used stays used, and its time runs.
   */
  stands(elevation: Elevation, footing: Footing): void {
    this.stirred++
    const before = this.elevation.changesAt
    const used = usedAmong([...this.elevation.grants, ...(this.footing?.grants ?? [])])
    const grants = elevation.grants.map((grant) => stillUsed(grant, used))
    const changesAt = Math.min(elevation.changesAt, ...grants.map(expiresAt))
    this.elevation = { grants, changesAt }
    this.footing = { ...footing, grants: footing.grants.map((grant) => stillUsed(grant, used)) }
    if (changesAt !== before) this.rearm()
  }

  /** A decision about all that it stands on: from then on it counts until it is due again. */
  decided(decision: DecisionRef, now: number): void {
    this.lastDecidedAt = now
    this.note(decision)
  }

  /** Keeps the last decisions only: a session of months must not grow. */
  note(decision: DecisionRef): void {
    if (this.decisions.push(decision) > 16) this.decisions.splice(1, 1)
  }

  /** What a decision about the session as a whole stands on: what was seen, else what listens. */
  seen(listeners: Listeners | undefined): Observed | null {
    return this.observed === undefined ? (listeners?.get(this.process) ?? null) : this.observed
  }

  /** Every distinct thing that must be allowed for the session to go on: each connection, from where and to whom. */
  sights(listeners: Listeners | undefined): readonly Sight[] {
    const all: Sight[] = []
    for (const { source, observed } of this.streams)
      if (observed !== undefined) all.push({ source, observed })
    if (this.changed !== undefined) all.push({ source: this.source, observed: this.changed })
    if (all.length === 0) all.push({ source: this.source, observed: this.seen(listeners) })
    return [...new Map(all.map((one) => [sightName(one.source, one.observed), one])).values()]
  }

  /** When it ends whatever happens: its own end, or an earlier one that a later decision set. Epoch milliseconds. */
  end(): number {
    return Math.min(this.expiresAt, this.obligations.not_after * 1000)
  }

  /** Whether its time is over. An end that only a connection had which has gone is none: there policy is asked. */
  isOver(now: number): boolean {
    return now >= (this.#bounds.stands ? this.end() : this.expiresAt)
  }

  /** The next instant at which this session must be asked about: expiry, idleness, re-decision, sign-in. */
  deadline(): number {
    const { idle_timeout_s, reeval_after_s } = this.obligations
    return Math.min(
      this.end(),
      this.presence.peer.notAfter,
      this.lastActivityAt + idle_timeout_s * 1000,
      this.lastDecidedAt + reeval_after_s * 1000,
      this.subject.token_exp * 1000,
      this.elevation.changesAt * 1000,
    )
  }

  /** What carries the vendor's connection proves it holds the secret, bound to its own TLS connection. */
  provenBy(proof: Uint8Array, expected: Uint8Array): boolean {
    const digest = (octets: Uint8Array) => createHash('sha256').update(octets).digest()
    return timingSafeEqual(digest(proof), digest(expected))
  }
}
