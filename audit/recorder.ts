/**
 * A recording on its way to disk: sealed before it leaves memory, cut into parts, each part durable and its hash in the
 * log before the next one is begun. What cannot be written ends the recording, and says so once.
 */
import { createHash, type Hash } from 'node:crypto'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { AuditError } from './errors.ts'
import type { Recipient } from './recording/keys.ts'
import { fileOf, inOrder, markOf, rootOf, type Format, type Part } from './recording/parts.ts'
import { Sealer } from './recording/seal.ts'

export interface RecorderLimits {
  /** A part ends before its content would pass this. Default 1 MiB. */
  readonly partBytes?: number
  /** A part ends so long after its first octet came. Default 10,000 ms. */
  readonly partMs?: number
  /** So much may wait for the disk before the track is full. Default 4 MiB. */
  readonly highBytes?: number
  /** So much may wait for the disk in all; more ends the recording. Default 32 MiB. */
  readonly waitingBytes?: number
}

const defaults: Required<RecorderLimits> = {
  partBytes: 1024 * 1024,
  partMs: 10_000,
  highBytes: 4 * 1024 * 1024,
  waitingBytes: 32 * 1024 * 1024,
}

/** What a recording says of itself in the clear, beside its parts. */
export interface RecordingFacts {
  readonly session: string
  readonly format: Format
  readonly device: string
  readonly process: string
  readonly grant: string
  /** Epoch milliseconds. */
  readonly began: number
  /** `age1…` of everybody who can open it. */
  readonly recipients: readonly string[]
}

/** The file calls it makes, as values: tests put a disk in their place that fails on purpose. */
export interface RecordingDisk {
  open(path: string): Promise<RecordingFile>
  rename(from: string, to: string): Promise<void>
  syncDirectory(path: string): Promise<void>
}
export interface RecordingFile {
  write(bytes: Uint8Array): Promise<void>
  sync(): Promise<void>
  close(): Promise<void>
}

/** Flushes a directory's own entries. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await fs.open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** One more line of a recording's manifest. */
export async function note(directory: string, line: object): Promise<void> {
  await fs.appendFile(join(directory, MANIFEST), `${JSON.stringify(line)}\n`)
}

const realDisk: RecordingDisk = {
  async open(path) {
    const handle = await fs.open(path, 'wx', 0o600)
    return {
      write: (bytes) => handle.writeFile(bytes),
      sync: () => handle.sync(),
      close: () => handle.close(),
    }
  },
  rename: fs.rename,
  syncDirectory,
}

export interface RecorderOptions {
  /** Of all recordings; this one gets a directory of its own in it, named by the session. */
  readonly directory: string
  readonly facts: RecordingFacts
  readonly recipients: readonly Recipient[]
  /** Octets it may take on disk. */
  readonly budget: number
  readonly limits?: RecorderLimits | undefined
  readonly clock: { now(): number }
  readonly random: (bytes: number) => Uint8Array
  readonly disk?: RecordingDisk | undefined
  /** Told how many octets more are in a file. */
  readonly written?: ((bytes: number) => void) | undefined
  /** Records the hash of a part that is on disk; resolves with the event's index when that is durable. */
  readonly logged: (part: Part) => Promise<number>
  /** Told once, when the recording cannot go on. */
  readonly failed: (error: AuditError) => void
}

export interface RecordingEnd {
  readonly parts: readonly Part[]
  readonly root: string
  readonly bytes: number
}

/** The manifest of one recording: its facts, a line for each part, and a last line once it has ended. */
export const MANIFEST = 'manifest.ndjson'
/** A folder with the name of each recording that has no end: what the next start must close. */
export const OPEN = '.open'
/** Behind the name of a part that is being written. */
export const UNFINISHED = '.part'

/** What a track may still write once the budget is used up: the record at hand, and its last chunk. */
const LAST_BYTES = 192 * 1024

export class Recorder {
  readonly directory: string
  readonly #options: RecorderOptions
  readonly #limits: Required<RecorderLimits>
  readonly #tracks: Track[] = []
  readonly #parts: Part[] = []
  #bytes = 0
  #failure: AuditError | undefined
  #ended = false

  private constructor(options: RecorderOptions) {
    this.#options = options
    this.#limits = { ...defaults, ...options.limits }
    this.directory = join(options.directory, options.facts.session)
  }

  /** Makes the directory and says in it what this is, durably. Throws AuditError `recording.write`. */
  static async open(options: RecorderOptions): Promise<Recorder> {
    const recorder = new Recorder(options)
    try {
      const open = join(options.directory, OPEN)
      await fs.mkdir(open, { recursive: true, mode: 0o700 })
      await fs.writeFile(join(open, options.facts.session), '', { flag: 'wx', mode: 0o600 })
      await syncDirectory(open)
      await fs.mkdir(recorder.directory, { mode: 0o700 })
      const handle = await fs.open(join(recorder.directory, MANIFEST), 'wx', 0o600)
      try {
        await handle.writeFile(`${JSON.stringify({ v: 1, ...options.facts })}\n`)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await syncDirectory(recorder.directory)
      await syncDirectory(options.directory)
    } catch (cause) {
      throw writeError(cause)
    }
    return recorder
  }

  /** Octets on disk and on the way there. */
  get bytes(): number {
    return this.#bytes
  }
  get failure(): AuditError | undefined {
    return this.#failure
  }

  /** One more file of its own; `header` is what it begins with. After the end it takes nothing, as every track then. */
  track(header: Uint8Array): Track {
    const number = this.#tracks.length + 1
    const { facts, recipients, clock, random, disk = realDisk, logged } = this.#options
    const track = new Track({
      directory: this.directory,
      number,
      limits: this.#limits,
      disk,
      clock,
      seal: (part, previous) =>
        new Sealer(recipients, [markOf(facts.session, { track: number, part }, previous)], random),
      spend: (bytes) => this.#spend(bytes),
      written: (bytes) => this.#options.written?.(bytes),
      finished: async (part) => {
        const idx = await logged(part)
        this.#parts.push(part)
        await note(this.directory, { ...part, idx })
      },
      failed: (error) => this.#fail(error),
    })
    if (this.#ended) {
      track.abandon()
      return track
    }
    this.#tracks.push(track)
    track.write(header)
    return track
  }

  /** Resolves when nothing of it waits for the disk any more, whatever came of it. */
  async idle(): Promise<void> {
    await Promise.all(this.#tracks.map((track) => track.idle()))
  }

  /** Ends every track; resolves when each part is durable and logged. Rejects with what made it fail. */
  async end(): Promise<RecordingEnd> {
    this.#ended = true
    await Promise.all(this.#tracks.map((track) => track.end()))
    if (this.#failure !== undefined) throw this.#failure
    const parts = inOrder(this.#parts)
    return { parts, root: rootOf(parts), bytes: this.#bytes }
  }

  /** Takes away what was begun for a session that was never opened. */
  async discard(): Promise<void> {
    const { directory, facts } = this.#options
    await fs.rm(this.directory, { recursive: true, force: true })
    await fs.rm(join(directory, OPEN, facts.session), { force: true })
  }

  #spend(bytes: number): AuditError | undefined {
    const { budget } = this.#options
    this.#bytes += bytes
    return this.#bytes <= budget - this.#tracks.length * LAST_BYTES
      ? undefined
      : new AuditError(
          'recording.budget',
          `the recording has used the ${budget} bytes reserved for it`,
        )
  }

  #fail(error: AuditError): void {
    if (this.#failure !== undefined) return
    this.#failure = error
    // Where only the room is used up, what was taken is still brought to its end.
    const spent = error.code === 'recording.budget'
    for (const track of this.#tracks)
      if (spent) void track.end()
      else track.abandon()
    this.#options.failed(error)
  }
}

function writeError(cause: unknown): AuditError {
  if (cause instanceof AuditError) return cause
  const why = cause instanceof Error ? cause.message : String(cause)
  return new AuditError('recording.write', `what is recorded cannot be written: ${why}`, { cause })
}

interface TrackOptions {
  readonly directory: string
  readonly number: number
  readonly limits: Required<RecorderLimits>
  readonly disk: RecordingDisk
  readonly clock: { now(): number }
  readonly seal: (part: number, previous: string | undefined) => Sealer
  /** Counts octets that go to disk; an error where they were the last there is room for. */
  readonly spend: (bytes: number) => AuditError | undefined
  readonly written: (bytes: number) => void
  readonly finished: (part: Part) => Promise<void>
  readonly failed: (error: AuditError) => void
}

/** The part that is being filled. Everything about it is known at once; only the disk comes after. */
interface Filling {
  readonly part: number
  readonly sealer: Sealer
  readonly digest: Hash
  readonly t0: number
  readonly timer: NodeJS.Timeout
  t1: number
  plain: number
  bytes: number
}

/** One file in parts. `write` never waits; `full` asks whoever feeds it to. */
export class Track {
  /** Called when it is not full any more. */
  onDrain: (() => void) | undefined
  readonly #options: TrackOptions
  #filling: Filling | undefined
  #parts = 0
  #previous: string | undefined
  #waiting = 0
  #full = false
  #over = false
  #broken = false
  #file: RecordingFile | undefined
  /** What the disk does, one thing after the other. */
  #work: Promise<void> = Promise.resolve()

  constructor(options: TrackOptions) {
    this.#options = options
  }

  get full(): boolean {
    return this.#full
  }

  /** Takes a record, which no part is cut within. After the end, or a failure, nothing is taken. */
  write(record: Uint8Array): void {
    if (this.#over || record.length === 0) return
    const { limits, clock } = this.#options
    const { plain = 0 } = this.#filling ?? {}
    if (plain > 0 && plain + record.length > limits.partBytes) this.#finish()
    const filling = this.#filling ?? this.#begin()
    // The header was the last there was room for.
    if (this.#over) return
    filling.plain += record.length
    filling.t1 = clock.now()
    this.#put(filling, filling.sealer.push(record))
  }

  /** Ends the part that is open; resolves when all of it is durable and logged, or it has failed. */
  async end(): Promise<void> {
    this.#finish()
    this.#over = true
    await this.#work
  }

  async idle(): Promise<void> {
    await this.#work
  }

  abandon(): void {
    this.#over = true
    this.#broken = true
    clearTimeout(this.#filling?.timer)
    this.#filling = undefined
    this.#waiting = 0
    this.#drain()
  }

  #begin(): Filling {
    const { seal, clock, limits } = this.#options
    const part = ++this.#parts
    const sealer = seal(part, this.#previous)
    const t0 = clock.now()
    const timer = setTimeout(() => this.#finish(), limits.partMs)
    timer.unref()
    const digest = createHash('sha256')
    const filling: Filling = { part, sealer, digest, t0, timer, t1: t0, plain: 0, bytes: 0 }
    const path = this.#pathOf(part)
    this.#then(async () => {
      this.#file = await this.#options.disk.open(`${path}${UNFINISHED}`)
    })
    this.#filling = filling
    this.#put(filling, sealer.header)
    return filling
  }

  #put(filling: Filling, bytes: Uint8Array): void {
    if (bytes.length === 0) return
    filling.digest.update(bytes)
    filling.bytes += bytes.length
    this.#waiting += bytes.length
    const { highBytes, waitingBytes } = this.#options.limits
    this.#full ||= this.#waiting > highBytes
    this.#then(async () => {
      await this.#file?.write(bytes)
      this.#waiting -= bytes.length
      this.#options.written(bytes.length)
      if (this.#waiting <= highBytes / 2) this.#drain()
    })
    const spent = this.#options.spend(bytes.length)
    if (spent !== undefined) this.#options.failed(spent)
    if (this.#waiting > waitingBytes)
      this.#options.failed(
        new AuditError('recording.slow', `${this.#waiting} bytes wait for the disk`),
      )
  }

  #finish(): void {
    const filling = this.#filling
    if (filling === undefined || this.#over) return
    clearTimeout(filling.timer)
    this.#filling = undefined
    this.#put(filling, filling.sealer.end())
    const sha256 = filling.digest.digest('hex')
    this.#previous = sha256
    const { part, bytes, t0, t1 } = filling
    this.#then(() =>
      this.#seal({ track: this.#options.number, part, sha256, bytes, t0, t1, torn: false }),
    )
  }

  async #seal(part: Part): Promise<void> {
    const { disk, directory, finished } = this.#options
    const path = this.#pathOf(part.part)
    const file = this.#file
    this.#file = undefined
    await file?.sync()
    await file?.close()
    await disk.rename(`${path}${UNFINISHED}`, path)
    await disk.syncDirectory(directory)
    await finished(part)
  }

  #pathOf(part: number): string {
    return join(this.#options.directory, fileOf({ track: this.#options.number, part }))
  }

  /** After a failure nothing more is written, and what lies there stays as it is. */
  #then(step: () => Promise<void>): void {
    this.#work = this.#work
      .then(() => (this.#broken ? undefined : step()))
      .catch((cause: unknown) => this.#options.failed(writeError(cause)))
      .then(async () => {
        const file = this.#file
        if (!this.#broken || file === undefined) return
        this.#file = undefined
        await file.close().catch(() => undefined)
      })
  }

  #drain(): void {
    if (!this.#full) return
    this.#full = false
    this.onDrain?.()
  }
}
