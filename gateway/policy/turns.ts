/** What is asked of the policy of a node, in turn: what changes it, and apart from that what only looks into the past. */

export class Turns {
  /** One change of the policy at a time: each begins on what the one before left. */
  #turn: Promise<unknown> = Promise.resolve()
  /** Looks into the past that are under way or wait; no change of the policy waits for one. */
  #looking = 0
  #looks: Promise<unknown> = Promise.resolve()

  get looking(): boolean {
    return this.#looking > 0
  }

  /** Does `work` when every change before it is through, whether that worked or not. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work)
    this.#turn = mine.catch(() => undefined)
    return mine
  }

  /** The same for what takes long and changes nothing, so that nothing that changes something waits behind it. */
  look<T>(work: () => Promise<T>): Promise<T> {
    this.#looking++
    const mine = this.#looks.then(work, work)
    this.#looks = mine.catch(() => undefined).then(() => this.#looking--)
    return mine
  }
}
