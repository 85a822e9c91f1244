/**
 * Frames on their way out, in slabs: bytes are copied in once, the header of the last DATA frame is
 * extended in place while the same stream keeps writing. One slab is out at a time; the next fills.
 */
import type { Flight } from './flight.ts'
import { TYPE } from './frame.ts'
import { HEADER, putHeader } from './octets.ts'

/** A PING behind the data that fills a slab still fits in. */
const PING = HEADER + 8
const LEAST_SLAB = 16 * 1024
/** Of each size: many small ones must not leave the few large ones without a place. */
const KEPT = 8 * 1024 * 1024

/** Slabs that nobody fills just now, by size; shared by the tunnels of a process. */
export class SlabPool {
  readonly #free = new Map<number, Uint8Array[]>()

  take(size: number): Uint8Array {
    return this.#free.get(size)?.pop() ?? new Uint8Array(size)
  }

  /** Keeps it, up to 8 MiB of its size. */
  give(slab: Uint8Array): void {
    const list = this.#free.get(slab.length)
    if (list === undefined) this.#free.set(slab.length, [slab])
    else if ((list.length + 1) * slab.length <= KEPT) list.push(slab)
  }
}

interface Ready {
  readonly slab: Uint8Array
  readonly used: number
}

export class Outbox {
  readonly #pool: SlabPool
  readonly #most: number
  readonly #flight: Flight
  #size = LEAST_SLAB
  #filling: Uint8Array | undefined
  #used = 0
  /** The DATA frame that can still be extended: its stream, where its header is, its length. */
  #openStream = 0
  #openAt = 0
  #openLength = 0
  #maxFrame = 16_384
  readonly #ready: Ready[] = []
  #out: Uint8Array | undefined
  frames = 0

  /** `most`: the largest slab in bytes; `flight` counts what is added. */
  constructor(pool: SlabPool, most: number, flight: Flight) {
    this.#pool = pool
    this.#most = most
    this.#flight = flight
  }

  /** The largest DATA payload in bytes that the peer takes. */
  set maxFrame(bytes: number) {
    this.#maxFrame = bytes
  }

  /** Bytes of one stream's data that may be added now; further frames wait for the slab to leave. */
  get room(): number {
    if (this.#ready.length > 0) return 0
    const capacity = this.#filling === undefined ? this.#size : this.#filling.length
    return Math.max(0, capacity - this.#used - HEADER - PING)
  }

  get empty(): boolean {
    return this.#used === 0 && this.#ready.length === 0
  }

  get pending(): number {
    let bytes = this.#used
    for (const ready of this.#ready) bytes += ready.used
    return bytes
  }

  /** Copies `source[start, end)` in as DATA of a stream; at most `room`. */
  data(stream: number, source: Uint8Array, start: number, end: number): void {
    let at = start
    while (at < end) {
      if (this.#openStream !== stream || this.#openLength >= this.#maxFrame) this.#begin(stream)
      const slab = this.#slab()
      // A new header may have taken room that the first check had not counted: it is part of `used`.
      const length = Math.min(end - at, this.#maxFrame - this.#openLength, slab.length - this.#used)
      if (length <= 0) {
        this.#turnOver(LEAST_SLAB)
        continue
      }
      slab.set(
        at === 0 && length === source.length ? source : source.subarray(at, at + length),
        this.#used,
      )
      this.#advance(length)
      this.#openLength += length
      at += length
      putHeader(slab, this.#openAt, TYPE.data, this.#openLength, stream)
    }
  }

  #advance(octets: number): void {
    this.#used += octets
    this.#flight.add(octets)
  }

  #begin(stream: number): void {
    const needed = HEADER + 1
    if (this.#slab().length - this.#used < needed) this.#turnOver(needed)
    this.#slab()
    this.#openStream = stream
    this.#openAt = this.#used
    this.#openLength = 0
    this.#advance(HEADER)
    this.frames++
  }

  /** Adds a whole frame; it always finds room. */
  frame(bytes: Uint8Array): void {
    const slab = this.#reserve(bytes.length)
    slab.set(bytes, this.#used)
    this.#advance(bytes.length)
    this.frames++
  }

  /** Adds a frame of a type whose payload is copied from where it lies. */
  payload(type: number, stream: number, payload: Uint8Array): void {
    const slab = this.#reserve(HEADER + payload.length)
    putHeader(slab, this.#used, type, payload.length, stream)
    slab.set(payload, this.#used + HEADER)
    this.#advance(HEADER + payload.length)
    this.frames++
  }

  #reserve(length: number): Uint8Array {
    this.#openStream = 0
    if (this.#slab(length).length - this.#used < length) this.#turnOver(length)
    return this.#slab(length)
  }

  #slab(least = 0): Uint8Array {
    this.#filling ??= this.#pool.take(least > this.#size ? ceiling(least) : this.#size)
    return this.#filling
  }

  /** The filling slab is done; a new one has at least `least` bytes. */
  #turnOver(least: number): void {
    if (this.#filling !== undefined && this.#used > 0) {
      this.#ready.push({ slab: this.#filling, used: this.#used })
    } else if (this.#filling !== undefined) this.#pool.give(this.#filling)
    this.#filling = undefined
    this.#used = 0
    this.#openStream = 0
    this.#slab(least)
  }

  /** The next bytes to hand to the connection, until `sent`; undefined if some are out, or none wait. */
  take(): Uint8Array | undefined {
    if (this.#out !== undefined) return undefined
    let next = this.#ready.shift()
    if (next === undefined) {
      if (this.#filling === undefined || this.#used === 0) return undefined
      next = { slab: this.#filling, used: this.#used }
      this.#resize()
      this.#filling = undefined
      this.#used = 0
      this.#openStream = 0
    }
    this.#out = next.slab
    return next.slab.subarray(0, next.used)
  }

  /** A slab that leaves full asks for a larger next one; one that leaves nearly empty for a smaller. */
  #resize(): void {
    if (this.#filling === undefined) return
    const free = this.#filling.length - this.#used
    if (free <= HEADER + PING + 1024) this.#size = Math.min(this.#most, this.#size * 2)
    else if (this.#used < this.#size / 8) this.#size = Math.max(LEAST_SLAB, this.#size / 2)
  }

  /** The connection has taken what `take` gave: its slab is free. */
  sent(): void {
    if (this.#out !== undefined) this.#pool.give(this.#out)
    this.#out = undefined
  }

  get inFlight(): boolean {
    return this.#out !== undefined
  }
}

function ceiling(bytes: number): number {
  let size = LEAST_SLAB
  while (size < bytes) size *= 2
  return size
}
