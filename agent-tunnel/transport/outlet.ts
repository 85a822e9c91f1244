/**
 * What a node Duplex sends on a tunnel stream: in pieces, the next of them when the tunnel wants more; and how the end of
 * one is the end of the other.
 */
import type { Duplex } from 'node:stream'
import { isCode } from '#mux'
import type { CloseReason, TunnelStream } from './tunnel.ts'
import { TunnelClosed } from './tunnel.ts'

/** So much is given to the tunnel before it is asked whether it wants more. */
export const PIECE = 64 * 1024

export class Outlet {
  readonly #stream: TunnelStream
  readonly #duplex: Duplex
  /** A write that waits for the tunnel. */
  #waiting: (() => void) | undefined
  #closed = false

  /** Hears from `stream` when it wants more and when it is over; `duplex` is destroyed where it does not end well. */
  constructor(stream: TunnelStream, duplex: Duplex) {
    this.#stream = stream
    this.#duplex = duplex
    stream.onDrain = () => this.#drained()
    stream.onClose = (reason) => this.#over(reason)
  }

  /** Whether the stream is over. */
  get closed(): boolean {
    return this.#closed
  }

  /** Calls `done` when the tunnel has all of `chunk`. */
  send(chunk: Buffer, done: () => void): void {
    this.#sendFrom(chunk, 0, done)
  }

  /** Ends the sending half; the other goes on. */
  end(): void {
    this.#stream.end()
  }

  /** The Duplex is destroyed: resets the stream, unless both had ended well. */
  destroyed(error: Error | null): void {
    this.#waiting = undefined
    const finished = this.#duplex.writableFinished && this.#duplex.readableEnded
    if (this.#closed || (error === null && finished)) return
    const code: unknown = error === null ? undefined : Reflect.get(error, 'code')
    const named = typeof code === 'string' && isCode(code)
    this.#stream.reset(named ? code : 'stream.destroyed', error?.message ?? '')
  }

  #sendFrom(chunk: Buffer, from: number, done: () => void): void {
    for (let at = from; at < chunk.length;) {
      const end = Math.min(chunk.length, at + PIECE)
      const more = this.#stream.write(chunk.subarray(at, end))
      at = end
      if (more) continue
      this.#waiting = () => this.#sendFrom(chunk, at, done)
      return
    }
    done()
  }

  #drained(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  #over(reason: CloseReason): void {
    this.#closed = true
    if (reason.code !== 'done' && !this.#duplex.destroyed)
      this.#duplex.destroy(new TunnelClosed(reason))
  }
}
