/**
 * A look that is taken again and again: each begins so long after the last one ended, so that no two stand side by side.
 * None begins when the block is left, and the one under way is waited for.
 */
export class Rounds implements AsyncDisposable {
  readonly #look: () => Promise<number>
  #timer: NodeJS.Timeout | undefined
  #turn: Promise<void> = Promise.resolve()
  #over = false

  /**
   * `look` gives the milliseconds until the next one, and never rejects. The first begins after `firstMs`; where that is
   * absent, at once.
   */
  constructor(look: () => Promise<number>, firstMs?: number) {
    this.#look = look
    if (firstMs === undefined) this.#turn = this.#go()
    else this.#after(firstMs)
  }

  /** Whether the look under way is the last. */
  get over(): boolean {
    return this.#over
  }

  async #go(): Promise<void> {
    const waitMs = await this.#look()
    if (!this.#over) this.#after(waitMs)
  }

  #after(waitMs: number): void {
    this.#timer = setTimeout(() => {
      this.#turn = this.#go()
    }, waitMs)
    this.#timer.unref()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true
    clearTimeout(this.#timer)
    await this.#turn
  }
}
