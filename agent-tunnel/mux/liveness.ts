/** PING and PONG: round trips, silence, and the grace of streams just reset. docs/protocol.md section 7. */
import type { Monotonic } from './limits.ts'

const SILENT_INTERVALS = 3
/** The least round trip is looked for in this time and the one before it. */
const LEAST_OVER_MS = 30_000
/** An acceptor gives its dialler so many of the dialler's own intervals before it asks itself. */
const FOLLOWED_INTERVALS = 1.5
/** A busy tunnel measures its round trip so often: windows are judged by the least of them. */
const BUSY_MS = 250
/** Streams reset within this time share one PING. */
const BARRIER_MS = 500

interface Ping {
  readonly token: bigint
  readonly at: Monotonic
  /** Streams reset before this PING: its PONG ends their grace. */
  readonly graces: readonly number[]
  /** How long nothing at all had come when it was sent. */
  readonly idleMs: number
}

export interface LivenessOptions {
  /** An interval is drawn from it anew each time. */
  readonly range: readonly [least: number, most: number]
  /** What an interval may grow to while idle ones are answered. */
  readonly patienceMs: number
  /** An acceptor need not ask while its dialler does. */
  readonly follows: boolean
  readonly random: () => number
}

export class Liveness {
  readonly #range: readonly [number, number]
  readonly #patience: number
  readonly #follows: boolean
  readonly #random: () => number
  #token = 0n
  readonly #pings: Ping[] = []
  #leastSince: Monotonic
  #leastNow = Infinity
  #leastBefore = Infinity
  #silent = 0
  #heard = false
  #lastHeard: Monotonic
  /** Longest time without a sound after which the peer still answered. */
  survivedMs = 0
  #lastPeerPing: Monotonic | undefined
  #peerGap = 0
  #intervalEnds: Monotonic
  #lastPing: Monotonic
  /** Credit the peer still had on streams reset here, while its frames may be on their way. */
  readonly #graces = new Map<number, number>()
  #waiting: number[] = []
  /** The last round trip in milliseconds. */
  rttMs: number | undefined

  constructor({ range, patienceMs, follows, random }: LivenessOptions, now: Monotonic) {
    this.#range = range
    this.#patience = patienceMs
    this.#follows = follows
    this.#random = random
    this.#lastPing = now
    this.#lastHeard = now
    this.#leastSince = now
    this.#intervalEnds = this.#draw(now)
  }

  /** The end of an interval from `now` on; `plain` while the peer may be gone. */
  #draw(now: Monotonic, plainly = false): Monotonic {
    const [least, most] = this.#range
    const plain = least + this.#random() * (most - least)
    // A peer that is silent already is asked again soon.
    if (plainly || this.#silent > 0 || this.#patience <= most) return (now + plain) as Monotonic
    const wanted = this.#follows
      ? this.#peerGap * FOLLOWED_INTERVALS
      : this.survivedMs * (1 + this.#random() / 4)
    const longest = this.#patience * (0.8 + this.#random() / 5)
    return (now + Math.max(plain, Math.min(wanted, longest))) as Monotonic
  }

  /** How long nothing had come before the oldest PING that has no answer yet; 0 without one. */
  get triedMs(): number {
    return this.#pings[0]?.idleMs ?? 0
  }

  /** The least of the last round trips: what the path takes without queues. */
  leastRttMs: number | undefined

  heard(now: Monotonic): void {
    this.#heard = true
    this.#lastHeard = now
  }

  /** The peer has sent a PING of its own. Who follows begins a new interval with it. */
  pinged(now: Monotonic): void {
    if (this.#lastPeerPing !== undefined) this.#peerGap = now - this.#lastPeerPing
    this.#lastPeerPing = now
    if (!this.#follows || this.#patience <= this.#range[1]) return
    this.#silent = 0
    this.#heard = false
    this.#intervalEnds = this.#draw(now)
  }

  get wakeAt(): Monotonic {
    if (this.#waiting.length === 0) return this.#intervalEnds
    return Math.min(this.#intervalEnds, this.#lastPing + BARRIER_MS) as Monotonic
  }

  /** What the passing of time asks for. */
  due(now: Monotonic): 'ping' | 'dead' | undefined {
    if (now >= this.#intervalEnds) {
      this.#silent = this.#heard ? 0 : this.#silent + 1
      this.#heard = false
      // A PING goes out now: until it is answered the plain intervals count.
      this.#intervalEnds = this.#draw(now, true)
      return this.#silent >= SILENT_INTERVALS ? 'dead' : 'ping'
    }
    return this.#waiting.length > 0 && now >= this.#lastPing + BARRIER_MS ? 'ping' : undefined
  }

  /** Whether a busy tunnel should measure again. */
  stale(now: Monotonic): boolean {
    return now - this.#lastPing >= BUSY_MS && this.#pings.length === 0
  }

  /** A new PING's token. */
  ping(now: Monotonic): bigint {
    this.#token++
    this.#pings.push({
      token: this.#token,
      at: now,
      graces: this.#waiting,
      idleMs: now - this.#lastHeard,
    })
    this.#waiting = []
    this.#lastPing = now
    return this.#token
  }

  /** False for a PONG that answers nothing. PONGs come in the order of the PINGs. */
  pong(token: bigint, now: Monotonic): boolean {
    const ping = this.#pings[0]
    if (ping === undefined || ping.token !== token) return false
    this.#pings.shift()
    this.rttMs = now - ping.at
    this.survivedMs = Math.max(this.survivedMs, ping.idleMs)
    this.#measured(this.rttMs, now)
    if (this.#pings.length === 0 && this.#patience > this.#range[1]) {
      this.#intervalEnds = this.#draw(ping.at)
    }
    for (const id of ping.graces) this.#graces.delete(id)
    return true
  }

  // Two spans that take turns: a tunnel that is busy for long must not forget what it is without
  // its own queues, and one that changes its path must.
  #measured(rttMs: number, now: Monotonic): void {
    if (now - this.#leastSince > LEAST_OVER_MS) {
      this.#leastBefore = this.#leastNow
      this.#leastNow = Infinity
      this.#leastSince = now
    }
    this.#leastNow = Math.min(this.#leastNow, rttMs)
    this.leastRttMs = Math.min(this.#leastNow, this.#leastBefore)
  }

  /** A stream was reset here while the peer could still send `credit` bytes on it. */
  grace(id: number, credit: number): void {
    this.#graces.set(id, credit)
    this.#waiting.push(id)
  }

  inGrace(id: number): boolean {
    return this.#graces.has(id)
  }

  /** The peer has ended the stream itself. */
  endGrace(id: number): void {
    this.#graces.delete(id)
  }

  /** Takes data on a reset stream from the credit it had; false when that is not enough. */
  spend(id: number, bytes: number): boolean {
    const credit = this.#graces.get(id) ?? 0
    if (bytes > credit) return false
    this.#graces.set(id, credit - bytes)
    return true
  }
}
