/**
 * New keys for the log of a node that runs: one rotation at a time, begun by a person and never by the node. docs/audit.md
 * section "Epochs".
 */
import { AuditError, type Actor, type EpochedLog } from '#audit'
import type { RotationStatus } from '#api'
import { writeVkeys } from './epochs.ts'
import { Refusal } from './problem.ts'

export interface RotationParts {
  readonly log: Pick<EpochedLog, 'rotate' | 'cease' | 'origin' | 'vkeys' | 'ended'>
  /** The data directory, where the verifier keys lie. */
  readonly data: string
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
  /** Writes the anti-rollback mark into the epoch that was begun. */
  readonly policy: { remember(): Promise<void> }
}

const none = { state: 'none', began: null, ended: null, origin: null, why: null } as const

export class Rotation implements AsyncDisposable {
  readonly #parts: RotationParts
  #status: RotationStatus = none
  #work: Promise<void> = Promise.resolve()

  constructor(parts: RotationParts) {
    this.#parts = parts
  }

  get origin(): string {
    return this.#parts.log.origin
  }

  get status(): RotationStatus {
    return this.#status
  }

  /** Begins a rotation and does not wait for it. Throws Refusal `rotate.busy`. */
  begin(by: Actor): RotationStatus {
    if (this.#status.state === 'running')
      throw new Refusal('rotate.busy', 'the log is being rotated already', {
        nextStep: 'wait until it is done: sallyport audit rotate --status',
      })
    this.#status = { ...none, state: 'running', began: Math.floor(this.#parts.now() / 1000) }
    this.#work = this.#rotate(by)
    return this.#status
  }

  async #rotate(by: Actor): Promise<void> {
    const { log, data, policy } = this.#parts
    try {
      const { ended, kept, unfollowed } = await log.rotate(by)
      const { origin, last } = ended
      const { note, size: events, root } = last
      // What comes behind may fail, and the last head is said all the same.
      this.#status = { ...this.#status, ended: { origin, events, root, note }, origin: log.origin }
      writeVkeys(data, { log, ended: log.ended })
      await policy.remember()
      const left = kept ?? unfollowed
      if (left !== undefined) throw left
      this.#status = { ...this.#status, state: 'done' }
    } catch (error) {
      const code = error instanceof AuditError ? error.code : 'rotate.unfinished'
      const detail = error instanceof Error ? error.message : String(error)
      this.#status = { ...this.#status, state: 'failed', why: { code, detail } }
      this.#parts.report(error, 'the audit log could not be rotated to the end')
    }
  }

  /** Resolves when no rotation is under way. */
  async idle(): Promise<void> {
    await this.#work
  }

  /** Where its disk cannot be written it may not end by itself, and the log is closed only behind this. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.log.cease()
    await this.idle()
  }
}
