/** What turns an event into the text of a leaf for one log: its clock, its randomness, and what all its events share. */
import type { EventInput } from './event.ts'
import { renderAs } from './format/render.ts'
import type { Rendered, Source } from './format/render.ts'
import type { LogOptions } from './options.ts'
import { Uids } from './uid.ts'

export class Scribe {
  readonly #clock: LogOptions['clock']
  readonly #uids: Uids
  readonly #source: Source

  constructor(options: LogOptions) {
    this.#clock = options.clock
    this.#uids = new Uids(options.random)
    this.#source = {
      origin: options.origin,
      node: options.node ?? options.origin.split('/').at(-2) ?? options.origin,
      version: options.version ?? '0',
      tenant: options.tenant,
    }
  }

  /** Errors: event.*. */
  write(event: EventInput): Rendered {
    const now = this.#clock.now()
    return renderAs(event, this.#source, now, this.#uids.next(now))
  }
}
