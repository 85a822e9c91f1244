/**
 * A stream of a session as the socket of a web request: what passes is counted both ways and held to
 * the session's limits, as splice.ts does for native clients.
 */
import { Duplex } from 'node:stream'
import type { Hold } from '../sessions/hold.ts'
import type { Pace } from '../sessions/pace.ts'

export interface MeterOptions {
  readonly pace: { readonly in: Pace; readonly out: Pace }
  /** While it holds nothing passes; what was sent waits with its sender. */
  readonly hold?: Hold | undefined
  /** Counts bytes as they pass, `in` towards the device; false: they may not, because a limit is reached. */
  readonly meter: (direction: 'in' | 'out', bytes: number) => boolean
}

export class Metered extends Duplex {
  readonly #inner: Duplex
  readonly #meter: MeterOptions['meter']
  readonly #paces: { readonly in: Pace; readonly out: Pace }
  readonly #timers = new Set<NodeJS.Timeout>()
  /** What passed: to the device, and from it. */
  bytesIn = 0
  bytesOut = 0
  #unpaid = false
  #full = false
  readonly #hold: Hold | undefined
  readonly #unfollow: (() => void) | undefined
  /** A write that waits for the session to go on. */
  #held: (() => void) | undefined

  constructor(inner: Duplex, { pace, meter, hold }: MeterOptions) {
    super({ allowHalfOpen: true })
    this.#inner = inner
    this.#meter = meter
    this.#paces = pace
    this.#hold = hold
    this.#unfollow = hold?.follow(() => (hold.held ? inner.pause() : this.#free()))
    inner.on('data', (chunk: Buffer) => this.#arrived(chunk))
    inner.once('end', () => this.push(null))
    inner.once('error', (error) => this.destroy(error))
    // Ended both ways, it has nothing more to say: what waits here is still to be read.
    inner.once('close', () => {
      if (!inner.readableEnded || !inner.writableFinished) this.destroy()
    })
  }

  #free(): void {
    const held = this.#held
    this.#held = undefined
    held?.()
    this.#goOn()
  }

  #arrived(chunk: Buffer): void {
    if (this.#hold?.held === true) {
      this.#inner.pause()
      this.#inner.unshift(chunk)
      return
    }
    if (!this.#meter('out', chunk.length)) return
    this.bytesOut += chunk.length
    this.#full = !this.push(chunk)
    const wait = this.#paces.out.take(chunk.length, performance.now())
    if (wait > 0) {
      this.#unpaid = true
      this.#after(wait, () => {
        this.#unpaid = false
        this.#goOn()
      })
    }
    if (this.#full || this.#unpaid) this.#inner.pause()
  }

  override _read(): void {
    this.#full = false
    this.#goOn()
  }

  #goOn(): void {
    if (!this.#full && !this.#unpaid && this.#hold?.held !== true) this.#inner.resume()
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
    const taken = () => (wait > 0 ? this.#after(wait, done) : done())
    if (this.#inner.write(chunk)) taken()
    else this.#inner.once('drain', taken)
  }

  override _final(done: () => void): void {
    this.#inner.end(done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#unfollow?.()
    this.#inner.destroy(error ?? undefined)
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
