/** A clock that stands still until the test moves it: waits are kept, and end when their time has come. */
import type { Clock, Monotonic } from '#tunnel'

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
