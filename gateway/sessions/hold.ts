/**
 * Back-pressure on a whole session: while it is held no byte of it passes, and none is lost. Knows nobody who carries
 * anything; they follow it.
 */

/** `operator`: somebody said so. `supervisor`: policy wants somebody to watch, and nobody does. */
export type HeldBy = 'operator' | 'supervisor'

export class Hold {
  readonly #by = new Set<HeldBy>()
  readonly #followers = new Set<() => void>()

  get held(): boolean {
    return this.#by.size > 0
  }

  /** Everything that holds it. */
  get by(): readonly HeldBy[] {
    return [...this.#by]
  }

  is(by: HeldBy): boolean {
    return this.#by.has(by)
  }

  /** Holds, or lets go of, what it is held by; followers hear of it before this returns. False: it was so already. */
  set(by: HeldBy, held: boolean): boolean {
    if (this.#by.has(by) === held) return false
    if (held) this.#by.add(by)
    else this.#by.delete(by)
    for (const follower of this.#followers) follower()
    return true
  }

  /** Calls back at each change, until what this gives is called. */
  follow(follower: () => void): () => void {
    this.#followers.add(follower)
    return () => void this.#followers.delete(follower)
  }
}
