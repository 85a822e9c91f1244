/**
 * What leaves, and in which order: control frames at once, data by credit, grant and turn, and no more
 * of it than may be in flight.
 */
import type { Flight } from './flight.ts'
import { TYPE } from './frame.ts'
import { HEADER } from './octets.ts'
import type { Monotonic } from './limits.ts'
import { Little } from './little.ts'
import type { Outbox, SlabPool } from './outbox.ts'
import { QUANTUM, Scheduler } from './schedule.ts'
import type { MuxStream } from './stream.ts'

/** What one source may write straight into a slab while others write too; then it waits its turn. */
const GRANT = 80 * 1024
/** A stream with no more than this waiting may be written on. */
const LOW_WATER = QUANTUM
/** Streams that send little may go this far beyond what may be in flight: nothing is worth their waiting. */
const SPARE = 64 * 1024

interface Watcher {
  drained(stream: MuxStream): void
  /** Everything written has left and FIN is due. */
  finDue(stream: MuxStream): void
  /** Enough has left for a PING behind it; `idle` if nothing waits for room. */
  pingDue(now: Monotonic, idle: boolean): void
}

export class Sender {
  readonly #outbox: Outbox
  readonly #flight: Flight
  readonly #pool: SlabPool
  readonly #watcher: Watcher
  readonly #scheduler = new Scheduler()
  readonly #little = new Little()
  /** Who wrote in this turn, and in the one before. */
  #writers = 0
  #writersBefore = 0

  constructor(
    { outbox, flight }: { readonly outbox: Outbox; readonly flight: Flight },
    pool: SlabPool,
    watcher: Watcher,
  ) {
    this.#outbox = outbox
    this.#flight = flight
    this.#pool = pool
    this.#watcher = watcher
  }

  /** The largest DATA payload in bytes that the peer takes. */
  set maxFrame(bytes: number) {
    this.#outbox.maxFrame = bytes
  }

  /** Copies `chunk` to where it leaves from, or to where it waits; false asks to wait for the drain. */
  write(stream: MuxStream, chunk: Uint8Array): boolean {
    let sent = 0
    // Straight into the slab only past nobody: whoever waits would else be overtaken by every writer.
    if (stream.first === undefined && this.#scheduler.head === undefined) {
      sent = Math.min(chunk.length, stream.credit, this.#room(0), this.#grant(stream))
      if (sent > 0) this.#data(stream, chunk, 0, sent)
    }
    if (sent < chunk.length) stream.waiting.data(chunk, sent, this.#pool)
    this.#little.wrote(stream)
    if (sent === chunk.length) return true
    if (stream.credit > 0) this.#wait(stream)
    if (stream.pendingBytes <= LOW_WATER) return true
    stream.wantsDrain = true
    return false
  }

  /** Octets that may be added now, going so far beyond what may be in flight. */
  #room(beyond: number): number {
    return Math.min(this.#outbox.room, Math.max(0, this.#flight.room + beyond))
  }

  #grant(stream: MuxStream): number {
    if (stream.turn !== this.#little.turn) {
      stream.turn = this.#little.turn
      stream.turnBytes = 0
      this.#writers++
    }
    const alone = this.#writers <= 1 && this.#writersBefore <= 1
    return alone ? Number.MAX_SAFE_INTEGER : Math.max(0, GRANT - stream.turnBytes)
  }

  #data(stream: MuxStream, source: Uint8Array, start: number, end: number): void {
    const length = end - start
    this.#outbox.data(stream.id, source, start, end)
    stream.credit -= length
    stream.bytesOut += length
    this.#little.sent(stream, length)
  }

  /** A datagram waits its turn as a whole; false when the stream's budget is spent. */
  datagram(stream: MuxStream, payload: Uint8Array, budget: number): boolean {
    const { waiting } = stream
    if (waiting.bytes + payload.length > budget || waiting.length >= 1024) return false
    waiting.datagram(payload)
    this.#wait(stream)
    return true
  }

  /** A signal keeps its place behind the data written before it; false when too many wait. */
  signal(stream: MuxStream, payload: Uint8Array): boolean {
    if (stream.first === undefined && this.#outbox.room > 0) {
      this.#outbox.payload(TYPE.signal, stream.id, payload)
      return true
    }
    const taken = stream.waiting.signal(payload)
    this.#wait(stream)
    return taken
  }

  /** FIN after what waits: `finDue` is called, now or later. */
  end(stream: MuxStream): void {
    stream.ending = true
    if (stream.first === undefined) this.#watcher.finDue(stream)
  }

  /** Data is dropped; signals that wait leave at once, so that the reason comes before the end. */
  drop(stream: MuxStream): void {
    for (const signal of stream.backlog?.drop() ?? [])
      this.#outbox.payload(TYPE.signal, stream.id, signal)
    stream.wantsDrain = false
  }

  /** New credit, or something to send after all. */
  wake(stream: MuxStream): void {
    if (stream.first !== undefined) this.#wait(stream)
  }

  #wait(stream: MuxStream): void {
    this.#scheduler.wake(stream, this.#little.isFew(stream))
  }

  /** Moves what waits into the slab, in turn, until it is full. */
  pump(): void {
    for (;;) {
      const stream = this.#scheduler.head
      if (stream === undefined) return
      const outcome = this.#serve(stream)
      if (outcome === 'full') return
      if (outcome === 'turn') this.#scheduler.rotate()
      else this.#scheduler.leave()
    }
  }

  #serve(stream: MuxStream): 'full' | 'turn' | 'done' {
    const { waiting } = stream
    const beyond = stream.lane === 'sparse' ? SPARE : 0
    if (this.#scheduler.shared) this.#little.first(stream)
    for (;;) {
      const { first } = waiting
      if (first === undefined) return this.#emptied(stream)
      if (stream.deficit <= 0) return 'turn'
      const room = this.#room(beyond)
      if (room === 0) return 'full'
      const left = first.end - waiting.offset
      if (first.signal || stream.kind === 'udp') {
        this.#outbox.payload(first.signal ? TYPE.signal : TYPE.datagram, stream.id, first.bytes)
        if (!first.signal) stream.bytesOut += left
        stream.deficit -= HEADER + left
        waiting.advance(left, this.#pool)
        continue
      }
      const length = Math.min(left, stream.credit, stream.deficit, room)
      if (length <= 0) return 'done'
      this.#data(stream, first.bytes, waiting.offset, waiting.offset + length)
      stream.deficit -= length
      waiting.advance(length, this.#pool)
      this.#drain(stream)
    }
  }

  #emptied(stream: MuxStream): 'done' {
    this.#drain(stream)
    if (stream.ending) this.#watcher.finDue(stream)
    return 'done'
  }

  #drain(stream: MuxStream): void {
    if (!stream.wantsDrain || stream.pendingBytes > LOW_WATER) return
    stream.wantsDrain = false
    this.#watcher.drained(stream)
  }

  /** When a stream last sent little; -Infinity for never. */
  get littleAt(): number {
    return this.#little.lastAt
  }

  /** Whether nothing waits for room. */
  get idle(): boolean {
    return this.#scheduler.head === undefined
  }

  /** The next slab for the connection; what waits moves into the one after it. */
  take(now: Monotonic): Uint8Array | undefined {
    if (this.#outbox.inFlight) return undefined
    this.pump()
    this.#flight.given(now)
    if (this.#little.expected(now, !this.idle)) this.#flight.shared(now)
    if (this.#flight.due) this.#watcher.pingDue(now, this.idle)
    const slab = this.#outbox.take()
    if (slab === undefined) return undefined
    this.#little.turn++
    this.#writersBefore = this.#writers
    this.#writers = 0
    this.pump()
    return slab
  }
}
