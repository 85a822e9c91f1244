/**
 * Two streams as one connection: bytes, ends and back-pressure pass; what passes is counted and held
 * to the session's limits. Credit goes back to one side only when the other side took the bytes. Of
 * datagrams, which nobody can be asked to hold back, those over the session's rate are dropped.
 */
import type { CloseReason, TunnelStream } from '#tunnel'
import type { Carrier, Goodbye } from '../sessions/live.ts'
import type { Tap } from '../recordings/taps.ts'
import type { Hold } from '../sessions/hold.ts'
import type { Pace } from '../sessions/pace.ts'
import { Kept } from './kept.ts'
import { Latest } from './latest.ts'

/** What a protocol filter makes of bytes: some go on, some go back, or the connection ends. */
export interface Filtered {
  readonly onward: readonly Uint8Array[]
  readonly back: readonly Uint8Array[]
  readonly cut?: { readonly code: string; readonly message: string } | undefined
}

export interface Filter {
  fromClient(chunk: Uint8Array): Filtered
  fromDevice(chunk: Uint8Array): Filtered
  /** Gives the filter a way to act by itself, when its time has come; called once, before any byte. */
  attach(act: (made: Filtered) => void): void
  /** The client has ended its side: calls back once nothing of what it sent is still to be passed on. */
  ended(passed: () => void): void
  /** While the session is held its time stands still; absent where none is kept. */
  held?(held: boolean): void
  /** No byte will come any more. */
  stop(): void
}

/** What each side may tell the other: what goes on, read and written anew; undefined where nothing does. */
export interface Signals {
  readonly fromClient: (payload: Uint8Array) => Uint8Array | undefined
  readonly fromDevice: (payload: Uint8Array) => Uint8Array | undefined
}

/** What a person's connection is to a splice: a stream of their tunnel, or what does as one. */
export type Side = Pick<
  TunnelStream,
  | 'kind'
  | 'write'
  | 'end'
  | 'reset'
  | 'signal'
  | 'consumed'
  | 'onData'
  | 'onEnd'
  | 'onDrain'
  | 'onSignal'
  | 'onClose'
>

export interface SpliceOptions {
  /** The person's side, and the device's. */
  readonly client: Side
  readonly device: TunnelStream
  readonly pace: { readonly in: Pace; readonly out: Pace }
  /** Counts bytes as they pass; false cuts, because a limit is reached. */
  readonly meter: (direction: 'in' | 'out', bytes: number) => boolean
  readonly filter?: Filter | undefined
  /** Sees what passes before it goes on, and has it wait where the disk is behind. */
  readonly tap?: Tap | undefined
  /** Which signals pass; absent, none do. */
  readonly signals?: Signals | undefined
  /** While it holds nothing passes, and what was sent waits in its order. */
  readonly hold?: Hold | undefined
  /** Called once, when neither side can pass a byte any more. */
  readonly onEnd: (why: CloseReason) => void
}

/** The session has carried what it may. */
export const BYTE_LIMIT = {
  code: 'byte.limit',
  message: 'the session has carried as much as its grant allows',
  next: 'connect again for as many bytes more, or ask for a grant that states more',
} as const

/** Tells a client that its session is over, why, and what the person can do. */
export function endingSignal({ code, message, next, decision }: Goodbye): Uint8Array {
  const told = { t: 'ending', code, msg: message, next_step: next, decision_id: decision?.id }
  return new TextEncoder().encode(JSON.stringify(told))
}

/**
 * Where bytes are written to. What finds no room waits in the stream, bounded by the credit of whoever
 * sent it; what comes after the end is dropped, because a stream does not take it.
 */
class Outlet {
  readonly stream: Side
  #full = false
  #ending = false

  constructor(stream: Side) {
    this.stream = stream
  }
  get full(): boolean {
    return this.#full
  }
  write(bytes: Uint8Array): void {
    if (!this.#ending) this.#full = !this.stream.write(bytes)
  }
  end(): void {
    if (this.#ending) return
    this.#ending = true
    this.stream.end()
  }
  drained(): void {
    this.#full = false
  }
  signal(payload: Uint8Array): void {
    if (!this.#ending) this.stream.signal(payload)
  }
}

/** One direction: who is read, who is written, what is owed to the reader's sender. */
interface Lane {
  readonly from: Outlet
  readonly to: Outlet
  readonly direction: 'in' | 'out'
  readonly pace: Pace
  owed: number
  waiting: NodeJS.Timeout | undefined
  /** What waits while the session is held, and until all that waited has passed. */
  readonly kept: Kept
  /** Something of it is passing at this moment, or will in the next turn of the loop. */
  passing: boolean
  readonly read: ((chunk: Uint8Array) => Filtered) | undefined
}

/** So long one turn of the loop passes on what one direction has kept, in milliseconds. */
const TURN_MS = 1

class Splice implements Carrier {
  readonly #options: SpliceOptions
  readonly #done = Promise.withResolvers<void>()
  readonly #lanes: readonly [Lane, Lane]
  #open = 2
  #person: Latest | undefined
  #first: CloseReason | undefined
  readonly #unfollow: (() => void) | undefined

  constructor(options: SpliceOptions) {
    this.#options = options
    const { client, device, pace, filter } = options
    const [person, target] = [new Outlet(client), new Outlet(device)]
    const lane = (from: Outlet, to: Outlet, direction: 'in' | 'out'): Lane => ({
      from,
      to,
      direction,
      pace: pace[direction],
      owed: 0,
      waiting: undefined,
      kept: new Kept(),
      passing: false,
      read: direction === 'in' ? filter?.fromClient.bind(filter) : filter?.fromDevice.bind(filter),
    })
    this.#lanes = [lane(person, target, 'in'), lane(target, person, 'out')]
    const [first] = this.#lanes
    filter?.attach((made) => this.#whenFree(first, () => this.#pass(first, made)))
    this.#unfollow = options.hold?.follow(() => this.#heldOrFree())
    if (options.hold?.held === true) filter?.held?.(true)
    if (options.tap !== undefined)
      options.tap.onDrain = () => {
        for (const one of this.#lanes) this.#giveBack(one)
      }
    for (const one of this.#lanes) this.#serve(one)
  }

  tell(message: Uint8Array): void {
    this.#options.client.signal(message)
  }

  async cut(why: Goodbye, session: 'over' | 'goes on'): Promise<void> {
    try {
      if (session === 'over') this.#options.client.signal(endingSignal(why))
    } finally {
      this.#drop(why)
    }
    await this.#done.promise
  }

  /** This connection alone: nothing is said of the session, which goes on. */
  #drop({ code, message }: Goodbye): void {
    const { client, device } = this.#options
    client.reset(code, message)
    device.reset(code, message)
  }

  #serve(lane: Lane): void {
    const { filter, hold } = this.#options
    const { stream } = lane.from
    stream.onData = (chunk) => {
      if (!this.#waits(lane)) this.#take(lane, chunk)
      // Datagrams are not held back, only dropped.
      else if (stream.kind === 'udp') stream.consumed(chunk.length)
      else lane.kept.bytes(chunk)
    }
    stream.onEnd = () =>
      this.#whenFree(lane, () => {
        if (lane.direction === 'in' && filter !== undefined) filter.ended(() => lane.to.end())
        else lane.to.end()
      })
    stream.onDrain = () => {
      lane.from.drained()
      for (const one of this.#lanes) this.#giveBack(one)
    }
    // The person is told things by us, the device's owner by the agent; what else passes is named.
    const { signals, tap } = this.#options
    const heard = lane.direction === 'in' ? signals?.fromClient : signals?.fromDevice
    const pass = (onward: Uint8Array) => {
      tap?.signal(lane.direction, onward)
      lane.to.signal(onward)
    }
    const latest = lane.direction === 'in' ? new Latest(pass, () => hold?.held === true) : undefined
    this.#person ??= latest
    stream.onSignal = (payload) => {
      const onward = heard?.(payload)
      if (onward === undefined) return
      if (latest !== undefined) latest.tell(onward)
      else if (this.#waits(lane)) lane.kept.signal(() => pass(onward))
      else pass(onward)
    }
    stream.onClose = (why) => this.#closed(why, lane)
  }

  /** Held, or behind what was kept while it was. */
  #waits(lane: Lane): boolean {
    return this.#options.hold?.held === true || lane.passing || !lane.kept.empty
  }

  /** Now, or behind what waits for the session to go on. */
  #whenFree(lane: Lane, act: () => void): void {
    if (this.#waits(lane)) lane.kept.act(act)
    else act()
  }

  #heldOrFree(): void {
    const { hold, filter } = this.#options
    filter?.held?.(hold?.held === true)
    this.#person?.freed()
    for (const lane of this.#lanes) this.#passOn(lane)
  }

  /** What was kept, in its order, a little in each turn of the loop: a session let go holds up nobody else's. */
  #passOn(lane: Lane): void {
    const { hold } = this.#options
    // What comes, or is held and let go, in the breath in which one passes waits behind it.
    if (lane.passing || lane.kept.empty) return
    const until = performance.now() + TURN_MS
    do {
      if (hold?.held === true) return
      lane.passing = true
      try {
        const piece = lane.kept.next()
        if (piece instanceof Uint8Array) this.#take(lane, piece)
        else piece?.()
      } finally {
        lane.passing = false
      }
      if (lane.kept.empty) return
    } while (performance.now() < until)
    lane.passing = true
    setImmediate(() => {
      lane.passing = false
      this.#passOn(lane)
    })
  }

  #take(lane: Lane, chunk: Uint8Array): void {
    if (lane.waiting !== undefined && lane.from.stream.kind === 'udp') {
      lane.from.stream.consumed(chunk.length)
      return
    }
    if (!this.#options.meter(lane.direction, chunk.length)) {
      void this.cut(BYTE_LIMIT, 'over')
      return
    }
    this.#options.tap?.data(lane.direction, chunk)
    lane.owed += chunk.length
    if (lane.read === undefined) lane.to.write(chunk)
    else this.#pass(lane, lane.read(chunk))
    const wait = lane.pace.take(chunk.length, performance.now())
    if (wait > 0 && lane.waiting === undefined) {
      lane.waiting = setTimeout(() => {
        lane.waiting = undefined
        this.#giveBack(lane)
      }, wait)
      lane.waiting.unref()
    }
    this.#giveBack(lane)
  }

  #pass(lane: Lane, made: Filtered): void {
    for (const bytes of made.onward) lane.to.write(bytes)
    for (const bytes of made.back) lane.from.write(bytes)
    if (made.cut !== undefined) this.#drop(made.cut)
  }

  /** A filter writes back to whoever sent, so that side must have room too before it may send more. */
  #giveBack(lane: Lane): void {
    const { filter, tap } = this.#options
    const blocked = lane.to.full || (filter !== undefined && lane.from.full) || tap?.full === true
    if (blocked || lane.waiting !== undefined || lane.owed === 0) return
    const bytes = lane.owed
    lane.owed = 0
    lane.from.stream.consumed(bytes)
  }

  #closed(why: CloseReason, lane: Lane): void {
    clearTimeout(lane.waiting)
    this.#person?.stop()
    this.#first ??= why
    if (why.code !== 'done') {
      for (const { kept } of this.#lanes) kept.clear()
      lane.to.stream.reset(why.code, why.message)
    }
    if (--this.#open > 0) return
    this.#unfollow?.()
    this.#options.filter?.stop()
    this.#options.tap?.end()
    this.#done.resolve()
    this.#options.onEnd(this.#first)
  }
}

/** Joins the two and gives the handle that ends both. */
export function splice(options: SpliceOptions): Carrier {
  return new Splice(options)
}
