/**
 * A wire and a session become a Tunnel: chunk -> receive -> effects, one slab out at a time, wake-ups
 * batched per turn of the event loop.
 */
import type { Duplex } from 'node:stream'
import { defaultLimits, MuxError, muxCodeOf, muxCodes, Session } from '#mux'
import type { Effect, GoawayFrame, Hello, Monotonic, MuxStream, StreamKind } from '#mux'
import { systemClock } from './clock.ts'
import { pool } from './pool.ts'
import { socketWire } from './socket.ts'
import { LiveOffer, LiveStream } from './stream.ts'
import type { Host } from './stream.ts'
import { TunnelClosed, TunnelRefused } from './tunnel.ts'
import { Seat, turns } from './turns.ts'
import type { CloseReason, Clock, Goaway, Offer, Peer, Tunnel, TunnelOptions } from './tunnel.ts'
import type { TunnelStats, TunnelStream } from './tunnel.ts'
import type { Wire, WireEvents } from './wire.ts'

/** After the last frame the connection has this long to close by itself. */
const LINGER_MS = 2000

/** An `open` that waits for its answer. */
class Opening {
  readonly resolve: (stream: TunnelStream) => void
  readonly reject: (error: Error) => void
  constructor(resolve: (stream: TunnelStream) => void, reject: (error: Error) => void) {
    this.resolve = resolve
    this.reject = reject
  }
}

class LiveTunnel implements Tunnel, Host, WireEvents {
  readonly #wire: Wire
  readonly #session: Session
  readonly #clock: Clock
  readonly #started: { resolve(tunnel: Tunnel): void; reject(error: Error): void }
  readonly closed: Promise<CloseReason>
  readonly #resolveClosed: (reason: CloseReason) => void
  #peer: Peer | undefined
  #reason: CloseReason | undefined
  #goaway: GoawayFrame | undefined
  #onOpen: ((offer: Offer) => void) | undefined
  #offers: LiveOffer[] = []
  onGoaway: ((goaway: Goaway) => void) | undefined = undefined
  readonly #seat: Seat
  /** Octets read in this turn, and whether no more of them may be. */
  #read = 0
  #paused = false
  #scheduled = false
  #writing = false
  /** Within `write`, whose caller does not know yet that it is to wait. */
  #called = false
  #ending = false
  #wakeAt: Monotonic | undefined
  #cancelWake: (() => void) | undefined
  readonly #sent = (): void => this.#written()
  readonly #turn = (): void => this.#run()

  constructor(
    wire: Wire,
    options: TunnelOptions,
    started: { resolve(tunnel: Tunnel): void; reject(error: Error): void },
  ) {
    this.#clock = options.clock ?? systemClock
    this.#session = new Session(
      {
        role: options.role,
        side: options.side,
        instance: options.instance,
        epoch: options.epoch,
        limits: { ...defaultLimits, ...options.limits },
        random: options.random ?? Math.random,
        pool,
        ...(options.budget === undefined ? {} : { budget: options.budget }),
      },
      this.#clock.now(),
    )
    this.#seat = new Seat(options.turns ?? turns)
    this.#wire = wire
    this.#started = started
    const { promise, resolve } = Promise.withResolvers<CloseReason>()
    this.closed = promise
    this.#resolveClosed = resolve
  }

  start(): void {
    this.#wire.start(this)
    this.#run()
  }

  // From the wire.

  bytes(chunk: Uint8Array): void {
    const now = this.#clock.now()
    this.#dispatch(this.#session.receive(chunk, now), chunk)
    this.#read += chunk.length
    if (!this.#paused && this.#seat.isEnough(this.#read, now)) {
      this.#paused = true
      this.#wire.pause()
    }
    // More may be read in this turn, and meanwhile the peer would have nothing it may send.
    if (this.#session.urgent && !this.#writing) this.#push()
    this.#schedule()
  }
  ended(): void {
    this.#dispatch(this.#session.ended(), undefined)
    this.#schedule()
  }
  broken(error: MuxError): void {
    this.#dispatch(this.#session.fail(error), undefined)
    this.#schedule()
  }
  gone(error: Error | undefined): void {
    if (!this.#session.over) {
      const failure =
        error === undefined
          ? new MuxError('peer.lost', 'remote')
          : new MuxError('carrier.failed', 'remote', error.message, { cause: error })
      this.#dispatch(this.#session.fail(failure), undefined)
    }
    this.#cancelWake?.()
    this.#resolveClosed(this.#reason ?? { code: 'peer.lost', message: '', fault: 'remote' })
  }

  #dispatch(effects: readonly Effect[], chunk: Uint8Array | undefined): void {
    for (const effect of effects) {
      if (effect.type === 'data') {
        const { stream, start, end } = effect
        // A handler before this one may have reset it.
        if (stream.owner instanceof LiveStream && stream.state !== 'reset' && chunk !== undefined) {
          stream.owner.data(chunk.subarray(start, end))
        }
      } else this.#perform(effect)
    }
  }

  #perform(effect: Exclude<Effect, { type: 'data' }>): void {
    switch (effect.type) {
      case 'ready':
        return this.#ready(effect.hello)
      case 'goaway':
        return this.#drain(effect.frame)
      case 'failed':
        return this.#finish(this.#reasonOf(effect.error), effect.error)
      case 'offer':
        return this.#offer(effect.stream)
      case 'accepted':
        return this.#accepted(effect.stream)
      case 'refused':
      case 'cancelled':
      case 'reset':
        return this.#lose(effect.stream, {
          code: effect.code,
          message: effect.message,
          fault: effect.local ? 'local' : 'remote',
        })
      case 'closed':
        return this.#lose(effect.stream, { code: 'done', message: '', fault: 'local' })
      default:
        return this.#pass(effect)
    }
  }

  #pass(effect: Extract<Effect, { stream: MuxStream }>): void {
    const owner = effect.stream.owner
    if (!(owner instanceof LiveStream) || effect.stream.state === 'reset') return
    if (effect.type === 'end') owner.ended()
    else if (effect.type === 'drain') this.#drained(owner)
    else if (effect.type === 'datagram') owner.data(effect.payload)
    else if (effect.type === 'signal') owner.signalled(effect.payload)
  }

  #drained(owner: LiveStream): void {
    if (this.#called) queueMicrotask(() => owner.drained())
    else owner.drained()
  }

  #ready(hello: Hello): void {
    const { role, instance, epoch, limits, maxVersion } = hello
    this.#peer = { role, instance, epoch, limits, version: Math.min(1, maxVersion) }
    this.#started.resolve(this)
  }

  #drain(frame: GoawayFrame): void {
    this.#goaway = frame
    const { code, message, retryAfterMs, alternatives } = frame
    this.onGoaway?.({ code, message, retryAfterMs, alternatives })
  }

  #offer(mux: MuxStream): void {
    const offer = new LiveOffer(this, mux)
    mux.owner = offer
    if (this.#onOpen === undefined) this.#offers.push(offer)
    else this.#onOpen(offer)
  }

  #accepted(mux: MuxStream): void {
    const opening = mux.owner
    const stream = new LiveStream(this, mux)
    mux.owner = stream
    if (opening instanceof Opening) opening.resolve(stream)
  }

  /** A stream is over, in whatever stage it was. */
  #lose(mux: MuxStream, reason: CloseReason): void {
    const owner = mux.owner
    if (owner instanceof LiveStream) owner.close(reason)
    else if (owner instanceof LiveOffer) owner.cancel(reason)
    else if (owner instanceof Opening) {
      owner.reject(
        this.#session.over
          ? new TunnelClosed(reason)
          : new TunnelRefused(reason.code, reason.message),
      )
    }
  }

  #reasonOf(error: MuxError): CloseReason {
    const goaway = this.#goaway
    if (goaway === undefined || error.code !== 'peer.lost') {
      return { code: error.code, message: error.message, fault: error.fault }
    }
    // The peer had said why. If it named a protocol error, the mistake was ours.
    const known = muxCodeOf(goaway.error)
    const message =
      goaway.message === '' && known !== undefined ? muxCodes[known].says : goaway.message
    return { code: goaway.code, message, fault: goaway.error === 0 ? 'remote' : 'local' }
  }

  #finish(reason: CloseReason, error: MuxError | undefined): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    if (this.#peer === undefined) {
      this.#started.reject(error ?? new TunnelClosed(reason))
    }
    const lost = [...this.#session.streams]
    for (const mux of lost) this.#lose(mux, reason)
    this.#offers = []
    this.#cancelWake?.()
    this.#cancelWake = this.#clock.after(LINGER_MS, () => this.#wire.destroy())
    if (error?.code === 'peer.silent' || error?.code === 'peer.lost') this.#wire.destroy()
  }

  // Turns of the event loop.

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#turn)
  }

  #run(): void {
    this.#scheduled = false
    this.#read = 0
    if (this.#paused) {
      this.#paused = false
      this.#wire.resume()
    }
    this.#dispatch(this.#session.poll(), undefined)
    this.#push()
    this.#arm()
  }

  #push(): void {
    if (this.#writing) return
    const slab = this.#session.output(this.#clock.now())
    if (slab !== undefined) {
      this.#seat.sentLittle(this.#session.littleAt)
      this.#writing = true
      this.#wire.write(slab, this.#sent)
    } else if (this.#session.over && !this.#ending) {
      this.#ending = true
      this.#wire.end()
    }
  }

  #written(): void {
    this.#writing = false
    this.#session.sent()
    this.#dispatch(this.#session.poll(), undefined)
    this.#push()
  }

  #arm(): void {
    const at = this.#session.wakeAt
    if (at === undefined || (this.#wakeAt !== undefined && this.#wakeAt <= at)) return
    this.#cancelWake?.()
    this.#wakeAt = at
    this.#cancelWake = this.#clock.after(Math.max(0, at - this.#clock.now()), () => this.#wake())
  }

  #wake(): void {
    this.#wakeAt = undefined
    this.#dispatch(this.#session.tick(this.#clock.now()), undefined)
    this.#run()
  }

  // From streams and offers.

  write(stream: MuxStream, chunk: Uint8Array): boolean {
    const more = this.#session.write(stream, chunk)
    // A slab's worth need not wait for the end of the turn.
    if (!more && !this.#writing) {
      const within = this.#called
      this.#called = true
      this.#push()
      this.#called = within
    }
    this.#schedule()
    return more
  }
  end(stream: MuxStream): void {
    this.#session.end(stream)
    this.#schedule()
  }
  reset(stream: MuxStream, code: string, message: string): void {
    this.#session.reset(stream, code, message, this.#clock.now())
    this.#schedule()
  }
  signal(stream: MuxStream, payload: Uint8Array): boolean {
    const taken = this.#session.signal(stream, payload)
    this.#schedule()
    return taken
  }
  consumed(stream: MuxStream, bytes: number): void {
    this.#session.consumed(stream, bytes, this.#clock.now())
    this.#schedule()
  }
  accept(offer: LiveOffer, metadata: Uint8Array): LiveStream {
    const stream = new LiveStream(this, offer.mux)
    if (this.#gone(offer)) {
      stream.close(this.#reason ?? { code: 'offer.cancelled', message: '', fault: 'remote' })
      return stream
    }
    this.#session.accept(offer.mux, metadata)
    offer.mux.owner = stream
    this.#schedule()
    return stream
  }
  /** Taken back, also by a RESET that came in the same read and whose effect is not told yet. */
  #gone(offer: LiveOffer): boolean {
    return offer.cancelled || this.#session.over || offer.mux.state !== 'offered'
  }
  refuse(offer: LiveOffer, code: string, message: string): void {
    if (this.#gone(offer)) return
    this.#session.refuse(offer.mux, code, message)
    this.#schedule()
  }

  // The door.

  get peer(): Peer {
    if (this.#peer === undefined) throw new MuxError('call.state', 'local', 'before HELLO')
    return this.#peer
  }
  get rttMs(): number | undefined {
    return this.#session.rttMs
  }
  get draining(): boolean {
    return this.#session.draining
  }
  get onOpen(): ((offer: Offer) => void) | undefined {
    return this.#onOpen
  }
  set onOpen(handler) {
    this.#onOpen = handler
    if (handler === undefined) return
    const offers = this.#offers
    this.#offers = []
    for (const offer of offers) if (!offer.cancelled) handler(offer)
  }

  async open(
    kind: StreamKind,
    metadata: Uint8Array,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<TunnelStream> {
    const { signal } = options
    if (this.#reason !== undefined) throw new TunnelClosed(this.#reason)
    if (signal?.aborted === true) throw aborted()
    const mux = this.#session.open(kind, metadata, this.#clock.now())
    if (typeof mux === 'string') throw new TunnelClosed({ code: mux, message: '', fault: 'local' })
    const { promise, resolve, reject } = Promise.withResolvers<TunnelStream>()
    mux.owner = new Opening(resolve, reject)
    const abort = (): void => {
      if (mux.state !== 'opening') return
      this.reset(mux, 'open.aborted', '')
      reject(aborted())
    }
    signal?.addEventListener('abort', abort, { once: true })
    this.#schedule()
    try {
      return await promise
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  goaway(code: string, retryAfterMs = 0, alternatives: readonly string[] = []): void {
    this.#session.goaway(code, '', retryAfterMs, alternatives)
    this.#schedule()
  }

  close(code: string, message = ''): void {
    if (this.#session.over) return
    this.#session.close(code, message)
    this.#finish({ code, message, fault: 'local' }, undefined)
    this.#schedule()
  }

  stats(): TunnelStats {
    return { ...this.#session.stats(), rttMs: this.rttMs, reads: this.#wire.reads }
  }
}

function aborted(): TunnelRefused {
  return new TunnelRefused('open.aborted', 'the caller gave up before the answer')
}

/** Starts the protocol on a wire. Rejects as `driveTunnel`. */
export async function driveWire(wire: Wire, options: TunnelOptions): Promise<Tunnel> {
  const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
  const tunnel = new LiveTunnel(wire, options, { resolve, reject })
  tunnel.start()
  return promise
}

/**
 * Drives the tunnel protocol over a connected, authenticated byte stream (TLS socket, TCP or Unix
 * socket, any Duplex). Resolves after HELLO both ways. Rejects with MuxError, the socket destroyed:
 * `hello.timeout` (5 s by default), hello.* and frame.* for a peer that speaks something else,
 * `carrier.failed`, `peer.lost`; `call.range` for options outside their limits. docs/protocol.md.
 */
export async function driveTunnel(socket: Duplex, options: TunnelOptions): Promise<Tunnel> {
  return driveWire(socketWire(socket, options.plainReads ?? false), options)
}
