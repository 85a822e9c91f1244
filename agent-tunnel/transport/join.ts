/**
 * Two streams as one: what comes on either goes out on the other, in order, with its end, its signals
 * and its reason; credit goes back only for what the other side has taken. docs/protocol.md section 12.
 */
import type { CloseReason, TunnelStream } from './tunnel.ts'

type Held =
  | { readonly type: 'data'; readonly bytes: Uint8Array }
  | { readonly type: 'signal'; readonly bytes: Uint8Array }
  | { readonly type: 'end' }

/** One direction. What cannot go on yet is held, bounded by the credit that is not given back for it. */
class Flow {
  readonly #from: TunnelStream
  readonly #to: TunnelStream
  #held: Held[] = []
  #full = false

  constructor(from: TunnelStream, to: TunnelStream) {
    this.#from = from
    this.#to = to
    to.onDrain = () => this.#drained()
    from.onSignal = (payload) => {
      if (this.#waits()) this.#held.push({ type: 'signal', bytes: Uint8Array.from(payload) })
      else to.signal(payload)
    }
    from.onEnd = () => {
      if (this.#waits()) this.#held.push({ type: 'end' })
      else to.end()
    }
    from.onClose = (reason) => this.#closed(reason)
    // Last: from here on what was kept for these handlers comes.
    from.onData = (chunk) => {
      // The chunk is lent for this call; its copy is bounded by the credit that is kept back for it.
      if (this.#waits()) this.#held.push({ type: 'data', bytes: Uint8Array.from(chunk) })
      else this.#pass(chunk)
    }
  }

  #waits(): boolean {
    return this.#full || this.#held.length > 0
  }

  #pass(chunk: Uint8Array): void {
    this.#full = !this.#to.write(chunk)
    this.#from.consumed(chunk.length)
  }

  #drained(): void {
    this.#full = false
    let done = 0
    for (const item of this.#held) {
      if (this.#full) break
      done++
      if (item.type === 'data') this.#pass(item.bytes)
      else if (item.type === 'signal') this.#to.signal(item.bytes)
      else this.#to.end()
    }
    this.#held = this.#held.slice(done)
  }

  /** After FIN both ways what is held still goes; after anything else only the signals do, before the reason. */
  #closed(reason: CloseReason): void {
    if (reason.code === 'done') return
    for (const item of this.#held) if (item.type === 'signal') this.#to.signal(item.bytes)
    this.#held = []
    this.#to.reset(reason.code, reason.message)
  }
}

/** Joins two accepted streams of the same kind, of which it becomes the consumer. */
export function joinStreams(one: TunnelStream, other: TunnelStream): void {
  new Flow(one, other)
  new Flow(other, one)
}
