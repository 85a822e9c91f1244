/**
 * How long the node keeps events itself: what is older goes, once the archive that the configuration names is shown to hold
 * it. One prune at a time, begun by a person or by the day. docs/audit.md section "Pruning".
 */
import { AuditError, type Actor, type AuditLog, type Pruned } from '#audit'
import type { PruneStatus } from '#api'
import { Refusal } from './problem.ts'

export interface ArchiveSettings {
  readonly directory: string
  readonly keep_days?: number
}

export interface PruneWanted {
  /** Epoch milliseconds. */
  readonly before: number
  readonly dry: boolean
  readonly by?: Actor
}

const DAY_MS = 86_400_000
/** A node that comes up has other things to do first. */
const FIRST_MS = 60_000

const seconds = (ms: number): number => Math.floor(ms / 1000)

export class Retention implements AsyncDisposable {
  readonly #log: Pick<AuditLog, 'prune' | 'origin'>
  readonly #archive: ArchiveSettings | undefined
  readonly #now: () => number
  readonly #report: (error: unknown, what: string) => void
  readonly #timers: NodeJS.Timeout[] = []
  #status: PruneStatus = {
    state: 'none',
    dry: false,
    before: null,
    began: null,
    pruned: null,
    why: null,
  }
  #work: Promise<void> = Promise.resolve()

  constructor(
    log: Pick<AuditLog, 'prune' | 'origin'>,
    archive: ArchiveSettings | undefined,
    now: () => number,
    report: (error: unknown, what: string) => void,
  ) {
    this.#log = log
    this.#archive = archive
    this.#now = now
    this.#report = report
    if (archive?.keep_days === undefined) return
    this.#timers.push(
      setTimeout(() => this.day(), FIRST_MS),
      setInterval(() => this.day(), DAY_MS),
    )
    for (const timer of this.#timers) timer.unref()
  }

  get origin(): string {
    return this.#log.origin
  }

  get status(): PruneStatus {
    return this.#status
  }

  /** Begins a prune and does not wait for it. Throws Refusal `prune.unset`, `prune.busy`. */
  begin({ before, dry, by }: PruneWanted): PruneStatus {
    if (this.#archive === undefined)
      throw new Refusal('prune.unset', 'no archive is named, so nothing is let go of', {
        nextStep: 'name the directory of a mirror or a copy under `archive` in the configuration',
      })
    if (this.#status.state === 'running')
      throw new Refusal('prune.busy', 'the log is being pruned already', {
        nextStep: 'wait until it is done: sallyport audit prune --status',
      })
    const began = { dry, before: seconds(before), began: seconds(this.#now()) }
    this.#status = { state: 'running', ...began, pruned: null, why: null }
    const archive = this.#archive.directory
    const asked = { archive, before, dry, ...(by === undefined ? {} : { by }) }
    this.#work = this.#log.prune(asked).then(
      (pruned: Pruned) => {
        this.#status = { state: 'done', ...began, pruned, why: null }
      },
      (error: unknown) => {
        const code = error instanceof AuditError ? error.code : 'node.fault'
        const detail = error instanceof Error ? error.message : String(error)
        this.#status = { state: 'failed', ...began, pruned: null, why: { code, detail } }
        this.#report(error, 'the audit log could not be pruned')
      },
    )
    return this.#status
  }

  /** What the configuration asks for each day; nothing while another prune is under way. */
  day(): void {
    const { keep_days: days } = this.#archive ?? {}
    if (days === undefined || this.#status.state === 'running') return
    this.begin({ before: this.#now() - days * DAY_MS, dry: false })
  }

  /** Resolves when no prune is under way. */
  async idle(): Promise<void> {
    await this.#work
  }

  /** The log ends what is under way when it closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer)
  }
}
