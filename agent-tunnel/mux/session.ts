/**
 * One end of a tunnel as a state machine: bytes and clock readings in, effects and bytes out.
 * Nothing here waits, and nothing here knows what carries the bytes. docs/protocol.md.
 */
import { Decoder, foreign } from './decoder.ts'
import type { DataEffect, Effect } from './effect.ts'
import { MuxError, muxCodes } from './errors.ts'
import type { MuxCode } from './errors.ts'
import {
  encode,
  kindNumber,
  kinds,
  limitOutOfRange,
  MAX_ALTERNATIVES,
  MAX_CREDIT,
  MAX_DATAGRAM,
  MAX_ID,
  MAX_MESSAGE,
  MAX_METADATA,
  MAX_SIGNAL,
  parse,
  TYPE,
  VERSION,
} from './frame.ts'
import type { Frame, GoawayFrame, Hello } from './frame.ts'
import type { Limits, Monotonic, Role, Side, StreamKind } from './limits.ts'
import { Liveness } from './liveness.ts'
import { Outbox, SlabPool } from './outbox.ts'
import { Rate, YoungDeaths } from './rate.ts'
import { Sender } from './sender.ts'
import { isError, table } from './state.ts'
import type { StreamEvent, StreamState } from './state.ts'
import { MuxStream } from './stream.ts'
import { fromUtf8, isCode, utf8, utf8Within } from './text.ts'
import { Budget, ReceiveWindow } from './window.ts'

/** What a session is made with. */
export interface SessionOptions {
  readonly role: Role
  readonly side: Side
  readonly instance: string
  readonly epoch: number
  readonly limits: Limits
  /** Uniform in [0, 1). */
  readonly random: () => number
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
  readonly grownBytes: number
  readonly opensIn: number
  readonly opensOut: number
  readonly datagramsDropped: number
}

/** Why `open` gave no stream. */
export type OpenRefusal = 'tunnel.draining' | 'tunnel.streams' | 'tunnel.ids'

const OVERRUN = 8 * 1024 * 1024
const DECAY_MS = 2000
const none = new Uint8Array(0)

export class Session {
  readonly #limits: Limits
  readonly #decoder: Decoder
  readonly #outbox: Outbox
  readonly #sender: Sender
  readonly #streams = new Map<number, MuxStream>()
  readonly #budget: Budget
  readonly #live: Liveness
  readonly #helloBy: Monotonic
  readonly #rates: Record<'open' | 'ping' | 'signal' | 'empty' | 'extension', Rate>
  readonly #young: YoungDeaths
  /** Offers that wait because their opener resets too many. */
  readonly #delayed: { readonly at: Monotonic; readonly stream: MuxStream }[] = []
  readonly #grown = new Set<MuxStream>()
  #decayAt: Monotonic | undefined
  #peer: Hello | undefined
  #over = false
  /** The last id named in our first GOAWAY. */
  #goawaySentFor: number | undefined
  #goaway: GoawayFrame | undefined
  #nextId: number
  #lastPeerId = 0
  #mine = 0
  #theirs = 0
  #held = 0
  #owed = 0
  /** The stream of the DATA frame being received; undefined if it is dropped. */
  #into: MuxStream | undefined
  #effects: Effect[] = []
  #spare: Effect[] = []
  readonly #dataEffects: DataEffect[] = []
  #dataEffectsUsed = 0
  #bytesIn = 0
  #bytesOut = 0
  #bytesAtPing = 0
  #framesIn = 0
  #opensIn = 0
  #opensOut = 0
  #dropped = 0

  /** Throws MuxError `call.range` when an option is outside what HELLO can say. */
  constructor(options: SessionOptions, now: Monotonic) {
    const { limits, role, instance, epoch } = options
    const wrong = limitOutOfRange(limits)
    const size = utf8(instance).length
    const badEpoch = !Number.isSafeInteger(epoch) || epoch < 0
    if (wrong !== undefined || size < 1 || size > 64 || badEpoch) {
      throw new MuxError('call.range', 'local', wrong ?? 'instance or epoch')
    }
    this.#limits = limits
    this.#decoder = new Decoder(limits.maxFrame)
    this.#outbox = new Outbox(options.pool ?? new SlabPool(), limits.maxSlab)
    this.#sender = new Sender(this.#outbox, {
      drained: (stream) => this.#effects.push({ type: 'drain', stream }),
      finDue: (stream) => this.#finDue(stream),
    })
    this.#budget = new Budget(limits.receiveBudget, options.budget)
    this.#live = new Liveness(limits.keepaliveMs, options.random, now)
    this.#helloBy = (now + limits.helloTimeoutMs) as Monotonic
    this.#rates = {
      open: new Rate(limits.opensPerSecond, now),
      ping: new Rate(limits.pingsPerSecond, now),
      signal: new Rate(limits.signalsPerSecond, now),
      empty: new Rate(limits.emptyFramesPerSecond, now),
      extension: new Rate(limits.extensionBytesPerSecond, now),
    }
    this.#young = new YoungDeaths(limits.resetsPerSecond, now)
    this.#nextId = options.side === 'dialler' ? 1 : 2
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
        rest: none,
      }),
    )
  }

  /** The peer's HELLO, once it is here. */
  get peer(): Hello | undefined {
    return this.#peer
  }
  /** True after GOAWAY either way, and at the end. */
  get draining(): boolean {
    return this.#over || this.#goawaySentFor !== undefined || this.#goaway !== undefined
  }
  /** True after `close`, a failure, or the end of the connection. */
  get over(): boolean {
    return this.#over
  }
  get rttMs(): number | undefined {
    return this.#live.rttMs
  }
  /** Every stream that has not ended, in the order of opening. */
  get streams(): Iterable<MuxStream> {
    return this.#streams.values()
  }

  // What arrives.

  /** Takes any piece of the peer's bytes. The effects, and `data` in them, hold until the next call. */
  receive(chunk: Uint8Array, now: Monotonic): readonly Effect[] {
    if (this.#over) return this.poll()
    this.#dataEffectsUsed = 0
    this.#live.heard()
    this.#bytesIn += chunk.length
    this.#decoder.feed(chunk)
    try {
      while (!this.#over && this.#token(now));
      this.#sender.pump()
      if (this.#bytesIn - this.#bytesAtPing > 65_536 && this.#live.stale(now)) this.#ping(now)
    } catch (error) {
      this.#fail(error)
    }
    return this.poll()
  }

  #token(now: Monotonic): boolean {
    const decoder = this.#decoder
    switch (decoder.next()) {
      case 'need':
        return false
      case 'begin':
        this.#framesIn++
        this.#dataBegins(decoder.stream, decoder.length, now)
        return true
      case 'piece':
        this.#dataPiece(decoder.start, decoder.end)
        return true
      case 'extension':
        this.#framesIn++
        if (!this.#rates.extension.take(now, 8 + decoder.length)) throw remote('rate.extension')
        return true
      case 'frame':
        this.#framesIn++
        this.#frame(now)
        return true
    }
  }

  #dataBegins(id: number, length: number, now: Monotonic): void {
    if (this.#peer === undefined) throw remote('hello.missing')
    if (length === 0) throw remote('data.empty', `stream ${id}`)
    const stream = this.#streams.get(id)
    this.#into = stream
    if (stream === undefined) {
      this.#follow('recvData', id)
      // Only a stream in its grace comes here: its data is dropped, within the credit it had.
      if (!this.#live.spend(id, length)) throw remote('window.exceeded', `stream ${id}`)
      return
    }
    this.#step(stream, 'recvData')
    if (stream.kind === 'udp') throw remote('stream.kind', `DATA on ${id}`)
    if (!stream.window.receive(length)) {
      throw remote('window.exceeded', `${length} on ${id}, ${stream.window.available} left`)
    }
    this.#held += length
    if (this.#held > this.#limits.receiveMemory) this.#relieve(now)
  }

  #dataPiece(start: number, end: number): void {
    const stream = this.#into
    if (stream === undefined || stream.state === 'reset') return
    stream.bytesIn += end - start
    stream.unconsumed += end - start
    let effect = this.#dataEffects[this.#dataEffectsUsed]
    if (effect === undefined) {
      effect = { type: 'data', stream, start, end }
      this.#dataEffects.push(effect)
    } else {
      effect.stream = stream
      effect.start = start
      effect.end = end
    }
    this.#dataEffectsUsed++
    this.#effects.push(effect)
  }

  /** Too much is held over all: whoever holds most pays. A scan, but only when memory has run out. */
  #relieve(now: Monotonic): void {
    let largest: MuxStream | undefined
    for (const stream of this.#streams.values()) {
      if (largest === undefined || stream.window.held > largest.window.held) largest = stream
    }
    if (largest === undefined) return
    const message = 'the receiver holds more than its memory limit allows'
    this.reset(largest, 'tunnel.memory', message, now)
    this.#effects.push({
      type: 'reset',
      stream: largest,
      code: 'tunnel.memory',
      message,
      local: true,
    })
  }

  #frame(now: Monotonic): void {
    const { type, stream: id, payload } = this.#decoder
    if (this.#peer === undefined) {
      if (type !== TYPE.hello) throw remote('hello.missing')
      return this.#hello(parse(type, id, payload), now)
    }
    switch (type) {
      case TYPE.hello:
        throw remote('hello.repeated')
      case TYPE.window:
        return this.#window(id, now)
      case TYPE.datagram:
        return this.#datagram(id, payload, now)
      case TYPE.signal:
        return this.#signalled(id, payload, now)
      case TYPE.fin:
        return this.#finReceived(id)
      case TYPE.accept:
        return this.#accepted(id, payload)
      default:
        return this.#structured(parse(type, id, payload), now)
    }
  }

  #structured(frame: Frame, now: Monotonic): void {
    switch (frame.type) {
      case 'open':
        return this.#opened(frame.stream, frame.kind, frame.metadata, now)
      case 'refuse':
        return this.#ended(frame.stream, 'recvRefuse', frame.code, frame.message, now)
      case 'reset':
        return this.#ended(frame.stream, 'recvReset', frame.code, frame.message, now)
      case 'ping':
        if (!this.#rates.ping.take(now)) throw remote('rate.ping')
        return this.#owe(encode({ type: 'pong', token: frame.token }))
      case 'pong':
        if (!this.#live.pong(frame.token, now)) throw remote('ping.unsolicited')
        return
      case 'goaway':
        return this.#drained(frame)
      default:
        throw remote('frame.type', frame.type)
    }
  }

  #hello(frame: Frame, now: Monotonic): void {
    if (frame.type !== 'hello') throw remote('hello.missing')
    this.#peer = frame
    this.#outbox.maxFrame = frame.limits.maxFrame
    this.#effects.push({ type: 'ready', hello: frame })
    this.#ping(now)
  }

  #opened(id: number, kindNumber: number, metadata: Uint8Array, now: Monotonic): void {
    if (id % 2 === this.#nextId % 2) throw remote('stream.parity', `stream ${id}`)
    if (id <= this.#lastPeerId) throw remote('stream.order', `${id} after ${this.#lastPeerId}`)
    if (!this.#rates.open.take(now)) throw remote('rate.open')
    this.#lastPeerId = id
    this.#opensIn++
    const kind = kinds[kindNumber - 1]
    if (kind === undefined) return this.#turnAway(id, 'tunnel.kind', `kind ${kindNumber}`)
    if (this.#goawaySentFor !== undefined)
      return this.#turnAway(id, 'tunnel.draining', 'this end takes no new streams')
    if (this.#theirs >= this.#limits.maxStreams) {
      return this.#turnAway(id, 'tunnel.streams', `at most ${this.#limits.maxStreams} streams`)
    }
    const stream = this.#make(
      { id, kind, metadata: new Uint8Array(metadata), openedHere: false },
      now,
    )
    this.#step(stream, 'recvOpen')
    this.#theirs++
    const delay = this.#young.delay(now)
    if (delay > 0 || this.#delayed.length > 0) {
      const last = this.#delayed.at(-1)?.at ?? now
      this.#delayed.push({ at: Math.max(now + delay, last) as Monotonic, stream })
    } else this.#announce(stream)
  }

  #announce(stream: MuxStream): void {
    stream.announced = true
    this.#effects.push({ type: 'offer', stream })
  }

  #turnAway(id: number, code: string, message: string): void {
    this.#owe(encode({ type: 'refuse', stream: id, code, message }))
  }

  #make(
    facts: { id: number; kind: StreamKind; metadata: Uint8Array; openedHere: boolean },
    now: Monotonic,
  ): MuxStream {
    const { initialWindow, maxWindow } = this.#limits
    const credit = this.#peer?.limits.initialWindow ?? 0
    const window = new ReceiveWindow(initialWindow, maxWindow, this.#budget, now)
    const stream = new MuxStream({ ...facts, credit }, window, now)
    this.#streams.set(facts.id, stream)
    return stream
  }

  #accepted(id: number, metadata: Uint8Array): void {
    const stream = this.#find(id, 'recvAccept')
    if (stream === undefined) return
    if (!stream.openedHere) throw remote('stream.answered', `stream ${id}`)
    stream.answer = new Uint8Array(metadata)
    this.#effects.push({ type: 'accepted', stream })
  }

  /** REFUSE or RESET from the peer. */
  #ended(
    id: number,
    event: 'recvRefuse' | 'recvReset',
    code: string,
    message: string,
    now: Monotonic,
  ): void {
    const was = this.#streams.get(id)?.state
    const stream = this.#find(id, event)
    if (stream === undefined) {
      if (!this.#rates.empty.take(now)) throw remote('rate.empty')
      this.#live.endGrace(id)
      return
    }
    const young = !stream.openedHere && event === 'recvReset'
    if (young && !this.#young.count(stream.openedAt, now)) throw remote('rate.reset')
    this.#remove(stream)
    if (!stream.openedHere && !stream.announced) return
    const type = was === 'opening' ? 'refused' : was === 'offered' ? 'cancelled' : 'reset'
    this.#effects.push({ type, stream, code, message, local: false })
  }

  #finReceived(id: number): void {
    const stream = this.#find(id, 'recvFin')
    if (stream === undefined) return
    this.#effects.push({ type: 'end', stream })
    if (stream.state === 'closed') this.#done(stream)
  }

  #done(stream: MuxStream): void {
    this.#remove(stream)
    this.#effects.push({ type: 'closed', stream })
  }

  #window(id: number, now: Monotonic): void {
    if (!this.#rates.empty.take(now)) throw remote('rate.empty')
    const frame = parse(TYPE.window, id, this.#decoder.payload)
    const credit = frame.type === 'window' ? frame.credit : 0
    if (credit === 0) throw remote('window.zero', `stream ${id}`)
    const stream = this.#find(id, 'recvWindow')
    if (stream === undefined) return
    if (stream.credit + credit > MAX_CREDIT) throw remote('window.overflow', `stream ${id}`)
    stream.credit += credit
    this.#sender.wake(stream)
  }

  #datagram(id: number, payload: Uint8Array, now: Monotonic): void {
    if (payload.length === 0 && !this.#rates.empty.take(now)) throw remote('rate.empty')
    const stream = this.#find(id, 'recvData')
    if (stream === undefined) return
    if (stream.kind !== 'udp') throw remote('stream.kind', `DATAGRAM on ${id}`)
    if (stream.unconsumed + payload.length > this.#limits.datagramBudget) {
      stream.dropped++
      this.#dropped++
      return
    }
    stream.bytesIn += payload.length
    stream.unconsumed += payload.length
    this.#effects.push({ type: 'datagram', stream, payload })
  }

  #signalled(id: number, payload: Uint8Array, now: Monotonic): void {
    if (!this.#rates.signal.take(now)) throw remote('rate.signal')
    const stream = this.#find(id, 'recvSignal')
    if (stream !== undefined) this.#effects.push({ type: 'signal', stream, payload })
  }

  #drained(frame: GoawayFrame): void {
    if (this.#goaway !== undefined && frame.lastId > this.#goaway.lastId) {
      throw remote('goaway.order', `${frame.lastId} after ${this.#goaway.lastId}`)
    }
    this.#goaway = frame
    this.#effects.push({ type: 'goaway', frame })
    for (const stream of this.#streams.values()) {
      if (stream.state !== 'opening' || stream.id <= frame.lastId) continue
      stream.state = 'closed'
      this.#remove(stream)
      const { code, message } = frame
      this.#effects.push({ type: 'refused', stream, code, message, local: false })
    }
  }

  /** The connection has ended: how the tunnel ended, unless that is known. */
  ended(): readonly Effect[] {
    if (this.#over) return this.poll()
    const goaway = this.#goaway
    if (this.#peer === undefined) {
      const error = this.#decoder.whole
        ? remote('hello.missing', 'nothing')
        : unfinished(this.#decoder)
      this.#fail(error)
    } else if (goaway !== undefined) {
      this.#fail(new MuxError('peer.lost', 'remote', `after GOAWAY ${goaway.code}`))
    } else this.#fail(remote(this.#decoder.whole ? 'peer.lost' : 'frame.truncated'))
    return this.poll()
  }

  // What the table says.

  /** The stream of a frame, stepped; undefined when the frame is to be ignored. */
  #find(id: number, event: StreamEvent): MuxStream | undefined {
    const stream = this.#streams.get(id)
    if (stream === undefined) this.#follow(event, id)
    else this.#step(stream, event)
    return stream
  }

  #step(stream: MuxStream, event: StreamEvent): void {
    const cell = table[stream.state][event]
    if (isError(cell)) {
      throw new MuxError(cell, event.startsWith('recv') ? 'remote' : 'local', `stream ${stream.id}`)
    }
    stream.state = cell
  }

  /** As `#step`, for a stream that is no longer or never was in the map. */
  #follow(event: StreamEvent, id: number): void {
    const mine = id % 2 === this.#nextId % 2
    const used = mine ? id < this.#nextId : id <= this.#lastPeerId
    const state: StreamState = !used ? 'idle' : this.#live.inGrace(id) ? 'reset' : 'closed'
    const cell = table[state][event]
    if (isError(cell)) throw remote(cell, `stream ${id}`)
  }

  #remove(stream: MuxStream): void {
    if (!this.#streams.delete(stream.id)) return
    if (stream.openedHere) this.#mine--
    else this.#theirs--
    this.#held -= stream.window.held
    this.#grown.delete(stream)
    stream.window.close()
    stream.drop()
  }

  // What the application does.

  /** Asks for a stream; `accepted` or `refused` follows. `call.range` for metadata over 4 KiB. */
  open(kind: StreamKind, metadata: Uint8Array, now: Monotonic): MuxStream | OpenRefusal {
    this.#mustRun()
    bounded(metadata.length, MAX_METADATA, 'metadata')
    if (this.draining) return 'tunnel.draining'
    if (this.#mine >= (this.#peer?.limits.maxStreams ?? 0)) return 'tunnel.streams'
    if (this.#nextId > MAX_ID) return 'tunnel.ids'
    const stream = this.#make(
      { id: this.#nextId, kind, metadata: new Uint8Array(metadata), openedHere: true },
      now,
    )
    this.#step(stream, 'sendOpen')
    stream.announced = true
    this.#nextId += 2
    this.#mine++
    this.#opensOut++
    this.#outbox.frame(
      encode({ type: 'open', stream: stream.id, kind: kindNumber(kind), metadata }),
    )
    return stream
  }

  /** Takes an offer. Throws `call.state` when it was answered or taken back. */
  accept(stream: MuxStream, metadata: Uint8Array): void {
    this.#mustRun()
    bounded(metadata.length, MAX_METADATA, 'metadata')
    this.#step(stream, 'sendAccept')
    stream.answer = new Uint8Array(metadata)
    this.#outbox.frame(encode({ type: 'accept', stream: stream.id, metadata }))
  }

  refuse(stream: MuxStream, code: string, message: string): void {
    this.#mustRun()
    const named = this.#named(code, message)
    this.#step(stream, 'sendRefuse')
    this.#remove(stream)
    this.#owe(encode({ type: 'refuse', stream: stream.id, ...named }))
  }

  /** Takes bytes (one datagram); false asks to wait for `drain`. `call.*` as the door says. */
  write(stream: MuxStream, chunk: Uint8Array): boolean {
    if (this.#over || stream.state === 'closed' || stream.state === 'reset') return false
    if (stream.ending) throw new MuxError('call.state', 'local', 'write after end')
    this.#step(stream, 'sendData')
    this.#bytesOut += chunk.length
    if (stream.kind === 'udp') {
      bounded(chunk.length, MAX_DATAGRAM, 'datagram')
      if (this.#sender.datagram(stream, chunk, this.#limits.datagramBudget)) return true
      this.#bytesOut -= chunk.length
      stream.dropped++
      this.#dropped++
      return true
    }
    if (stream.pendingBytes > OVERRUN) throw new MuxError('call.overrun', 'local')
    return chunk.length === 0 ? !stream.wantsDrain : this.#sender.write(stream, chunk)
  }

  end(stream: MuxStream): void {
    if (this.#over || stream.ending || stream.state === 'closed' || stream.state === 'reset') return
    if (isError(table[stream.state].sendFin)) this.#step(stream, 'sendFin')
    this.#sender.end(stream)
  }

  #finDue(stream: MuxStream): void {
    // It may pass the scheduler once more after its FIN.
    if (stream.state !== 'open' && stream.state !== 'finReceived') return
    this.#step(stream, 'sendFin')
    this.#outbox.payload(TYPE.fin, stream.id, none)
    if (stream.state === 'closed') this.#done(stream)
  }

  signal(stream: MuxStream, payload: Uint8Array): void {
    if (this.#over || stream.state === 'closed' || stream.state === 'reset') return
    bounded(payload.length, MAX_SIGNAL, 'signal')
    this.#step(stream, 'sendSignal')
    this.#sender.signal(stream, payload)
  }

  /** Ends a stream both ways; for one still `opening` it takes the question back. */
  reset(stream: MuxStream, code: string, message: string, now: Monotonic): void {
    if (this.#over || stream.state === 'closed' || stream.state === 'reset') return
    const named = this.#named(code, message)
    const peerMaySend = stream.state !== 'finReceived'
    this.#step(stream, 'sendReset')
    this.#sender.drop(stream)
    if (peerMaySend) this.#live.grace(stream.id, stream.window.available)
    this.#remove(stream)
    this.#outbox.frame(encode({ type: 'reset', stream: stream.id, ...named }))
    if (this.#live.stale(now)) this.#ping(now)
  }

  /** Gives back credit for bytes the application has dealt with. */
  consumed(stream: MuxStream, bytes: number, now: Monotonic): void {
    if (bytes > stream.unconsumed || bytes < 0)
      throw new MuxError('call.range', 'local', 'consumed')
    stream.unconsumed -= bytes
    if (stream.kind === 'udp' || !this.#streams.has(stream.id)) return
    this.#held -= bytes
    const credit = stream.window.consume(bytes, now, this.#live.leastRttMs)
    if (stream.window.grown && !this.#grown.has(stream)) {
      this.#grown.add(stream)
      this.#decayAt ??= (now + DECAY_MS) as Monotonic
    }
    if (credit === 0 || stream.state === 'finReceived') return
    this.#outbox.frame(encode({ type: 'window', stream: stream.id, credit }))
  }

  /** Takes no further OPEN, and says so. */
  goaway(code: string, message = '', retryAfterMs = 0, alternatives: readonly string[] = []): void {
    if (this.#over) return
    bounded(alternatives.length, MAX_ALTERNATIVES, 'alternatives')
    for (const alternative of alternatives) bounded(utf8(alternative).length, 255, 'alternative')
    this.#sayGoaway(0, this.#named(code, message), retryAfterMs, alternatives)
  }

  #sayGoaway(
    error: number,
    named: { code: string; message: string },
    retryAfterMs = 0,
    alternatives: readonly string[] = [],
  ): void {
    // Frozen by the first GOAWAY: what came later was refused, and a raised id would be a promise.
    const lastId = (this.#goawaySentFor ??= this.#lastPeerId)
    const retry = Math.min(0xffff_ffff, Math.max(0, Math.round(retryAfterMs)))
    this.#outbox.frame(
      encode({ type: 'goaway', lastId, retryAfterMs: retry, error, alternatives, ...named }),
    )
  }

  /** Ends the tunnel: GOAWAY is the last frame that `output` gives. The streams are the driver's. */
  close(code: string, message = ''): void {
    if (this.#over) return
    this.#sayGoaway(0, this.#named(code, message))
    this.#over = true
  }

  /** The carrier broke the rules in a way that only the driver can see. */
  fail(error: MuxError): readonly Effect[] {
    this.#fail(error)
    return this.poll()
  }

  #named(code: string, message: string): { code: string; message: string } {
    if (!isCode(code)) throw new MuxError('call.range', 'local', 'code')
    return { code, message: fromUtf8(utf8Within(message, MAX_MESSAGE)) }
  }

  #mustRun(): void {
    if (this.#over || this.#peer === undefined) throw new MuxError('call.closed', 'local')
  }

  // Time.

  /** When `tick` has something to do. */
  get wakeAt(): Monotonic | undefined {
    if (this.#over) return undefined
    if (this.#peer === undefined) return this.#helloBy
    let at = this.#live.wakeAt as number
    if (this.#decayAt !== undefined) at = Math.min(at, this.#decayAt)
    const offer = this.#delayed[0]
    if (offer !== undefined) at = Math.min(at, offer.at)
    return at as Monotonic
  }

  /** Does what is due. */
  tick(now: Monotonic): readonly Effect[] {
    if (this.#over) return this.poll()
    if (this.#peer === undefined) {
      if (now >= this.#helloBy) this.#fail(remote('hello.timeout'))
      return this.poll()
    }
    this.#release(now)
    if (this.#decayAt !== undefined && now >= this.#decayAt) this.#decay(now)
    const due = this.#live.due(now)
    if (due === 'dead') this.#fail(remote('peer.silent'))
    else if (due === 'ping') this.#ping(now)
    return this.poll()
  }

  #release(now: Monotonic): void {
    for (;;) {
      const offer = this.#delayed[0]
      if (offer === undefined || offer.at > now) return
      this.#delayed.shift()
      if (offer.stream.state === 'offered') this.#announce(offer.stream)
    }
  }

  #decay(now: Monotonic): void {
    for (const stream of this.#grown) {
      stream.window.decay()
      if (!stream.window.grown) this.#grown.delete(stream)
    }
    this.#decayAt = this.#grown.size > 0 ? ((now + DECAY_MS) as Monotonic) : undefined
  }

  #ping(now: Monotonic): void {
    this.#bytesAtPing = this.#bytesIn
    this.#outbox.frame(encode({ type: 'ping', token: this.#live.ping(now) }))
  }

  // What leaves.

  /** The bytes to send next, until `sent` is called; undefined if some are out or none wait. */
  output(): Uint8Array | undefined {
    return this.#over || this.#peer === undefined ? this.#outbox.take() : this.#sender.take()
  }

  /** The connection has taken what `output` gave. */
  sent(): void {
    this.#outbox.sent()
    this.#owed = 0
    if (!this.#over) this.#sender.pump()
  }

  /** Whether everything has left. */
  get flushed(): boolean {
    return this.#outbox.empty && !this.#outbox.inFlight
  }

  /** Effects of calls other than `receive` and `tick`: drains, and streams that ended. */
  poll(): readonly Effect[] {
    const effects = this.#effects
    this.#spare.length = 0
    this.#effects = this.#spare
    this.#spare = effects
    return effects
  }

  /** A frame the peer has caused: it may not cause them without end while it reads nothing. */
  #owe(frame: Uint8Array): void {
    this.#owed += frame.length
    if (this.#owed > this.#limits.maxBacklog) this.#fail(remote('backlog.exceeded'))
    else this.#outbox.frame(frame)
  }

  #fail(error: unknown): void {
    if (!(error instanceof MuxError)) throw error
    if (this.#over) return
    const message = error.detail === '' ? muxCodes[error.code].says : error.detail
    const tell = error.code !== 'peer.lost' && error.code !== 'peer.silent'
    if (tell) this.#sayGoaway(muxCodes[error.code].wire, this.#named(error.code, message))
    this.#over = true
    this.#effects.push({ type: 'failed', error })
  }

  stats(): SessionStats {
    let pending = this.#outbox.pending
    for (const stream of this.#streams.values()) pending += stream.pendingBytes
    return {
      streams: this.#streams.size,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
      framesIn: this.#framesIn,
      framesOut: this.#outbox.frames,
      pendingBytes: pending,
      grownBytes: this.#budget.used,
      opensIn: this.#opensIn,
      opensOut: this.#opensOut,
      datagramsDropped: this.#dropped,
    }
  }
}

function remote(code: MuxCode, detail = ''): MuxError {
  return new MuxError(code, 'remote', detail)
}

function unfinished(decoder: Decoder): MuxError {
  const start = decoder.remainder
  // An unfinished header that could still have been a HELLO was cut short; anything else is foreign.
  return start.length > 0 && start[0] !== TYPE.hello ? foreign(start) : remote('frame.truncated')
}

function bounded(value: number, most: number, what: string): void {
  if (value > most) throw new MuxError('call.range', 'local', `${what} of ${value}`)
}
