/** Two mux sessions, a wire that delivers any number of octets at a time, and a clock moved by hand. */
import { defaultLimits, Session } from '#mux'
import type { Effect, Limits, Monotonic, MuxStream, Role, Side } from '#mux'
import { rounds } from './patience.ts'

/** What an end was told, with the bytes copied out. */
export interface Note {
  readonly type: Effect['type']
  readonly id: number
  readonly bytes?: Buffer
  readonly code?: string
}

/** One end: its session, what it was told, and the bytes on their way to it. */
export class End {
  readonly session: Session
  readonly notes: Note[] = []
  /** Data received per stream, in order. */
  readonly received = new Map<number, Buffer[]>()
  readonly streams = new Map<number, MuxStream>()
  readonly #clock: { now: number }
  #arriving: Buffer[] = []
  failure: string | undefined

  constructor(
    side: Side,
    role: Role,
    limits: Partial<Limits>,
    clock: { now: number },
    extra: { firstId?: number } = {},
  ) {
    this.#clock = clock
    this.session = new Session(
      {
        side,
        role,
        instance: side,
        epoch: 1,
        limits: { ...defaultLimits, ...limits },
        random: () => 0.5,
        ...extra,
      },
      clock.now as Monotonic,
    )
  }

  get now(): Monotonic {
    return this.#clock.now as Monotonic
  }

  /** Octets on the wire towards this end. */
  get arriving(): number {
    return this.#arriving.reduce((sum, chunk) => sum + chunk.length, 0)
  }

  hear(bytes: Uint8Array): void {
    this.#arriving.push(Buffer.from(bytes))
  }

  /** Forgets what is on the wire. */
  cut(): void {
    this.#arriving = []
  }

  /** Delivers up to `most` of the arriving octets as one chunk. */
  deliver(most = Infinity): number {
    // Joined once, not for every octet of a piece that is delivered octet by octet.
    const [only] = this.#arriving
    const all =
      only !== undefined && this.#arriving.length === 1 ? only : Buffer.concat(this.#arriving)
    const length = Math.min(most, all.length)
    this.#arriving = length < all.length ? [all.subarray(length)] : []
    if (length > 0) {
      const chunk = Buffer.from(all.subarray(0, length))
      this.take(this.session.receive(chunk, this.now), chunk)
    }
    return length
  }

  take(effects: readonly Effect[], chunk?: Buffer): void {
    for (const effect of effects) this.#note(effect, chunk)
    // The chunk's memory is not theirs any more: whoever kept it would read this.
    chunk?.fill(0xee)
  }

  #note(effect: Effect, chunk: Buffer | undefined): void {
    switch (effect.type) {
      case 'data': {
        const bytes = Buffer.from(chunk!.subarray(effect.start, effect.end))
        const list = this.received.get(effect.stream.id) ?? []
        list.push(bytes)
        this.received.set(effect.stream.id, list)
        this.notes.push({ type: 'data', id: effect.stream.id, bytes })
        return
      }
      case 'ready':
        this.notes.push({ type: 'ready', id: 0 })
        return
      case 'goaway':
        this.notes.push({ type: 'goaway', id: 0, code: effect.frame.code })
        return
      case 'failed':
        this.failure = effect.error.code
        this.notes.push({ type: 'failed', id: 0, code: effect.error.code })
        return
      default:
        this.streams.set(effect.stream.id, effect.stream)
        this.notes.push({
          type: effect.type,
          id: effect.stream.id,
          ...('code' in effect ? { code: effect.code } : {}),
          ...('payload' in effect ? { bytes: Buffer.from(effect.payload) } : {}),
        })
    }
  }

  /** Notes of one type. */
  told(type: Effect['type']): Note[] {
    return this.notes.filter((note) => note.type === type)
  }

  text(id: number): string {
    return Buffer.concat(this.received.get(id) ?? []).toString('latin1')
  }

  /** Everything received and not consumed is consumed. */
  consumeAll(): void {
    for (const stream of this.session.streams) {
      if (stream.unconsumed > 0) this.session.consumed(stream, stream.unconsumed, this.now)
    }
  }
}

export class Pair {
  readonly clock = { now: 1000 }
  readonly dialler: End
  readonly acceptor: End

  constructor(
    limits: { dialler?: Partial<Limits>; acceptor?: Partial<Limits> } = {},
    extra: { firstId?: number } = {},
  ) {
    this.dialler = new End('dialler', 'agent', limits.dialler ?? {}, this.clock, extra)
    this.acceptor = new End('acceptor', 'gateway', limits.acceptor ?? {}, this.clock)
  }

  /** A pair with HELLO and the first round trip (of `rttMs`) behind it. */
  static ready(
    limits: { dialler?: Partial<Limits>; acceptor?: Partial<Limits> } = {},
    rttMs = 1,
    extra: { firstId?: number } = {},
  ): Pair {
    const pair = new Pair(limits, extra)
    for (let at = 0; at < 6; at++) {
      pair.exchange()
      pair.clock.now += rttMs / 2
    }
    return pair
  }

  other(end: End): End {
    return end === this.dialler ? this.acceptor : this.dialler
  }

  /** One slab of an end goes onto the wire; false if it had none. */
  send(end: End): boolean {
    const slab = end.session.output(end.now)
    if (slab === undefined) return false
    this.other(end).hear(slab)
    end.session.sent()
    end.take(end.session.poll())
    return true
  }

  /** What both have to say now crosses once. */
  exchange(): boolean {
    let moved = false
    for (const end of [this.dialler, this.acceptor]) while (this.send(end)) moved = true
    for (const end of [this.dialler, this.acceptor]) if (end.deliver() > 0) moved = true
    return moved
  }

  /** Exchanges until nothing moves; with `consume`, applications take all they get. */
  settle(consume = false): void {
    for (let turns = 0; turns < 100_000; turns++) {
      if (consume) for (const end of [this.dialler, this.acceptor]) end.consumeAll()
      if (!this.exchange()) return
    }
    throw new Error('the pair never comes to rest')
  }

  /** Moves the clock to each time an end wants to be woken, for `ms` in all; `silent` exchanges nothing. */
  pass(ms: number, silent = false): void {
    const until = this.clock.now + ms
    for (const _ of rounds('nothing that is due at one time is due again')) {
      const ends = [this.dialler, this.acceptor]
      const next = Math.min(...ends.map((end) => end.session.wakeAt ?? Infinity))
      if (next > until) break
      this.clock.now = Math.max(this.clock.now, next)
      for (const end of ends) end.take(end.session.tick(end.now))
      if (!silent) this.settle()
    }
    this.clock.now = until
  }

  /** Opens and accepts a stream; gives both ends of it. */
  stream(from: End = this.dialler, kind: MuxStream['kind'] = 'tcp'): [MuxStream, MuxStream] {
    const ours = from.session.open(kind, Buffer.from('m'), from.now)
    if (typeof ours === 'string') throw new Error(ours)
    this.settle()
    const theirs = this.other(from).streams.get(ours.id)!
    this.other(from).session.accept(theirs, Buffer.from('a'))
    this.settle()
    return [ours, theirs]
  }
}
