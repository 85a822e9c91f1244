/** A stream and an offer as the application holds them: handlers, and what waits for handlers. */
import type { Duplex } from 'node:stream'
import { MuxError } from '#mux'
import type { MuxStream, StreamKind } from '#mux'
import { StreamDuplex } from './duplex.ts'
import type { CloseReason, Offer, TunnelStream } from './tunnel.ts'

/** What a stream asks of the tunnel it belongs to. */
export interface Host {
  write(stream: MuxStream, chunk: Uint8Array): boolean
  end(stream: MuxStream): void
  reset(stream: MuxStream, code: string, message: string): void
  signal(stream: MuxStream, payload: Uint8Array): boolean
  consumed(stream: MuxStream, bytes: number): void
  accept(offer: LiveOffer, metadata: Uint8Array): LiveStream
  refuse(offer: LiveOffer, code: string, message: string): void
}

type Held =
  | { readonly type: 'data' | 'signal'; readonly bytes: Uint8Array }
  | { readonly type: 'end' }

/** Signals kept for a handler that is not there yet, each with what it costs to keep. */
const MAX_SIGNALS = 64 * 1024
const KEEPING = 64

export class LiveStream implements TunnelStream {
  readonly #host: Host
  readonly #mux: MuxStream
  #held: Held[] | undefined
  #heldSignals = 0
  #reason: CloseReason | undefined
  #told = false
  #viewed = false
  #onData: ((chunk: Uint8Array) => void) | undefined
  #onEnd: (() => void) | undefined
  #onSignal: ((payload: Uint8Array) => void) | undefined
  #onClose: ((reason: CloseReason) => void) | undefined
  onDrain: (() => void) | undefined = undefined

  constructor(host: Host, mux: MuxStream) {
    this.#host = host
    this.#mux = mux
  }

  get id(): number {
    return this.#mux.id
  }
  get kind(): StreamKind {
    return this.#mux.kind
  }
  get metadata(): Uint8Array {
    return this.#mux.metadata
  }
  get answer(): Uint8Array {
    return this.#mux.answer
  }
  get bytesIn(): number {
    return this.#mux.bytesIn
  }
  get bytesOut(): number {
    return this.#mux.bytesOut
  }
  get dropped(): number {
    return this.#mux.dropped
  }

  write(chunk: Uint8Array): boolean {
    return this.#host.write(this.#mux, chunk)
  }
  end(): void {
    this.#host.end(this.#mux)
  }
  reset(code: string, message = ''): void {
    if (this.#reason !== undefined) return
    this.#host.reset(this.#mux, code, message)
    this.close({ code, message, fault: 'local' })
  }
  signal(payload: Uint8Array): boolean {
    return this.#host.signal(this.#mux, payload)
  }
  consumed(bytes: number): void {
    this.#host.consumed(this.#mux, bytes)
  }

  duplex(): Duplex {
    if (this.#viewed || this.kind === 'udp') throw new MuxError('call.state', 'local', 'duplex')
    this.#viewed = true
    return new StreamDuplex(this)
  }

  get onData(): ((chunk: Uint8Array) => void) | undefined {
    return this.#onData
  }
  set onData(handler) {
    this.#onData = handler
    this.#release()
  }
  get onEnd(): (() => void) | undefined {
    return this.#onEnd
  }
  set onEnd(handler) {
    this.#onEnd = handler
    this.#release()
  }
  get onSignal(): ((payload: Uint8Array) => void) | undefined {
    return this.#onSignal
  }
  set onSignal(handler) {
    this.#onSignal = handler
    this.#release()
  }
  get onClose(): ((reason: CloseReason) => void) | undefined {
    return this.#onClose
  }
  set onClose(handler) {
    this.#onClose = handler
    this.#tellSoon()
  }

  /** From the wire; `chunk` is the wire's memory. */
  data(chunk: Uint8Array): void {
    if (this.#held === undefined && this.#onData !== undefined) this.#onData(chunk)
    else this.#hold({ type: 'data', bytes: Uint8Array.from(chunk) })
  }
  ended(): void {
    if (this.#held === undefined && this.#onEnd !== undefined) this.#onEnd()
    else this.#hold({ type: 'end' })
  }
  signalled(payload: Uint8Array): void {
    if (this.#held === undefined && this.#onSignal !== undefined) return this.#onSignal(payload)
    this.#heldSignals += payload.length + KEEPING
    if (this.#heldSignals > MAX_SIGNALS)
      return this.reset(
        'tunnel.signals',
        'more signals than are kept for somebody who does not listen',
      )
    this.#hold({ type: 'signal', bytes: Uint8Array.from(payload) })
  }
  drained(): void {
    if (!this.#told) this.onDrain?.()
  }

  #hold(event: Held): void {
    if (this.#held === undefined) this.#held = [event]
    else this.#held.push(event)
    this.#deliver()
  }

  // Handlers are assigned one after the other: what is held goes out when the turn's code is through.
  #release(): void {
    if (this.#held !== undefined) queueMicrotask(() => this.#deliver())
  }

  #deliver(): void {
    for (;;) {
      const event = this.#held?.[0]
      if (event === undefined) break
      const sinks = { data: this.#onData, end: this.#onEnd, signal: this.#onSignal }
      if (sinks[event.type] === undefined && this.#onData === undefined) return
      this.#held?.shift()
      if (event.type === 'data') sinks.data?.(event.bytes)
      else if (event.type === 'signal') sinks.signal?.(event.bytes)
      else sinks.end?.()
    }
    this.#held = undefined
    this.#heldSignals = 0
    if (this.#reason !== undefined) this.#tell()
  }

  /** The stream has ended. After FIN both ways what is held is still delivered first. */
  close(reason: CloseReason): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    if (reason.code !== 'done') this.#held = undefined
    if (this.#held === undefined) this.#tell()
  }

  #tell(): void {
    if (this.#told || this.#reason === undefined || this.#onClose === undefined) return
    this.#told = true
    this.#onClose(this.#reason)
  }
  #tellSoon(): void {
    if (this.#reason === undefined) return
    queueMicrotask(() => {
      if (this.#held === undefined) this.#tell()
    })
  }
}

export class LiveOffer implements Offer {
  readonly mux: MuxStream
  readonly #host: Host
  cancelled = false
  onCancel: ((reason: CloseReason) => void) | undefined = undefined

  constructor(host: Host, mux: MuxStream) {
    this.#host = host
    this.mux = mux
  }
  get id(): number {
    return this.mux.id
  }
  get kind(): StreamKind {
    return this.mux.kind
  }
  get metadata(): Uint8Array {
    return this.mux.metadata
  }
  accept(metadata: Uint8Array): TunnelStream {
    return this.#host.accept(this, metadata)
  }
  refuse(code: string, message: string): void {
    this.#host.refuse(this, code, message)
  }
  cancel(reason: CloseReason): void {
    this.cancelled = true
    this.onCancel?.(reason)
  }
}
