/** Repetition without a flood: the first of a kind is told, the rest of its minute is only counted. */

interface Kind {
  /** When the last one was told, monotonic milliseconds. */
  readonly at: number
  /** How many were held back since. */
  held: number
}

interface QuietLimits {
  readonly windowMs: number
  /** Kinds told apart at one time; whatever comes on top of them is one kind together. */
  readonly kinds: number
}

export class Quiet {
  readonly #limits: QuietLimits
  /** In the order in which they were last told. */
  readonly #kinds = new Map<string, Kind>()
  #others: Kind = { at: Number.NEGATIVE_INFINITY, held: 0 }

  constructor(limits: QuietLimits = { windowMs: 60_000, kinds: 1000 }) {
    this.#limits = limits
  }

  /**
   * One more of a kind at `now` (monotonic milliseconds). Gives how many of it were held back since
   * the last one told, or undefined where this one is held back too.
   */
  tell(kind: string, now: number): number | undefined {
    const before = this.#kinds.get(kind)
    if (before === undefined && !this.#hasRoom(now)) return this.#tellOther(now)
    if (before !== undefined && now - before.at < this.#limits.windowMs) {
      before.held++
      return undefined
    }
    this.#kinds.delete(kind)
    this.#kinds.set(kind, { at: now, held: 0 })
    return before?.held ?? 0
  }

  #tellOther(now: number): number | undefined {
    const { at, held } = this.#others
    if (now - at < this.#limits.windowMs) {
      this.#others.held++
      return undefined
    }
    this.#others = { at: now, held: 0 }
    return held
  }

  /** Forgets the kinds whose window is over, but not what was held back of them. */
  #hasRoom(now: number): boolean {
    if (this.#kinds.size < this.#limits.kinds) return true
    for (const [kind, { at, held }] of this.#kinds) {
      if (now - at < this.#limits.windowMs) break
      this.#kinds.delete(kind)
      this.#others.held += held
    }
    return this.#kinds.size < this.#limits.kinds
  }
}
