/** What replaces the one before it, as the size of a window does: of many the last passes, and not too often. */

/** Of many in this time the last passes. */
const SIGNAL_MS = 100

/**
 * What one side may make the other hear: nothing twice in a row, and one each `SIGNAL_MS`, the latest; while the session
 * is held none, and the latest of all that came once it goes on. All streams of a device share its tunnel's rate of
 * SIGNALs, which a client must not reach.
 */
export class Latest {
  readonly #pass: (payload: Uint8Array) => void
  readonly #held: () => boolean
  #last: Uint8Array | undefined
  #next: Uint8Array | undefined
  #resting: NodeJS.Timeout | undefined

  constructor(pass: (payload: Uint8Array) => void, held: () => boolean) {
    this.#pass = pass
    this.#held = held
  }
  tell(payload: Uint8Array): void {
    this.#next = payload
    this.freed()
  }
  /** It may not be held any more. */
  freed(): void {
    if (this.#resting === undefined) this.#go()
  }
  stop(): void {
    clearTimeout(this.#resting)
    this.#next = undefined
  }
  #go(): void {
    this.#resting = undefined
    if (this.#held()) return
    const next = this.#next
    this.#next = undefined
    if (next === undefined || (this.#last !== undefined && Buffer.compare(next, this.#last) === 0))
      return
    this.#last = next
    this.#resting = setTimeout(() => this.#go(), SIGNAL_MS)
    this.#resting.unref()
    this.#pass(next)
  }
}
