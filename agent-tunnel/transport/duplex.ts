/** A tunnel stream as a plain node Duplex, for undici and everything else that wants a socket. */
import { Duplex } from 'node:stream'
import { Outlet, PIECE } from './outlet.ts'
import type { TunnelStream } from './tunnel.ts'

export class StreamDuplex extends Duplex {
  readonly #stream: TunnelStream
  readonly #outlet: Outlet
  /** Pushed and not yet wanted on: given back with the next `_read`. */
  #owed = 0

  constructor(stream: TunnelStream) {
    super({ allowHalfOpen: true, readableHighWaterMark: PIECE, writableHighWaterMark: PIECE })
    this.#stream = stream
    this.#outlet = new Outlet(stream, this)
    stream.onEnd = () => this.push(null)
    stream.onData = (chunk) => this.#data(chunk)
  }

  #data(chunk: Uint8Array): void {
    // The readable buffer may hold it longer than the tunnel lends it.
    if (this.push(Buffer.from(chunk))) this.#stream.consumed(chunk.length)
    else this.#owed += chunk.length
  }

  override _read(): void {
    const owed = this.#owed
    this.#owed = 0
    if (owed > 0) this.#stream.consumed(owed)
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#outlet.send(chunk, done)
  }

  override _final(done: () => void): void {
    this.#outlet.end()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#outlet.destroyed(error)
    done(error)
  }
}
