/** OPENs of the peer: offered, refused, or put off while it resets too many. docs/protocol.md sections 4, 5 and 8. */
import type { Control } from './control.ts'
import type { Effects } from './effect.ts'
import { MuxError } from './errors.ts'
import { kinds } from './frame.ts'
import type { Frame, Named } from './frame.ts'
import type { Limits, Monotonic } from './limits.ts'
import { Opens, YoungDeaths } from './rate.ts'
import type { MuxStream } from './stream.ts'
import type { Streams } from './streams.ts'

/** The parts of a session that offers act on. */
interface Parts {
  readonly limits: Limits
  readonly streams: Streams
  readonly control: Pick<Control, 'draining' | 'refuse'>
  readonly effects: Effects
}

/** An offer that waits because its opener resets too many. */
interface Delayed {
  readonly at: Monotonic
  readonly stream: MuxStream
}

const DRAINING: Named = {
  code: 'tunnel.draining',
  message: 'this end takes no new streams',
}

export class Offers {
  readonly #parts: Parts
  readonly #pace: Opens
  readonly #young: YoungDeaths
  readonly #delayed: Delayed[] = []
  /** How many OPENs there were, whatever became of them. */
  count = 0
  readonly #full: Named
  readonly #fast: Named

  constructor(parts: Parts, now: Monotonic) {
    const { maxStreams, opensPerSecond } = parts.limits
    this.#parts = parts
    this.#full = { code: 'tunnel.streams', message: `at most ${maxStreams} streams` }
    this.#fast = {
      code: 'tunnel.pace',
      message: `streams are opened faster than ${opensPerSecond} a second; try again in a second`,
    }
    this.#pace = new Opens(parts.limits.opensPerSecond, now)
    this.#young = new YoungDeaths(parts.limits.resetsPerSecond, now)
  }

  /** `credit`: what the stream may send at first. Throws stream.parity, stream.order, rate.open, backlog.exceeded. */
  open(frame: Extract<Frame, { type: 'open' }>, credit: number, now: Monotonic): void {
    const { streams, control } = this.#parts
    const { stream: id, kind: number, metadata } = frame
    if (streams.isMine(id)) throw new MuxError('stream.parity', 'remote', `stream ${id}`)
    if (id <= streams.lastPeerId)
      throw new MuxError('stream.order', 'remote', `${id} after ${streams.lastPeerId}`)
    const pace = this.#pace.take(now)
    if (pace === 'flood') throw new MuxError('rate.open', 'remote')
    streams.lastPeerId = id
    this.count++
    const kind = kinds[number - 1]
    if (kind === undefined)
      return control.refuse(id, { code: 'tunnel.kind', message: `kind ${number}` })
    const refusal = this.#refusal(pace)
    if (refusal !== undefined) return control.refuse(id, refusal)
    const facts = { id, kind, metadata: new Uint8Array(metadata), openedHere: false }
    const stream = streams.make(facts, credit, now)
    streams.step(stream, 'recvOpen')
    const delay = this.#young.delay(now)
    if (delay === 0 && this.#delayed.length === 0) return this.#announce(stream)
    const last = this.#delayed.at(-1)?.at ?? now
    this.#delayed.push({ at: Math.max(now + delay, last) as Monotonic, stream })
  }

  /** Why this end takes no stream now, if so. */
  #refusal(pace: 'taken' | 'refused'): Named | undefined {
    const { control, streams, limits } = this.#parts
    if (control.draining) return DRAINING
    if (streams.theirs >= limits.maxStreams) return this.#full
    return pace === 'taken' ? undefined : this.#fast
  }

  #announce(stream: MuxStream): void {
    stream.announced = true
    this.#parts.effects.push({ type: 'offer', stream })
  }

  /** The peer has reset a stream that it had opened; false when that was one too many. */
  diesYoung(stream: MuxStream, now: Monotonic): boolean {
    return this.#young.count(stream.openedAt, now)
  }

  /** When the next delayed offer is due. */
  get dueAt(): Monotonic | undefined {
    return this.#delayed[0]?.at
  }

  /** Offers whose delay is over. */
  release(now: Monotonic): void {
    for (;;) {
      const offer = this.#delayed[0]
      if (offer === undefined || offer.at > now) return
      this.#delayed.shift()
      if (offer.stream.state === 'offered') this.#announce(offer.stream)
    }
  }
}
