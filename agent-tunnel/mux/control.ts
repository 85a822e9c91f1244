/** The frames a session says by itself: HELLO, PING, PONG, GOAWAY, and answers the peer has caused. */
import { MuxError, muxCodes } from './errors.ts'
import { encode } from './frame.ts'
import type { Named } from './frame.ts'
import { VERSION } from './hello.ts'
import { MAX_MESSAGE, putU32, STREAM_AT } from './octets.ts'
import type { Flight } from './flight.ts'
import type { Limits, Monotonic, Role } from './limits.ts'
import type { Liveness } from './liveness.ts'
import type { Outbox } from './outbox.ts'
import { fromUtf8, isCode, utf8Within } from './text.ts'

export class Control {
  readonly #outbox: Outbox
  readonly #live: Liveness
  readonly #flight: Flight
  readonly #maxBacklog: number
  #owed = 0
  /** Whether a PONG may be waiting here to leave. */
  pongDue = false
  /** The last id named in our first GOAWAY. */
  #goneFor: number | undefined
  /** The last REFUSE, as it was written out. */
  #refused: { readonly why: Named; readonly frame: Uint8Array } | undefined

  constructor(
    { outbox, live, flight }: { outbox: Outbox; live: Liveness; flight: Flight },
    maxBacklog: number,
  ) {
    this.#outbox = outbox
    this.#live = live
    this.#flight = flight
    this.#maxBacklog = maxBacklog
  }

  /** Whether GOAWAY was said. */
  get draining(): boolean {
    return this.#goneFor !== undefined
  }

  hello(role: Role, instance: string, epoch: number, limits: Limits): void {
    const { maxStreams, initialWindow, maxFrame, maxWindow } = limits
    this.#outbox.frame(
      encode({
        type: 'hello',
        minVersion: VERSION,
        maxVersion: VERSION,
        role,
        limits: { maxStreams, initialWindow, maxFrame, maxWindow },
        features: 0,
        epoch,
        instance,
        rest: new Uint8Array(0),
      }),
    )
  }

  /** `idle`: nothing waits for room behind it. */
  ping(now: Monotonic, idle: boolean): void {
    this.#outbox.frame(encode({ type: 'ping', token: this.#live.ping(now) }))
    this.#flight.mark(now, idle)
  }
  pong(token: bigint): void {
    this.pongDue = true
    this.#owe(encode({ type: 'pong', token }))
  }
  /** The same `why` again and again, one object, is written out once: a flood of OPENs costs little. */
  refuse(stream: number, why: Named): void {
    if (this.#refused?.why === why) putU32(this.#refused.frame, STREAM_AT, stream)
    else this.#refused = { why, frame: encode({ type: 'refuse', stream, ...why }) }
    this.#owe(this.#refused.frame)
  }

  // The peer has caused these frames: it may not go on causing them while it reads nothing.
  #owe(frame: Uint8Array): void {
    this.#owed += frame.length
    if (this.#owed > this.#maxBacklog) throw new MuxError('backlog.exceeded', 'remote')
    this.#outbox.frame(frame)
  }

  /** The connection took something: the peer reads. */
  sent(): void {
    this.#owed = 0
    this.pongDue = false
  }

  /**
   * GOAWAY. The last id is frozen by the first one: what came later was refused, and a raised id
   * would be a promise.
   */
  goaway(
    lastPeerId: number,
    error: number,
    named: Named,
    retryAfterMs = 0,
    alternatives: readonly string[] = [],
  ): void {
    const lastId = (this.#goneFor ??= lastPeerId)
    const retry = Math.min(0xffff_ffff, Math.max(0, Math.round(retryAfterMs)))
    this.#outbox.frame(
      encode({ type: 'goaway', lastId, retryAfterMs: retry, error, alternatives, ...named }),
    )
  }

  /** GOAWAY for a protocol error; silent where nobody would hear it. */
  failed(lastPeerId: number, error: MuxError): void {
    if (error.code === 'peer.lost' || error.code === 'peer.silent') return
    const { wire, says } = muxCodes[error.code]
    this.goaway(lastPeerId, wire, named(error.code, error.detail === '' ? says : error.detail))
  }
}

/** Code and message as they may be sent. Throws `call.range` for a code that is none. */
export function named(code: string, message: string): Named {
  if (!isCode(code)) throw new MuxError('call.range', 'local', 'code')
  return { code, message: fromUtf8(utf8Within(message, MAX_MESSAGE)) }
}
