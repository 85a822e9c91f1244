/** Events that came between two epochs of a log: so many, and for so long, and in order. docs/audit.md section "Epochs". */
import type { Appended } from './contract.ts'
import { AuditError } from './errors.ts'
import type { EventInput } from './event.ts'

interface Waiting {
  readonly event: EventInput
  resolve(appended: Promise<Appended>): void
  reject(error: AuditError): void
}

export class Pause {
  /** Resolves when it is over. */
  readonly over: Promise<void>
  readonly #most: number
  readonly #timer: NodeJS.Timeout
  readonly #resolve: () => void
  #waiting: Waiting[] = []
  /** Why nothing more waits; null: it does. */
  #refused: AuditError | null = null

  /** At most `most` wait, none longer than `ms`. */
  constructor(most: number, ms: number) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.over = promise
    this.#resolve = resolve
    this.#most = most
    this.#timer = setTimeout(
      () => this.refuse(new AuditError('log.write', `the log has no next epoch after ${ms} ms`)),
      ms,
    )
  }

  /** Waits for the next epoch. Errors: log.overloaded, what `refuse` was given, and those of `AuditLog.append`. */
  append(event: EventInput): Promise<Appended> {
    if (this.#refused !== null) return Promise.reject(this.#refused)
    if (this.#waiting.length >= this.#most)
      return Promise.reject(
        new AuditError('log.overloaded', `${this.#waiting.length} events wait for the next epoch`),
      )
    return new Promise((resolve, reject) => {
      this.#waiting.push({ event, resolve, reject })
    })
  }

  /** Nothing waits any more, nor will. */
  refuse(error: AuditError): void {
    this.#refused ??= error
    const waiting = this.#waiting.splice(0)
    for (const one of waiting) one.reject(this.#refused)
  }

  /** `append` takes what waited, in order and at once. */
  end(append: (event: EventInput) => Promise<Appended>): void {
    clearTimeout(this.#timer)
    const waiting = this.#waiting.splice(0)
    for (const one of waiting) one.resolve(append(one.event))
    this.#resolve()
  }
}
