/**
 * Two streams as one: what comes on either goes out on the other, in order, with its end, its signals
 * and its reason; credit goes back only for what the other side has taken. docs/protocol.md section 12.
 */
import type { CloseReason, TunnelStream } from './tunnel.ts'

type Held =
  | { readonly type: 'data'; readonly bytes: Uint8Array }
  | { readonly type: 'signal'; readonly bytes: Uint8Array }
  | { readonly type: 'end' }

/** Signals that wait for the other side, each with what it costs to keep: they have no credit. */
const MAX_SIGNALS = 64 * 1024
const KEEPING = 64

/** One direction. What cannot go on yet is held, bounded by the credit that is not given back for it. */
class Flow {
  readonly #from: TunnelStream
  readonly #to: TunnelStream
  #held: Held[] = []
  #signals = 0
  #full = false

  constructor(from: TunnelStream, to: TunnelStream) {
    this.#from = from
    this.#to = to
    to.onDrain = () => this.#drained()
    from.onSignal = (payload) => this.#signal(payload)
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

  #signal(payload: Uint8Array): void {
    if (!this.#waits()) return this.#passSignal(payload)
    this.#signals += payload.length + KEEPING
    if (this.#signals > MAX_SIGNALS) this.#flooded()
    else this.#held.push({ type: 'signal', bytes: Uint8Array.from(payload) })
  }

  #passSignal(payload: Uint8Array): void {
    if (!this.#to.signal(payload)) this.#flooded()
  }

  /** Whoever sends them does not wait, and whoever is to have them does not read. */
  #flooded(): void {
    const why = [
      'relay.signal',
      'more signals than are kept for a peer that does not read',
    ] as const
    this.#held = []
    this.#from.reset(...why)
    this.#to.reset(...why)
  }

  #drained(): void {
    this.#full = false
    const held = this.#held
    let done = 0
    for (const item of held) {
      if (this.#full || this.#held !== held) break
      done++
      if (item.type === 'data') this.#pass(item.bytes)
      else if (item.type === 'signal') {
        this.#signals -= item.bytes.length + KEEPING
        this.#passSignal(item.bytes)
      } else this.#to.end()
    }
    if (this.#held === held) this.#held = held.slice(done)
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
