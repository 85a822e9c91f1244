/** The heartbeat of a log: a leaf each minute that commits to the set of active sessions, empty or not. */
import type { Appended } from './contract.ts'
import type { EventInput } from './event.ts'
import { activeRoot } from './heartbeat.ts'
import type { ActiveLine } from './heartbeat.ts'

export class Pulse {
  /** Where the active sessions are found. */
  active: () => readonly ActiveLine[] = () => []
  /** Index of the heartbeat before; null: none yet. */
  previous: number | null = null
  readonly #append: (event: EventInput) => Promise<Appended>
  #beating = false
  /** When the last one was written, by a clock that nobody sets and that stands still while the machine does. */
  #at = performance.now()

  constructor(append: (event: EventInput) => Promise<Appended>) {
    this.#append = append
  }

  /** One at a time: a heartbeat names the one before, which must have its index by then. */
  beat(): void {
    if (this.#beating) return
    this.#beating = true
    const active = this.active()
    const { previous } = this
    const at = performance.now()
    this.#append({
      code: 'log.heartbeat',
      message: `${active.length} active sessions`,
      status: 'success',
      data: {
        active_root: activeRoot(active),
        active: active.length,
        elapsed_ms: Math.round(at - this.#at),
        ...(previous === null ? {} : { previous }),
      },
    }).then(
      ({ idx }) => {
        this.previous = idx
        this.#at = at
        this.#beating = false
      },
      () => {
        // The state says so already; the gap is the evidence.
        this.#beating = false
      },
    )
  }
}
