/**
 * How a log stands: its state and who hears of it, whether its disk is full, and since when it cannot be written.
 * docs/audit.md section "States".
 */
import type { LogState } from './contract.ts'
import { AuditError } from './errors.ts'
import type { EventInput } from './event.ts'
import type { LogLimits } from './options.ts'
import type { Spend } from './reserve.ts'
import { stateOf } from './room.ts'
import type { Request } from './serve.ts'
import type { Watched } from './writer.ts'

const reopenLimitMs = 30_000
/** With so much free to everybody the disk no longer counts as full. */
const roomyBytes = 1024 * 1024

type Listener = (state: LogState, why: string) => void

export class Standing {
  state: LogState = 'OK'
  /** Only what the reserve pays for is taken. */
  full = false
  readonly #limits: Required<LogLimits>
  readonly #append: (event: EventInput) => Promise<unknown>
  readonly #listeners = new Set<Listener>()
  #poisonedSince: number | null = null
  #pause = 0

  /** `append` takes the event that each change of state is. */
  constructor(limits: Required<LogLimits>, append: (event: EventInput) => Promise<unknown>) {
    this.#limits = limits
    this.#append = append
  }

  /** A write failed, and the log was not opened anew since. */
  get poisoned(): boolean {
    return this.#poisonedSince !== null
  }

  onState(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  set(state: LogState, why: string): void {
    if (state === this.state) return
    const from = this.state
    this.state = state
    for (const listener of this.#listeners) listener(state, why)
    // Where it cannot be written the node's own log has it.
    void this.#append({
      code: 'log.state',
      message: `Audit log: ${from} to ${state}: ${why}`,
      status: state === 'OK' ? 'success' : 'failure',
      data: { from, to: state },
    }).catch(() => undefined)
  }

  /** Why an event that may be paid from `spend` is not taken; null where it is. */
  refusal(spend: Spend | null): AuditError | null {
    if (this.poisoned)
      return new AuditError('log.poisoned', 'the audit log cannot be written; nothing may be done')
    if (!this.full || spend !== null) return null
    return new AuditError('log.full', 'the disk of the audit log is full; nothing new may be done')
  }

  /** The disk was looked at. */
  looked({ alarm, freeBytes }: Watched): void {
    if (freeBytes >= roomyBytes) this.full = false
    if (this.poisoned || (this.full && this.state === 'DRAIN')) return
    // A file taken away does not come back: only want of space passes by itself.
    if (alarm !== null) return this.set('CLOSED_NEW', alarm)
    this.set(...stateOf(freeBytes, this.#limits, this.state))
  }

  /** There was no room, and `spent`: not even for the end of something. */
  starved(spent: boolean, why: string): void {
    this.full = true
    if (spent || this.state !== 'DRAIN') this.set(spent ? 'DRAIN' : 'CLOSED_NEW', why)
  }

  /** A write or an opening failed. Gives after how many ms it is to be opened anew; null: nothing mends it. */
  failed(error: AuditError, during: Request['kind'] | 'open'): number | null {
    this.#poisonedSince ??= performance.now()
    const hopeless = error.code !== 'log.write' && during === 'reopen'
    const late = performance.now() - this.#poisonedSince > this.#limits.drainMs
    this.set(hopeless || late ? 'DRAIN' : 'CLOSED_NEW', error.message)
    if (hopeless) return null
    this.#pause = Math.min(reopenLimitMs, this.#pause * 2 || this.#limits.reopenMs)
    return this.#pause
  }

  /** It is open. Gives whether it had failed before. */
  opened(): boolean {
    const again = this.poisoned
    this.#poisonedSince = null
    this.#pause = 0
    return again
  }
}
