/**
 * Deficit round robin with a sparse queue in front: a stream that has little to say goes first for
 * one quantum, then stands with the others. A stream that empties in the sparse queue passes
 * through the bulk queue before it is new again, so that it cannot starve them. RFC 8290 section 4.
 */
import type { MuxStream } from './stream.ts'

export const QUANTUM = 32 * 1024

class Lane {
  head: MuxStream | undefined
  #tail: MuxStream | undefined

  push(stream: MuxStream): void {
    stream.next = undefined
    if (this.#tail === undefined) this.head = stream
    else this.#tail.next = stream
    this.#tail = stream
  }

  shift(): void {
    const stream = this.head
    if (stream === undefined) return
    this.head = stream.next
    if (this.head === undefined) this.#tail = undefined
    stream.next = undefined
  }
}

export class Scheduler {
  readonly #sparse = new Lane()
  readonly #bulk = new Lane()

  /** Whose turn it is; a stream that has ended meanwhile is passed over by the caller's `leave`. */
  get head(): MuxStream | undefined {
    return this.#sparse.head ?? this.#bulk.head
  }

  /** Whether a stream that sends little stands before others. */
  get shared(): boolean {
    return this.#sparse.head !== undefined && this.#bulk.head !== undefined
  }

  /** A stream has something to send; `sparse` if it has been idle and this is little. */
  wake(stream: MuxStream, sparse: boolean): void {
    if (stream.lane !== 'none') return
    stream.lane = sparse ? 'sparse' : 'bulk'
    stream.deficit = QUANTUM
    if (sparse) this.#sparse.push(stream)
    else this.#bulk.push(stream)
  }

  /** The head has used its quantum: to the end of the bulk queue, with a new one. */
  rotate(): void {
    const stream = this.#shift()
    if (stream === undefined) return
    stream.deficit += QUANTUM
    stream.lane = 'bulk'
    this.#bulk.push(stream)
  }

  /** The head has nothing to send, or no credit. */
  leave(): void {
    const wasSparse = this.#sparse.head !== undefined
    const stream = this.#shift()
    if (stream === undefined) return
    stream.deficit = 0
    stream.lane = 'none'
    if (!wasSparse || stream.state === 'closed' || stream.state === 'reset') return
    stream.lane = 'bulk'
    this.#bulk.push(stream)
  }

  #shift(): MuxStream | undefined {
    const lane = this.#sparse.head !== undefined ? this.#sparse : this.#bulk
    const stream = lane.head
    lane.shift()
    return stream
  }
}
