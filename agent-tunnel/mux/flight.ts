/**
 * How much may be on its way. What a socket has been given can no longer be reordered, so a small
 * request waits behind it; no more is given than the path needs: delivery rate times round trip, twice.
 * Both are measured by PINGs between the octets: a PONG says that the peer's mux has read what was
 * before its PING. The estimates are those of BBR (draft-ietf-ccwg-bbr). docs/protocol.md
 * sections 7 and 10.
 */
import type { Monotonic } from './limits.ts'

/** A sender never waits with less than this on its way, and begins with twice as much. */
const LEAST = 64 * 1024
/** However fast: more than any socket buffers. */
const MOST = 32 * 1024 * 1024
/** Closer together a peer need not answer PINGs. */
const LEAST_SPACING = 16 * 1024
/** Round trips' worth on its way: one that flows, and one that waits while the first is answered. */
const GAIN = 2
/** However short the path: so long may a process wait for its processor. */
const LEAST_TRIP_MS = 2
/**
 * While small requests wait among bulk, all that is on its way is what they wait for: little more than
 * the path itself holds, however that makes its processes wake.
 */
const SHARED_GAIN = 1.25
const SHARED_LEAST_TRIP_MS = 0.25
/** Since the last of them. */
const SHARED_MS = 250
/** No clock is trusted to tell less. */
const LEAST_TOOK_MS = 0.05
/** A rate is forgotten after so many round trips, but not within this time. */
const RATE_TRIPS = 10
const RATE_MS = 1000
/** A least round trip lasts for a span of so many, but not within this time, and the span after it. */
const TRIPS = 40
const TRIP_MS = 5000
/** A path that was never without our own queue is given this part of the cap until it was. */
const DRAIN = 1 / 4
/** A round trip this near to the least is one without a queue. */
const NEAR = 1.25

/** A place in the octets, known once its PONG is here. */
interface Mark {
  readonly position: number
  readonly at: Monotonic
  /** What was acknowledged when it was placed, and when that was. */
  readonly delivered: number
  readonly deliveredAt: Monotonic
  /** When what was last acknowledged then had been sent. */
  readonly sentAt: Monotonic
  /** Nothing waited: what the path could have carried is not known. */
  readonly idle: boolean
}

/** The most, or least, of a span of time and the one before it. */
class Extreme {
  readonly #worse: number
  readonly #better: (one: number, other: number) => number
  #since: Monotonic
  #now: number
  #before: number

  constructor(better: (one: number, other: number) => number, worse: number, now: Monotonic) {
    this.#better = better
    this.#worse = worse
    this.#since = now
    this.#now = worse
    this.#before = worse
  }

  get value(): number {
    return this.#better(this.#now, this.#before)
  }
  /** Whether the span under way has come near to the last one. */
  near(factor: number): boolean {
    return this.#now <= this.#before * factor
  }

  add(sample: number): void {
    this.#now = this.#better(this.#now, sample)
  }

  /** Whether the span under way is longer than `ms`. */
  over(now: Monotonic, ms: number): boolean {
    return now - this.#since >= ms
  }

  /** Begins a new span. */
  turn(now: Monotonic): void {
    this.#before = this.#now
    this.#now = this.#worse
    this.#since = now
  }
}

export class Flight {
  /** Octets of all frames so far, and those that are known to have been read. */
  #total = 0
  #acknowledged = 0
  readonly #marks: Mark[] = []
  #marked = 0
  #cap = 2 * LEAST
  /** Octets per millisecond; round trips in milliseconds. */
  readonly #rate: Extreme
  readonly #trip: Extreme
  readonly #extra: Extreme
  /** The last acknowledgement: what, when, and when its PING was placed. */
  #delivered = 0
  #deliveredAt: Monotonic
  #sentAt: Monotonic
  /** What had been given to the socket at the last look, and when that was. */
  #given = 0
  #givenAt: Monotonic
  /** Since when acknowledgements are held against the rate. */
  #epochAt: Monotonic
  #epochFrom = 0
  /** The position from which on a round trip is without the queue that is being drained. */
  #drained: number | undefined
  /** Until then small requests are expected among the octets. */
  #sharedUntil = -Infinity

  constructor(now: Monotonic) {
    this.#rate = new Extreme(Math.max, 0, now)
    this.#trip = new Extreme(Math.min, Infinity, now)
    this.#extra = new Extreme(Math.max, 0, now)
    this.#deliveredAt = now
    this.#sentAt = now
    this.#givenAt = now
    this.#epochAt = now
  }

  /** Octets that may be on their way now. */
  get cap(): number {
    return this.#drained === undefined ? this.#cap : Math.max(LEAST, Math.floor(this.#cap * DRAIN))
  }
  /** Octets given out and not known to have been read. */
  get inFlight(): number {
    return this.#total - this.#acknowledged
  }
  /** Octets of bulk that may follow; below 0 when the cap has shrunk since. */
  get room(): number {
    return this.cap - this.inFlight
  }
  /** Whether enough has gone since the last PING. */
  get due(): boolean {
    return this.#total - this.#marked >= this.#spacing
  }

  /** On a short path, where every PONG wakes a process, PINGs are fewer: a trip of the least length apart. */
  get #spacing(): number {
    const { cap } = this
    if (this.#givenAt < this.#sharedUntil) return Math.max(cap / 8, LEAST_SPACING)
    return Math.max(cap / 4, Math.min(cap / 2, this.#rate.value * LEAST_TRIP_MS))
  }

  /** Octets of a frame were added to what leaves. */
  add(octets: number): void {
    this.#total += octets
  }

  /** The socket is being given all there is. After a pause measuring begins anew. */
  given(now: Monotonic): void {
    const pause = GAIN * Math.max(this.#trip.value, LEAST_TRIP_MS)
    if (this.#marks.length === 0 && now - this.#givenAt > pause) {
      this.#delivered = this.#given
      this.#deliveredAt = now
      this.#sentAt = now
    }
    this.#given = this.#total
    this.#givenAt = now
  }

  /** A stream that sends little stood before others that wait for room. */
  shared(now: Monotonic): void {
    const anew = now >= this.#sharedUntil
    this.#sharedUntil = now + SHARED_MS
    if (anew) this.#resize(now)
  }

  /** A PING goes behind all there is; `idle` if nothing more waits for room. */
  mark(now: Monotonic, idle: boolean): void {
    this.#marked = this.#total
    this.#marks.push({
      position: this.#total,
      at: now,
      delivered: this.#delivered,
      deliveredAt: this.#deliveredAt,
      sentAt: this.#sentAt,
      idle,
    })
  }

  /** The PONG to the oldest PING. */
  answered(now: Monotonic): void {
    const mark = this.#marks.shift()
    if (mark === undefined) return
    this.#acknowledged = mark.position
    this.#tripped(now - mark.at, mark, now)
    // Both ways: neither a burst of PINGs nor one of PONGs is a fast path.
    const took = Math.max(now - mark.deliveredAt, mark.at - mark.sentAt, LEAST_TOOK_MS)
    this.#rated(mark, took, now)
    this.#exceeded(now)
    this.#delivered = Math.max(this.#delivered, mark.position)
    this.#deliveredAt = now
    this.#sentAt = mark.at
    this.#resize(now)
  }

  #tripped(ms: number, mark: Mark, now: Monotonic): void {
    this.#trip.add(ms)
    if (this.#drained !== undefined) {
      if (mark.position <= this.#drained) return
      this.#drained = undefined
      this.#trip.turn(now)
    } else if (this.#trip.over(now, Math.max(TRIP_MS, TRIPS * this.#trip.value))) {
      // Not once as short as before: the path has changed, or our own queue was always there.
      if (mark.idle || this.#trip.near(NEAR)) this.#trip.turn(now)
      else this.#drained = this.#total
    }
  }

  #rated(mark: Mark, took: number, now: Monotonic): void {
    const octets = mark.position - mark.delivered
    if (octets <= 0 || took < this.#trip.value) return
    const rate = octets / took
    if (mark.idle && rate < this.#rate.value) return
    if (this.#rate.over(now, this.#rateMs)) this.#rate.turn(now)
    this.#rate.add(rate)
  }

  get #rateMs(): number {
    return Math.max(RATE_MS, RATE_TRIPS * this.#trip.value)
  }

  // Where octets are read in clumps, by a radio or by a process that waits for its processor, a clump
  // more must be on its way.
  #exceeded(now: Monotonic): void {
    const expected = this.#rate.value * (now - this.#epochAt)
    const extra = this.#acknowledged - this.#epochFrom - expected
    if (this.#extra.over(now, this.#rateMs)) this.#extra.turn(now)
    if (extra > 0) this.#extra.add(extra)
    if (extra > 0 && extra < this.#cap) return
    this.#epochAt = now
    this.#epochFrom = this.#acknowledged
  }

  #resize(now: Monotonic): void {
    const rate = this.#rate.value
    const trip = this.#trip.value
    if (rate === 0) return
    const wanted =
      now < this.#sharedUntil
        ? SHARED_GAIN * rate * Math.max(trip, SHARED_LEAST_TRIP_MS)
        : GAIN * rate * Math.max(trip, LEAST_TRIP_MS) + Math.min(this.#extra.value, rate * trip)
    this.#cap = Math.round(Math.min(MOST, Math.max(LEAST, wanted)))
  }
}
