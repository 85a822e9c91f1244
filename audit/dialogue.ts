/**
 * What a log asks its writer's thread, and what it makes of the answers: batches, heads, looks at the disk, and what is to be
 * done when one of them fails. Never two pieces of work at a time.
 */
import type { KeyObject } from 'node:crypto'
import { recoveredEvent } from './aftermath.ts'
import type { Checkpoint } from './checkpoint.ts'
import { HeadDemand } from './demand.ts'
import { AuditError } from './errors.ts'
import type { EventInput } from './event.ts'
import { Ledger } from './ledger.ts'
import type { LogLimits, LogOptions } from './options.ts'
import { Queue, type Waiting } from './queue.ts'
import type { Spend } from './reserve.ts'
import { purseOf } from './room.ts'
import type { Answer, Chore, Request } from './serve.ts'
import { Standing } from './standing.ts'
import { ThreadLink } from './thread-link.ts'
import type { Opened, Written } from './writer.ts'

interface Waiter {
  resolve(): void
  reject(error: AuditError): void
}

/** Whom it is held for. */
interface Told {
  /** Takes what the log itself has to say. */
  append(event: EventInput): Promise<unknown>
  /** The thread is gone, and nothing can be written any more. */
  lost(): void
}

export class Dialogue {
  /** Durable leaves, and the last head over them. */
  size = 0
  signed: Checkpoint
  readonly standing: Standing
  readonly ledger: Ledger
  readonly demand = new HeadDemand(() => this.#pump())
  readonly #options: LogOptions
  readonly #limits: Required<LogLimits>
  readonly #log: Told
  readonly #thread: ThreadLink
  readonly #queue: Queue
  #reopening: NodeJS.Timeout | undefined
  #pumping = false
  #watchDue = false
  #closing = false
  #gone = false
  #onOpened: ((opened: Opened | AuditError) => void) | null = null
  #onLook: (() => void) | null = null
  #onClosed: (() => void) | null = null
  /** A step of a prune: waits for its turn, then for its answer. */
  #chore: (Waiter & { readonly step: Chore }) | null = null

  constructor(
    options: LogOptions,
    limits: Required<LogLimits>,
    keys: readonly KeyObject[],
    log: Told,
  ) {
    this.#options = options
    this.ledger = options.ledger ?? new Ledger()
    this.#limits = limits
    this.#log = log
    this.signed = { origin: options.origin, size: 0, root: '', note: '' }
    this.standing = new Standing(limits, (event) => log.append(event))
    this.#queue = new Queue(limits, () => this.#pump())
    this.#thread = new ThreadLink(options, limits, keys, this.ledger.shared, {
      heard: (answer) => this.#receive(answer),
      lost: (error) => this.#lost(error),
    })
  }

  /** What recovery found. Errors: those of recovery, and log.write. */
  whenOpened(): Promise<Opened> {
    return new Promise((resolve, reject) => {
      this.#onOpened = (opened) => {
        this.#onOpened = null
        if (opened instanceof AuditError) reject(opened)
        else resolve(opened)
      }
    })
  }

  /** Has the disk looked at; resolves when it was, or cannot be. */
  looked(): Promise<void> {
    return new Promise((resolve) => {
      this.#onLook = resolve
      this.look()
    })
  }

  look(): void {
    this.#watchDue = true
    this.#pump()
  }

  /** Why an event that may be paid from `spend` is not taken; null where it is. */
  refusal(spend: Spend | null): AuditError | null {
    return this.unable(spend) ?? this.#crowded()
  }

  /** The same without regard to how many wait. */
  unable(spend: Spend | null): AuditError | null {
    if (this.#closing || this.#gone) return new AuditError('log.closed', 'the audit log is closed')
    return this.standing.refusal(spend)
  }

  #crowded(): AuditError | null {
    if (this.#queue.length < this.#limits.queueEvents) return null
    return new AuditError('log.overloaded', `${this.#queue.length} events wait for the disk`)
  }

  /** Has the writer do one step between two batches, one at a time. Errors: prune.failed, log.write, log.closed. */
  chore(step: Chore): Promise<void> {
    const refused = this.unable('closeout')
    if (refused !== null) return Promise.reject(refused)
    return new Promise((resolve, reject) => {
      this.#chore = { step, resolve, reject }
      this.#pump()
    })
  }

  push(one: Waiting): void {
    this.#queue.push(one)
    this.#schedule()
  }

  /** A head over everything that was taken so far. */
  head(): Promise<Checkpoint> {
    return new Promise((resolve, reject) => {
      const size = this.size + this.#queue.flying.length + this.#queue.length
      if (this.signed.size >= size && size > 0) return resolve(this.signed)
      this.demand.add({ size, resolve, reject })
      this.#schedule()
    })
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
    if (this.#thread.busy || this.#gone || this.standing.poisoned) return
    // First, and once for each time it is due: under load something always waits.
    if (this.#watchDue) {
      this.#watchDue = false
      this.ledger.asked()
      this.#thread.ask({ kind: 'watch' })
    } else if (this.#chore !== null) {
      this.#thread.ask(this.#chore.step)
    } else if (this.#queue.length > 0) {
      if (!this.#queue.gathers(this.demand.pressing || this.#closing)) this.#sendBatch()
    } else if (this.demand.pressing) this.#sign()
    else if (this.#onClosed !== null) this.#thread.ask({ kind: 'close' })
  }

  #sendBatch(): void {
    const flying = this.#queue.take(this.standing.full)
    const signAt = this.#signWithBatch(flying) ? this.#options.clock.now() : null
    this.#thread.send(flying, this.size, signAt)
  }

  #signWithBatch(flying: readonly Waiting[]): boolean {
    const after = this.size + flying.length
    return (
      after - this.signed.size >= this.#limits.checkpointLeaves ||
      flying.some((waiting) => waiting.signNow) ||
      this.demand.wants(after)
    )
  }

  #sign(): void {
    if (this.signed.size === this.size) this.demand.reached(this.signed)
    else this.#thread.ask({ kind: 'sign', signAt: this.#options.clock.now() })
  }

  readonly #answers: {
    readonly [K in Answer['kind']]: (answer: Extract<Answer, { kind: K }>) => void
  } = {
    opened: ({ opened }) => this.#opened(opened),
    written: ({ written, more }) => this.#written(written, more),
    signed: ({ checkpoint }) => {
      if (checkpoint !== null) this.signed = checkpoint
      this.demand.reached(this.signed)
      this.#armSigning()
      this.#idle()
    },
    watched: ({ watched }) => {
      this.ledger.look(watched)
      this.standing.looked(watched)
      this.#onLook?.()
      this.#idle()
    },
    done: () => {
      this.#settle((waiter) => waiter.resolve())
      this.#idle()
    },
    closed: () => this.#onClosed?.(),
    failed: ({ during, code, message, place }) => {
      const error = new AuditError(code, message, place === undefined ? {} : { place })
      if (this.#onOpened !== null) this.#onOpened(error)
      else if (code === 'prune.failed') {
        this.#settle((waiter) => waiter.reject(error))
        this.#idle()
      } else if (code === 'log.full') this.#starved(error)
      else if (during === 'watch') {
        this.standing.set('CLOSED_NEW', message)
        this.#onLook?.()
        this.#idle()
      } else this.#poison(error, during)
    },
  }

  #receive(answer: Answer): void {
    ;(this.#answers[answer.kind] as (answer: Answer) => void)(answer)
  }

  #settle(act: (waiter: Waiter) => void): void {
    const waiter = this.#chore
    this.#chore = null
    if (waiter !== null) act(waiter)
  }

  #idle(): void {
    this.#thread.busy = false
    this.#pump()
  }

  #opened(opened: Opened): void {
    this.size = opened.size
    if (opened.signed !== null) this.signed = opened.signed
    const again = this.standing.opened()
    this.#thread.busy = false
    this.#onOpened?.(opened)
    if (again) {
      void this.#log.append(recoveredEvent(opened)).catch(() => undefined)
      this.standing.set('OK', 'the log was opened anew')
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
      void this.#log
        .append({
          code: 'log.rotate',
          message: `A new segment begins at ${written.first}`,
          status: 'success',
          data: { size: written.first },
        })
        .catch(() => undefined)
    if (more) return
    this.#armSigning()
    this.#idle()
  }

  /** No leaf stays unsigned for longer than checkpointMs. */
  #armSigning(): void {
    if (this.size !== this.signed.size) this.demand.arm(this.#limits.checkpointMs)
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
    if (over) this.demand.reject(error)
    else this.demand.lower(this.size + this.#queue.length)
    this.demand.defer()
    this.standing.starved(over, error.message)
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
    this.demand.reject(told)
    this.#settle((waiter) => waiter.reject(told))
    const pause = this.standing.failed(error, during)
    if (this.#onClosed !== null) return this.#onClosed()
    this.#onLook?.()
    if (pause === null) return
    this.#reopening = setTimeout(() => {
      if (!this.#gone) this.#thread.ask({ kind: 'reopen' })
    }, pause)
  }

  #lost(error: Error): void {
    if (this.#gone) return
    this.#gone = true
    const told = new AuditError('log.write', error.message, { cause: error })
    for (const waiting of this.#queue.empty()) waiting.reject(told)
    this.demand.reject(told)
    this.#settle((waiter) => waiter.reject(told))
    this.#onOpened?.(told)
    this.#onLook?.()
    this.#onClosed?.()
    this.#release()
    this.#log.lost()
    if (!this.#closing) this.standing.set('DRAIN', error.message)
  }

  /** Takes nothing more; resolves when what was taken is written, or cannot be. */
  async close(): Promise<void> {
    this.#closing = true
    await new Promise<void>((resolve) => {
      this.#onClosed = resolve
      if (this.standing.poisoned) resolve()
      this.#pump()
    })
    await this.end()
  }

  /** Ends the thread, whatever it has. */
  async end(): Promise<void> {
    this.#closing = true
    this.#gone = true
    this.#settle((waiter) => waiter.reject(new AuditError('log.closed', 'the audit log is closed')))
    this.#release()
    await this.#thread.end()
  }

  #release(): void {
    this.demand.stop()
    this.#queue.stop()
    clearTimeout(this.#reopening)
  }
}
