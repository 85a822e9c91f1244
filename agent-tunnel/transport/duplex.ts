/** A tunnel stream as a plain node Duplex, for undici and everything else that wants a socket. */
import { Duplex } from 'node:stream'
import { isCode } from '#mux'
import type { CloseReason, TunnelStream } from './tunnel.ts'
import { TunnelClosed } from './tunnel.ts'

const PIECE = 64 * 1024

export class StreamDuplex extends Duplex {
  readonly #stream: TunnelStream
  /** Pushed and not yet wanted on: given back with the next `_read`. */
  #owed = 0
  #waiting: (() => void) | undefined
  #closed = false

  constructor(stream: TunnelStream) {
    super({ allowHalfOpen: true, readableHighWaterMark: PIECE, writableHighWaterMark: PIECE })
    this.#stream = stream
    stream.onDrain = () => this.#drained()
    stream.onEnd = () => this.push(null)
    stream.onData = (chunk) => this.#data(chunk)
    stream.onClose = (reason) => this.#over(reason)
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
    this.#send(chunk, 0, done)
  }

  #send(chunk: Buffer, from: number, done: () => void): void {
    for (let at = from; at < chunk.length;) {
      const end = Math.min(chunk.length, at + PIECE)
      const more = this.#stream.write(chunk.subarray(at, end))
      at = end
      if (more) continue
      this.#waiting = () => this.#send(chunk, at, done)
      return
    }
    done()
  }

  #drained(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  override _final(done: () => void): void {
    this.#stream.end()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const finished = this.writableFinished && this.readableEnded
    if (!this.#closed && (error !== null || !finished)) {
      const code: unknown = error === null ? undefined : Reflect.get(error, 'code')
      const named = typeof code === 'string' && isCode(code)
      this.#stream.reset(named ? code : 'stream.destroyed', error?.message ?? '')
    }
    this.#waiting = undefined
    done(error)
  }

  #over(reason: CloseReason): void {
    this.#closed = true
    if (reason.code !== 'done' && !this.destroyed) this.destroy(new TunnelClosed(reason))
  }
}
