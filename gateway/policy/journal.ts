/**
 * The decision log: two chains of records, so that what happens with every request cannot push out
 * what somebody did. Nobody who needs a record goes on without that very record on disk, and the audit
 * log says each minute where both chains stand.
 */
import type { Place } from '../facts.ts'
import { readChain, type Begin, type RingName } from './chain.ts'
import type { Decided, DecisionRecord } from './record.ts'
import { Ring, type RingHealth, type RingOptions } from './ring.ts'

export { JournalError } from './ring.ts'

/** Where a chain stands, for the audit log; `before` is the head that it heard of last. */
export interface Anchor extends Pick<RingHealth, 'count' | 'head'> {
  readonly ring: RingName
  readonly before: string
}

export interface JournalOptions {
  readonly directory: string
  readonly place: Place
  /** Octets of one segment and of all of one chain. */
  readonly segmentBytes?: number
  readonly maxBytes?: number
  /** Decisions of one chain that wait for the disk. */
  readonly maxWaiting?: number
  /** Told when writing fails and when it works again. */
  readonly report: RingOptions['report']
  /** Writes down where a chain stands. */
  readonly anchor?: (anchor: Anchor) => Promise<unknown>
}

const SEGMENT_BYTES = 8 * 1024 * 1024
const MAX_BYTES = 128 * 1024 * 1024
const MAX_WAITING = 10_000
const ANCHOR_MS = 60_000

/** Names one decision that the log has taken. */
export interface Ticket {
  readonly ring: RingName
  readonly number: number
}

export interface JournalHealth {
  readonly state: 'OK' | 'FAILED'
  readonly waiting: number
  /** Since the start. */
  readonly written: number
  readonly dropped: number
  readonly rings: readonly Pick<RingHealth, 'name' | 'count' | 'head' | 'broken'>[]
}

/** What the use of an open session, and looking around, bring with them is flow; all else is an act. */
function ringOf({ point, input, decision }: Decided): RingName {
  if (point === 'http.request' || point === 'ot.verb') return 'flow'
  if (point === 'session.reevaluate') return decision.allow ? 'flow' : 'acts'
  const looking = point === 'admin.api' && input.admin?.mutating === false
  return looking && decision.allow ? 'flow' : 'acts'
}

/** A record, and the chain it is of. */
export interface Kept {
  readonly chain: RingName
  readonly record: DecisionRecord
}

/**
 * What is on disk of both chains in a directory, for any thread: each in its own order from where it is begun, the two put
 * together by time. Throws what the file system throws.
 */
export async function* recordsFrom(
  directory: string,
  begin: Readonly<Record<RingName, Begin>>,
): AsyncGenerator<Kept> {
  const acts = readChain({ directory, name: 'acts' }, begin.acts)
  const flow = readChain({ directory, name: 'flow' }, begin.flow)
  try {
    let [act, use] = await Promise.all([acts.next(), flow.next()])
    while (act.done !== true || use.done !== true) {
      if (use.done === true || (act.done !== true && isEarlier(act.value, use.value))) {
        if (act.done !== true) yield { chain: 'acts', record: act.value }
        act = await acts.next()
      } else {
        yield { chain: 'flow', record: use.value }
        use = await flow.next()
      }
    }
  } finally {
    await Promise.all([acts.return(undefined), flow.return(undefined)])
  }
}

/** Of one instant, what somebody did comes first. */
function isEarlier(act: DecisionRecord, use: DecisionRecord): boolean {
  return act.timestamp <= use.timestamp
}

/** The records of both chains from the first of each that was written at a time (epoch milliseconds) or later. */
export async function* recordsSince(
  directory: string,
  since: number,
): AsyncGenerator<DecisionRecord> {
  const from = recordsFrom(directory, { acts: { since }, flow: { since } })
  for await (const { record } of from) yield record
}

export class DecisionJournal implements AsyncDisposable {
  readonly #rings: Readonly<Record<RingName, Ring>>
  readonly #options: JournalOptions
  /** Heads that the audit log knows, or that this start began with. */
  readonly #anchored: Record<RingName, string>
  #timer: NodeJS.Timeout | undefined
  #anchoring: Promise<void> = Promise.resolve()

  private constructor(options: JournalOptions, rings: Readonly<Record<RingName, Ring>>) {
    this.#options = options
    this.#rings = rings
    this.#anchored = { acts: rings.acts.health().head, flow: rings.flow.health().head }
  }

  /** Opens or makes the log in a directory and checks both chains. Throws what the file system throws. */
  static async open(options: JournalOptions): Promise<DecisionJournal> {
    const bounds = {
      segmentBytes: SEGMENT_BYTES,
      maxBytes: MAX_BYTES,
      maxWaiting: MAX_WAITING,
      ...options,
    }
    const acts = await Ring.open({ ...bounds, name: 'acts' })
    const flow = await Ring.open({ ...bounds, name: 'flow' })
    return new DecisionJournal(options, { acts, flow })
  }

  /** Takes a decision; it is written within 50 ms, or at once where somebody waits for it. Undefined where it is refused. */
  add(decided: Decided): Ticket | undefined {
    const ring = ringOf(decided)
    const number = this.#rings[ring].add(decided)
    if (number === undefined) return undefined
    this.#timer ??= setTimeout(() => void this.anchor(), ANCHOR_MS).unref()
    return { ring, number }
  }

  /** Resolves when one decision, or all that were taken, are on disk. Throws JournalError where they are not. */
  async settled(ticket?: Ticket): Promise<void> {
    const { acts, flow } = this.#rings
    if (ticket === undefined) await Promise.all([acts.settled(), flow.settled()])
    else await this.#rings[ticket.ring].settled(ticket.number)
  }

  health(): JournalHealth {
    const rings = this.#all().map((ring) => ring.health())
    const sum = (of: 'waiting' | 'written' | 'dropped') =>
      rings.reduce((all, ring) => all + ring[of], 0)
    return {
      state: rings.some(({ failed }) => failed) ? 'FAILED' : 'OK',
      waiting: sum('waiting'),
      written: sum('written'),
      dropped: sum('dropped'),
      rings: rings.map(({ name, count, head, broken }) => ({ name, count, head, broken })),
    }
  }

  /** The record of a decision; undefined where it is not kept (any more). Reads one line. */
  async find(id: string): Promise<DecisionRecord | undefined> {
    return (await this.#rings.acts.find(id)) ?? (await this.#rings.flow.find(id))
  }

  /** Has it written down where the chains stand, where they moved since. What fails is reported and tried again. */
  async anchor(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#anchoring = this.#anchoring.then(() => this.#anchor())
    await this.#anchoring
  }

  async #anchor(): Promise<void> {
    for (const ring of this.#all())
      try {
        await ring.settled().catch(() => undefined)
        const { name, count, head } = ring.health()
        const before = this.#anchored[name]
        if (head === before) continue
        await this.#options.anchor?.({ ring: name, count, head, before })
        this.#anchored[name] = head
      } catch (error) {
        this.#options.report(error, 'where the decision log stands could not be recorded')
        this.#timer ??= setTimeout(() => void this.anchor(), ANCHOR_MS).unref()
      }
  }

  #all(): Ring[] {
    return [this.#rings.acts, this.#rings.flow]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.anchor()
    clearTimeout(this.#timer)
    for (const ring of this.#all()) await ring[Symbol.asyncDispose]()
  }
}
