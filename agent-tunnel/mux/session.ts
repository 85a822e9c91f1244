/**
 * One end of a tunnel as a state machine: octets and clock readings in, effects and octets out.
 * Nothing here waits, and nothing here knows what carries the octets. docs/protocol.md.
 */
import { Control, named } from './control.ts'
import { Effects } from './effect.ts'
import type { Effect } from './effect.ts'
import { MuxError } from './errors.ts'
import {
  encode,
  kindNumber,
  MAX_ALTERNATIVES,
  MAX_DATAGRAM,
  MAX_ID,
  MAX_METADATA,
  MAX_SIGNAL,
  TYPE,
} from './frame.ts'
import { limitOutOfRange } from './hello.ts'
import type { Hello } from './hello.ts'
import type { Limits, Monotonic, Role, Side, StreamKind } from './limits.ts'
import { Flight } from './flight.ts'
import { Liveness } from './liveness.ts'
import { Outbox, SlabPool } from './outbox.ts'
import { Receiver } from './receiver.ts'
import { Sender } from './sender.ts'
import { isError, table } from './state.ts'
import type { MuxStream } from './stream.ts'
import { Streams } from './streams.ts'
import { utf8 } from './text.ts'
import type { Budget } from './window.ts'

/** What a session is made with. */
export interface SessionOptions {
  readonly role: Role
  readonly side: Side
  readonly instance: string
  readonly epoch: number
  readonly limits: Limits
  /** Uniform in [0, 1). */
  readonly random: () => number
  /** Where this end's stream ids begin, if not at 1 or 2; so that their end can be tried. */
  readonly firstId?: number
  readonly pool?: SlabPool
  /** What the receive windows of all tunnels of this process may grow by. */
  readonly budget?: Budget
}

/** A reading of counters. */
export interface SessionStats {
  readonly streams: number
  readonly bytesIn: number
  readonly bytesOut: number
  readonly framesIn: number
  readonly framesOut: number
  readonly pendingBytes: number
  /** Octets given out that the peer has not been seen to read, and how many there may be. */
  readonly inFlightBytes: number
  readonly inFlightCap: number
  readonly grownBytes: number
  readonly opensIn: number
  readonly opensOut: number
  readonly datagramsDropped: number
  /** Longest silence in milliseconds after which the peer still answered a PING. */
  readonly survivedMs: number
  /** The silence before a PING that has no answer; 0 without one. */
  readonly triedMs: number
}

/** Why `open` gave no stream. */
export type OpenRefusal = 'tunnel.draining' | 'tunnel.streams' | 'tunnel.ids'

/** More than any window: whoever writes what a credited peer has sent never gets here. */
const OVERRUN = 32 * 1024 * 1024
/** A busy tunnel measures its round trip when so much has come since the last time. */
const BUSY = 65_536
const none = new Uint8Array(0)

export class Session {
  readonly #limits: Limits
  readonly #flight: Flight
  readonly #outbox: Outbox
  readonly #live: Liveness
  readonly #control: Control
  readonly #streams: Streams
  readonly #effects = new Effects()
  readonly #sender: Sender
  readonly #receiver: Receiver
  readonly #helloBy: Monotonic
  #over = false
  #bytesIn = 0
  #bytesOut = 0
  #bytesAtPing = 0
  #opensOut = 0
  #dropped = 0

  /** Throws MuxError `call.range` when an option is outside what HELLO can say. */
  constructor(options: SessionOptions, now: Monotonic) {
    const { limits, role, instance, epoch } = options
    sayable(options)
    this.#limits = limits
    this.#helloBy = (now + limits.helloTimeoutMs) as Monotonic
    const pool = options.pool ?? new SlabPool()
    this.#flight = new Flight(now)
    this.#outbox = new Outbox(pool, limits.maxSlab, this.#flight)
    this.#live = new Liveness(
      {
        range: limits.keepaliveMs,
        patienceMs: limits.keepalivePatienceMs,
        follows: options.side === 'acceptor',
        random: options.random,
      },
      now,
    )
    const out = { outbox: this.#outbox, live: this.#live, flight: this.#flight }
    this.#control = new Control(out, limits.maxBacklog)
    this.#streams = new Streams(options.side, limits, this.#live, options.budget)
    this.#streams.nextId = options.firstId ?? this.#streams.nextId
    this.#sender = new Sender(out, pool, {
      drained: (stream) => this.#effects.push({ type: 'drain', stream }),
      finDue: (stream) => this.#finDue(stream),
      pingDue: (at, idle) => this.#control.ping(at, idle),
    })
    this.#receiver = new Receiver(
      {
        limits,
        streams: this.#streams,
        live: this.#live,
        flight: this.#flight,
        control: this.#control,
        sender: this.#sender,
        effects: this.#effects,
        reset: (stream, code, message, at) => this.reset(stream, code, message, at),
      },
      now,
    )
    this.#control.hello(role, instance, epoch, limits)
  }

  /** The peer's HELLO, once it is here. */
  get peer(): Hello | undefined {
    return this.#receiver.peer
  }
  /** True after GOAWAY either way, and at the end. */
  get draining(): boolean {
    return this.#over || this.#control.draining || this.#receiver.goaway !== undefined
  }
  /** True after `close`, a failure, or the end of the connection. */
  get over(): boolean {
    return this.#over
  }
  /** The last round trip in milliseconds. */
  get rttMs(): number | undefined {
    return this.#live.rttMs
  }
  /** Whether the peer waits for an answer that `output` has: it should not wait for the end of the turn. */
  get urgent(): boolean {
    return this.#control.pongDue
  }
  /** When a stream last sent little from here, a key or a poll of a device; -Infinity for never. */
  get littleAt(): number {
    return this.#sender.littleAt
  }
  /** Every stream that has not ended, in the order of opening. */
  get streams(): Iterable<MuxStream> {
    return this.#streams.values()
  }

  // What arrives.

  /** Takes any piece of the peer's octets. The effects, and `data` in them, hold until the next call. */
  receive(chunk: Uint8Array, now: Monotonic): readonly Effect[] {
    if (this.#over) return this.poll()
    this.#effects.newChunk()
    this.#live.heard(now)
    this.#bytesIn += chunk.length
    try {
      this.#receiver.take(chunk, now)
      this.#sender.pump()
      if (this.#bytesIn - this.#bytesAtPing > BUSY && this.#live.stale(now)) this.#ping(now)
    } catch (error) {
      this.#fail(error)
    }
    return this.poll()
  }

  /** The connection has ended: how the tunnel ended, unless that is known. */
  ended(): readonly Effect[] {
    if (!this.#over) this.#fail(this.#receiver.ended())
    return this.poll()
  }

  /** The carrier broke the rules in a way that only the driver can see. */
  fail(error: MuxError): readonly Effect[] {
    this.#fail(error)
    return this.poll()
  }

  #fail(error: unknown): void {
    if (!(error instanceof MuxError)) throw error
    if (this.#over) return
    this.#control.failed(this.#streams.lastPeerId, error)
    this.#stop()
    this.#effects.push({ type: 'failed', error })
  }

  // What the application does.

  /** Asks for a stream; `accepted` or `refused` follows. `call.range` for metadata over 4 KiB. */
  open(kind: StreamKind, metadata: Uint8Array, now: Monotonic): MuxStream | OpenRefusal {
    const peer = this.#mustRun()
    bounded(metadata.length, MAX_METADATA, 'metadata')
    if (this.draining) return 'tunnel.draining'
    if (this.#streams.mine >= peer.limits.maxStreams) return 'tunnel.streams'
    const id = this.#streams.nextId
    if (id > MAX_ID) return 'tunnel.ids'
    const facts = { id, kind, metadata: new Uint8Array(metadata), openedHere: true }
    const stream = this.#streams.make(facts, peer.limits.initialWindow, now)
    this.#streams.step(stream, 'sendOpen')
    stream.announced = true
    this.#streams.nextId += 2
    this.#opensOut++
    this.#outbox.frame(encode({ type: 'open', stream: id, kind: kindNumber(kind), metadata }))
    return stream
  }

  /** Takes an offer. Throws `call.state` when it was answered or taken back. */
  accept(stream: MuxStream, metadata: Uint8Array): void {
    this.#mustRun()
    bounded(metadata.length, MAX_METADATA, 'metadata')
    this.#streams.step(stream, 'sendAccept')
    stream.answer = new Uint8Array(metadata)
    this.#outbox.frame(encode({ type: 'accept', stream: stream.id, metadata }))
  }

  /** Refuses an offer. Throws as `accept`, and `call.range` for a code that is none. */
  refuse(stream: MuxStream, code: string, message: string): void {
    this.#mustRun()
    const why = named(code, message)
    this.#streams.step(stream, 'sendRefuse')
    this.#streams.remove(stream)
    try {
      this.#control.refuse(stream.id, why)
    } catch (error) {
      this.#fail(error)
    }
  }

  /** Takes octets (one datagram); false asks to wait for `drain`. `call.*` as the door says. */
  write(stream: MuxStream, chunk: Uint8Array): boolean {
    if (this.#ended(stream)) return false
    if (stream.ending) throw new MuxError('call.state', 'local', 'write after end')
    this.#streams.step(stream, 'sendData')
    if (stream.kind === 'udp') return this.#datagram(stream, chunk)
    if (stream.pendingBytes > OVERRUN) throw new MuxError('call.overrun', 'local')
    this.#bytesOut += chunk.length
    return chunk.length === 0 ? !stream.wantsDrain : this.#sender.write(stream, chunk)
  }

  #datagram(stream: MuxStream, payload: Uint8Array): boolean {
    bounded(payload.length, MAX_DATAGRAM, 'datagram')
    if (this.#sender.datagram(stream, payload, this.#limits.datagramBudget)) {
      this.#bytesOut += payload.length
    } else {
      stream.dropped++
      this.#dropped++
    }
    return true
  }

  /** FIN after what was written. */
  end(stream: MuxStream): void {
    if (stream.ending || this.#ended(stream)) return
    const cell = table[stream.state].sendFin
    if (isError(cell)) throw new MuxError(cell, 'local', `stream ${stream.id}`)
    this.#sender.end(stream)
  }

  #finDue(stream: MuxStream): void {
    // It may pass the scheduler once more after its FIN.
    if (isError(table[stream.state].sendFin)) return
    this.#streams.step(stream, 'sendFin')
    this.#outbox.payload(TYPE.fin, stream.id, none)
    if (stream.state !== 'closed') return
    this.#streams.remove(stream)
    this.#effects.push({ type: 'closed', stream })
  }

  /** A small message in order with the data; `call.range` over 4 KiB. False: 64 KiB of them wait. */
  signal(stream: MuxStream, payload: Uint8Array): boolean {
    if (this.#ended(stream)) return true
    bounded(payload.length, MAX_SIGNAL, 'signal')
    this.#streams.step(stream, 'sendSignal')
    return this.#sender.signal(stream, payload)
  }

  /** Ends a stream both ways; for one still `opening` it takes the question back. */
  reset(stream: MuxStream, code: string, message: string, now: Monotonic): void {
    if (this.#ended(stream)) return
    const why = named(code, message)
    const peerMaySend = stream.state !== 'finReceived'
    this.#streams.step(stream, 'sendReset')
    this.#sender.drop(stream)
    if (peerMaySend) this.#live.grace(stream.id, stream.window.available)
    this.#streams.remove(stream)
    this.#outbox.frame(encode({ type: 'reset', stream: stream.id, ...why }))
    if (this.#live.stale(now)) this.#ping(now)
  }

  #ended(stream: MuxStream): boolean {
    return this.#over || stream.state === 'closed' || stream.state === 'reset'
  }

  /** Gives back credit for octets the application has dealt with. */
  consumed(stream: MuxStream, bytes: number, now: Monotonic): void {
    if (!(bytes >= 0 && bytes <= stream.unconsumed)) {
      throw new MuxError('call.range', 'local', `consumed ${bytes} of ${stream.unconsumed}`)
    }
    stream.unconsumed -= bytes
    if (this.#over || stream.kind === 'udp' || !this.#streams.has(stream.id)) return
    const credit = this.#streams.consume(stream, bytes, now)
    if (credit === 0 || stream.state === 'finReceived') return
    this.#outbox.frame(encode({ type: 'window', stream: stream.id, credit }))
  }

  /** Takes no further OPEN, and says so. */
  goaway(code: string, message = '', retryAfterMs = 0, alternatives: readonly string[] = []): void {
    if (this.#over) return
    bounded(alternatives.length, MAX_ALTERNATIVES, 'alternatives')
    for (const alternative of alternatives) bounded(utf8(alternative).length, 255, 'alternative')
    const why = named(code, message)
    this.#control.goaway(this.#streams.lastPeerId, 0, why, retryAfterMs, alternatives)
  }

  /** Ends the tunnel: GOAWAY is the last frame that `output` gives. The streams are the driver's. */
  close(code: string, message = ''): void {
    if (this.#over) return
    this.#control.goaway(this.#streams.lastPeerId, 0, named(code, message))
    this.#stop()
  }

  #stop(): void {
    this.#over = true
    this.#streams.release()
  }

  #mustRun(): Hello {
    const peer = this.#receiver.peer
    if (this.#over || peer === undefined) throw new MuxError('call.closed', 'local')
    return peer
  }

  // Time.

  /** When `tick` has something to do. */
  get wakeAt(): Monotonic | undefined {
    if (this.#over) return undefined
    if (this.#receiver.peer === undefined) return this.#helloBy
    const decayAt = this.#streams.decayAt ?? Infinity
    const offerAt = this.#receiver.offerAt ?? Infinity
    return Math.min(this.#live.wakeAt, decayAt, offerAt) as Monotonic
  }

  /** Does what is due. */
  tick(now: Monotonic): readonly Effect[] {
    if (!this.#over) this.#tick(now)
    return this.poll()
  }

  #tick(now: Monotonic): void {
    if (this.#receiver.peer === undefined) {
      if (now >= this.#helloBy) this.#fail(new MuxError('hello.timeout', 'remote'))
      return
    }
    this.#receiver.release(now)
    if (this.#streams.decayAt !== undefined && now >= this.#streams.decayAt) {
      this.#streams.decay(now)
    }
    const due = this.#live.due(now)
    if (due === 'dead') this.#fail(new MuxError('peer.silent', 'remote'))
    else if (due === 'ping') this.#ping(now)
  }

  #ping(now: Monotonic): void {
    this.#bytesAtPing = this.#bytesIn
    this.#control.ping(now, this.#sender.idle)
  }

  // What leaves.

  /** The octets to send next, until `sent` is called; undefined if some are out or none wait. */
  output(now: Monotonic): Uint8Array | undefined {
    return this.#over ? this.#outbox.take() : this.#sender.take(now)
  }

  /** The connection has taken what `output` gave. */
  sent(): void {
    this.#outbox.sent()
    this.#control.sent()
    if (!this.#over) this.#sender.pump()
  }

  /** Effects of calls other than `receive` and `tick`: drains, and streams that ended. */
  poll(): readonly Effect[] {
    return this.#effects.poll()
  }

  stats(): SessionStats {
    let pendingBytes = this.#outbox.pending
    for (const stream of this.#streams.values()) pendingBytes += stream.pendingBytes
    return {
      streams: this.#streams.size,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      framesIn: this.#receiver.frames,
      framesOut: this.#outbox.frames,
      pendingBytes,
      inFlightBytes: this.#flight.inFlight,
      inFlightCap: this.#flight.cap,
      grownBytes: this.#streams.budget.used,
      opensIn: this.#receiver.opens,
      opensOut: this.#opensOut,
      datagramsDropped: this.#dropped + this.#receiver.dropped,
      survivedMs: this.#live.survivedMs,
      triedMs: this.#live.triedMs,
    }
  }
}

function sayable({ limits, instance, epoch }: SessionOptions): void {
  const wrong = limitOutOfRange(limits)
  const size = utf8(instance).length
  const badEpoch = !Number.isSafeInteger(epoch) || epoch < 0
  if (wrong === undefined && size >= 1 && size <= 64 && !badEpoch) return
  throw new MuxError('call.range', 'local', wrong ?? 'instance or epoch')
}

function bounded(value: number, most: number, what: string): void {
  if (value > most) throw new MuxError('call.range', 'local', `${what} of ${value}`)
}
