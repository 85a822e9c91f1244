/** Sessions that have begun and not ended, as far as what a log took says. */
import type { Appended } from './contract.ts'
import type { EventInput } from './event.ts'

export class OpenSessions {
  readonly #open = new Set<string>()

  get size(): number {
    return this.#open.size
  }

  get ids(): string[] {
    return [...this.#open]
  }

  /** `done` tells what became of the event: a start that came to nothing is none, and so is an end. */
  follow({ code, session }: EventInput, done: Promise<Appended>): void {
    if (session === undefined || (code !== 'session.start' && code !== 'session.end')) return
    const begin = (): void => void this.#open.add(session)
    const end = (): void => void this.#open.delete(session)
    if (code === 'session.start') {
      begin()
      done.catch(end)
      return
    }
    // A second end that is refused does not undo the first.
    const was = this.#open.delete(session)
    done.then(end, () => {
      if (was) begin()
    })
  }
}
