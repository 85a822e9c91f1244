/** The streams of a session: ids, the step through the table, and what they hold together. */
import { MuxError } from './errors.ts'
import type { Limits, Monotonic, Side, StreamKind } from './limits.ts'
import type { Liveness } from './liveness.ts'
import { isError, table } from './state.ts'
import type { StreamEvent, StreamState } from './state.ts'
import { MuxStream } from './stream.ts'
import { Budget, Growth, ReceiveWindow } from './window.ts'

const DECAY_MS = 2000

export class Streams {
  readonly #live: Liveness
  readonly #all = new Map<number, MuxStream>()
  readonly #grown = new Set<MuxStream>()
  readonly budget: Budget
  readonly #growth: Growth
  /** The id of the next OPEN from here, and the last one from the peer. */
  nextId: number
  lastPeerId = 0
  /** Streams opened here and by the peer. */
  mine = 0
  theirs = 0
  /** Data received and not consumed, over all streams. */
  held = 0
  /** When windows of slow readers shrink next. */
  decayAt: Monotonic | undefined

  constructor(side: Side, limits: Limits, live: Liveness, processBudget: Budget | undefined) {
    this.nextId = side === 'dialler' ? 1 : 2
    this.#live = live
    this.budget = new Budget(limits.receiveBudget, processBudget)
    this.#growth = new Growth(limits.initialWindow, limits.maxWindow, this.budget)
  }

  get size(): number {
    return this.#all.size
  }
  values(): Iterable<MuxStream> {
    return this.#all.values()
  }
  get(id: number): MuxStream | undefined {
    return this.#all.get(id)
  }
  has(id: number): boolean {
    return this.#all.has(id)
  }
  /** Whether an id is one that this end opens. */
  isMine(id: number): boolean {
    return id % 2 === this.nextId % 2
  }

  /** A stream that is not in the table yet; `credit` is the peer's initial window. */
  make(
    facts: { id: number; kind: StreamKind; metadata: Uint8Array; openedHere: boolean },
    credit: number,
    now: Monotonic,
  ): MuxStream {
    const window = new ReceiveWindow(this.#growth, now)
    const stream = new MuxStream({ ...facts, credit }, window, now)
    this.#all.set(facts.id, stream)
    if (facts.openedHere) this.mine++
    else this.theirs++
    return stream
  }

  /** The stream of a frame, stepped; undefined when the frame is to be passed over. Throws stream.*. */
  find(id: number, event: StreamEvent): MuxStream | undefined {
    const stream = this.#all.get(id)
    if (stream === undefined) this.#follow(event, id)
    else this.step(stream, event)
    return stream
  }

  /** One step through the table. Throws what the table says. */
  step(stream: MuxStream, event: StreamEvent): void {
    const cell = table[stream.state][event]
    if (isError(cell)) {
      const fault = event.startsWith('recv') ? 'remote' : 'local'
      throw new MuxError(cell, fault, `stream ${stream.id}`)
    }
    stream.state = cell
  }

  /** As `step`, for a stream that is no longer or never was there. */
  #follow(event: StreamEvent, id: number): void {
    const used = this.isMine(id) ? id < this.nextId : id <= this.lastPeerId
    const state: StreamState = !used ? 'idle' : this.#live.inGrace(id) ? 'reset' : 'closed'
    const cell = table[state][event]
    if (isError(cell)) throw new MuxError(cell, 'remote', `stream ${id}`)
  }

  /** The stream has ended: whatever it held is free. */
  remove(stream: MuxStream): void {
    if (!this.#all.delete(stream.id)) return
    if (stream.openedHere) this.mine--
    else this.theirs--
    this.held -= stream.window.held
    if (this.#grown.delete(stream)) this.#growth.sharers = this.#grown.size
    stream.window.close()
    stream.backlog = undefined
  }

  /** The session is over: what its windows had reserved is free for other tunnels. */
  release(): void {
    for (const stream of this.#all.values()) stream.window.close()
  }

  /** Whoever holds most. A scan of all, for the moment when memory has run out and no other. */
  largestHolder(): MuxStream | undefined {
    let largest: MuxStream | undefined
    for (const stream of this.#all.values()) {
      if (largest === undefined || stream.window.held > largest.window.held) largest = stream
    }
    return largest
  }

  /** Accounts for bytes the application has dealt with; the credit to give, often 0. */
  consume(stream: MuxStream, bytes: number, now: Monotonic): number {
    this.held -= bytes
    const credit = stream.window.consume(bytes, now, this.#live.leastRttMs)
    if (stream.window.grown && !this.#grown.has(stream)) {
      this.#grown.add(stream)
      this.#growth.sharers = this.#grown.size
      this.decayAt ??= (now + DECAY_MS) as Monotonic
    }
    return credit
  }

  /** Windows that were not used shrink. */
  decay(now: Monotonic): void {
    let target = this.#growth.initial
    for (const stream of this.#grown) {
      stream.window.decay()
      target = Math.max(target, stream.window.target)
      if (!stream.window.grown) this.#grown.delete(stream)
    }
    this.#growth.target = target
    this.#growth.sharers = this.#grown.size
    this.decayAt = this.#grown.size > 0 ? ((now + DECAY_MS) as Monotonic) : undefined
  }
}
