/** append -> durable index: the room's story. */
import { mkdirSync } from 'node:fs'
import type { Server } from 'node:net'
import { Worker } from 'node:worker_threads'
import { endOf, recoveredEvent } from './aftermath.ts'
import { pack } from './batch.ts'
import type { Checkpoint } from './checkpoint.ts'
import { claim } from './claim.ts'
import type { Appended, AuditLog, LogState, Promised, Recovered, Room } from './contract.ts'
import { AuditError } from './errors.ts'
import type { EventCode, EventInput } from './event.ts'
import { render } from './format/render.ts'
import type { Rendered, Source } from './format/render.ts'
import { activeRoot } from './heartbeat.ts'
import type { ActiveLine } from './heartbeat.ts'
import { formatVkey } from './note.ts'
import { defaults } from './options.ts'
import type { LogLimits, LogOptions } from './options.ts'
import { spendOf, type Spend } from './reserve.ts'
import { cheapest, keptBack, stateOf } from './room.ts'
import { Ledger, noRoom } from './ledger.ts'
import { LogReader } from './read.ts'
import type { Entry } from './read.ts'
import type { Answer, Request, ThreadData } from './serve.ts'
import type { Opened, Watched, Written } from './writer.ts'

const reopenLimitMs = 30_000
/** Below this the disk counts as full. */
const fullBytes = 512 * 1024

/** How long a batch may wait for its next events, how many end the wait, and after how many batches it is tried anew. */
const gatherMs = 12
const gatherEvents = 192
const gatherPause = 256
/** More callers than this that wait for each other's batch are served in two turns. */
const crowdEvents = 128

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
  'grant.burn',
])

interface Waiting {
  readonly rendered: Rendered
  readonly signNow: boolean
  /** From what it may be paid on a full disk. */
  readonly spend: Spend | null
  resolve(appended: Appended): void
  reject(error: AuditError): void
}

interface HeadWaiter {
  /** Resolved by a head of at least this size. */
  readonly size: number
  resolve(checkpoint: Checkpoint): void
  reject(error: AuditError): void
}

class ThreadedLog implements AuditLog {
  readonly directory: string
  readonly origin: string
  readonly vkeys: readonly string[]
  recovered: Recovered = { quarantinedBytes: 0, place: null, size: 0, sessions: [] }
  signed: Checkpoint
  size = 0
  state: LogState = 'OK'

  readonly #options: LogOptions
  readonly #limits: Required<LogLimits>
  readonly #source: Source
  readonly #worker: Worker
  readonly #reader: LogReader
  readonly #stateListeners = new Set<(state: LogState, why: string) => void>()
  readonly #headListeners = new Set<(checkpoint: Checkpoint) => void>()
  readonly #timers = new Set<NodeJS.Timeout>()
  #random: Uint8Array = new Uint8Array(0)
  #queue: Waiting[] = []
  #flying: Waiting[] = []
  #headWaiters: HeadWaiter[] = []
  #claim: Server | null = null
  #busy = true
  #pumping = false
  /** Memory that came back from the writer. */
  #spare: ArrayBuffer | null = null
  #sentAt = 0
  #gathering: { readonly from: number; over: boolean } | null = null
  #gatherAgainIn = 0
  /** Events that waited for the disk, on it or in the queue, when it was last heard of. */
  #crowd = 0
  #signTimer: NodeJS.Timeout | undefined
  #signDue = false
  #watchDue = false
  #closing = false
  #gone = false
  #poisonedSince: number | null = null
  #reopenPause = 0
  #full = false
  readonly #ledger = new Ledger()
  #heartbeat: number | null = null
  #beating = false
  #active: () => readonly ActiveLine[] = () => []
  #onOpened: ((opened: Opened | AuditError) => void) | null = null
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
    this.#source = {
      origin: options.origin,
      node: options.node ?? options.origin.split('/').at(-2) ?? options.origin,
      version: options.version ?? '0',
      tenant: options.tenant,
    }
    this.#reader = new LogReader(options.directory, options.origin)
    const workerData: ThreadData = {
      directory: options.directory,
      origin: options.origin,
      keys,
      segmentBytes: this.#limits.segmentBytes,
      reserve: keptBack(this.#limits),
    }
    const thread = options.thread ?? new URL('./thread.ts', import.meta.url)
    this.#worker = new Worker(thread, { workerData })
    this.#worker.on('message', (answer: Answer) => this.#receive(answer))
    this.#worker.on('error', (error) =>
      this.#lost(error instanceof Error ? error : new Error(String(error))),
    )
    this.#worker.on('exit', () => this.#lost(new Error('the writer thread ended')))
  }

  /** Waits for recovery, then writes what recovery owes: log.open, log.recovered, the ends of cut-off sessions. */
  async start(claimed: Server | null): Promise<void> {
    this.#claim = claimed
    const opened = await this.#whenOpened()
    const ends = opened.sessions.map(([session, start]) => endOf(session, start))
    this.recovered = {
      quarantinedBytes: opened.quarantinedBytes,
      place: opened.place,
      size: opened.size,
      sessions: opened.sessions.map(([session]) => session),
    }
    const owed: Promise<Appended>[] = [
      this.append({
        code: 'log.open',
        message: `Log opened with ${opened.size} events`,
        status: 'success',
        data: {
          size: opened.size,
          ...(opened.signed === null ? {} : { root: opened.signed.root }),
        },
      }),
    ]
    if (opened.quarantinedBytes > 0) owed.push(this.append(recoveredEvent(opened)))
    for (const end of ends) owed.push(this.append(end))
    await Promise.all(owed)
    await this.checkpoint()
    this.#watchDue = true
    this.#pump()
    this.#every(this.#limits.heartbeatMs, () => this.#beat())
    this.#every(this.#limits.watchMs, () => {
      this.#watchDue = true
      this.#pump()
    })
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
      const refused = this.#refusal() ?? this.#unpaid(spend)
      if (refused !== null) return reject(refused)
      let rendered: Rendered
      try {
        const { clock } = this.#options
        rendered = render(event, this.#source, clock.now(), this.#entropy())
      } catch (error) {
        return reject(error as Error)
      }
      const signNow = signedAtOnce.has(event.code)
      this.#queue.push({ rendered, signNow, spend, resolve, reject })
      this.#schedule()
    })
  }

  /** Ten random bytes for a uid; asked for many at a time, because each asking costs a system call. */
  #entropy(): Uint8Array {
    if (this.#random.length < 10) this.#random = this.#options.random(2_560)
    const taken = this.#random.subarray(0, 10)
    this.#random = this.#random.subarray(10)
    return taken
  }

  #refusal(): AuditError | null {
    if (this.#closing || this.#gone) return new AuditError('log.closed', 'the audit log is closed')
    if (this.#poisonedSince !== null)
      return new AuditError('log.poisoned', 'the audit log cannot be written; nothing may be done')
    if (this.#queue.length >= this.#limits.queueEvents)
      return new AuditError('log.overloaded', `${this.#queue.length} events wait for the disk`)
    return null
  }

  /** On a full disk the rest is for what ends access, and for operators. */
  #unpaid(spend: Spend | null): AuditError | null {
    if (!this.#full || spend !== null) return null
    return new AuditError('log.full', 'the disk of the audit log is full; nothing new may be done')
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
    if (this.#busy || this.#gone || this.#poisonedSince !== null) return
    if (this.#queue.length > 0) {
      if (!this.#gathers()) this.#sendBatch()
    } else if (this.#signDue || this.#headWaiters.length > 0) this.#sign()
    else if (this.#watchDue) {
      this.#watchDue = false
      this.#ask({ kind: 'watch', promised: this.room.reservedBytes })
    } else if (this.#onClosed !== null) this.#ask({ kind: 'close' })
  }

  #sendBatch(): void {
    const flying = this.#takeBatch()
    this.#flying = flying
    this.#sentAt = performance.now()
    const batch = pack(
      flying.map(({ rendered }) => rendered),
      this.size,
      this.#spare,
    )
    this.#spare = null
    const signAt = this.#signWithBatch() ? this.#options.clock.now() : null
    this.#busy = true
    const spend = cheapest(flying)
    this.#worker.postMessage({ kind: 'batch', batch, signAt, spend } satisfies Request, [
      batch.bytes.buffer,
    ])
  }

  /**
   * Under steady load a batch waits a moment for its next events, because a sync costs the same for one and for
   * fifty. A lone event never waits, nor does one whose head is wanted at once; and where waiting brings nothing,
   * because those who would write wait for this very batch, it is not tried again for a while.
   */
  #gathers(): boolean {
    const waiting = this.#queue.length
    const begun = this.#gathering
    if (begun !== null) {
      if (!begun.over && waiting < gatherEvents && !this.#hurried()) return true
      if (begun.over && waiting < begun.from * 1.5) this.#gatherAgainIn = gatherPause
      this.#gathering = null
      return false
    }
    if (this.#gatherAgainIn > 0) {
      this.#gatherAgainIn--
      return false
    }
    const steady = performance.now() - this.#sentAt < 2 * gatherMs && waiting > 1
    if (!steady || waiting >= gatherEvents || this.#hurried()) return false
    const gathering = { from: waiting, over: false }
    this.#gathering = gathering
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      gathering.over = true
      this.#pump()
    }, gatherMs)
    this.#timers.add(timer)
    return true
  }

  #hurried(): boolean {
    return (
      this.#signDue ||
      this.#headWaiters.length > 0 ||
      this.#closing ||
      this.#queue.some((waiting) => waiting.signNow)
    )
  }

  /**
   * Half of a crowd at most: where all callers waited for one batch, the disk would rest while they are answered, and
   * they while it writes.
   */
  #takeBatch(): Waiting[] {
    const { batchBytes } = this.#limits
    const half = Math.max(crowdEvents, Math.ceil(this.#crowd / 2))
    const batchEvents = Math.min(this.#limits.batchEvents, half)
    let [count, bytes] = [0, 0]
    for (const { rendered } of this.#queue) {
      if (count > 0 && (count >= batchEvents || bytes + rendered.bytes > batchBytes)) break
      count++
      bytes += rendered.bytes
    }
    if (count < this.#queue.length) return this.#queue.splice(0, count)
    const all = this.#queue
    this.#queue = []
    return all
  }

  #signWithBatch(): boolean {
    const after = this.size + this.#flying.length
    return (
      this.#signDue ||
      after - this.signed.size >= this.#limits.checkpointLeaves ||
      this.#flying.some((waiting) => waiting.signNow) ||
      this.#headWaiters.some((waiter) => waiter.size <= after)
    )
  }

  #sign(): void {
    if (this.signed.size === this.size) this.#headReached(this.signed)
    else this.#ask({ kind: 'sign', signAt: this.#options.clock.now() })
  }

  #ask(request: Request): void {
    this.#busy = true
    this.#worker.postMessage(request)
  }

  readonly #answers: {
    readonly [K in Answer['kind']]: (answer: Extract<Answer, { kind: K }>) => void
  } = {
    opened: ({ opened }) => this.#opened(opened),
    written: ({ written, more, spare }) => {
      this.#spare = spare
      this.#written(written, more)
    },
    signed: ({ checkpoint }) => {
      if (checkpoint !== null) this.signed = checkpoint
      this.#headReached(this.signed)
      this.#armSigning()
      this.#idle()
    },
    watched: ({ watched }) => {
      this.#watched(watched)
      this.#idle()
    },
    closed: () => this.#onClosed?.(),
    failed: ({ during, code, message, place }) => {
      const error = new AuditError(code, message, place === undefined ? {} : { place })
      if (this.#onOpened !== null) this.#onOpened(error)
      else if (code === 'log.full') this.#starved(error)
      else if (during === 'watch') {
        this.#setState('CLOSED_NEW', message)
        this.#idle()
      } else this.#poison(error, during)
    },
  }

  #receive(answer: Answer): void {
    ;(this.#answers[answer.kind] as (answer: Answer) => void)(answer)
  }

  #idle(): void {
    this.#busy = false
    this.#pump()
  }

  #opened(opened: Opened): void {
    this.size = opened.size
    this.#heartbeat = opened.heartbeat
    if (opened.signed !== null) this.signed = opened.signed
    const again = this.#poisonedSince !== null
    this.#poisonedSince = null
    this.#reopenPause = 0
    this.#busy = false
    this.#onOpened?.(opened)
    if (again) {
      void this.append(recoveredEvent(opened)).catch(() => undefined)
      this.#setState('OK', 'the log was opened anew')
    }
    this.#pump()
  }

  #written(written: Written, more: boolean): void {
    const flying = this.#flying
    this.#crowd = flying.length + this.#queue.length
    this.#flying = []
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
    if (this.size === this.signed.size || this.#signTimer !== undefined) return
    this.#signTimer = setTimeout(() => {
      this.#signTimer = undefined
      this.#signDue = true
      this.#pump()
    }, this.#limits.checkpointMs)
    this.#signTimer.unref()
  }

  #headReached(checkpoint: Checkpoint): void {
    this.#signDue = false
    const waiters = this.#headWaiters
    this.#headWaiters = waiters.filter((waiter) => waiter.size > checkpoint.size)
    for (const waiter of waiters) if (waiter.size <= checkpoint.size) waiter.resolve(checkpoint)
    for (const listener of this.#headListeners) listener(checkpoint)
  }

  /** The disk is full and nothing was written: what may not spend the reserve is refused, the rest goes again. */
  #starved(error: AuditError): void {
    this.#full = true
    const waiting = [...this.#flying, ...this.#queue]
    this.#flying = []
    // All of a batch may spend, and there was nothing left to spend: that is the end.
    const spent = cheapest(waiting) !== null
    this.#queue = spent ? [] : waiting.filter(({ spend }) => spend !== null)
    for (const one of waiting) if (spent || one.spend === null) one.reject(error)
    for (const waiter of spent || waiting.length === 0 ? this.#headWaiters.splice(0) : [])
      waiter.reject(error)
    this.#signDue = false
    this.#setState(spent || waiting.length === 0 ? 'DRAIN' : 'CLOSED_NEW', error.message)
    this.#idle()
  }

  /** A failed write or sync: nobody is told yes, and the file is not touched again before it was read anew. */
  #poison(error: AuditError, during: Request['kind'] | 'open'): void {
    const lost = [...this.#flying, ...this.#queue]
    this.#flying = []
    this.#queue = []
    const told = new AuditError(
      'log.write',
      `the audit log could not be written: ${error.message}`,
      {
        cause: error,
      },
    )
    for (const waiting of [...lost, ...this.#headWaiters]) waiting.reject(told)
    this.#headWaiters = []
    this.#poisonedSince ??= performance.now()
    const hopeless = error.code !== 'log.write' && during === 'reopen'
    const late = performance.now() - this.#poisonedSince > this.#limits.drainMs
    this.#setState(hopeless || late ? 'DRAIN' : 'CLOSED_NEW', error.message)
    if (this.#onClosed !== null) return this.#onClosed()
    if (hopeless) return
    this.#reopenPause = Math.min(reopenLimitMs, this.#reopenPause * 2 || this.#limits.reopenMs)
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      if (!this.#gone) this.#ask({ kind: 'reopen', promised: this.room.reservedBytes })
    }, this.#reopenPause)
    this.#timers.add(timer)
  }

  #lost(error: Error): void {
    if (this.#gone) return
    this.#gone = true
    const told = new AuditError('log.write', error.message, { cause: error })
    for (const waiting of [...this.#flying, ...this.#queue, ...this.#headWaiters])
      waiting.reject(told)
    this.#flying = []
    this.#queue = []
    this.#headWaiters = []
    this.#onOpened?.(told)
    this.#onClosed?.()
    this.#release()
    if (!this.#closing) this.#setState('DRAIN', error.message)
  }

  #watched({ alarm, freeBytes, reserve }: Watched): void {
    this.#ledger.look({ freeBytes, reserve })
    if (freeBytes >= 2 * fullBytes) this.#full = false
    if (this.#poisonedSince !== null || (this.#full && this.state === 'DRAIN')) return
    // A file taken away does not come back: only want of space passes by itself.
    if (alarm !== null) return this.#setState('CLOSED_NEW', alarm)
    const [state, why] = stateOf(freeBytes, this.#limits, this.state)
    this.#setState(state, why)
  }

  #setState(state: LogState, why: string): void {
    if (state === this.state) return
    const from = this.state
    this.state = state
    for (const listener of this.#stateListeners) listener(state, why)
    void this.append({
      code: 'log.state',
      message: `Audit log: ${from} to ${state}: ${why}`,
      status: state === 'OK' ? 'success' : 'failure',
      data: { from, to: state },
    }).catch(() => undefined)
  }

  /** One at a time: a heartbeat names the one before, which must have its index by then. */
  #beat(): void {
    if (this.#beating) return
    this.#beating = true
    const active = this.#active()
    const previous = this.#heartbeat
    this.append({
      code: 'log.heartbeat',
      message: `${active.length} active sessions`,
      status: 'success',
      data: {
        active_root: activeRoot(active),
        active: active.length,
        ...(previous === null ? {} : { previous }),
      },
    }).then(
      ({ idx }) => {
        this.#heartbeat = idx
        this.#beating = false
      },
      () => {
        // The state says so already; the gap is the evidence.
        this.#beating = false
      },
    )
  }

  #every(ms: number, act: () => void): void {
    const timer = setInterval(act, ms)
    timer.unref()
    this.#timers.add(timer)
  }

  checkpoint(): Promise<Checkpoint> {
    return new Promise((resolve, reject) => {
      const refused = this.#refusal()
      if (refused !== null && refused.code !== 'log.overloaded') return reject(refused)
      const size = this.size + this.#flying.length + this.#queue.length
      if (this.signed.size >= size && size > 0) return resolve(this.signed)
      this.#headWaiters.push({ size, resolve, reject })
      this.#schedule()
    })
  }

  get room(): Room {
    return this.#ledger.room
  }

  admit(bytes: number): Promised {
    const refused = this.#refusal()
    if (refused !== null && refused.code !== 'log.overloaded') throw refused
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
    this.#stateListeners.add(listener)
    return () => this.#stateListeners.delete(listener)
  }

  onCheckpoint(listener: (checkpoint: Checkpoint) => void): () => void {
    this.#headListeners.add(listener)
    return () => this.#headListeners.delete(listener)
  }

  setHeartbeat(active: () => readonly ActiveLine[]): void {
    this.#active = active
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
      if (this.#poisonedSince !== null) resolve()
      this.#pump()
    })
    this.#gone = true
    this.#release()
    await this.#worker.terminate()
  }

  /** Lets go of everything without writing another byte: what a refused opening ends with. */
  async abandon(): Promise<void> {
    this.#closing = true
    this.#gone = true
    this.#release()
    await this.#worker.terminate()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #release(): void {
    clearTimeout(this.#signTimer)
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
