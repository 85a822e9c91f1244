/** One stream's state inside a session; the session alone changes it. */
import { Backlog } from './backlog.ts'
import type { Waiting } from './backlog.ts'
import type { StreamKind, Monotonic } from './limits.ts'
import type { StreamState } from './state.ts'
import type { ReceiveWindow } from './window.ts'

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
  /** The read in which data last came for it. */
  chunk = -1

  /** Written and not sent; made when something first has to wait. */
  backlog: Backlog | undefined = undefined
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
  /** When it last sent more than a little at once. */
  bulkAt = -Infinity

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

  /** The first of what waits. */
  get first(): Waiting | undefined {
    return this.backlog?.first
  }
  /** Octets of data and datagrams that wait. */
  get pendingBytes(): number {
    return this.backlog?.bytes ?? 0
  }
  get waiting(): Backlog {
    return (this.backlog ??= new Backlog())
  }
}
