/**
 * What time it is on a device whose clock may be wrong. Dates are never before the latest instant the
 * device has proof of (its build, what it saved, its own certificate's start), and once a gateway under
 * the pinned root has told the time in a fresh handshake, that time runs on by the monotonic clock.
 * Nothing here decides how long a session lives: leases are monotonic alone (lease.ts).
 */
import { join } from 'node:path'
import type { Clock } from '#tunnel'
import { readIfPresent, writeDurably } from './files.ts'

/** Epoch milliseconds. */
export type Instant = number & { readonly clock: 'utc' }

/** No agent of this version ran before this. */
const BUILT_AT = Date.UTC(2026, 6, 1)
const SAVE_EVERY_MS = 3_600_000
/** A told time further off than this is not believed: year 2200. */
const LATEST = Date.UTC(2200, 0, 1)

export interface DeviceClockOptions {
  readonly monotonic: Clock
  /** The system's clock, epoch milliseconds. */
  readonly system?: () => number
  readonly dataDir?: string
}

export class DeviceClock {
  readonly #monotonic: Clock
  readonly #system: () => number
  readonly #file: string | undefined
  #floor: number
  #floorAt: number
  #told: { readonly instant: number; readonly at: number } | undefined
  #savedAt = -Infinity

  constructor(options: DeviceClockOptions) {
    this.#monotonic = options.monotonic
    this.#system = options.system ?? Date.now
    this.#file = options.dataDir === undefined ? undefined : join(options.dataDir, 'clock')
    const saved = Number(this.#file === undefined ? 0 : (readIfPresent(this.#file) ?? 0))
    this.#floor = Math.max(BUILT_AT, Number.isFinite(saved) && saved < LATEST ? saved : 0)
    this.#floorAt = this.#monotonic.now()
  }

  /** The best answer there is. */
  now(): Instant {
    const monotonic = this.#monotonic.now()
    if (this.#told !== undefined) return (this.#told.instant + monotonic - this.#told.at) as Instant
    return Math.max(this.#system(), this.#floor + monotonic - this.#floorAt) as Instant
  }

  /** Milliseconds by which the system's clock is ahead (positive) or behind, as far as is known. */
  get offMs(): number {
    return Math.round(this.#system() - this.now())
  }

  /** It is not before `instant`: the notBefore of a certificate of our own. */
  notBefore(instant: number): void {
    if (instant <= this.#floor || instant >= LATEST) return
    const at = this.#monotonic.now()
    this.#floor = Math.max(instant, this.#floor + at - this.#floorAt)
    this.#floorAt = at
  }

  /** The system's own answer, right or wrong. */
  system(): number {
    return this.#system()
  }

  /**
   * A gateway under the pinned root said `instant` on a connection just made. `until`: the end of the certificate
   * that it showed there; a gateway that says it is later has a clock that runs ahead, and is not believed.
   */
  told(instant: number, until = LATEST): void {
    if (!Number.isSafeInteger(instant) || instant < BUILT_AT) return
    if (instant >= LATEST || instant > until) return
    const at = this.#monotonic.now()
    this.#told = { instant, at }
    if (this.#file === undefined || at - this.#savedAt < SAVE_EVERY_MS) return
    this.#savedAt = at
    try {
      writeDurably(this.#file, `${instant}\n`)
    } catch {
      // Only a start with a dead battery needs it; being online does not.
    }
  }
}
