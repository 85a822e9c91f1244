/**
 * Recordings of this node: room is set aside and auditors are there before a session that must be recorded opens; every
 * part's hash is in the log; what cannot be recorded any more ends the session.
 */
import { stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import {
  AuditError,
  closeRecording,
  fileOf,
  dropRecording,
  openRecordings,
  pcapHeader,
  readRecording,
  Recorder,
  rootOf,
  salvage,
  webLine,
  type AuditLog,
  type Format,
  type Part,
  type Promised,
  type Recipient,
  type RecorderLimits,
  type RecordingDisk,
  type Track,
} from '#audit'
import { Refusal } from '../problem.ts'
import { recipients, type AuditorStore } from './auditors.ts'
import { formatOf, packetTap, terminalTap, type Sink, type Tap, type Terminal } from './taps.ts'

type WebRequest = Parameters<typeof webLine>[0]

export interface RecordingsOptions {
  readonly directory: string
  readonly auditors: Pick<AuditorStore, 'list'>
  /** On the same disk it has the one account of its room, and recordings are promised theirs by it. */
  readonly log: Pick<AuditLog, 'append' | 'admit' | 'directory' | 'room'>
  /** Free bytes that no recording may touch. */
  readonly floorBytes: number
  /** What one session may take at most. */
  readonly sessionBytes: number
  /** What people type in a terminal is kept too. */
  readonly terminalInput: boolean
  readonly version: string
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly random: (bytes: number) => Uint8Array
  readonly report: (error: unknown, what: string) => void
  readonly limits?: RecorderLimits | undefined
  readonly disk?: RecordingDisk | undefined
  /** Free bytes where the recordings are. */
  readonly free?: ((directory: string) => Promise<number>) | undefined
}

/** What a session says of itself when it asks to be recorded. */
export interface Recorded {
  readonly id: string
  readonly device: string
  readonly process: string
  readonly grant: string
  readonly kind: string
  readonly maxBytes: number
}

/**
 * Recorded bytes are more than those that passed, by how small the pieces are: a Modbus request of 12 bytes has its
 * addresses, its verdict and its block around it (7.2 times, measured; 15.2 where each is refused, over IPv6); a control
 * character of a terminal is six.
 */
const EXPANSION: Readonly<Record<Format, number>> = { asciicast: 6, pcapng: 16, weblog: 8, flow: 1 }
const LEAST_BYTES = 4 * 1024 * 1024
/** How long the disk may take for the last part. */
const END_MS = 20_000

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

type Names = Pick<Recorded, 'id' | 'device' | 'process' | 'grant'>

async function appendPart(
  log: Pick<AuditLog, 'append'>,
  { id, device, process, grant }: Names,
  part: Part,
): Promise<number> {
  const { idx } = await log.append({
    code: 'recording.part',
    message: `part ${part.part} of the recording is on disk${part.torn ? ', without its end' : ''}`,
    status: 'success',
    session: id,
    device,
    process,
    grant,
    data: { ...part, torn: part.torn ? true : undefined, file: fileOf(part) },
  })
  return idx
}

async function tellFailure(
  log: Pick<AuditLog, 'append'>,
  { id, device, process, grant }: Names,
  error: AuditError,
): Promise<void> {
  await log.append({
    code: 'recording.fail',
    message: `the recording cannot go on: ${error.message}`,
    status: 'failure',
    reason: error.code,
    session: id,
    device,
    process,
    grant,
  })
}

/** Says to the log what is on disk, and that nothing will follow. Gives the root. */
async function close(
  directory: string,
  log: Pick<AuditLog, 'append'>,
  names: Names,
  reason: string,
): Promise<string> {
  const { id, device, process, grant } = names
  const parts = await salvage(directory, id, (part) => appendPart(log, names, part))
  const root = rootOf(parts)
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
  const { idx } = await log.append({
    code: 'recording.end',
    message: `the recording has ${parts.length} parts`,
    status: parts.some(({ torn }) => torn) ? 'failure' : 'success',
    reason,
    session: id,
    device,
    process,
    grant,
    data: { parts: parts.length, root, bytes },
  })
  await closeRecording(directory, id, parts, { idx, reason })
  return root
}

/** The recording of one session while it lives. */
export class SessionRecording {
  readonly id: string
  readonly format: Format
  readonly recipients: readonly string[]
  budget = 0
  /** What the log promised it; undefined on a disk of its own. */
  room: Promised | undefined
  /** Gives back what it was promised. */
  readonly over: () => void
  readonly #session: Recorded
  readonly #options: RecordingsOptions
  readonly #waiting = new Set<Tap>()
  #recorder: Recorder | undefined
  #packets: Track | undefined
  #requests: Track | undefined
  #connections = 0

  constructor(
    session: Recorded,
    format: Format,
    sealedTo: readonly Recipient[],
    options: RecordingsOptions,
    over: () => void,
  ) {
    this.id = session.id
    this.format = format
    this.recipients = sealedTo.map(({ text }) => text)
    this.#session = session
    this.#options = options
    this.over = over
  }

  /** Bytes it may still write. */
  get remaining(): number {
    return Math.max(0, this.budget - (this.#recorder?.bytes ?? 0))
  }

  attach(recorder: Recorder): void {
    this.#recorder = recorder
  }

  /** What sees everything of the next connection; `ip` is where the person comes from. */
  tap(ip: string | null, terminal: Terminal = { cols: 80, rows: 24 }): Tap {
    const { now, terminalInput } = this.#options
    const { kind, device, process } = this.#session
    const connection = ++this.#connections
    if (this.format === 'asciicast') {
      const tap: Tap = terminalTap({
        title: `${device}/${process}`,
        terminal,
        input: terminalInput,
        now,
        open: (header) => {
          const track = this.#track(header)
          track.onDrain = () => tap.onDrain?.()
          return sinkOf(track, () => void track.end())
        },
      })
      return tap
    }
    // A native connection to a web process is packets too, in a file beside the requests.
    const shared = (this.#packets ??= this.#common(
      pcapHeader(`Sallyport ${this.#options.version}`, `session ${this.id}, ${device}/${process}`),
    ))
    const tap = packetTap({
      kind,
      ip,
      connection,
      now,
      sink: sinkOf(shared, () => this.#waiting.delete(tap)),
    })
    this.#waiting.add(tap)
    return tap
  }

  /** One request of a web session. */
  web(request: Omit<WebRequest, 'session' | 'device' | 'process'>): void {
    const { id, device, process } = this.#session
    this.#requests ??= this.#common(new Uint8Array(0))
    this.#requests.write(webLine({ ...request, session: id, device, process }))
  }

  /** A file that all connections share. */
  #common(header: Uint8Array): Track {
    const track = this.#track(header)
    track.onDrain = () => {
      for (const tap of this.#waiting) tap.onDrain?.()
    }
    return track
  }

  #track(header: Uint8Array): Track {
    const recorder = this.#recorder
    if (recorder === undefined) throw new Error('a recording is used before it was begun')
    return recorder.track(header)
  }

  /**
   * Nothing more is recorded: brings the last parts to disk and the end to the log. Gives the root over all parts;
   * undefined where the disk or the log did not take it in time, which the next start of the node makes up for. What it
   * was promised it keeps for as long as the disk may still take what it has.
   */
  async end(reason: string): Promise<string | undefined> {
    const { directory, log, report } = this.#options
    const written = this.#recorder?.end().then(
      () => undefined,
      async () => this.#recorder?.idle(),
    )
    let late = written !== undefined
    try {
      await inTime(written)
      late = false
      return await close(directory, log, this.#session, reason)
    } catch (error) {
      report(error, `the recording of session ${this.id} could not be closed`)
      return undefined
    } finally {
      if (late) void written?.then(this.over, this.over)
      else this.over()
    }
  }

  /** The session was not opened after all. */
  async discard(): Promise<void> {
    try {
      await this.#recorder?.discard()
    } catch (error) {
      this.#options.report(error, `what was begun for ${this.id} could not be taken away`)
    } finally {
      this.over()
    }
  }
}

function sinkOf(track: Track, end: () => void): Sink {
  return {
    write: (record) => track.write(record),
    get full() {
      return track.full
    },
    end,
  }
}

async function inTime(work: Promise<unknown> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const slow = () =>
      reject(new AuditError('recording.slow', 'the disk does not take the last part'))
    timer = setTimeout(slow, END_MS)
  })
  try {
    await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
