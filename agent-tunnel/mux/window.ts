/** Credit arithmetic; knows no streams. docs/protocol.md section 6. */
import type { Monotonic } from './limits.ts'

/** A reader that never has more than this part of its window waiting keeps up with its peer. */
const KEEPS_UP = 3 / 8

/** Bytes that the receive windows of one tunnel, or of one process, may grow by in all. */
export class Budget {
  readonly most: number
  #used = 0
  readonly #parent: Budget | undefined

  /** `parent`: a wider budget (the process's) that must agree to every growth. */
  constructor(most: number, parent?: Budget) {
    this.most = most
    this.#parent = parent
  }

  get used(): number {
    return this.#used
  }

  /** Reserves all of `bytes`, or nothing and says false. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.most) return false
    if (this.#parent !== undefined && !this.#parent.take(bytes)) return false
    this.#used += bytes
    return true
  }

  give(bytes: number): void {
    this.#used -= bytes
    this.#parent?.give(bytes)
  }
}

/**
 * What the peer may still send on one stream. Conserved: at all times
 * `outstanding = credit given - bytes consumed`, and it never exceeds the largest target so far.
 */
export class ReceiveWindow {
  readonly #initial: number
  readonly #most: number
  readonly #budget: Budget
  /** The outstanding credit aimed at; grows for a fast reader, decays for a slow one. */
  target: number
  /** Credit the peer holds plus bytes received and not consumed. */
  outstanding: number
  /** Received and not consumed. */
  held = 0
  #reserved = 0
  #givenAt: Monotonic
  #consumedSinceDecay = 0
  #mostWaiting = 0

  constructor(initial: number, most: number, budget: Budget, now: Monotonic) {
    this.#initial = initial
    this.#most = most
    this.#budget = budget
    this.target = initial
    this.outstanding = initial
    this.#givenAt = now
  }

  /** Bytes the peer may still send. */
  get available(): number {
    return this.outstanding - this.held
  }

  get grown(): boolean {
    return this.#reserved > 0
  }

  /** Accounts for bytes received; false if the peer had no credit for them. */
  receive(bytes: number): boolean {
    if (bytes > this.outstanding - this.held) return false
    this.held += bytes
    return true
  }

  /** `bytes` of earlier reads have not been dealt with when more comes. */
  waiting(bytes: number): void {
    if (bytes > this.#mostWaiting) this.#mostWaiting = bytes
  }

  /**
   * Accounts for bytes the application has dealt with, and gives the credit to send now: 0 until
   * half the window is used. Half of it within two round trips, and little of it ever waiting for
   * the reader, means that the window and not the reader set the pace: it doubles. A larger window
   * in front of a reader that is behind would only be a longer queue.
   */
  consume(bytes: number, now: Monotonic, rttMs: number | undefined): number {
    this.held -= bytes
    this.outstanding -= bytes
    this.#consumedSinceDecay += bytes
    if (this.#reserved > 0) this.#settle()
    if (this.target - this.outstanding < this.target / 2) return 0
    const fast = rttMs !== undefined && now - this.#givenAt < 2 * rttMs
    if (fast && this.#mostWaiting <= this.target * KEEPS_UP) this.#grow()
    this.#mostWaiting = 0
    const credit = this.target - this.outstanding
    this.outstanding = this.target
    this.#givenAt = now
    return credit
  }

  #grow(): void {
    const wanted = Math.min(this.target * 2, this.#most)
    const more = wanted - this.#initial - this.#reserved
    if (more > 0 && !this.#budget.take(more)) return
    if (more > 0) this.#reserved += more
    this.target = Math.max(this.target, wanted)
  }

  /** Halves a window whose reader took less than half of it since the last call. */
  decay(): void {
    if (this.#consumedSinceDecay < this.target / 2) {
      this.target = Math.max(this.#initial, Math.floor(this.target / 2))
    }
    this.#consumedSinceDecay = 0
    this.#settle()
  }

  /** Returns what is neither aimed at nor still in the peer's hands. */
  #settle(): void {
    const needed = Math.max(0, Math.max(this.target, this.outstanding) - this.#initial)
    if (needed >= this.#reserved) return
    this.#budget.give(this.#reserved - needed)
    this.#reserved = needed
  }

  /** The stream is over: the reserve goes back. */
  close(): void {
    this.#budget.give(this.#reserved)
    this.#reserved = 0
  }
}
