/** What a log is opened with, and its limits. */
import type { KeyObject } from 'node:crypto'
import type { Opening } from './epoch.ts'
import type { ActiveLine } from './heartbeat.ts'
import type { Ledger } from './ledger.ts'

export interface Signers {
  readonly ed25519: KeyObject
  /** Absent only where post-quantum signatures are not wanted; then verifiers need the Ed25519 key alone. */
  readonly mlDsa44?: KeyObject
}

export interface LogLimits {
  /** A new segment begins before a file would pass this. Default 64 MiB. */
  readonly segmentBytes?: number
  /** Events one batch may hold. Default 1,024. */
  readonly batchEvents?: number
  /** Bytes one batch may hold. Default 1 MiB. */
  readonly batchBytes?: number
  /** Events waiting for the disk before append refuses with log.overloaded. Default 65,536. */
  readonly queueEvents?: number
  /** A checkpoint is signed when this many leaves are unsigned. Default 1,000. */
  readonly checkpointLeaves?: number
  /** A checkpoint is signed when the oldest unsigned leaf is this old. Default 1,000 ms. */
  readonly checkpointMs?: number
  /** Heartbeat leaves. Default 60,000 ms. */
  readonly heartbeatMs?: number
  /** Free bytes on the file system below which no new session may open. Default 64 MiB. */
  readonly floorBytes?: number
  /** Free bytes below which the state is WARN. Default 256 MiB. */
  readonly warnBytes?: number
  /** Kept back for the ends of what was admitted. Default none; a gateway keeps 16 MiB. */
  readonly closeoutBytes?: number
  /** Kept back for operators. Default none; a gateway keeps 64 MiB. */
  readonly breakglassBytes?: number
  /** How often the open segment and the free space are looked at. Default 1,000 ms. */
  readonly watchMs?: number
  /** First pause before a log whose write failed is opened anew; doubles to 30 s. Default 250 ms. */
  readonly reopenMs?: number
  /** A log that could not be opened anew for this long is in DRAIN. Default 5,000 ms. */
  readonly drainMs?: number
}

export interface LogOptions {
  /** The epoch directory: created if absent; holds seg/, tile/, checkpoint, checkpoints.log, quarantine/, ship/. */
  readonly directory: string
  /** `<domain>/audit/<node>/<epoch>`: no blanks, no `+`. */
  readonly origin: string
  readonly signers: Signers
  /** Of a later epoch: the one it goes on from. It is the first event of a log that has none yet. */
  readonly opening?: Opening
  /**
   * Where the sessions that go on are found: of a log that is opened beside them, by a gateway that runs. Their ends are
   * not owed then, and the first heartbeat is written at once.
   */
  readonly active?: () => readonly ActiveLine[]
  /** Starts of sessions in earlier epochs, as they stand there; those that are not found are left out. */
  readonly startsOf?: (sessions: ReadonlySet<string>) => ReadonlyMap<string, string>
  /** The account of the disk where it goes on from an epoch before. Default: its own. */
  readonly ledger?: Ledger
  readonly clock: { now(): number }
  /** n random bytes. */
  readonly random: (n: number) => Uint8Array
  readonly limits?: LogLimits
  /** What the events call this gateway. Default: the origin's last part but one. */
  readonly node?: string
  readonly version?: string
  readonly tenant?: string
  /** The writer's thread; tests give one whose disk fails on purpose. */
  readonly thread?: URL
}

/** The limits of a log that is told none. */
export const defaults: Required<LogLimits> = {
  segmentBytes: 64 * 1024 * 1024,
  batchEvents: 1_024,
  batchBytes: 1024 * 1024,
  queueEvents: 65_536,
  checkpointLeaves: 1_000,
  checkpointMs: 1_000,
  heartbeatMs: 60_000,
  floorBytes: 64 * 1024 * 1024,
  warnBytes: 256 * 1024 * 1024,
  closeoutBytes: 0,
  breakglassBytes: 0,
  watchMs: 1_000,
  reopenMs: 250,
  drainMs: 5_000,
}
