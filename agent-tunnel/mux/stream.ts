/** One stream's state inside a session; the session alone changes it. */
import type { StreamKind, Monotonic } from './limits.ts'
import type { StreamState } from './state.ts'
import type { ReceiveWindow } from './window.ts'

interface Waiting {
  readonly bytes: Uint8Array
  readonly signal: boolean
}

export class MuxStream {
  readonly id: number
  readonly kind: StreamKind
  readonly metadata: Uint8Array
  answer: Uint8Array
  state: StreamState = 'idle'
  readonly openedHere: boolean
  readonly openedAt: Monotonic
  /** Whatever the driver hangs on it. */
  owner: unknown = undefined

  /** Bytes that may still be sent. */
  credit: number
  readonly window: ReceiveWindow
  /** Handed to the application and not consumed. */
  unconsumed = 0
  bytesIn = 0
  bytesOut = 0
  dropped = 0

  /** Written and not sent, in order; `pendingBytes` counts data and datagrams. */
  readonly pending: Waiting[] = []
  #head = 0
  #offset = 0
  pendingBytes = 0
  /** `end` was called; FIN follows what is pending. */
  ending = false
  wantsDrain = false
  /** The application has been told of it: an offer, or our own. */
  announced = false

  /** For the scheduler: which queue it stands in, who follows, what it may still send this round. */
  lane: 'none' | 'sparse' | 'bulk' = 'none'
  next: MuxStream | undefined = undefined
  deficit = 0
  /** The output turn it last wrote in, and how much. */
  turn = -1
  turnBytes = 0

  constructor(
    facts: {
      readonly id: number
      readonly kind: StreamKind
      readonly metadata: Uint8Array
      readonly openedHere: boolean
      readonly credit: number
    },
    window: ReceiveWindow,
    now: Monotonic,
  ) {
    this.id = facts.id
    this.kind = facts.kind
    this.metadata = facts.metadata
    this.openedHere = facts.openedHere
    this.credit = facts.credit
    this.answer = new Uint8Array(0)
    this.window = window
    this.openedAt = now
  }

  /** The first of what waits; its bytes start at `offset`. */
  get first(): Waiting | undefined {
    return this.pending[this.#head]
  }
  get offset(): number {
    return this.#offset
  }

  /** Queues bytes that nobody else will change. */
  queue(bytes: Uint8Array, signal: boolean): void {
    this.pending.push({ bytes, signal })
    if (!signal) this.pendingBytes += bytes.length
  }

  /** `bytes` of the first entry have left; the entry goes with its last. */
  advance(bytes: number): void {
    const first = this.first
    if (first === undefined) return
    this.#offset += bytes
    if (!first.signal) this.pendingBytes -= bytes
    if (this.#offset < first.bytes.length) return
    this.#offset = 0
    this.#head++
    if (this.#head === this.pending.length || this.#head > 64) {
      this.pending.splice(0, this.#head)
      this.#head = 0
    }
  }

  /** Forgets what waits, and gives back the signals among it. */
  drop(): Uint8Array[] {
    const signals = this.pending.slice(this.#head).filter((waiting) => waiting.signal)
    this.pending.length = 0
    this.#head = 0
    this.#offset = 0
    this.pendingBytes = 0
    return signals.map((waiting) => waiting.bytes)
  }
}
