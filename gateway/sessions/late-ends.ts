/**
 * An index of sessions that other gateways keep with this one may be away when a session ends. The log has the end then,
 * and the list follows when it is back: nothing that has ended is listed as open for longer than that.
 */
import type { SessionEnd, SessionFilter, SessionRecord, SessionStore } from './session.ts'

export class LateEnds implements SessionStore {
  readonly #store: SessionStore
  /** As many as were open when the store went away, at most: none is opened without it. */
  readonly #late = new Map<string, SessionEnd>()

  constructor(store: SessionStore) {
    this.#store = store
  }

  add(session: SessionRecord): Promise<void> {
    return this.#store.add(session)
  }
  /** Resolves when it is kept, here or there. */
  async end(end: SessionEnd): Promise<void> {
    try {
      await this.#store.end(end)
    } catch {
      this.#late.set(end.id, end)
    }
  }
  find(id: string): Promise<SessionRecord | undefined> {
    return this.#store.find(id)
  }
  list(filter: SessionFilter): Promise<readonly SessionRecord[]> {
    return this.#store.list(filter)
  }
  open(): Promise<readonly SessionRecord[]> {
    return this.#store.open()
  }

  /** Hands over what is late; rejects with what the store throws, and keeps what it did not take. */
  async handOver(): Promise<void> {
    for (const [id, end] of this.#late) {
      await this.#store.end(end)
      this.#late.delete(id)
    }
  }
}
