/**
 * Where the owners of a target's connections were found before: the first place to look, and never a
 * reason to believe. Pids only; whoever looks reads the descriptors themselves. decisions/0011.
 */

const MAX_TARGETS = 256
/** More are not a first place to look. */
const MAX_PIDS = 16

interface Entry {
  pids: readonly number[]
  /** How many further connections are not answered from here, because the last answer was not all. */
  distrusted: number
}

/** After an answer that was not all, so many connections wait for the complete look. */
const DISTRUSTED_FOR = 64

export class Usual {
  readonly #entries = new Map<string, Entry>()

  /** The pids to look at first for a new connection to `target`; none where all must be looked at. */
  first(target: string): readonly number[] {
    const entry = this.#entries.get(target)
    if (entry === undefined) return []
    if (entry.distrusted === 0) return entry.pids
    entry.distrusted--
    return []
  }

  /** A complete look found these owners. */
  found(target: string, pids: readonly number[]): void {
    const before = this.#entries.get(target)
    this.#entries.delete(target)
    const merged = [...new Set([...pids, ...(before?.pids ?? [])])].slice(0, MAX_PIDS)
    this.#entries.set(target, { pids: merged, distrusted: before?.distrusted ?? 0 })
    const oldest = this.#entries.keys().next().value
    if (this.#entries.size > MAX_TARGETS && oldest !== undefined) this.#entries.delete(oldest)
  }

  /** An answer from here left out an owner that a complete look found. */
  missed(target: string): void {
    const entry = this.#entries.get(target)
    if (entry !== undefined) entry.distrusted = DISTRUSTED_FOR
  }
}
