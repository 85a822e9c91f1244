/**
 * Recordings of this node: room is set aside and auditors are there before a session that must be recorded opens; every
 * part's hash is in the log; what cannot be recorded any more ends the session.
 */
import { stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import {
  dropRecording,
  openRecordings,
  readRecording,
  Recorder,
  type AuditError,
  type AuditLog,
  type Format,
  type RecorderLimits,
  type RecordingDisk,
} from '#audit'
import { Refusal } from '../problem.ts'
import { recipients, type AuditorStore } from './auditors.ts'
import { SessionRecording, type Recorded, type Recording } from './recording.ts'
import { formatOf } from './taps.ts'
import { appendPart, close, tellFailure } from './told.ts'

export type { Recorded, SessionRecording } from './recording.ts'

export interface RecordingsOptions extends Recording {
  readonly auditors: Pick<AuditorStore, 'list'>
  /** On the same disk it has the one account of its room, and recordings are promised theirs by it. */
  readonly log: Pick<AuditLog, 'append' | 'admit' | 'directory' | 'room'>
  /** Free bytes that no recording may touch. */
  readonly floorBytes: number
  /** What one session may take at most. */
  readonly sessionBytes: number
  readonly random: (bytes: number) => Uint8Array
  readonly limits?: RecorderLimits | undefined
  readonly disk?: RecordingDisk | undefined
  /** Free bytes where the recordings are. */
  readonly free?: ((directory: string) => Promise<number>) | undefined
}

/**
 * Recorded bytes are more than those that passed, by how small the pieces are: a Modbus request of 12 bytes has its
 * addresses, its verdict and its block around it (7.2 times, measured; 15.2 where each is refused, over IPv6); a control
 * character of a terminal is six.
 */
const EXPANSION: Readonly<Record<Format, number>> = { asciicast: 6, pcapng: 16, weblog: 8, flow: 1 }
const LEAST_BYTES = 4 * 1024 * 1024

export class Recordings {
  readonly #options: RecordingsOptions
  readonly #open = new Set<SessionRecording>()

  constructor(options: RecordingsOptions) {
    this.#options = options
  }

  get directory(): string {
    return this.#options.directory
  }

  /** Bytes that open recordings may still write. */
  get reserved(): number {
    let sum = 0
    for (const { remaining } of this.#open) sum += remaining
    return sum
  }

  /** Whether this session's recording is being written by this node now. */
  writes(session: string): boolean {
    for (const { id } of this.#open) if (id === session) return true
    return false
  }

  /**
   * Sets room aside, makes the place and gives what records the session. `failed` is called once, when it cannot
   * go on. Throws Refusal `recording.unavailable`: no auditors, no room, no disk. Then nothing may be opened.
   */
  async admit(session: Recorded, failed: (error: AuditError) => void): Promise<SessionRecording> {
    const { auditors, directory, log, now, random, limits, disk, report } = this.#options
    const sealedTo = await recipients(auditors)
    const format = formatOf(session.kind)
    const recording = new SessionRecording(session, format, sealedTo, this.#options, () => {
      this.#open.delete(recording)
      recording.room?.release()
    })
    await this.#reserve(recording, this.#budget(session))
    try {
      const recorder = await Recorder.open({
        directory,
        facts: {
          session: session.id,
          format,
          device: session.device,
          process: session.process,
          grant: session.grant,
          began: now(),
          recipients: sealedTo.map(({ text }) => text),
        },
        recipients: sealedTo,
        budget: recording.budget,
        limits,
        clock: { now },
        random,
        disk,
        written: (bytes) => recording.room?.used(bytes),
        logged: (part) => appendPart(log, session, part),
        failed(error) {
          tellFailure(log, session, error).catch((unlogged: unknown) =>
            report(unlogged, `the failure of the recording of ${session.id} could not be logged`),
          )
          report(error, `session ${session.id} cannot be recorded any more`)
          failed(error)
        },
      })
      recording.attach(recorder)
    } catch (cause) {
      recording.over()
      throw unavailable('the recording could not be begun', cause)
    }
    return recording
  }

  #budget({ kind, maxBytes }: Recorded): number {
    return Math.min(
      Math.max(Math.ceil(maxBytes * EXPANSION[formatOf(kind)]), LEAST_BYTES),
      this.#options.sessionBytes,
    )
  }

  /** Once what is free is known nothing is awaited, so that two cannot be given the same room. */
  async #reserve(recording: SessionRecording, budget: number): Promise<void> {
    const { directory, floorBytes, log, free = freeBytes } = this.#options
    let available: number
    let shared: boolean
    try {
      shared = (await deviceOf(directory)) === (await deviceOf(log.directory))
      available = await free(directory)
    } catch (cause) {
      throw unavailable('it is not known how much room the disk has', cause)
    }
    const left = available - (shared ? log.room.reservedBytes : this.reserved) - floorBytes
    if (left < budget)
      throw unavailable(
        `a recording of this session may need ${budget} bytes, and ${Math.max(0, left)} are left`,
      )
    try {
      if (shared) recording.room = log.admit(budget)
    } catch (cause) {
      throw unavailable('the audit log, on the same disk, has promised the room to others', cause)
    }
    recording.budget = budget
    this.#open.add(recording)
  }

  /** Closes what an earlier run of this node left open: the log is told what is there, and that it ended so. */
  async recover(): Promise<readonly string[]> {
    const { directory, log, report } = this.#options
    const closed: string[] = []
    for (const id of await openRecordings(directory)) {
      try {
        const { facts } = (await readRecording(directory, id)) ?? {}
        // It died before anything said what this is; then nothing was let through either.
        if (facts === undefined) await dropRecording(directory, id)
        else await close(directory, log, { ...facts, id }, 'node_crash')
        closed.push(id)
      } catch (error) {
        report(error, `the recording of ${id} could not be closed`)
      }
    }
    return closed
  }
}

/** Free bytes of the file system that holds `directory`, or will. */
async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await orAbove((path) => statfs(path), directory)
  return bavail * bsize
}

/** Which file system holds `directory`, or will. */
async function deviceOf(directory: string): Promise<number> {
  return (await orAbove((path) => stat(path), directory)).dev
}

async function orAbove<T>(look: (path: string) => Promise<T>, directory: string): Promise<T> {
  return look(directory).catch((error: unknown) => {
    const absent = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    if (!absent) throw error
    return look(dirname(directory))
  })
}

function unavailable(detail: string, cause?: unknown): Refusal {
  return new Refusal('recording.unavailable', detail, {
    cause,
    nextStep: 'tell the platform owner: recordings need room on the disk of the gateway',
  })
}
