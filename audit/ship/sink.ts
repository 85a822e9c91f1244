/**
 * The life of one sink, whatever carries its events: what is next, what is believed to be safe, who waits for it, how it
 * is, and that it rests between. docs/audit.md section "Shipping to a SIEM".
 */
import { join } from 'node:path'
import type { ShippedLog } from '../contract.ts'
import { LogReader } from '../read.ts'
import { Cursor } from './cursor.ts'

export interface SinkHealth {
  readonly name: string
  readonly state: 'OK' | 'LAGGING' | 'DOWN'
  /** Events handed to the transport since the start, sent-again ones included. Handed over is not delivered. */
  readonly sent: number
  readonly connects: number
  /** Connections that had to begin again at the durable cursor. */
  readonly rewinds: number
  /** Events too long to send whole: a stub with the join fields went instead. */
  readonly stubs: number
  /** Next index to send; and the one a restart would begin at. */
  readonly next: number
  readonly cursor: number
  /** Events of epochs that have ended which a restart would send: without their folders they are lost to this sink. */
  readonly owed: number
  readonly lastError: string | null
}

export interface Shipper extends AsyncDisposable {
  health(): SinkHealth
  /** Durable events not yet handed to the transport. */
  lag(): { readonly events: number }
  /** Resolves true once everything now durable is signed and handed to the transport; false after `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean>
  /** Ends the connection after what is written; what was not sent stays for the next start. */
  close(): Promise<void>
}

/** Between attempts at a receiver that does not take anything, at most. */
export const backoffLimitMs = 30_000
/** A sink this many events behind is LAGGING. */
const laggingEvents = 10_000

export class Sink {
  readonly log: ShippedLog
  readonly name: string
  readonly reader: LogReader
  readonly cursor: Cursor
  /** Next index to send. */
  next: number
  counts = { sent: 0, connects: 0, rewinds: 0, stubs: 0 }
  lastError: string | null = null
  readonly #closing = new AbortController()
  readonly #unlisten: () => void
  #wake: () => void = () => undefined
  #woken = false
  #flushers: { readonly size: number; resolve(): void }[] = []

  /** `cursorFile`: default `ship/<name>.cur` in the log's directory. */
  constructor(log: ShippedLog, name: string, cursorFile?: string) {
    this.log = log
    this.name = name
    this.reader = new LogReader(log.directory, log.origin)
    this.cursor = new Cursor(cursorFile ?? join(log.directory, 'ship', `${name}.cur`), log.size)
    this.next = this.cursor.idx
    this.#unlisten = log.onCheckpoint(() => this.rouse())
  }

  get closing(): boolean {
    return this.#closing.signal.aborted
  }

  /** Aborted when the sink is closed. */
  get signal(): AbortSignal {
    return this.#closing.signal
  }

  /** The log has ended, and the durable cursor is behind its last event. */
  get finished(): boolean {
    return this.log.taken !== undefined && this.cursor.idx >= this.log.size
  }

  /** Says that nothing is left to do, nor ever will be. */
  finish(): void {
    this.next = this.log.size
    this.settleFlushes()
    this.log.taken?.()
  }

  rouse(): void {
    this.#woken = true
    this.#wake()
  }

  /** Resolves when roused, after `ms`, or when closing; `deaf`: new events do not cut it short. */
  async rest(ms = Number.POSITIVE_INFINITY, deaf = false): Promise<void> {
    const until = performance.now() + ms
    while (!this.closing && performance.now() < until) {
      if (this.#woken && !deaf) break
      await new Promise<void>((resolve) => {
        const timer = Number.isFinite(until)
          ? setTimeout(resolve, Math.max(1, until - performance.now()))
          : undefined
        timer?.unref()
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    this.#woken = false
  }

  /** Tells whoever waits for what has been handed over by now. */
  settleFlushes(): void {
    const reached = this.#flushers.filter(({ size }) => size <= this.next)
    this.#flushers = this.#flushers.filter(({ size }) => size > this.next)
    for (const flusher of reached) flusher.resolve()
  }

  health(up: boolean): SinkHealth {
    const late = this.lag().events > laggingEvents
    return {
      name: this.name,
      state: up ? (late ? 'LAGGING' : 'OK') : 'DOWN',
      ...this.counts,
      next: this.next,
      cursor: this.cursor.idx,
      owed: this.log.taken === undefined ? 0 : this.log.size - this.cursor.idx,
      lastError: this.lastError,
    }
  }

  lag(): { readonly events: number } {
    return { events: Math.max(0, this.log.size - this.next) }
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const timer = setTimeout(() => resolve(false), timeoutMs)
    this.log.checkpoint().then(
      ({ size }) => {
        this.#flushers.push({ size, resolve: () => resolve(true) })
        // Who has finished looks no more.
        if (this.finished) this.settleFlushes()
        else this.rouse()
      },
      () => resolve(false),
    )
    const done = await promise
    clearTimeout(timer)
    return done
  }

  /** Says that it closes, waits until `done`, then lets the cursor go. False: it was closing already. */
  async close(done: Promise<void>, hurry: () => void): Promise<boolean> {
    // A descriptor closed twice might by then be somebody else's.
    if (this.closing) {
      await done
      return false
    }
    this.#closing.abort()
    this.#unlisten()
    hurry()
    this.rouse()
    await done
    this.cursor.close()
    return true
  }
}
