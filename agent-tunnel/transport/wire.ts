/** What carries a tunnel's bytes, as the driver needs it. */
import type { MuxError } from '#mux'

/** Where a wire puts what it hears. */
export interface WireEvents {
  /** Bytes of the peer, lent for the call: their memory is read into again afterwards. */
  bytes(chunk: Uint8Array): void
  /** The peer has ended its side in order. */
  ended(): void
  /** The carrier itself broke the rules. */
  broken(error: MuxError): void
  /** Nothing more will happen; with the reason, if it was an error. Exactly once, last. */
  gone(error: Error | undefined): void
}

export interface Wire {
  readonly reads: 'reused' | 'plain'
  /** Begins to read. */
  start(events: WireEvents): void
  /** `done`, never before this returns, once the bytes may be overwritten or the wire has failed. One at a time. */
  write(bytes: Uint8Array, done: () => void): void
  /** Reads no more until `resume`; what has been read already may still come. */
  pause(): void
  resume(): void
  /** No more writes: says so to the peer and closes when that is sent. */
  end(): void
  destroy(): void
}
