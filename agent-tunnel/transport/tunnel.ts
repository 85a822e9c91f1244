/** The nouns of #tunnel, as the agent, the gateway and the CLI see them. docs/protocol.md section 10. */
import type { Duplex } from 'node:stream'
import type { Turns } from './turns.ts'
import type { Budget, Fault, Limits, Monotonic, Role, Side, StreamKind, WireLimits } from '#mux'

/** Why a stream or a tunnel ended. `fault` is the end that wanted it so or broke a rule. */
export interface CloseReason {
  /** A product code (`lease.spent`), a protocol code (`peer.silent`), or `done` after FIN both ways. */
  readonly code: string
  /** For a person; often empty. UTF-8, at most 4 KiB. */
  readonly message: string
  readonly fault: Fault
}

/**
 * One stream. It has exactly one consumer, which assigns the handlers. What arrives before the
 * handler that wants it is assigned is kept, in order and bounded by the credit, signals by 64 KiB,
 * beyond which the stream is reset with `tunnel.signals`; signals and the end of data are dropped if
 * `onData` is assigned and theirs is not.
 */
export interface TunnelStream {
  readonly id: number
  readonly kind: StreamKind
  /** What the opener said in OPEN, at most 4 KiB. */
  readonly metadata: Uint8Array
  /** What the other end said in ACCEPT, at most 4 KiB. */
  readonly answer: Uint8Array
  /** Payload octets received and sent so far. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** `udp` only: datagrams dropped here, in either direction, because they were over the budget. */
  readonly dropped: number

  /**
   * Sends bytes (one datagram, at most 65,507 octets, on a `udp` stream). They are copied before it
   * returns: the caller may reuse `chunk` at once. False means: all was taken, but wait for `onDrain`
   * before the next write. On a stream that has closed the bytes are dropped and it returns false.
   * Throws MuxError `call.state` after `end()`, `call.overrun` when false was ignored for more
   * than 32 MiB, `call.range` for a datagram too long.
   */
  write(chunk: Uint8Array): boolean
  /** No more data this way (FIN), after what was written. The other way stays open. */
  end(): void
  /**
   * Ends both directions now; what was written and has not left is dropped, signals are not.
   * `code`: 1 to 64 of `a-z 0-9 . _ -`; `message`: cut at 4 KiB of UTF-8. Idempotent.
   */
  reset(code: string, message?: string): void
  /**
   * A small message in order with the data, at most 4 KiB; costs no credit. `call.range` if longer.
   * False: it is dropped, because 64 KiB of them wait already for a peer that does not read.
   */
  signal(payload: Uint8Array): boolean
  /**
   * Gives credit back: `bytes` of what `onData` handed out are dealt with. Call it when the
   * application's own socket has taken them, not before: the credit is what bounds the memory of
   * a slow reader. Throws `call.range` for more than was handed out.
   */
  consumed(bytes: number): void

  /** Bytes (or one datagram). `chunk` is lent for the call; who keeps bytes copies them. */
  onData: ((chunk: Uint8Array) => void) | undefined
  /** The peer's FIN: no more data will come. */
  onEnd: (() => void) | undefined
  /** After a `write` that said false, never within it: write on. */
  onDrain: (() => void) | undefined
  onSignal: ((payload: Uint8Array) => void) | undefined
  /** Exactly once, last. Also called, soon, when it is assigned after the end. */
  onClose: ((reason: CloseReason) => void) | undefined

  /**
   * The stream as a node Duplex (half-open allowed, back-pressure both ways, destroy resets with
   * `stream.destroyed` or the `code` of the error given). It becomes the consumer; signals are
   * still for `onSignal`. Once per stream, byte streams only: else `call.state`.
   */
  duplex(): Duplex
}

/** A stream the peer wants to open. Answer once, at any later time. */
export interface Offer {
  readonly id: number
  readonly kind: StreamKind
  readonly metadata: Uint8Array
  /** True once the peer took it back or the tunnel ended; accept and refuse then throw nothing. */
  readonly cancelled: boolean
  /** Takes it; at most 4 KiB of metadata (`call.range`). The stream of a cancelled offer is closed. */
  accept(metadata: Uint8Array): TunnelStream
  /** Refuses it, with a code and message as in `reset`. */
  refuse(code: string, message: string): void
  onCancel: ((reason: CloseReason) => void) | undefined
}

/** What the peer's HELLO said. Nothing in it is proven: identity comes from TLS. */
export interface Peer {
  readonly role: Role
  /** The peer's own name for this run of its program, 1 to 64 octets. */
  readonly instance: string
  /** Rises with every tunnel of the same instance, so that the newest can be told. */
  readonly epoch: number
  readonly version: number
  readonly limits: WireLimits
}

/** The peer's GOAWAY: it takes no further OPEN. */
export interface Goaway {
  readonly code: string
  readonly message: string
  /** Come back after this long; 0 for at once. */
  readonly retryAfterMs: number
  /** `host:port` of other gateways; at most 8. */
  readonly alternatives: readonly string[]
}

/** A reading of counters; nothing in it is reset by reading. */
export interface TunnelStats {
  readonly streams: number
  readonly bytesIn: number
  readonly bytesOut: number
  readonly framesIn: number
  readonly framesOut: number
  /** Written by the application and not yet given to the connection. */
  readonly pendingBytes: number
  /** Given to the connection and not known to be read by the peer's tunnel, and how much that may be. */
  readonly inFlightBytes: number
  readonly inFlightCap: number
  /** Receive window granted above the initial, over all streams. */
  readonly grownBytes: number
  readonly opensIn: number
  readonly opensOut: number
  readonly datagramsDropped: number
  readonly rttMs: number | undefined
  /** Longest silence in milliseconds after which the peer still answered a PING. */
  readonly survivedMs: number
  /** The silence before a PING that has no answer; 0 without one. */
  readonly triedMs: number
  /** How bytes are read: into one reused buffer, or by ordinary data events. */
  readonly reads: 'reused' | 'plain'
}

/** One connection with its streams. */
export interface Tunnel {
  readonly peer: Peer
  /** Last measured round trip in milliseconds; undefined until the first PONG. */
  readonly rttMs: number | undefined
  /** True after GOAWAY from either end: `open` rejects. */
  readonly draining: boolean
  /** Resolves once, never rejects, when the tunnel has ended for whatever reason. */
  readonly closed: Promise<CloseReason>
  /** Offers that arrive before it is assigned are kept. */
  onOpen: ((offer: Offer) => void) | undefined
  onGoaway: ((goaway: Goaway) => void) | undefined
  /**
   * Asks the peer for a stream; `metadata` at most 4 KiB. Resolves on ACCEPT. Rejects with
   * TunnelRefused (the peer's code, or `open.aborted` here), or TunnelClosed (the tunnel ended
   * before the answer; also `tunnel.draining`, `tunnel.streams` when the peer's limit is reached).
   * Aborting `signal` takes the question back.
   */
  open(
    kind: StreamKind,
    metadata: Uint8Array,
    options?: { readonly signal?: AbortSignal },
  ): Promise<TunnelStream>
  /** Takes no further OPEN and says so; streams go on. Close when they have ended. */
  goaway(code: string, retryAfterMs?: number, alternatives?: readonly string[]): void
  /** Says GOAWAY, resets every stream with `code`, ends the connection. Idempotent. */
  close(code: string, message?: string): void
  stats(): TunnelStats
}

/** Time as a tunnel needs it; tests give a clock they move by hand. */
export interface Clock {
  now(): Monotonic
  /** Runs `wake` once after `ms`; the result takes it back. Must not keep the process alive. */
  after(ms: number, wake: () => void): () => void
}

/** How this end of a tunnel behaves. */
export interface TunnelOptions {
  readonly role: Role
  readonly side: Side
  /** 1 to 64 octets of UTF-8. */
  readonly instance: string
  /** 0 to 2^53-1. */
  readonly epoch: number
  /** Only what differs from `defaultLimits` of #mux. */
  readonly limits?: Partial<Limits>
  readonly clock?: Clock
  /** Uniform in [0, 1); spreads keepalives. */
  readonly random?: () => number
  /** What the receive windows of all tunnels of this process may grow by; without it each has its own. */
  readonly budget?: Budget
  /** Whom this tunnel's reading makes room for; without it, every other tunnel of the process. */
  readonly turns?: Turns
  /** Reads by ordinary data events even where a reused buffer is possible. */
  readonly plainReads?: boolean
}

/** The peer refused, or the caller gave up: `code` says which. */
export class TunnelRefused extends Error {
  override readonly name = 'TunnelRefused'
  readonly code: string
  constructor(code: string, message: string) {
    super(message === '' ? code : message)
    this.code = code
  }
}

/** The tunnel ended, or cannot take the call. */
export class TunnelClosed extends Error {
  override readonly name = 'TunnelClosed'
  readonly code: string
  readonly fault: Fault
  constructor(reason: CloseReason) {
    super(reason.message === '' ? reason.code : reason.message)
    this.code = reason.code
    this.fault = reason.fault
  }
}
