/** What arrives: every frame, held against the table and the limits, becomes effects. */
import type { Control } from './control.ts'
import { Decoder, foreign } from './decoder.ts'
import type { Effects } from './effect.ts'
import { MuxError } from './errors.ts'
import type { MuxCode } from './errors.ts'
import type { Flight } from './flight.ts'
import { parse, TYPE } from './frame.ts'
import type { Frame, GoawayFrame } from './frame.ts'
import { MAX_CREDIT } from './hello.ts'
import type { Hello } from './hello.ts'
import type { Limits, Monotonic } from './limits.ts'
import type { Liveness } from './liveness.ts'
import { Offers } from './offers.ts'
import { Rate } from './rate.ts'
import type { Sender } from './sender.ts'
import type { MuxStream } from './stream.ts'
import type { Streams } from './streams.ts'

/** The parts of a session that frames act on. */
export interface Parts {
  readonly limits: Limits
  readonly streams: Streams
  readonly live: Liveness
  readonly flight: Flight
  readonly control: Control
  readonly sender: Sender
  readonly effects: Effects
  /** Ends a stream from here. */
  reset(stream: MuxStream, code: string, message: string, now: Monotonic): void
}

/** What has an allowance a second. */
type Charged = 'ping' | 'signal' | 'empty' | 'tiny' | 'extension'

/** A frame of fewer octets costs its receiver what an empty one does. */
const TINY = 32

/** A peer that sends may also ask: a PING for so many octets, beside those it has a second. */
const OCTETS_PER_PING = 16 * 1024

export class Receiver {
  readonly #parts: Parts
  readonly #decoder: Decoder
  readonly #rates: Readonly<Record<Charged, Rate>>
  readonly #offers: Offers
  /** The stream of the DATA frame being received; undefined if it is dropped. */
  #into: MuxStream | undefined
  peer: Hello | undefined
  goaway: GoawayFrame | undefined
  #chunks = 0
  frames = 0
  dropped = 0

  constructor(parts: Parts, now: Monotonic) {
    const { limits } = parts
    this.#parts = parts
    this.#decoder = new Decoder(limits.maxFrame)
    this.#rates = {
      ping: new Rate(limits.pingsPerSecond, now),
      signal: new Rate(limits.signalsPerSecond, now),
      empty: new Rate(limits.emptyFramesPerSecond, now),
      tiny: new Rate(limits.tinyFramesPerSecond, now),
      extension: new Rate(limits.extensionBytesPerSecond, now),
    }
    this.#offers = new Offers(parts, now)
  }

  /** Takes any piece of the peer's octets. Throws MuxError for what ends the tunnel. */
  take(chunk: Uint8Array, now: Monotonic): void {
    this.#chunks++
    this.#rates.ping.earn(chunk.length / OCTETS_PER_PING)
    this.#decoder.feed(chunk)
    for (let token = this.#decoder.next(); token !== 'need'; token = this.#decoder.next()) {
      if (token === 'piece') {
        this.#piece(this.#decoder.start, this.#decoder.end)
        continue
      }
      this.frames++
      if (token === 'begin') this.#dataBegins(this.#decoder.stream, this.#decoder.length, now)
      else if (token === 'frame') this.#frame(now)
      else this.#charge('extension', now, 8 + this.#decoder.length)
    }
  }

  /** How many OPENs there were. */
  get opens(): number {
    return this.#offers.count
  }

  /** When the next offer that was put off is due. */
  get offerAt(): Monotonic | undefined {
    return this.#offers.dueAt
  }

  /** Offers whose delay is over. */
  release(now: Monotonic): void {
    this.#offers.release(now)
  }

  /** What the end of the connection, here and now, means. */
  ended(): MuxError {
    const decoder = this.#decoder
    const start = decoder.remainder
    // An unfinished header that could still have been a HELLO was cut short; else it is foreign.
    const stranger = this.peer === undefined && (decoder.whole || start[0] !== TYPE.hello)
    if (stranger && (decoder.whole || start.length > 0)) return foreign(start)
    if (this.goaway !== undefined) return remote('peer.lost', `after GOAWAY ${this.goaway.code}`)
    return remote(decoder.whole ? 'peer.lost' : 'frame.truncated')
  }

  #charge(rate: Charged, now: Monotonic, cost = 1): void {
    if (!this.#rates[rate].take(now, cost))
      throw remote(rate === 'tiny' ? 'rate.empty' : `rate.${rate}`)
  }

  #dataBegins(id: number, length: number, now: Monotonic): void {
    const { streams, live, limits } = this.#parts
    if (this.peer === undefined) throw remote('hello.missing')
    if (length === 0) throw remote('data.empty', `stream ${id}`)
    if (length < TINY) this.#charge('tiny', now)
    const stream = streams.find(id, 'recvData')
    this.#into = stream
    if (stream === undefined) {
      // A stream in its grace: its data is dropped, within the credit it had.
      if (!live.spend(id, length)) throw remote('window.exceeded', `stream ${id}`)
      return
    }
    if (stream.kind === 'udp') throw remote('stream.kind', `DATA on ${id}`)
    if (!stream.window.receive(length, now, live.leastRttMs)) {
      throw remote('window.exceeded', `${length} on ${id}, ${stream.window.available} left`)
    }
    streams.held += length
    if (streams.held > limits.receiveMemory) this.#relieve(now)
  }

  #relieve(now: Monotonic): void {
    const stream = this.#parts.streams.largestHolder()
    if (stream === undefined) return
    const code = 'tunnel.memory'
    const message = 'the receiver holds more than its memory limit allows'
    this.#parts.reset(stream, code, message, now)
    this.#parts.effects.push({ type: 'reset', stream, code, message, local: true })
  }

  #piece(start: number, end: number): void {
    const stream = this.#into
    if (stream === undefined || stream.state === 'reset') return
    if (stream.chunk !== this.#chunks) {
      stream.chunk = this.#chunks
      stream.window.waiting(stream.unconsumed)
    }
    stream.bytesIn += end - start
    stream.unconsumed += end - start
    this.#parts.effects.data(stream, start, end)
  }

  #frame(now: Monotonic): void {
    const { type, stream: id, payload } = this.#decoder
    if (this.peer === undefined) {
      if (type !== TYPE.hello) throw remote('hello.missing')
      return this.#hello(parse(type, id, payload), now)
    }
    switch (type) {
      case TYPE.window:
        return this.#window(id, now)
      case TYPE.datagram:
        return this.#datagram(id, payload, now)
      case TYPE.signal:
        return this.#signal(id, payload, now)
      case TYPE.fin:
        return this.#fin(id, now)
      case TYPE.accept:
        return this.#accept(id, payload, now)
      case TYPE.hello:
        throw remote('hello.repeated')
      default:
        return this.#structured(parse(type, id, payload), now)
    }
  }

  #structured(frame: Frame, now: Monotonic): void {
    switch (frame.type) {
      case 'open':
        return this.#offers.open(frame, this.peer?.limits.initialWindow ?? 0, now)
      case 'refuse':
        return this.#ended(frame.stream, 'recvRefuse', frame.code, frame.message, now)
      case 'reset':
        return this.#ended(frame.stream, 'recvReset', frame.code, frame.message, now)
      case 'ping':
        this.#charge('ping', now)
        this.#parts.live.pinged(now)
        return this.#parts.control.pong(frame.token)
      case 'pong':
        if (!this.#parts.live.pong(frame.token, now)) throw remote('ping.unsolicited')
        return this.#parts.flight.answered(now)
      case 'goaway':
        this.#charge('signal', now)
        return this.#goaway(frame)
      default:
        throw remote('frame.type', frame.type)
    }
  }

  #hello(frame: Frame, now: Monotonic): void {
    if (frame.type !== 'hello') throw remote('hello.missing')
    this.peer = frame
    this.#parts.sender.maxFrame = frame.limits.maxFrame
    this.#parts.effects.push({ type: 'ready', hello: frame })
    this.#parts.control.ping(now, true)
  }

  #accept(id: number, metadata: Uint8Array, now: Monotonic): void {
    const stream = this.#parts.streams.find(id, 'recvAccept')
    if (stream === undefined) return this.#charge('empty', now)
    stream.answer = new Uint8Array(metadata)
    this.#parts.effects.push({ type: 'accepted', stream })
  }

  /** REFUSE or RESET. */
  #ended(
    id: number,
    event: 'recvRefuse' | 'recvReset',
    code: string,
    message: string,
    now: Monotonic,
  ): void {
    const { streams, live, effects } = this.#parts
    const was = streams.get(id)?.state
    const stream = streams.find(id, event)
    if (stream === undefined) {
      this.#charge('empty', now)
      live.endGrace(id)
      return
    }
    const early = !stream.openedHere && event === 'recvReset'
    if (early && !this.#offers.diesYoung(stream, now)) throw remote('rate.reset')
    streams.remove(stream)
    if (!stream.announced) return
    const type = was === 'opening' ? 'refused' : was === 'offered' ? 'cancelled' : 'reset'
    effects.push({ type, stream, code, message, local: false })
  }

  #fin(id: number, now: Monotonic): void {
    const { streams, effects } = this.#parts
    const stream = streams.find(id, 'recvFin')
    if (stream === undefined) return this.#charge('empty', now)
    effects.push({ type: 'end', stream })
    if (stream.state !== 'closed') return
    streams.remove(stream)
    effects.push({ type: 'closed', stream })
  }

  #window(id: number, now: Monotonic): void {
    this.#charge('empty', now)
    const frame = parse(TYPE.window, id, this.#decoder.payload)
    const credit = frame.type === 'window' ? frame.credit : 0
    if (credit === 0) throw remote('window.zero', `stream ${id}`)
    const stream = this.#parts.streams.find(id, 'recvWindow')
    if (stream === undefined) return
    if (stream.credit + credit > MAX_CREDIT) throw remote('window.overflow', `stream ${id}`)
    stream.credit += credit
    this.#parts.sender.wake(stream)
  }

  #datagram(id: number, payload: Uint8Array, now: Monotonic): void {
    if (payload.length < TINY) this.#charge('tiny', now)
    const stream = this.#parts.streams.find(id, 'recvData')
    if (stream === undefined) return
    if (stream.kind !== 'udp') throw remote('stream.kind', `DATAGRAM on ${id}`)
    if (stream.unconsumed + payload.length > this.#parts.limits.datagramBudget) {
      stream.dropped++
      this.dropped++
      return
    }
    stream.bytesIn += payload.length
    stream.unconsumed += payload.length
    this.#parts.effects.push({ type: 'datagram', stream, payload })
  }

  #signal(id: number, payload: Uint8Array, now: Monotonic): void {
    this.#charge('signal', now)
    const stream = this.#parts.streams.find(id, 'recvSignal')
    if (stream !== undefined) this.#parts.effects.push({ type: 'signal', stream, payload })
  }

  #goaway(frame: GoawayFrame): void {
    const { streams, effects } = this.#parts
    const before = this.goaway
    if (before !== undefined && frame.lastId > before.lastId) {
      throw remote('goaway.order', `${frame.lastId} after ${before.lastId}`)
    }
    this.goaway = frame
    effects.push({ type: 'goaway', frame })
    // Nothing is opened after the first, so only one that has seen less refuses more.
    if (before !== undefined && frame.lastId === before.lastId) return
    const { code, message } = frame
    for (const stream of streams.values()) {
      if (stream.state !== 'opening' || stream.id <= frame.lastId) continue
      streams.step(stream, 'recvRefuse')
      streams.remove(stream)
      effects.push({ type: 'refused', stream, code, message, local: false })
    }
  }
}

function remote(code: MuxCode, detail = ''): MuxError {
  return new MuxError(code, 'remote', detail)
}
