/** Clocks that a test moves: one that stands still until then, and the one that this process tells the time by. */
import type { Clock, Monotonic } from '#tunnel'

const machine = Date.now
let ahead = 0

/** In all: a sign-in is for an hour, and its renewal goes by the Date of an answer, which stays the machine's. */
const FURTHEST_MS = 50 * 60_000

/**
 * The wall clock of this process, and of a node in it, is so many milliseconds further, from now on and for all of this
 * file: what has been told a time is not told an earlier one. What waits goes on waiting by the other clock.
 */
export function setForward(ms: number): void {
  ahead += Math.max(0, ms)
  if (ahead > FURTHEST_MS) throw new Error('the clock has been set forward too far for one file')
  Date.now = () => machine() + ahead
}

/** It is so many milliseconds before `at`, an instant in epoch seconds; nothing where it is later than that already. */
export function setBefore(at: number, ms: number): void {
  setForward(at * 1000 - ms - Date.now())
}

/** It stands still until the test moves it: waits are kept, and end when their time has come. */
export class HandClock implements Clock {
  #now = 500
  #waits: { readonly at: number; readonly wake: () => void }[] = []

  now(): Monotonic {
    return this.#now as Monotonic
  }
  after(ms: number, wake: () => void): () => void {
    const wait = { at: this.#now + ms, wake }
    this.#waits.push(wait)
    return () => (this.#waits = this.#waits.filter((each) => each !== wait))
  }
  /** How many wait. */
  get waiting(): number {
    return this.#waits.length
  }
  /** Time passes at once; what is due then is woken in the order in which it was asked for. */
  pass(ms: number): void {
    this.#now += ms
    const due = this.#waits.filter(({ at }) => at <= this.#now)
    this.#waits = this.#waits.filter((each) => !due.includes(each))
    for (const { wake } of due) wake()
  }
}
