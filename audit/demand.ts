/** Who wants a signed head: callers that wait for one, and the rule that no leaf stays unsigned for long. */
import type { Checkpoint } from './checkpoint.ts'
import type { AuditError } from './errors.ts'

interface HeadWaiter {
  /** Resolved by a head of at least this size. */
  size: number
  resolve(checkpoint: Checkpoint): void
  reject(error: AuditError): void
}

export class HeadDemand {
  readonly #wake: () => void
  readonly #listeners = new Set<(checkpoint: Checkpoint) => void>()
  #waiters: HeadWaiter[] = []
  #timer: NodeJS.Timeout | undefined
  /** A leaf has been unsigned for as long as may be. */
  #due = false

  /** `wake` is called when one is due. */
  constructor(wake: () => void) {
    this.#wake = wake
  }

  /** Whether one is to be signed as soon as can be. */
  get pressing(): boolean {
    return this.#due || this.#waiters.length > 0
  }

  /** Whether a head of `size` leaves is wanted. */
  wants(size: number): boolean {
    return this.#due || this.#waiters.some((waiter) => waiter.size <= size)
  }

  add(waiter: HeadWaiter): void {
    this.#waiters.push(waiter)
  }

  onHead(listener: (checkpoint: Checkpoint) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** From now on one is due in `ms`, unless it is so already. */
  arm(ms: number): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#due = true
      this.#wake()
    }, ms)
    this.#timer.unref()
  }

  reached(checkpoint: Checkpoint): void {
    this.#due = false
    const waiters = this.#waiters
    this.#waiters = waiters.filter((waiter) => waiter.size > checkpoint.size)
    for (const waiter of waiters) if (waiter.size <= checkpoint.size) waiter.resolve(checkpoint)
    for (const listener of this.#listeners) listener(checkpoint)
  }

  /** There will be no more than `size` leaves of what was waiting: whoever counted on more would wait for ever. */
  lower(size: number): void {
    for (const waiter of this.#waiters) waiter.size = Math.min(waiter.size, size)
  }

  /** None is due any more, for want of room to write it. */
  defer(): void {
    this.#due = false
  }

  reject(error: AuditError): void {
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
