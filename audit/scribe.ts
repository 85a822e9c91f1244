/** What turns an event into the text of a leaf for one log: its clock, its randomness, and what all its events share. */
import type { EventInput } from './event.ts'
import { render } from './format/render.ts'
import type { Rendered, Source } from './format/render.ts'
import type { LogOptions } from './options.ts'

export class Scribe {
  readonly #options: Pick<LogOptions, 'clock' | 'random'>
  readonly #source: Source
  #random: Uint8Array = new Uint8Array(0)

  constructor(options: LogOptions) {
    this.#options = options
    this.#source = {
      origin: options.origin,
      node: options.node ?? options.origin.split('/').at(-2) ?? options.origin,
      version: options.version ?? '0',
      tenant: options.tenant,
    }
  }

  /** Errors: event.*. */
  write(event: EventInput): Rendered {
    return render(event, this.#source, this.#options.clock.now(), this.#entropy())
  }

  /** Ten random bytes for a uid; asked for many at a time, because each asking costs a system call. */
  #entropy(): Uint8Array {
    if (this.#random.length < 10) this.#random = this.#options.random(2_560)
    const taken = this.#random.subarray(0, 10)
    this.#random = this.#random.subarray(10)
    return taken
  }
}
