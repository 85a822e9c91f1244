/**
 * Updates on a device that runs: an offer is judged by the owner's key, fetched, kept, and started when nobody is
 * connected; the agent that was started so has to reach the gateway in time, or the one before is back. The gateway
 * offers and hears; it decides nothing of that. docs/updates.md "On the device".
 */
import {
  beginTrial,
  confirmTrial,
  failTrial,
  heardOutcome,
  repeatTrial,
  Shelf,
  type BootState,
  type TrialFault,
} from '#boot'
import type { Clock } from '#tunnel'
import { checkUpdate, type Update, type UpdateKey } from '#update'
import type { Gateway } from '../config.ts'
import { messageOf } from '../errors.ts'
import type { JsonRecord } from '../json.ts'
import type { Log } from '../log.ts'
import { VERSION } from '../version.ts'
import { GatewayBusy } from './fetch.ts'
import { Line } from './line.ts'
import type { RefusalCode, UpdateRefusal, UpdateReport } from './report.ts'

/** How this agent was started. */
export interface Started {
  /** The version that is installed, and starts this one. */
  readonly installed: string
  /** SHA-256 of the update that this is; null: it is the installed one. */
  readonly running: string | null
  /** What is installed. */
  readonly kind: 'file' | 'executable'
}

export interface UpdaterOptions {
  readonly dataDir: string
  /** Undefined: nothing could start another agent than this one, so no update is taken. */
  readonly started: Started | undefined
  readonly monotonic: Clock
  readonly random: () => number
  readonly log: Log
  /** Gets the octets of an update from a gateway. Rejects where they are not to be had now. */
  readonly fetch: (update: Update, at: Gateway, signal: AbortSignal) => Promise<Uint8Array>
  /** Epoch milliseconds: the later of what the machine and what a gateway says. */
  readonly now: () => number
  /** Streams being opened or open. */
  readonly serving: () => number
  /** Ends this agent so that the next start is another one. */
  readonly restart: () => void
  /** The Node that runs. */
  readonly node?: string
}

/** An update is started while somebody is connected, after it has waited so long for that to end. */
export const LONGEST_WAIT_MS = 3_600_000
const LOOK_MS = 1000
/** Tries to fetch, and the longest wait before each but the first; the wait is drawn. */
const TRIES = 6
const RETRY_MS = 60_000
/** A gateway that serves others first is asked so long: a plant behind one address takes turns, four at a time. */
export const LONGEST_BUSY_MS = 12 * 3_600_000

/** What is offered and not started yet. */
interface Taking {
  readonly rollout: string
  readonly over: AbortController
}

export class Updater implements Disposable {
  readonly #options: UpdaterOptions
  readonly #shelf: Shelf
  #state: BootState
  /** This is the one on trial. */
  readonly #onTrial: boolean
  #taking: Taking | undefined
  #refused: UpdateRefusal | null = null
  readonly #line = new Line()
  #cancel: () => void = () => {}
  #disposed = false
  /** Another agent is to start, and this one is about to end. */
  #leaving = false

  /** On trial, the time to be healthy runs from here. */
  constructor(options: UpdaterOptions) {
    this.#options = options
    this.#shelf = new Shelf(options.dataDir)
    this.#state = this.#shelf.state(options.started?.installed ?? VERSION)
    const { trial } = this.#state
    const running = options.started?.running ?? null
    this.#onTrial = trial !== null && trial.sha256 === running
    if (trial === null || !this.#onTrial) return
    options.log('info', 'update.trial', { version: trial.version, rollout: trial.rollout })
    if (trial.version !== VERSION) this.#soon(0, 'update.version')
    else this.#soon(trial.health * 1000, 'update.unhealthy')
  }

  #soon(ms: number, fault: TrialFault): void {
    this.#cancel = this.#options.monotonic.after(ms, () => this.#goBack(fault))
  }

  /**
   * There is a tunnel; `tell` says things on it. A gateway that does not hear of updates (undefined) has at least been
   * reached, and nothing more can be asked of an update there. `answers`: it says when it has taken a start down. Gives
   * what is to be called when the tunnel has ended.
   */
  connected(tell: ((report: UpdateReport) => void) | undefined, answers = false): () => void {
    const ended = this.#line.up(tell, answers)
    if (tell === undefined) this.#confirm()
    else this.#report()
    return ended
  }

  /** The gateway at `at` says something of an update. What is of no known form is skipped. */
  told(message: JsonRecord, at: Gateway): void {
    const { act, rollout, manifest } = message
    if (typeof rollout !== 'string' || !/^[\w-]{1,40}$/.test(rollout)) return
    if (act === 'offer' && typeof manifest === 'string') this.#offered(rollout, manifest, at)
    else if (act === 'withdraw') this.#withdrawn(rollout)
    else if (act === 'heard') this.#heard(rollout)
  }

  [Symbol.dispose](): void {
    this.#disposed = true
    this.#line.down()
    this.#cancel()
    this.#taking?.over.abort()
  }

  /** The gateway has taken down that one starts; that this agent, on trial, is there with all it exposes; or what became of it. */
  #heard(rollout: string): void {
    if (this.#taking?.rollout === rollout) this.#line.answered()
    if (this.#onTrial && this.#state.trial?.rollout === rollout) {
      this.#confirm()
      return
    }
    const after = heardOutcome(this.#state, rollout)
    if (after !== this.#state) this.#remember(after)
    if (this.#refused?.rollout === rollout) this.#refused = null
  }

  #confirm(): void {
    const { trial } = this.#state
    if (!this.#onTrial || trial === null) return
    const { version, rollout } = trial
    // What is not written down would be rolled back at the next start.
    if (!this.#remember(confirmTrial(this.#state))) return
    this.#cancel()
    this.#quietly(() => {
      this.#shelf.markTrial(false)
      this.#shelf.sweep(this.#state)
    })
    this.#options.log('info', 'update.confirmed', { version, rollout })
    this.#report()
  }

  #goBack(fault: TrialFault): void {
    if (this.#disposed || this.#state.trial === null) return
    const { version, rollout } = this.#state.trial
    this.#options.log('error', 'update.rolled_back', { version, rollout, fault })
    // Where that cannot be written, so many starts later it is given up all the same.
    this.#remember(failTrial(this.#state, fault))
    this.#leave()
  }

  #leave(): void {
    this.#leaving = true
    this.#options.restart()
  }

  #offered(rollout: string, manifest: string, at: Gateway): void {
    const trial = this.#onTrial ? this.#state.trial : null
    if (this.#leaving || this.#taking?.rollout === rollout || trial?.rollout === rollout) return
    if (this.#taking !== undefined || trial !== null) {
      // One after the other: the gateway hears what is being taken, and may offer again.
      this.#report()
      return
    }
    const { started, now, node = process.versions.node } = this.#options
    if (started === undefined) {
      const detail = 'this agent is no single file under a Node that can replace it'
      this.#refuse({ rollout, code: 'update.unsupported', detail })
      return
    }
    const checked = checkUpdate(manifest, {
      keys: this.#keys(),
      now: Math.floor(now() / 1000),
      running: VERSION,
      floor: this.#state.floor,
      node,
    })
    if (!checked.ok) {
      const { code, detail } = checked
      this.#refuse({ rollout, code, detail })
      return
    }
    const over = new AbortController()
    this.#taking = { rollout, over }
    this.#refused = null
    this.#report()
    void this.#take(checked.update, { rollout, manifest, at, over })
  }

  #withdrawn(rollout: string): void {
    if (this.#taking?.rollout !== rollout) return
    this.#options.log('info', 'update.withdrawn', { rollout })
    this.#taking.over.abort()
    this.#taking = undefined
    this.#report()
  }

  #refuse(refusal: UpdateRefusal): void {
    this.#refused = refusal
    this.#options.log('warn', 'update.refused', { ...refusal })
    this.#report()
  }

  async #take(
    update: Update,
    { rollout, manifest, at, over }: Taking & { readonly manifest: string; readonly at: Gateway },
  ): Promise<void> {
    const { signal } = over
    let code: RefusalCode = 'update.unfetched'
    try {
      const kept = { version: update.version, sha256: update.sha256 }
      if (!this.#shelf.isWhole(kept)) {
        const bundle = await this.#fetch(update, at, signal)
        code = 'update.unkept'
        this.#shelf.keep(update, manifest, bundle)
        this.#shelf.sweep(this.#state, update.sha256)
      }
      if (!(await this.#mayStart(rollout, signal))) return
      this.#start(update, rollout)
    } catch (error) {
      if (signal.aborted) return
      this.#taking = undefined
      this.#refuse({ rollout, code, detail: messageOf(error) })
    }
  }

  /**
   * Remembers that the next start is a trial, and ends this one. Where it was remembered before, and this one started all
   * the same, the disk took nothing at that start: it may again, and is counted.
   */
  #start({ version, sha256, health }: Update, rollout: string): void {
    const { trial } = this.#state
    const again = trial?.rollout === rollout && trial.sha256 === sha256
    const begun = again
      ? repeatTrial(this.#state)
      : beginTrial(this.#state, { version, sha256, health, rollout })
    if (!this.#remember(begun)) {
      this.#taking = undefined
      this.#refuse({ rollout, code: 'update.unkept', detail: 'the state cannot be written' })
      return
    }
    this.#options.log('info', 'update.starting', { version, rollout })
    this.#taking = undefined
    this.#leave()
  }

  async #fetch(update: Update, at: Gateway, signal: AbortSignal): Promise<Uint8Array> {
    const { fetch, log, monotonic, now, random } = this.#options
    const until = monotonic.now() + LONGEST_BUSY_MS
    for (let failed = 0; ;) {
      try {
        return await fetch(update, at, signal)
      } catch (error) {
        const busy = error instanceof GatewayBusy ? error : undefined
        if (busy === undefined) failed++
        const over = monotonic.now() >= until || now() >= update.notAfter * 1000
        if (signal.aborted || failed === TRIES || (busy !== undefined && over)) throw error
        log('warn', 'update.not_fetched', { reason: messageOf(error) })
        await this.#pause((busy?.waitMs ?? 0) + random() * RETRY_MS, signal)
        signal.throwIfAborted()
      }
    }
  }

  /**
   * Whether it may be started now: nobody is connected, or that has lasted too long, and the gateway has heard that it
   * starts, and who waits to see it again waits from there. Without a tunnel it waits: on trial it could reach nobody, and
   * that nobody is connected may be because the line has just gone. A gateway that does not know of starts is told once
   * more that it is taken.
   */
  async #mayStart(rollout: string, signal: AbortSignal): Promise<boolean> {
    const { monotonic, serving } = this.#options
    const until = monotonic.now() + LONGEST_WAIT_MS
    const isQuiet = () => serving() === 0 || monotonic.now() >= until
    const wait = (ms: number, over: AbortSignal) => this.#pause(ms, over)
    while (!signal.aborted) {
      if (isQuiet() && this.#line.isUp) {
        const heard = await this.#line.starts(this.#standing(rollout), wait, signal)
        if (heard && isQuiet()) return true
        // Not heard, or somebody came meanwhile: it goes on waiting, and nobody is to look for it until it says so again.
        if (!signal.aborted) this.#report()
      }
      if (!signal.aborted) await this.#pause(LOOK_MS, signal)
    }
    return false
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const cancel = this.#options.monotonic.after(ms, resolve)
    const over = () => resolve()
    signal.addEventListener('abort', over, { once: true })
    await promise
    signal.removeEventListener('abort', over)
    cancel()
  }

  /** Whether the state is on disk. */
  #remember(state: BootState): boolean {
    const before = this.#state
    this.#state = state
    if (this.#quietly(() => this.#shelf.remember(state))) return true
    this.#state = before
    return false
  }

  #quietly(work: () => void): boolean {
    try {
      work()
      return true
    } catch (error) {
      this.#options.log('error', 'data.unwritable', { reason: messageOf(error) })
      return false
    }
  }

  /** Pinned keys that cannot be read count for nothing, and that is said. */
  #keys(): readonly UpdateKey[] {
    try {
      return this.#shelf.keys()
    } catch (error) {
      this.#options.log('error', 'data.unreadable', { reason: messageOf(error) })
      return []
    }
  }

  #report(): void {
    this.#line.say(this.#standing())
  }

  #standing(starting: string | null = null): UpdateReport {
    const { trial, outcome } = this.#state
    const { started, node = process.versions.node } = this.#options
    return {
      type: 'update',
      version: VERSION,
      kind: started?.kind ?? null,
      node,
      keys: this.#keys().map(({ id }) => id),
      trial: this.#onTrial && trial !== null ? trial.rollout : null,
      taking: this.#taking?.rollout ?? null,
      starting,
      outcome,
      refused: this.#refused,
    }
  }
}
