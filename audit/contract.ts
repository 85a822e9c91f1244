/** What an audit log is to whoever writes to it, and what it says of itself. */
import type { Checkpoint } from './checkpoint.ts'
import type { Closing } from './epoch.ts'
import type { Place } from './errors.ts'
import type { Actor, EventInput } from './event.ts'
import type { ActiveLine } from './heartbeat.ts'
import type { PruneAsked } from './prune-live.ts'
import type { Pruned } from './prune-plan.ts'
import type { Entry } from './read.ts'
import type { Watched } from './writer.ts'

/**
 * `OK`. `WARN`: near a limit. `CLOSED_NEW`: open no new session or grant, admitted ones go on.
 * `DRAIN`: nothing can be appended; end the sessions.
 */
export type LogState = 'OK' | 'WARN' | 'CLOSED_NEW' | 'DRAIN'

export interface Appended {
  readonly idx: number
  /** UUIDv7, the receiver's key for dropping duplicates. */
  readonly uid: string
  /** Leaf hash, 64 hex digits. */
  readonly leaf: string
}

export interface Recovered {
  /** Bytes of a torn tail that were moved to quarantine/; 0 if the log ended cleanly. */
  readonly quarantinedBytes: number
  readonly place: Place | null
  /** Leaves found. */
  readonly size: number
  /** Sessions whose start had no end; an end with reason node_crash was written for each. */
  readonly sessions: readonly string[]
}

export interface AuditLog extends AsyncDisposable {
  readonly directory: string
  readonly origin: string
  /** What opening found and did. */
  readonly recovered: Recovered
  /** Verifier keys (C2SP vkey), one per signer; hand them to auditors. */
  readonly vkeys: readonly string[]
  readonly state: LogState
  /** Durable leaves. */
  readonly size: number
  /** Last signed checkpoint. */
  readonly signed: Checkpoint

  /**
   * Resolves when the event is durable. Rejects with AuditError: event.* (the event cannot be written), log.closed,
   * log.overloaded, log.write, log.poisoned. After a rejection nothing may be done that the event was to record.
   */
  append(event: EventInput): Promise<Appended>
  /** Signs now, over everything durable so far (after what is queued), and resolves with the published checkpoint. */
  checkpoint(): Promise<Checkpoint>
  /** At most `limit` durable entries from `fromIdx` on. */
  read(fromIdx: number, limit: number): Promise<Entry[]>
  /** Called on every change of state, with why. Returns the function that stops it. */
  onState(listener: (state: LogState, why: string) => void): () => void
  /** Called when a checkpoint was published. Returns the function that stops it. */
  onCheckpoint(listener: (checkpoint: Checkpoint) => void): () => void
  /** Where the heartbeat finds the active sessions, and optionally clock offset and sink lag. */
  setHeartbeat(active: () => readonly ActiveLine[]): void
  /**
   * Lets go of the oldest events, whole segments, that the archive is shown to hold; resolves when they are gone, and
   * their hashes are not. Errors: prune.archive, prune.busy, prune.failed (the next one brings it to its end), those of
   * `append`.
   */
  prune(asked: PruneAsked): Promise<Pruned>
  /** Writes log.close, signs, ends the thread. Later appends reject with log.closed. */
  close(): Promise<void>
  /**
   * Closes the log for good: behind log.close its very last event names the epoch that goes on from it, and the head over
   * just that is signed. `by`: who asked for it. Errors: log.closed, and those of `append`; whether the end is on disk
   * then, opening the directory anew tells.
   */
  end(closing: Closing, by?: Actor): Promise<Checkpoint>
  /**
   * Keeps room on the disk for something that is about to be admitted and will write up to `bytes`, until it is released
   * (once; again does nothing). Recordings on that disk ask here too: there is one account. Throws AuditError log.room where that would leave less than the floor beside all that was
   * admitted before, and log.closed, log.poisoned.
   */
  admit(bytes: number): Promised
  /** The room there is. */
  readonly room: Room
}

/** What a sink needs of the log it ships. */
export type ShippedLog = Pick<
  AuditLog,
  'directory' | 'origin' | 'size' | 'signed' | 'append' | 'checkpoint' | 'onCheckpoint'
> & {
  /** Of a log that has ended, and of no other: called once the sink has all of it, for good. */
  readonly taken?: () => void
}

/** Room that was promised, until it is written or given back. */
export interface Promised {
  /** So many of its bytes are on disk now: they are promised no longer. */
  used(bytes: number): void
  release(): void
}

/** Room on the disk, as it was last looked at. */
export interface Room {
  /** Null before the first look. */
  readonly freeBytes: number | null
  /** Promised to what was admitted. */
  readonly reservedBytes: number
  /** Kept back, and missing from what was to be kept back; null where nothing is. */
  readonly reserve: Watched['reserve'] | null
}
