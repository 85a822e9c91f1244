/** append -> durable index: the room's story. */
import type { Server } from 'node:net'
import { owedBy } from './aftermath.ts'
import type { Checkpoint } from './checkpoint.ts'
import { claim } from './claim.ts'
import type { Appended, AuditLog, LogState, Promised, Recovered, Room } from './contract.ts'
import { Dialogue } from './dialogue.ts'
import { makeDirectory } from './disk.ts'
import { closingEvent, openingEvent, type Closing, type Opening } from './epoch.ts'
import { AuditError } from './errors.ts'
import type { Actor, EventCode, EventInput } from './event.ts'
import type { Rendered } from './format/render.ts'
import type { ActiveLine } from './heartbeat.ts'
import { noRoom } from './ledger.ts'
import { formatVkey } from './note.ts'
import { defaults } from './options.ts'
import type { LogLimits, LogOptions } from './options.ts'
import { pruneLive, type PruneAsked } from './prune-live.ts'
import type { Pruned } from './prune-plan.ts'
import { Pulse } from './pulse.ts'
import { LogReader } from './read.ts'
import type { Entry } from './read.ts'
import { spendOf } from './reserve.ts'
import { Scribe } from './scribe.ts'
import type { Opened } from './writer.ts'

/** Events whose head is signed with the batch that holds them: an agent asks for their proof at once. */
const signedAtOnce: ReadonlySet<EventCode> = new Set([
  'notify.session',
  'session.start',
  'session.end',
  'grant.request',
  'grant.approve',
  'grant.activate',
  'grant.extend',
  'grant.revoke',
  'grant.expire',
  'grant.burn',
])

const closeEvent: EventInput = { code: 'log.close', message: 'Log closed', status: 'success' }

class ThreadedLog implements AuditLog {
  readonly directory: string
  readonly origin: string
  readonly vkeys: readonly string[]
  recovered: Recovered = { quarantinedBytes: 0, place: null, size: 0, sessions: [] }

  readonly #limits: Required<LogLimits>
  readonly #scribe: Scribe
  readonly #dialogue: Dialogue
  readonly #pulse = new Pulse((event) => this.append(event))
  readonly #reader: LogReader
  readonly #timers = new Set<NodeJS.Timeout>()
  #claim: Server | null = null
  #pruning = false
  readonly #closing = new AbortController()
  readonly #opening: Opening | undefined
  readonly #active: LogOptions['active']
  readonly #startsOf: LogOptions['startsOf']
  /**
   * While the beginning of a later epoch is written. Everything else waits for it: on a full disk what is paid from the
   * reserve, even the word that it is full, would become the first leaf in its place.
   */
  #begun: Promise<unknown> | null = null
  #ended = false

  constructor(options: LogOptions) {
    this.#limits = { ...defaults, ...options.limits }
    this.directory = options.directory
    this.origin = options.origin
    this.#opening = options.opening
    this.#active = options.active
    this.#startsOf = options.startsOf
    if (options.active !== undefined) this.#pulse.active = options.active
    const keys = [options.signers.ed25519]
    if (options.signers.mlDsa44 !== undefined) keys.push(options.signers.mlDsa44)
    this.vkeys = keys.map((key) => formatVkey(options.origin, key))
    this.#scribe = new Scribe(options)
    this.#reader = new LogReader(options.directory, options.origin)
    this.#dialogue = new Dialogue(options, this.#limits, keys, {
      append: (event) => this.append(event),
      lost: () => this.#release(),
    })
  }

  get size(): number {
    return this.#dialogue.size
  }

  get signed(): Checkpoint {
    return this.#dialogue.signed
  }

  get state(): LogState {
    return this.#dialogue.standing.state
  }

  get room(): Room {
    return this.#dialogue.ledger.room
  }

  /** Waits for recovery, then writes what recovery owes: log.open, log.recovered, the ends of cut-off sessions. */
  async start(claimed: Server | null): Promise<void> {
    this.#claim = claimed
    const opened = await this.#dialogue.whenOpened()
    if (opened.closing !== null)
      throw new AuditError(
        'log.ended',
        `${this.origin} was ended, and goes on as ${opened.closing.successor}: nothing is added to it`,
      )
    this.#pulse.previous = opened.heartbeat
    const cut = this.#cutOff(opened)
    this.recovered = {
      quarantinedBytes: opened.quarantinedBytes,
      place: opened.place,
      size: opened.size,
      sessions: cut.map(([session]) => session),
    }
    if (opened.size === 0 && this.#opening !== undefined) {
      this.#begun = this.#take(openingEvent(this.#opening))
      await this.#begun
      this.#begun = null
    }
    await Promise.all(owedBy(opened, cut).map((event) => this.append(event)))
    await this.checkpoint()
    // Before the disk was looked at there would be room for everybody.
    await this.#dialogue.looked()
    if (this.#active !== undefined) this.#pulse.beat()
    this.#every(this.#limits.heartbeatMs, () => this.#pulse.beat())
    this.#every(this.#limits.watchMs, () => this.#dialogue.look())
  }

  /** Sessions whose ends are owed, with their starts: none beside a gateway that runs, which still has them. */
  #cutOff(opened: Opened): Opened['sessions'] {
    if (this.#active !== undefined) return []
    const begun = opened.size === 0 ? (this.#opening?.carried ?? []) : []
    const all = [...opened.sessions, ...begun.map((session) => [session, '{}'] as const)]
    const carried = all.filter(([, start]) => start === '{}').map(([session]) => session)
    if (carried.length === 0) return all
    const starts = this.#startsOf?.(new Set(carried))
    return all.map(([session, start]) => [session, starts?.get(session) ?? start])
  }

  #every(ms: number, act: () => void): void {
    const timer = setInterval(act, ms)
    timer.unref()
    this.#timers.add(timer)
  }

  append(event: EventInput): Promise<Appended> {
    return this.#begun === null ? this.#take(event) : this.#begun.then(() => this.#take(event))
  }

  #take(event: EventInput): Promise<Appended> {
    return new Promise((resolve, reject) => {
      const spend = spendOf(event)
      const refused = this.#dialogue.refusal(spend)
      if (refused !== null) return reject(refused)
      let rendered: Rendered
      try {
        rendered = this.#scribe.write(event)
      } catch (error) {
        return reject(error as Error)
      }
      const signNow = signedAtOnce.has(event.code)
      this.#dialogue.push({ rendered, signNow, spend, resolve, reject })
    })
  }

  async checkpoint(): Promise<Checkpoint> {
    const refused = this.#dialogue.unable('closeout')
    if (refused !== null) throw refused
    return await this.#dialogue.head()
  }

  admit(bytes: number): Promised {
    const refused = this.#dialogue.unable('closeout')
    if (refused !== null) throw refused
    if (this.state === 'CLOSED_NEW' || this.state === 'DRAIN')
      throw noRoom(bytes, this.room.reservedBytes)
    return this.#dialogue.ledger.admit(bytes, this.#limits.floorBytes)
  }

  async read(fromIdx: number, limit: number): Promise<Entry[]> {
    if (!Number.isSafeInteger(fromIdx) || fromIdx < 0 || !(limit >= 0))
      throw new AuditError('log.range', `no such range: ${fromIdx}, ${limit}`)
    return this.#reader.entries(fromIdx, this.size, limit)
  }

  onState(listener: (state: LogState, why: string) => void): () => void {
    return this.#dialogue.standing.onState(listener)
  }

  onCheckpoint(listener: (checkpoint: Checkpoint) => void): () => void {
    return this.#dialogue.demand.onHead(listener)
  }

  setHeartbeat(active: () => readonly ActiveLine[]): void {
    this.#pulse.active = active
  }

  async prune(asked: PruneAsked): Promise<Pruned> {
    const refused = this.#dialogue.unable('breakglass')
    if (refused !== null) throw refused
    if (this.#pruning) throw new AuditError('prune.busy', 'the log is being pruned already')
    this.#pruning = true
    try {
      const { signal } = this.#closing
      return await pruneLive(this, asked, (step) => this.#dialogue.chore(step), signal)
    } finally {
      this.#pruning = false
    }
  }

  async end(closing: Closing, by?: Actor): Promise<Checkpoint> {
    const refused = this.#dialogue.unable(null)
    if (this.#ended || refused !== null)
      throw refused ?? new AuditError('log.closed', 'the audit log is closed')
    this.#ended = true
    this.#closing.abort()
    // All in one turn: from the last line on nothing more is taken, so nothing comes behind the end.
    const closed = this.append(closeEvent)
    const ended = this.append(closingEvent(closing, by))
    const head = this.#dialogue.head()
    const done = this.#dialogue.close()
    await Promise.allSettled([closed, ended, head, done])
    this.#release()
    await Promise.all([closed, ended])
    return await head
  }

  async close(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    this.#closing.abort()
    // A log that cannot be written is closed all the same.
    await this.append(closeEvent).catch(() => undefined)
    await this.checkpoint().catch(() => undefined)
    await this.#dialogue.close()
    this.#release()
  }

  /** Lets go of everything without writing another byte: what a refused opening ends with. */
  async abandon(): Promise<void> {
    this.#release()
    await this.#dialogue.end()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #release(): void {
    this.#ended = true
    this.#closing.abort()
    for (const timer of this.#timers) clearTimeout(timer)
    this.#claim?.close()
  }
}

/**
 * Opens or creates the log in `options.directory`, recovering what a crash left, and resolves when it can be
 * appended to; its first checkpoint is then signed. Errors: log.locked, log.corrupt, log.rollback, log.origin,
 * log.write, key.invalid. design: audit.md sections 1, 2 and 4.
 */
export async function openLog(options: LogOptions): Promise<AuditLog> {
  makeDirectory(options.directory)
  const claimed = await claim(options.directory)
  let log: ThreadedLog | undefined
  try {
    log = new ThreadedLog(options)
    await log.start(claimed)
    return log
  } catch (error) {
    await log?.abandon()
    claimed?.close()
    throw error
  }
}
