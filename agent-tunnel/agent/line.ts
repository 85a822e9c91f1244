/**
 * What stands behind one stream, whatever its kind: opened and observed, silent until it may flow. One
 * row for each kind of target; the forwarder knows none of them by name.
 */
import type { Clock, CloseReason, StreamKind, TunnelStream } from '#tunnel'
import type { Ask, ForwardCode } from './ask.ts'
import type { Log } from './log.ts'
import type { Pressure } from './pressure.ts'
import type { Observed } from './scope/observed.ts'
import type { ProcessScope, Sighting } from './scope/owner.ts'
import type { Body, Dialled } from './target.ts'

/** What opening a line needs beside its target. */
export interface LineRoom {
  readonly scope: ProcessScope
  readonly clock: Clock
  readonly acceptDeadlineMs: number
  readonly log: Log
  readonly pressure: Pressure
}

/** What a line may do about its session. */
export interface Session {
  readonly stream: TunnelStream
  /** Ends stream and line now, with a code of ours. */
  readonly end: (code: ForwardCode, message: string) => void
  /** The stream has closed; to be called once, in place of the stream's `onClose`. */
  readonly over: (reason: CloseReason) => void
  /** Has the owners looked at now, and not first at their next second. */
  readonly lookNow: () => void
}

export interface Line {
  readonly observed: Observed | null
  /** Who is looked at again while it flows; absent where nobody can be. */
  readonly sighting?: Sighting | undefined
  /** What else ACCEPT says. */
  readonly says?: Readonly<Record<string, unknown>>
  /** Begins to pass what comes either way; called once at most. */
  flow(session: Session): void
  /** Another look found this to be the case now; no later call of `flow` is older. */
  resighted?(sighting: Sighting): void
  /** Ends it now, whatever waits. Idempotent. */
  destroy(): void
}

/** One kind of target: the streams it is for, and how it is opened. */
export interface Kind<T extends Body = Dialled> {
  readonly stream: StreamKind
  /** Rejects with Refused, or the signal's reason. */
  open(target: T, ask: Ask, room: LineRoom, cancelled: AbortSignal): Promise<Line>
}
