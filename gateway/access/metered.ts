/**
 * A stream of a session as the socket of a web request: what passes is counted both ways and held to
 * the session's limits, as splice.ts does for native clients.
 */
import { Duplex } from 'node:stream'
import { Outlet, PIECE, type TunnelStream } from '#tunnel'
import type { Hold } from '../sessions/hold.ts'
import type { Pace } from '../sessions/pace.ts'
import { Kept } from './kept.ts'

export interface MeterOptions {
  readonly pace: { readonly in: Pace; readonly out: Pace }
  /** While it holds nothing passes; what was sent waits with its sender. */
  readonly hold?: Hold | undefined
  /** Counts bytes as they pass, `in` towards the device; false: they may not, because a limit is reached. */
  readonly meter: (direction: 'in' | 'out', bytes: number) => boolean
}

export class Metered extends Duplex {
  readonly #stream: TunnelStream
  readonly #outlet: Outlet
  readonly #meter: MeterOptions['meter']
  readonly #paces: { readonly in: Pace; readonly out: Pace }
  readonly #hold: Hold | undefined
  readonly #unfollow: (() => void) | undefined
  readonly #timers = new Set<NodeJS.Timeout>()
  /** What passed: to the device, and from it. */
  bytesIn = 0
  bytesOut = 0
  /** Came and may not pass yet: its credit stays here. */
  readonly #kept = new Kept()
  /** Passed and not yet wanted on: its credit is given back with the next `_read`. */
  #owed = 0
  #unpaid = false
  #full = false
  #ended = false
  /** A write that waits for the session to go on. */
  #held: (() => void) | undefined

  /** Becomes the consumer of `stream`. */
  constructor(stream: TunnelStream, { pace, meter, hold }: MeterOptions) {
    super({ allowHalfOpen: true, readableHighWaterMark: PIECE, writableHighWaterMark: PIECE })
    this.#stream = stream
    this.#meter = meter
    this.#paces = pace
    this.#hold = hold
    this.#unfollow = hold?.follow(() => {
      if (!hold.held) this.#free()
    })
    this.#outlet = new Outlet(stream, this)
    stream.onEnd = () => {
      this.#ended = true
      this.#goOn()
    }
    stream.onData = (chunk) => this.#arrived(chunk)
  }

  get #waits(): boolean {
    return this.#full || this.#unpaid || this.#hold?.held === true
  }

  #free(): void {
    const held = this.#held
    this.#held = undefined
    held?.()
    this.#goOn()
  }

  #arrived(lent: Uint8Array): void {
    if (this.destroyed) return
    // It may be kept for longer than the tunnel lends it.
    const chunk = Buffer.from(lent)
    if (this.#kept.empty && !this.#waits) this.#pass(chunk)
    else this.#kept.bytes(chunk)
  }

  #pass(chunk: Uint8Array): void {
    if (!this.#meter('out', chunk.length)) return
    this.bytesOut += chunk.length
    const wait = this.#paces.out.take(chunk.length, performance.now())
    if (wait > 0) {
      this.#unpaid = true
      this.#after(wait, () => {
        this.#unpaid = false
        this.#goOn()
      })
    }
    const wanted = this.push(chunk)
    this.#full = !wanted
    if (wanted) this.#stream.consumed(chunk.length)
    else this.#owed += chunk.length
  }

  override _read(): void {
    const owed = this.#owed
    this.#owed = 0
    this.#full = false
    if (owed > 0 && !this.#outlet.closed) this.#stream.consumed(owed)
    this.#goOn()
  }

  #goOn(): void {
    while (!this.#waits && !this.destroyed) {
      const next = this.#kept.next()
      if (next instanceof Uint8Array) this.#pass(next)
      else break
    }
    if (!this.#ended || !this.#kept.empty || this.#hold?.held === true) return
    this.#ended = false
    this.push(null)
  }

  override _write(chunk: Buffer, encoding: string, done: (error?: Error) => void): void {
    if (this.#hold?.held === true) {
      this.#held = () => this._write(chunk, encoding, done)
      return
    }
    if (!this.#meter('in', chunk.length)) {
      done(new Error('the session has carried as much as its grant allows'))
      return
    }
    this.bytesIn += chunk.length
    const wait = this.#paces.in.take(chunk.length, performance.now())
    this.#outlet.send(chunk, wait > 0 ? () => this.#after(wait, done) : done)
  }

  override _final(done: () => void): void {
    this.#outlet.end()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#unfollow?.()
    this.#kept.clear()
    this.#held = undefined
    this.#outlet.destroyed(error)
    done(error)
  }

  #after(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      act()
    }, ms)
    this.#timers.add(timer.unref())
  }
}
