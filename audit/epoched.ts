/**
 * A node's log as one log over its epochs: it is rotated while it is written. What comes while one epoch ends and the next
 * begins waits for that, and is durable in the next before it is told so. docs/audit.md section "Epochs".
 */
import { setTimeout as after } from 'node:timers/promises'
import type { Appended, AuditLog, LogState, Promised, Recovered, Room } from './contract.ts'
import type { Checkpoint } from './checkpoint.ts'
import { mostCarried, successorOf, type Opening } from './epoch.ts'
import { AuditError } from './errors.ts'
import type { Actor, EventInput } from './event.ts'
import type { ActiveLine } from './heartbeat.ts'
import { Ledger } from './ledger.ts'
import { defaults } from './options.ts'
import { OpenSessions } from './open-sessions.ts'
import { Pause } from './pause.ts'
import type { PruneAsked } from './prune-live.ts'
import type { Pruned } from './prune-plan.ts'
import type { Entry } from './read.ts'
import {
  beginNext,
  openNodeLog,
  vkeysOf,
  type EndedEpoch,
  type NodeLog,
  type NodeLogOptions,
  type Rotation,
} from './succession.ts'

/** The first pause before the log is opened anew, where a rotation failed on the way; doubles. */
const againMs = 250
const againLimitMs = 30_000

type StateListener = (state: LogState, why: string) => void

export interface EpochedOptions extends NodeLogOptions {
  /** How long an event may wait for the next epoch before it is refused. Default 10 s. */
  readonly waitMs?: number
}

export class EpochedLog implements AuditLog {
  /** Whether opening brought a rotation to its end that had been cut short. */
  readonly resumed: boolean
  readonly recovered: Recovered
  readonly #options: EpochedOptions
  readonly #ledger: Ledger
  #epoch: number
  #log: AuditLog
  #ended: readonly EndedEpoch[]
  #active: () => readonly ActiveLine[] = () => []
  readonly #open = new OpenSessions()
  readonly #states = new Set<StateListener>()
  readonly #heads = new Set<(checkpoint: Checkpoint) => void>()
  readonly #epochs = new Set<(ended: EndedEpoch) => void>()
  #unlisten: () => void = () => undefined
  /** Between two epochs; null: the log is written. */
  #pause: Pause | null = null
  /** The state while the log cannot be opened anew; null: it is the log's own. */
  #lost: LogState | null = null
  #prunes = 0
  #rotating: Promise<unknown> = Promise.resolve()
  readonly #closing = new AbortController()

  /** `opened` with the same options, and with `ledger` as its account. */
  constructor(options: EpochedOptions, ledger: Ledger, opened: NodeLog) {
    this.#options = options
    this.#ledger = ledger
    this.#epoch = opened.epoch
    this.#log = opened.log
    this.#ended = opened.ended
    this.resumed = opened.resumed
    this.recovered = opened.log.recovered
    this.#listen()
  }

  get epoch(): number {
    return this.#epoch
  }

  /** The epoch that is written, alone. */
  get newest(): AuditLog {
    return this.#log
  }

  /** Those before it, the newest first. */
  get ended(): readonly EndedEpoch[] {
    return this.#ended
  }

  get directory(): string {
    return this.#log.directory
  }

  get origin(): string {
    return this.#log.origin
  }

  get vkeys(): readonly string[] {
    return this.#log.vkeys
  }

  get size(): number {
    return this.#log.size
  }

  get signed(): Checkpoint {
    return this.#log.signed
  }

  get state(): LogState {
    return this.#lost ?? this.#log.state
  }

  get room(): Room {
    return this.#ledger.room
  }

  append(event: EventInput): Promise<Appended> {
    const done = this.#pause === null ? this.#log.append(event) : this.#pause.append(event)
    this.#open.follow(event, done)
    return done
  }

  async checkpoint(): Promise<Checkpoint> {
    await this.#pause?.over
    return await this.#log.checkpoint()
  }

  async read(fromIdx: number, limit: number): Promise<Entry[]> {
    return await this.#log.read(fromIdx, limit)
  }

  admit(bytes: number): Promised {
    if (this.#pause === null) return this.#log.admit(bytes)
    if (this.#lost !== null)
      throw new AuditError('log.poisoned', 'the audit log cannot be written; nothing may be done')
    return this.#ledger.admit(bytes, this.#options.limits?.floorBytes ?? defaults.floorBytes)
  }

  onState(listener: StateListener): () => void {
    this.#states.add(listener)
    return () => this.#states.delete(listener)
  }

  onCheckpoint(listener: (checkpoint: Checkpoint) => void): () => void {
    this.#heads.add(listener)
    return () => this.#heads.delete(listener)
  }

  /** Called in the turn in which a later epoch takes the place of the one that ended. Returns the function that stops it. */
  onEpoch(listener: (ended: EndedEpoch) => void): () => void {
    this.#epochs.add(listener)
    return () => this.#epochs.delete(listener)
  }

  setHeartbeat(active: () => readonly ActiveLine[]): void {
    this.#active = active
    this.#log.setHeartbeat(active)
  }

  async prune(asked: PruneAsked): Promise<Pruned> {
    if (this.#pause !== null)
      throw new AuditError('prune.busy', 'the log is going over to its next epoch')
    this.#prunes++
    try {
      return await this.#log.prune(asked)
    } finally {
      this.#prunes--
    }
  }

  async end(...args: Parameters<AuditLog['end']>): Promise<Checkpoint> {
    await this.#pause?.over
    return await this.#log.end(...args)
  }

  /** From here on no rotation begins, and one that waits for a disk to be written again is given up. */
  cease(): void {
    this.#closing.abort()
  }

  /** Waits for a rotation that is under way. */
  async close(): Promise<void> {
    this.cease()
    await this.#rotating.catch(() => undefined)
    this.#unlisten()
    await this.#log.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /**
   * Ends the epoch that is written and goes on in the next, under keys made for it, without refusing anything meanwhile. Where it
   * fails before the end is on disk the old epoch is written on; behind that the log is opened as a start opens it, and until
   * then nothing is taken. Errors: rotate.busy, rotate.state, rotate.sessions, rotate.keys (nothing was done), rotate.failed
   * (the old epoch is written on), log.closed.
   */
  rotate(by?: Actor): Promise<Rotation> {
    const refused = this.#refusal()
    if (refused !== null) return Promise.reject(refused)
    const rotation = this.#rotate(by)
    this.#rotating = rotation
    return rotation
  }

  #refusal(): AuditError | null {
    if (this.#closing.signal.aborted) return new AuditError('log.closed', 'the audit log is closed')
    if (this.#pause !== null)
      return new AuditError('rotate.busy', 'the log is being rotated already')
    if (this.#prunes > 0)
      return new AuditError('rotate.busy', 'the log is being pruned: rotate it when that is done')
    if (this.state !== 'OK' && this.state !== 'WARN')
      return new AuditError('rotate.state', `the log is ${this.state}: it goes on as it was`)
    if (this.#open.size > mostCarried)
      return new AuditError(
        'rotate.sessions',
        `${this.#open.size} sessions are open, and the next epoch can go on with ${mostCarried}`,
      )
    return null
  }

  async #rotate(by: Actor | undefined): Promise<Rotation> {
    const { stem, step = () => {} } = this.#options
    const [old, from] = [this.#log, this.#epoch]
    const next = this.#makeKeys(from + 1)
    step('keys')
    // In one turn: what comes from now on waits, and what came before stands before the end.
    const pause = new Pause(
      this.#options.limits?.queueEvents ?? defaults.queueEvents,
      this.#options.waitMs ?? 10_000,
    )
    this.#pause = pause
    const carried = this.#open.ids
    const successor = successorOf(old.origin)
    let opened: NodeLog
    try {
      const head = await old.end({ successor, keys: vkeysOf(`${stem}/${from + 1}`, next) }, by)
      step('ended')
      const opening: Opening = {
        predecessor: old.origin,
        keys: old.vkeys,
        note: head.note,
        carried,
      }
      opened = await beginNext(this.#going(), from, next, opening, this.#ended)
    } catch (cause) {
      // One that refused its end is still there.
      await old.close()
      opened = await this.#reopened(pause, cause)
      if (opened.epoch === from) {
        this.#goOn(pause, opened)
        throw new AuditError('rotate.failed', `the log goes on in ${old.origin}: ${said(cause)}`, {
          cause,
        })
      }
    }
    const [ended] = opened.ended
    if (ended === undefined) throw new AuditError('log.rollback', `${old.origin} is gone`)
    const unfollowed = this.#goOn(pause, opened, ended)
    const { epoch, kept } = opened
    return {
      ended,
      log: this,
      epoch,
      resumed: false,
      ...(kept === undefined ? {} : { kept }),
      ...(unfollowed === undefined ? {} : { unfollowed }),
    }
  }

  #makeKeys(epoch: number): ReturnType<NodeLogOptions['keys']['make']> {
    try {
      return this.#options.keys.make(epoch)
    } catch (cause) {
      throw new AuditError('rotate.keys', `the next keys could not be made: ${said(cause)}`, {
        cause,
      })
    }
  }

  /** The options of a log that is opened beside what goes on. */
  #going(): NodeLogOptions {
    return { ...this.#options, ledger: this.#ledger, active: () => this.#active() }
  }

  /** Opens whichever epoch the files say, as a start does, until it can be. Error: log.closed. */
  async #reopened(pause: Pause, cause: unknown): Promise<NodeLog> {
    const since = performance.now()
    const { drainMs = defaults.drainMs } = this.#options.limits ?? {}
    for (let ms = againMs, why = said(cause); ; ms = Math.min(againLimitMs, ms * 2)) {
      try {
        return await openNodeLog(this.#going())
      } catch (error) {
        why = said(error)
      }
      pause.refuse(new AuditError('log.write', `the audit log cannot be opened anew: ${why}`))
      const late = performance.now() - since > drainMs
      this.#lose(late ? 'DRAIN' : 'CLOSED_NEW', why)
      const { signal } = this.#closing
      // Cut short, it is over: the line below says so.
      await after(ms, undefined, { signal }).catch(() => undefined)
      if (!this.#closing.signal.aborted) continue
      pause.end((event) => this.#log.append(event))
      throw new AuditError(
        'log.closed',
        `the audit log was closed before it could be opened: ${why}`,
      )
    }
  }

  #lose(state: LogState, why: string): void {
    const before = this.state
    this.#lost = state
    if (state !== before) for (const listener of this.#states) listener(state, why)
  }

  /**
   * The log that was opened is written from now on; who knows the log by its name hears of it before anything is taken. Gives
   * what the first of those threw that could not follow.
   */
  #goOn(pause: Pause, { epoch, log, ended: all }: NodeLog, ended?: EndedEpoch): Error | undefined {
    const before = this.state
    this.#lost = null
    this.#pause = null
    this.#epoch = epoch
    this.#log = log
    this.#ended = all
    log.setHeartbeat(this.#active)
    this.#unlisten()
    this.#listen()
    try {
      if (log.state !== before)
        for (const listener of this.#states) listener(log.state, 'the log was opened anew')
      return ended === undefined ? undefined : this.#tell(ended)
    } finally {
      pause.end((event) => log.append(event))
    }
  }

  #tell(ended: EndedEpoch): Error | undefined {
    let failed: Error | undefined
    for (const listener of this.#epochs) {
      try {
        listener(ended)
      } catch (error) {
        failed ??= error instanceof Error ? error : new Error(String(error))
      }
    }
    return failed
  }

  #listen(): void {
    const log = this.#log
    const both = [
      log.onState((state, why) => {
        for (const listener of this.#states) listener(state, why)
      }),
      log.onCheckpoint((checkpoint) => {
        for (const listener of this.#heads) listener(checkpoint)
      }),
    ]
    this.#unlisten = () => {
      for (const stop of both) stop()
    }
  }
}

const said = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Opens the newest epoch of a node's log to be rotated while it is written. Errors: those of `openNodeLog`. */
export async function openEpoched(options: EpochedOptions): Promise<EpochedLog> {
  const ledger = new Ledger()
  const opened = await openNodeLog({ ...options, ledger })
  return new EpochedLog(options, ledger, opened)
}
