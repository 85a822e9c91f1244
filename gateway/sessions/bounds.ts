/**
 * What a session stands under: what was decided of itself, and of each connection that it carries. What was said of a
 * connection that has gone binds nothing any more.
 */
import { strictest, type Obligations } from '#policy'

export class Bounds {
  /** Of the session as a whole; undefined where only its connections were decided last. */
  #own: Obligations | undefined
  readonly #each = new Map<object, Obligations>()

  constructor(own: Obligations) {
    this.#own = own
  }

  /** All of it was decided again: this of the session itself, or of nothing but its connections. */
  renew(own: readonly Obligations[]): void {
    const [first, ...others] = own
    this.#own = first && strictest(first, ...others)
  }

  add(connection: object, obligations: Obligations): void {
    this.#each.set(connection, obligations)
  }

  /** False where nothing was said of it. */
  drop(connection: object): boolean {
    return this.#each.delete(connection)
  }

  /** Whether anything of what was decided is still about something. */
  get stands(): boolean {
    return this.#own !== undefined || this.#each.size > 0
  }

  /** The strictest of all; undefined where nothing stands. */
  together(): Obligations | undefined {
    const [first, ...others] = [this.#own ?? [], ...this.#each.values()].flat()
    return first && strictest(first, ...others)
  }
}
