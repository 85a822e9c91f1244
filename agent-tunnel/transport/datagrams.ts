/** A byte stream that carries datagrams, each behind two octets of length, as a `udp` stream. */
import type { Duplex } from 'node:stream'
import { defaultLimits, MuxError } from '#mux'
import type { StreamKind } from '#mux'
import type { CloseReason, TunnelStream } from './tunnel.ts'

const MAX_DATAGRAM = 65_507
const HEAD = 2
/** As of every udp stream: what waits for the wire. */
const { datagramBudget: BUDGET } = defaultLimits

/**
 * Boundaries are kept. A datagram that finds the stream full is dropped and counted, as on any `udp`
 * stream: late is worse than lost. Ends the stream with `relay.datagram` when a length is out of range
 * or a datagram is broken off.
 */
export class DatagramStream implements TunnelStream {
  readonly kind: StreamKind = 'udp'
  readonly #stream: TunnelStream
  readonly #metadata: Uint8Array
  /** Octets written since the stream last said to wait. */
  #waiting = 0
  dropped = 0
  /** The head of a datagram, or a datagram in pieces, that is not whole yet. */
  #head: number[] = []
  #pieces: Uint8Array[] = []
  #missing = 0
  /** Credit given back for pieces of a datagram that its consumer has not dealt with yet. */
  #ahead = 0
  onDrain: (() => void) | undefined = undefined
  #onData: ((chunk: Uint8Array) => void) | undefined
  #onEnd: (() => void) | undefined

  constructor(stream: TunnelStream, metadata: Uint8Array) {
    this.#stream = stream
    this.#metadata = metadata
    stream.onDrain = () => (this.#waiting = 0)
  }

  get id(): number {
    return this.#stream.id
  }
  get metadata(): Uint8Array {
    return this.#metadata
  }
  get answer(): Uint8Array {
    return this.#stream.answer
  }
  get bytesIn(): number {
    return this.#stream.bytesIn
  }
  get bytesOut(): number {
    return this.#stream.bytesOut
  }

  write(datagram: Uint8Array): boolean {
    const { length } = datagram
    if (length > MAX_DATAGRAM) throw new MuxError('call.range', 'local', `datagram of ${length}`)
    if (this.#waiting + length > BUDGET) {
      this.dropped++
      return true
    }
    // One write for both: a reset between them would leave half a datagram.
    const framed = new Uint8Array(HEAD + length)
    framed[0] = length >> 8
    framed[1] = length & 0xff
    framed.set(datagram, HEAD)
    if (!this.#stream.write(framed) || this.#waiting > 0) this.#waiting += framed.length
    return true
  }
  end(): void {
    this.#stream.end()
  }
  reset(code: string, message?: string): void {
    this.#stream.reset(code, message)
  }
  signal(payload: Uint8Array): boolean {
    return this.#stream.signal(payload)
  }
  consumed(bytes: number): void {
    const ahead = Math.min(bytes, this.#ahead)
    this.#ahead -= ahead
    this.#stream.consumed(bytes - ahead)
  }
  duplex(): Duplex {
    throw new MuxError('call.state', 'local', 'duplex')
  }

  get onData(): ((chunk: Uint8Array) => void) | undefined {
    return this.#onData
  }
  set onData(handler) {
    this.#onData = handler
    this.#stream.onData = handler === undefined ? undefined : (chunk) => this.#receive(chunk)
  }
  get onEnd(): (() => void) | undefined {
    return this.#onEnd
  }
  set onEnd(handler) {
    this.#onEnd = handler
    this.#stream.onEnd = () => {
      if (this.#head.length > 0 || this.#missing > 0) this.#broken()
      else handler?.()
    }
  }
  get onSignal(): ((payload: Uint8Array) => void) | undefined {
    return this.#stream.onSignal
  }
  set onSignal(handler) {
    this.#stream.onSignal = handler
  }
  get onClose(): ((reason: CloseReason) => void) | undefined {
    return this.#stream.onClose
  }
  set onClose(handler) {
    this.#stream.onClose = handler
  }

  #broken(): void {
    this.#stream.reset('relay.datagram', 'what is relayed is not whole datagrams')
  }

  // Credit for heads goes back at once, and for pieces too: a datagram may be longer than the window.
  // That for the octets of a whole datagram goes back when its consumer says so.
  #receive(chunk: Uint8Array): void {
    let rest = chunk
    while (rest.length > 0) {
      if (this.#missing > 0) rest = this.#fill(rest)
      else {
        const [octet = 0] = rest
        rest = rest.subarray(1)
        this.#head.push(octet)
        this.#stream.consumed(1)
        if (this.#head.length === HEAD && !this.#begin()) return
      }
    }
  }

  /** A head is whole. False when the stream is broken by it. */
  #begin(): boolean {
    const [high = 0, low = 0] = this.#head
    this.#head = []
    this.#missing = (high << 8) | low
    if (this.#missing === 0) this.#onData?.(new Uint8Array(0))
    if (this.#missing <= MAX_DATAGRAM) return true
    this.#broken()
    return false
  }

  #fill(rest: Uint8Array): Uint8Array {
    const part = rest.subarray(0, this.#missing)
    this.#missing -= part.length
    if (this.#missing > 0) {
      this.#pieces.push(Uint8Array.from(part))
      this.#ahead += part.length
      this.#stream.consumed(part.length)
    } else if (this.#pieces.length === 0) this.#onData?.(part)
    else {
      const whole = Buffer.concat([...this.#pieces, part])
      this.#pieces = []
      this.#onData?.(whole)
    }
    return rest.subarray(part.length)
  }
}
