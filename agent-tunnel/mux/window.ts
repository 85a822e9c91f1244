/** Credit arithmetic; knows no streams. docs/protocol.md section 6. */
import type { Monotonic } from './limits.ts'

/** A reader that never has more than this part of its window waiting keeps up with its peer. */
const KEEPS_UP = 3 / 8
/** Round trips for a window's worth: fewer, and the window is what is short; more, and it is too long. */
const SHORT = 2
const LONG = 8
/**
 * However short the path: the programs at its ends take turns on their processors, and a window that
 * lasts for less than that makes them wait for each other at every step.
 */
const LEAST_TRIP_MS = 2
/** A large window gets its credit back in steps of this many bytes, not in halves. */
const STEP = 1024 * 1024

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
 * What the windows of one tunnel aim at. Streams that wait for credit share a path in proportion to
 * their windows, so windows grow together, and together stay within the budget.
 */
export class Growth {
  readonly initial: number
  readonly most: number
  readonly budget: Budget
  /** The largest target that a window has found useful lately. */
  target: number
  /** Windows that have grown. */
  sharers = 0

  /** Sizes in bytes. */
  constructor(initial: number, most: number, budget: Budget) {
    this.initial = initial
    this.most = most
    this.budget = budget
    this.target = initial
  }

  /** What one window may aim at, so that as much is left for each of the others. */
  get share(): number {
    return Math.min(
      this.most,
      this.initial + Math.floor(this.budget.most / Math.max(1, this.sharers)),
    )
  }

  /** A window of `target` was what set the pace: all may aim at twice as much. */
  double(target: number): void {
    this.target = Math.max(this.target, Math.min(target * 2, this.most))
  }
}

/**
 * What the peer may still send on one stream. Conserved: at all times
 * `outstanding = credit given - bytes consumed`, and it never exceeds the largest target so far.
 */
export class ReceiveWindow {
  readonly #growth: Growth
  /** The outstanding credit aimed at; grows for a fast reader, decays for a slow one. */
  target: number
  /** Credit the peer holds plus bytes received and not consumed. */
  outstanding: number
  /** Received and not consumed. */
  held = 0
  #reserved = 0
  /** Since when, and for how many bytes, the pace is being measured. */
  #measuredAt: Monotonic
  #measured = 0
  #dealtAt: Monotonic
  #consumedSinceDecay = 0
  #mostWaiting = 0

  constructor(growth: Growth, now: Monotonic) {
    this.#growth = growth
    this.target = growth.initial
    this.outstanding = growth.initial
    this.#measuredAt = now
    this.#dealtAt = now
  }

  /** Bytes the peer may still send. */
  get available(): number {
    return this.outstanding - this.held
  }

  get grown(): boolean {
    return this.#reserved > 0
  }

  /** Accounts for bytes received; false if the peer had no credit for them. */
  receive(bytes: number, now: Monotonic, rttMs: number | undefined): boolean {
    if (bytes > this.outstanding - this.held) return false
    // Nothing came for a while because there was nothing to send: that says nothing of the path.
    if (
      this.held === 0 &&
      rttMs !== undefined &&
      now - this.#dealtAt > SHORT * Math.max(rttMs, LEAST_TRIP_MS)
    ) {
      this.#measuredAt = now
      this.#measured = 0
    }
    this.held += bytes
    return true
  }

  /** `bytes` of earlier reads have not been dealt with when more comes. */
  waiting(bytes: number): void {
    if (bytes > this.#mostWaiting) this.#mostWaiting = bytes
  }

  /**
   * Accounts for bytes the application has dealt with, and gives the credit to send now: 0 until
   * half the window, or a mebibyte of it, is used. A window's worth within two round trips, and
   * little of it ever waiting for the reader, means that the window and not the reader or the path
   * set the pace: it doubles. Within eight, it follows the others of its tunnel. Beyond that it
   * halves: in front of a reader that is behind, or on a path that is full, a larger window is only
   * a longer queue, and more than its share of it.
   */
  consume(bytes: number, now: Monotonic, rttMs: number | undefined): number {
    this.held -= bytes
    this.outstanding -= bytes
    this.#consumedSinceDecay += bytes
    this.#measured += bytes
    this.#dealtAt = now
    if (this.#reserved > 0) this.#settle()
    if (rttMs !== undefined) this.#measure(now, rttMs)
    const credit = this.target - this.outstanding
    if (credit < Math.min(this.target / 2, STEP)) return 0
    this.outstanding += credit
    return credit
  }

  #measure(now: Monotonic, rttMs: number): void {
    const roundTrips = (now - this.#measuredAt) / Math.max(rttMs, LEAST_TRIP_MS)
    if (this.#measured < this.target / 2 && roundTrips <= LONG) return
    this.#adapt((roundTrips * this.target) / Math.max(1, this.#measured))
    this.#measuredAt = now
    this.#measured = 0
    this.#mostWaiting = 0
  }

  /** A window's worth was used in so many round trips. */
  #adapt(roundTrips: number): void {
    const growth = this.#growth
    if (roundTrips > LONG) this.target = Math.max(growth.initial, this.target >> 1)
    else if (this.#mostWaiting <= this.target * KEEPS_UP) {
      if (roundTrips < SHORT) growth.double(this.target)
      this.#aim(Math.min(growth.target, growth.share))
    }
    // Others have grown since: what is too much now is not given back.
    if (this.target > growth.share) this.target = growth.share
  }

  #aim(wanted: number): void {
    if (wanted <= this.target) return
    const more = wanted - this.#growth.initial - this.#reserved
    if (more > 0 && !this.#growth.budget.take(more)) return
    if (more > 0) this.#reserved += more
    this.target = wanted
  }

  /** Halves a window whose reader took less than half of it since the last call. */
  decay(): void {
    if (this.#consumedSinceDecay < this.target / 2) {
      this.target = Math.max(this.#growth.initial, Math.floor(this.target / 2))
    }
    this.#consumedSinceDecay = 0
    this.#settle()
  }

  /** Returns what is neither aimed at nor still in the peer's hands. */
  #settle(): void {
    const needed = Math.max(0, Math.max(this.target, this.outstanding) - this.#growth.initial)
    if (needed >= this.#reserved) return
    this.#growth.budget.give(this.#reserved - needed)
    this.#reserved = needed
  }

  /** The stream is over: the reserve goes back. */
  close(): void {
    this.#growth.budget.give(this.#reserved)
    this.#reserved = 0
  }
}
