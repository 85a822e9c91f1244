/**
 * Bytes on their way into a socket. They are copied into slabs, so that whoever lent them has them back
 * at once; one slab is with the socket while the next fills, and what is small leaves together at the
 * end of the turn. docs/protocol.md section 10.
 */
import type { Writable } from 'node:stream'
import { pool } from './pool.ts'

const LEAST = 4 * 1024
const MOST = 64 * 1024

export class SlabWriter {
  readonly #socket: Writable
  readonly #taken: (bytes: number) => void
  #size = LEAST
  #filling: Uint8Array | undefined
  #used = 0
  readonly #full: Uint8Array[] = []
  #writing = false
  #scheduled = false
  readonly #turn = (): void => this.#run()

  /** `taken` hears how many bytes the socket has passed on; never before `write` returns. */
  constructor(socket: Writable, taken: (bytes: number) => void) {
    this.#socket = socket
    this.#taken = taken
  }

  /** Copies `chunk`. The caller bounds what waits here: by the credit it gives as bytes are taken. */
  write(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      this.#filling ??= pool.take(this.#size)
      const room = this.#filling.length - this.#used
      const whole = at === 0 && chunk.length <= room
      const part = whole ? chunk : chunk.subarray(at, at + room)
      this.#filling.set(part, this.#used)
      this.#used += part.length
      at += part.length
      if (this.#used === this.#filling.length) this.#turnOver(this.#filling)
    }
    if (this.#full.length > 0) this.#push()
    this.#schedule()
  }

  /** Everything written, then the end of this direction. */
  end(): void {
    while (this.#full.length > 0 || this.#used > 0) this.#send(this.#next())
    this.#socket.end()
  }

  #turnOver(slab: Uint8Array): void {
    this.#full.push(slab)
    this.#filling = undefined
    this.#used = 0
    this.#size = Math.min(MOST, this.#size * 2)
  }

  #schedule(): void {
    if (this.#scheduled || this.#writing || this.#used === 0) return
    this.#scheduled = true
    setImmediate(this.#turn)
  }

  #run(): void {
    this.#scheduled = false
    this.#push()
  }

  #push(): void {
    if (!this.#writing && (this.#full.length > 0 || this.#used > 0)) this.#send(this.#next())
  }

  /** What leaves next, as far as it is filled. */
  #next(): { readonly slab: Uint8Array; readonly used: number } {
    const full = this.#full.shift()
    if (full !== undefined) return { slab: full, used: full.length }
    const slab = this.#filling ?? new Uint8Array(0)
    const used = this.#used
    if (used < slab.length / 8) this.#size = Math.max(LEAST, this.#size / 2)
    this.#filling = undefined
    this.#used = 0
    return { slab, used }
  }

  #send({ slab, used }: { readonly slab: Uint8Array; readonly used: number }): void {
    this.#writing = true
    this.#socket.write(slab.subarray(0, used), (error) => {
      pool.give(slab)
      this.#writing = false
      if (error instanceof Error) return
      this.#taken(used)
      // Taken at once: more may come in this turn. Taken late: what has come meanwhile is enough.
      if (this.#full.length > 0) this.#push()
      else this.#schedule()
    })
  }
}
