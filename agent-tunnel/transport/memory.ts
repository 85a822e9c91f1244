/** Two ends of a connection in memory, with back-pressure, for tests and for one process. */
import { Duplex } from 'node:stream'

class MemoryEnd extends Duplex {
  #other: MemoryEnd | undefined
  #resume: (() => void) | undefined
  #over = false

  join(other: MemoryEnd): void {
    this.#other = other
  }

  override _read(): void {
    const resume = this.#resume
    this.#resume = undefined
    resume?.()
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    // The writer may reuse its memory after `done`, the reader may be slow: hence a copy.
    const more = this.#other?.hand(Buffer.from(chunk)) ?? true
    if (more || this.#other === undefined) setImmediate(done)
    else this.#other.#resume = done
  }

  hand(chunk: Buffer | null): boolean {
    if (this.#over || this.destroyed) return true
    if (chunk === null) this.#over = true
    return this.push(chunk)
  }

  override _final(done: () => void): void {
    this.#other?.hand(null)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const other = this.#other
    this.#other = undefined
    setImmediate(() => {
      this._read()
      other?.hand(null)
    })
    done(error)
  }
}

/** Two joined Duplexes: what one writes, the other reads. */
export function memoryPair(): [Duplex, Duplex] {
  const one = new MemoryEnd({ allowHalfOpen: false })
  const two = new MemoryEnd({ allowHalfOpen: false })
  one.join(two)
  two.join(one)
  return [one, two]
}
