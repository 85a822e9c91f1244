/**
 * The device as a witness of the gateway's log: it is shown a head when a tunnel comes up and every ten minutes, and a
 * history that does not go on from the one shown before opens no session here. docs/agent.md "A witness of the log".
 */
import type { Clock, Offer } from '#tunnel'
import type { Told } from './control.ts'
import type { JsonRecord } from './json.ts'
import type { Log } from './log.ts'

/** What keeps heads and judges them; the program that runs the agent gives it. */
export interface LogWitness {
  /** The newest head kept of a log. Throws where it cannot be read. */
  held(origin: string): { readonly size: number; readonly note: string } | null
  /** The newest head kept of an earlier epoch of this log. Throws where it cannot be read. */
  before(origin: string): { readonly origin: string; readonly size: number } | null
  /** Judges and keeps what a gateway shows. Throws where it cannot be kept. */
  see(value: unknown): WitnessVerdict
  /** What to say of a gateway that shows no log; null where it never did. */
  hidden(): WitnessVerdict | null
}

export type WitnessVerdict = { readonly kind: 'first' | 'same' | 'grew' | 'followed' } | Conflict

interface Conflict {
  readonly kind: 'conflict'
  readonly code: string
  readonly message: string
  /** The note that it speaks against, where the witness holds one. */
  readonly held?: string
}

/** What a conflict does: `refuse` opens no new session, `report` tells gateway and log alone. */
export type OnConflict = 'refuse' | 'report'

export interface LogWatchOptions {
  readonly witness: LogWitness
  readonly onConflict: OnConflict
  readonly monotonic: Clock
  readonly log: Log
  /** Told of a conflict, for `agent status`; null when the log is in order again. */
  readonly conflict: (found: { readonly code: string; readonly message: string } | null) => void
}

const AGAIN_MS = 600_000
/** A gateway that offered its log and does not show it in so long shows none. */
const ANSWER_MS = 15_000

/** The watch over one tunnel's log. */
export class LogWatch implements Disposable {
  readonly #options: LogWatchOptions
  #origin: string | undefined
  readonly #tell: (message: Told) => void
  #state: 'waiting' | 'open' | 'closed' = 'waiting'
  #waiting: ((open: boolean) => void)[] = []
  #cancel: () => void = () => {}
  #disposed = false

  /** `origin`: the log that the gateway's welcome named. */
  constructor(options: LogWatchOptions, origin: string | undefined, tell: (message: Told) => void) {
    this.#options = options
    this.#origin = origin
    this.#tell = tell
    if (origin === undefined) this.#nothingShown()
    else this.#ask(origin)
  }

  /** Serves an offer once the log is in order, or refuses it; neither for one that was taken back meanwhile. */
  async admit(offer: Offer, serve: (offer: Offer) => Promise<void>): Promise<void> {
    const open = this.#state === 'open' || (await this.#settled())
    if (offer.cancelled) return
    if (open) return await serve(offer)
    offer.refuse(
      'log.conflict',
      'this device was shown another log of the gateway, or another history of it, before',
    )
  }

  /** Takes what the gateway shows. */
  shown(value: JsonRecord): void {
    if (this.#disposed) return
    this.#cancel()
    this.#judge(() => {
      const verdict = this.#options.witness.see(value)
      // A gateway that runs may be rotated: from now on it is the later epoch that is asked about.
      const { origin } = value
      if (verdict.kind === 'followed' && typeof origin === 'string') this.#origin = origin
      return verdict
    })
    if (this.#origin === undefined) return
    const origin = this.#origin
    this.#cancel = this.#options.monotonic.after(AGAIN_MS, () => this.#ask(origin))
  }

  [Symbol.dispose](): void {
    this.#disposed = true
    this.#cancel()
    this.#settle(false)
  }

  #settled(): Promise<boolean> {
    if (this.#state !== 'waiting') return Promise.resolve(this.#state === 'open')
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #ask(origin: string): void {
    this.#cancel = this.#options.monotonic.after(ANSWER_MS, () => this.#nothingShown())
    try {
      const { witness } = this.#options
      const held = witness.held(origin)
      const before = held === null ? witness.before(origin) : null
      // A gateway that was never rotated is asked as ever.
      if (before === null) this.#tell({ type: 'log', size: held?.size ?? 0 })
      else this.#tell({ type: 'log', size: before.size, held: before.origin })
    } catch (error) {
      this.#unkept(error)
    }
  }

  #nothingShown(): void {
    this.#judge(() => this.#options.witness.hidden() ?? { kind: 'same' })
  }

  #judge(act: () => WitnessVerdict): void {
    const { log, conflict } = this.#options
    let verdict: WitnessVerdict
    try {
      verdict = act()
    } catch (error) {
      this.#unkept(error)
      return
    }
    if (verdict.kind === 'conflict') {
      this.#accuse(verdict)
      return
    }
    if (verdict.kind === 'first') log('info', 'log.first', { origin: this.#origin })
    if (verdict.kind === 'followed') log('info', 'log.followed', { origin: this.#origin })
    conflict(null)
    this.#settle(true)
  }

  /** What cannot be read or kept is no proof of anything, and none that all is well. */
  #unkept(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    const why = `what the log showed cannot be kept: ${message}`
    this.#accuse({ kind: 'conflict', code: 'head.unkept', message: why })
  }

  #accuse({ code, message, held = this.#heldNote() ?? undefined }: Conflict): void {
    const { log, conflict, onConflict } = this.#options
    log('error', 'log.conflict', { code, message, on_conflict: onConflict })
    conflict({ code, message })
    if (held !== undefined) this.#tell({ type: 'log_conflict', note: held })
    this.#settle(onConflict === 'report')
  }

  #heldNote(): string | null {
    try {
      return this.#origin === undefined
        ? null
        : (this.#options.witness.held(this.#origin)?.note ?? null)
    } catch {
      // Already told as a conflict of its own: there is no note to hold against anybody.
      return null
    }
  }

  #settle(open: boolean): void {
    this.#state = open ? 'open' : 'closed'
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve(open)
  }
}
