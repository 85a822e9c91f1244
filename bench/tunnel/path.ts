/** What a path is to the bench: a way in, the processes that carry it, and its end. */
import type { Entry } from './line.ts'

/** The two processes between load generator and target, under the names of our own. */
export interface Hops {
  readonly gateway: readonly number[]
  readonly agent: readonly number[]
}

export interface Path extends AsyncDisposable {
  readonly entry: Entry
  readonly hops: Hops
}

/** What a path is started with. */
export interface Site {
  /** Of this bench alone; gone with it. */
  readonly directory: string
  /** Where the target listens. */
  readonly target: number
  /** For the peers' TLS: 127.0.0.1, good for one run. */
  readonly certificate: { readonly key: string; readonly cert: string }
  /** Lines that may be open at once. */
  readonly lines: number
  /** The port to dial for one at the far end of the line between gateway and agent: a long one, or itself. */
  readonly uplink: (port: number) => Promise<number>
}

/** A way of carrying lines. `start` throws `Absent` where this machine has not got it. */
export interface Peer {
  readonly name: string
  /** What is measured, in words, for the `against` column. */
  readonly says: string
  start(site: Site): Promise<Path>
}

/** The peer cannot be had here; the message is why. */
export class Absent extends Error {
  override readonly name = 'Absent'
}
