/** What a session asks of its driver, as values. */
import type { MuxError } from './errors.ts'
import type { GoawayFrame } from './frame.ts'
import type { Hello } from './hello.ts'
import type { MuxStream } from './stream.ts'

/** `data` is the part `[start, end)` of the chunk given to `receive`; it is reused by the next call. */
export interface DataEffect {
  readonly type: 'data'
  stream: MuxStream
  start: number
  end: number
}
export type Effect =
  | DataEffect
  | { readonly type: 'ready'; readonly hello: Hello }
  | { readonly type: 'offer' | 'accepted' | 'end' | 'closed' | 'drain'; readonly stream: MuxStream }
  | {
      readonly type: 'refused' | 'cancelled' | 'reset'
      readonly stream: MuxStream
      readonly code: string
      readonly message: string
      /** A reset that came from here, because a limit was passed. */
      readonly local: boolean
    }
  | {
      readonly type: 'datagram' | 'signal'
      readonly stream: MuxStream
      readonly payload: Uint8Array
    }
  | { readonly type: 'goaway'; readonly frame: GoawayFrame }
  /** The tunnel is over: send what `output` gives, then end the connection. */
  | { readonly type: 'failed'; readonly error: MuxError }

/** Effects in order, in two arrays that take turns, so that the data path allocates nothing. */
export class Effects {
  #filling: Effect[] = []
  #spare: Effect[] = []
  readonly #data: DataEffect[] = []
  #dataUsed = 0

  push(effect: Effect): void {
    this.#filling.push(effect)
  }

  /** Data effects of the chunk before may be used again. */
  newChunk(): void {
    this.#dataUsed = 0
  }

  data(stream: MuxStream, start: number, end: number): void {
    const used = this.#data[this.#dataUsed++]
    if (used === undefined) {
      const fresh: DataEffect = { type: 'data', stream, start, end }
      this.#data.push(fresh)
      this.#filling.push(fresh)
      return
    }
    used.stream = stream
    used.start = start
    used.end = end
    this.#filling.push(used)
  }

  /** What there is; it holds until the next call. */
  poll(): readonly Effect[] {
    const effects = this.#filling
    this.#spare.length = 0
    this.#filling = this.#spare
    this.#spare = effects
    return effects
  }
}
