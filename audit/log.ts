/** append -> durable index: the room's story. */
import { mkdirSync } from 'node:fs'
import type { Server } from 'node:net'
import { owedBy, recoveredEvent } from './aftermath.ts'
import type { Checkpoint } from './checkpoint.ts'
import { claim } from './claim.ts'
import type { Appended, AuditLog, LogState, Promised, Recovered, Room } from './contract.ts'
import { AuditError } from './errors.ts'
import type { EventCode, EventInput } from './event.ts'
import { HeadDemand } from './demand.ts'
import type { Rendered } from './format/render.ts'
import type { ActiveLine } from './heartbeat.ts'
import { formatVkey } from './note.ts'
import { defaults } from './options.ts'
import type { LogLimits, LogOptions } from './options.ts'
import { spendOf } from './reserve.ts'
import { Pulse } from './pulse.ts'
import { Queue, type Waiting } from './queue.ts'
import { purseOf } from './room.ts'
import { Scribe } from './scribe.ts'
import { Ledger, noRoom } from './ledger.ts'
import { LogReader } from './read.ts'
import type { Entry } from './read.ts'
import type { Answer, Request } from './serve.ts'
import { Standing } from './standing.ts'
import { ThreadLink } from './thread-link.ts'
import type { Opened, Written } from './writer.ts'

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

class ThreadedLog implements AuditLog {
  readonly directory: string
  readonly origin: string
  readonly vkeys: readonly string[]
  recovered: Recovered = { quarantinedBytes: 0, place: null, size: 0, sessions: [] }
  signed: Checkpoint
  size = 0

  readonly #options: LogOptions
  readonly #limits: Required<LogLimits>
  readonly #scribe: Scribe
  readonly #thread: ThreadLink
  readonly #queue: Queue
  readonly #demand = new HeadDemand(() => this.#pump())
  readonly #pulse = new Pulse((event) => this.append(event))
  readonly #reader: LogReader
  readonly #standing: Standing
  readonly #timers = new Set<NodeJS.Timeout>()
  #claim: Server | null = null
  #pumping = false
  #watchDue = false
  #closing = false
  #gone = false
  readonly #ledger = new Ledger()
  #onOpened: ((opened: Opened | AuditError) => void) | null = null
  #onLook: (() => void) | null = null
  #onClosed: (() => void) | null = null

  constructor(options: LogOptions) {
    this.#options = options
    this.#limits = { ...defaults, ...options.limits }
    this.directory = options.directory
    this.origin = options.origin
    const keys = [options.signers.ed25519]
    if (options.signers.mlDsa44 !== undefined) keys.push(options.signers.mlDsa44)
    this.vkeys = keys.map((key) => formatVkey(options.origin, key))
    this.signed = { origin: options.origin, size: 0, root: '', note: '' }
    this.#scribe = new Scribe(options)
    this.#queue = new Queue(this.#limits, () => this.#pump())
    this.#reader = new LogReader(options.directory, options.origin)
    this.#standing = new Standing(this.#limits, (event) => this.append(event))
    this.#thread = new ThreadLink(options, this.#limits, keys, this.#ledger.shared, {
      heard: (answer) => this.#receive(answer),
      lost: (error) => this.#lost(error),
    })
  }

  /** Waits for recovery, then writes what recovery owes: log.open, log.recovered, the ends of cut-off sessions. */
  async start(claimed: Server | null): Promise<void> {
    this.#claim = claimed
    const opened = await this.#whenOpened()
    this.recovered = {
      quarantinedBytes: opened.quarantinedBytes,
      place: opened.place,
      size: opened.size,
      sessions: opened.sessions.map(([session]) => session),
    }
    await Promise.all(owedBy(opened).map((event) => this.append(event)))
    await this.checkpoint()
    // Before the disk was looked at there would be room for everybody.
    await new Promise<void>((resolve) => {
      this.#onLook = resolve
      this.#look()
    })
    this.#every(this.#limits.heartbeatMs, () => this.#pulse.beat())
    this.#every(this.#limits.watchMs, () => this.#look())
  }

  #look(): void {
    this.#watchDue = true
    this.#pump()
  }

  #whenOpened(): Promise<Opened> {
    return new Promise((resolve, reject) => {
      this.#onOpened = (opened) => {
        this.#onOpened = null
        if (opened instanceof AuditError) reject(opened)
        else resolve(opened)
      }
    })
  }

  append(event: EventInput): Promise<Appended> {
    return new Promise((resolve, reject) => {
      const spend = spendOf(event)
      const refused = this.#closed() ?? this.#standing.refusal(spend) ?? this.#crowded()
      if (refused !== null) return reject(refused)
      let rendered: Rendered
      try {
        rendered = this.#scribe.write(event)
      } catch (error) {
        return reject(error as Error)
      }
      const signNow = signedAtOnce.has(event.code)
      this.#queue.push({ rendered, signNow, spend, resolve, reject })
      this.#schedule()
    })
  }

  #closed(): AuditError | null {
    if (!this.#closing && !this.#gone) return null
    return new AuditError('log.closed', 'the audit log is closed')
  }

  #crowded(): AuditError | null {
    if (this.#queue.length < this.#limits.queueEvents) return null
    return new AuditError('log.overloaded', `${this.#queue.length} events wait for the disk`)
  }

  /** Events of one turn of the event loop go into one batch. */
  #schedule(): void {
    if (this.#pumping) return
    this.#pumping = true
    queueMicrotask(() => {
      this.#pumping = false
      this.#pump()
    })
  }

  /** Gives the thread its next piece of work, if it has none: never two batches in flight. */
  #pump(): void {
    if (this.#thread.busy || this.#gone || this.#standing.poisoned) return
    // First, and once for each time it is due: under load something always waits.
    if (this.#watchDue) {
      this.#watchDue = false
      this.#ledger.asked()
      this.#thread.ask({ kind: 'watch' })
    } else if (this.#queue.length > 0) {
      if (!this.#queue.gathers(this.#demand.pressing || this.#closing)) this.#sendBatch()
    } else if (this.#demand.pressing) this.#sign()
    else if (this.#onClosed !== null) this.#thread.ask({ kind: 'close' })
  }

  #sendBatch(): void {
    const flying = this.#queue.take(this.#standing.full)
    const signAt = this.#signWithBatch(flying) ? this.#options.clock.now() : null
    this.#thread.send(flying, this.size, signAt)
  }

  #signWithBatch(flying: readonly Waiting[]): boolean {
    const after = this.size + flying.length
    return (
      after - this.signed.size >= this.#limits.checkpointLeaves ||
      flying.some((waiting) => waiting.signNow) ||
      this.#demand.wants(after)
    )
  }

  #sign(): void {
    if (this.signed.size === this.size) this.#demand.reached(this.signed)
    else this.#thread.ask({ kind: 'sign', signAt: this.#options.clock.now() })
  }

  readonly #answers: {
    readonly [K in Answer['kind']]: (answer: Extract<Answer, { kind: K }>) => void
  } = {
    opened: ({ opened }) => this.#opened(opened),
    written: ({ written, more }) => this.#written(written, more),
    signed: ({ checkpoint }) => {
      if (checkpoint !== null) this.signed = checkpoint
      this.#demand.reached(this.signed)
      this.#armSigning()
      this.#idle()
    },
    watched: ({ watched }) => {
      this.#ledger.look(watched)
      this.#standing.looked(watched)
      this.#onLook?.()
      this.#idle()
    },
    closed: () => this.#onClosed?.(),
    failed: ({ during, code, message, place }) => {
      const error = new AuditError(code, message, place === undefined ? {} : { place })
      if (this.#onOpened !== null) this.#onOpened(error)
      else if (code === 'log.full') this.#starved(error)
      else if (during === 'watch') {
        this.#standing.set('CLOSED_NEW', message)
        this.#onLook?.()
        this.#idle()
      } else this.#poison(error, during)
    },
  }

  #receive(answer: Answer): void {
    ;(this.#answers[answer.kind] as (answer: Answer) => void)(answer)
  }

  #idle(): void {
    this.#thread.busy = false
    this.#pump()
  }

  #opened(opened: Opened): void {
    this.size = opened.size
    this.#pulse.previous = opened.heartbeat
    if (opened.signed !== null) this.signed = opened.signed
    const again = this.#standing.opened()
    this.#thread.busy = false
    this.#onOpened?.(opened)
    if (again) {
      void this.append(recoveredEvent(opened)).catch(() => undefined)
      this.#standing.set('OK', 'the log was opened anew')
    }
    this.#pump()
  }

  #written(written: Written, more: boolean): void {
    const flying = this.#queue.landed()
    this.size = written.first + flying.length
    const hex = Buffer.from(written.leaves).toString('hex')
    for (const [i, waiting] of flying.entries())
      waiting.resolve({
        idx: written.first + i,
        uid: waiting.rendered.uid,
        leaf: hex.slice(i * 64, i * 64 + 64),
      })
    if (written.rotated && !this.#closing)
      void this.append({
        code: 'log.rotate',
        message: `A new segment begins at ${written.first}`,
        status: 'success',
        data: { size: written.first },
      }).catch(() => undefined)
    if (more) return
    this.#armSigning()
    this.#idle()
  }

  /** No leaf stays unsigned for longer than checkpointMs. */
  #armSigning(): void {
    if (this.size !== this.signed.size) this.#demand.arm(this.#limits.checkpointMs)
  }

  /**
   * The disk is full and nothing was written: what may spend no more than what could not be paid is refused, the rest
   * goes again, what one file pays for apart from what the other does. Where an end, or a head, could not be paid,
   * nothing is left.
   */
  #starved(error: AuditError): void {
    const { flying } = this.#queue
    const unpaid = flying.length === 0 ? 'closeout' : purseOf(flying)
    const over = unpaid === 'closeout'
    const refused = this.#queue.again(
      ({ spend }) =>
        !over && (spend === 'closeout' || (spend === 'breakglass' && unpaid !== 'breakglass')),
    )
    for (const one of refused) one.reject(error)
    if (over) this.#demand.reject(error)
    else this.#demand.lower(this.size + this.#queue.length)
    this.#demand.defer()
    this.#standing.starved(over, error.message)
    this.#idle()
  }

  /** A failed write or sync: nobody is told yes, and the file is not touched again before it was read anew. */
  #poison(error: AuditError, during: Request['kind'] | 'open'): void {
    const lost = this.#queue.empty()
    const told = new AuditError(
      'log.write',
      `the audit log could not be written: ${error.message}`,
      {
        cause: error,
      },
    )
    for (const waiting of lost) waiting.reject(told)
    this.#demand.reject(told)
    const pause = this.#standing.failed(error, during)
    if (this.#onClosed !== null) return this.#onClosed()
    this.#onLook?.()
    if (pause === null) return
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (!this.#gone) this.#thread.ask({ kind: 'reopen' })
    }, pause)
    this.#timers.add(timer)
  }

  #lost(error: Error): void {
    if (this.#gone) return
    this.#gone = true
    const told = new AuditError('log.write', error.message, { cause: error })
    for (const waiting of this.#queue.empty()) waiting.reject(told)
    this.#demand.reject(told)
    this.#onOpened?.(told)
    this.#onLook?.()
    this.#onClosed?.()
    this.#release()
    if (!this.#closing) this.#standing.set('DRAIN', error.message)
  }

  #every(ms: number, act: () => void): void {
    const timer = setInterval(act, ms)
    timer.unref()
    this.#timers.add(timer)
  }

  checkpoint(): Promise<Checkpoint> {
    return new Promise((resolve, reject) => {
      const refused = this.#unable()
      if (refused !== null) return reject(refused)
      const size = this.size + this.#queue.flying.length + this.#queue.length
      if (this.signed.size >= size && size > 0) return resolve(this.signed)
      this.#demand.add({ size, resolve, reject })
      this.#schedule()
    })
  }

  get state(): LogState {
    return this.#standing.state
  }

  get room(): Room {
    return this.#ledger.room
  }

  /** Why nothing at all can be written; null where something can. */
  #unable(): AuditError | null {
    return this.#closed() ?? this.#standing.refusal('closeout')
  }

  admit(bytes: number): Promised {
    const refused = this.#unable()
    if (refused !== null) throw refused
    if (this.state === 'CLOSED_NEW' || this.state === 'DRAIN')
      throw noRoom(bytes, this.room.reservedBytes)
    return this.#ledger.admit(bytes, this.#limits.floorBytes)
  }

  async read(fromIdx: number, limit: number): Promise<Entry[]> {
    if (!Number.isSafeInteger(fromIdx) || fromIdx < 0 || !(limit >= 0))
      throw new AuditError('log.range', `no such range: ${fromIdx}, ${limit}`)
    return this.#reader.entries(fromIdx, this.size, limit)
  }

  onState(listener: (state: LogState, why: string) => void): () => void {
    return this.#standing.onState(listener)
  }

  onCheckpoint(listener: (checkpoint: Checkpoint) => void): () => void {
    return this.#demand.onHead(listener)
  }

  setHeartbeat(active: () => readonly ActiveLine[]): void {
    this.#pulse.active = active
  }

  async close(): Promise<void> {
    if (this.#closing || this.#gone) return
    await this.append({ code: 'log.close', message: 'Log closed', status: 'success' }).catch(
      () => undefined,
    )
    await this.checkpoint().catch(() => undefined)
    this.#closing = true
    await new Promise<void>((resolve) => {
      this.#onClosed = resolve
      if (this.#standing.poisoned) resolve()
      this.#pump()
    })
    this.#gone = true
    this.#release()
    await this.#thread.end()
  }

  /** Lets go of everything without writing another byte: what a refused opening ends with. */
  async abandon(): Promise<void> {
    this.#closing = true
    this.#gone = true
    this.#release()
    await this.#thread.end()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #release(): void {
    this.#demand.stop()
    this.#queue.stop()
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
  mkdirSync(options.directory, { recursive: true, mode: 0o700 })
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
