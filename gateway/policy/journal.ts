/**
 * The decision log's files: lines appended in order, in segments of bounded size, the oldest removed
 * when the whole is full. What is written is on disk once `settled` resolves; what cannot be written
 * is said, and nobody who needs a record goes on without one.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs'
import { open, readFile, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { Place } from '../facts.ts'
import {
  FIRST_PREV,
  hashOf,
  lineOf,
  readLine,
  type Decided,
  type DecisionRecord,
} from './record.ts'

export interface JournalOptions {
  readonly directory: string
  readonly place: Place
  /** Octets of one segment and of all of them. */
  readonly segmentBytes?: number
  readonly maxBytes?: number
  /** Told when writing fails and when it works again. */
  readonly report: (error: unknown, what: string) => void
}

const SEGMENT_BYTES = 8 * 1024 * 1024
const MAX_BYTES = 256 * 1024 * 1024
/** So many are made into lines at a time: the loop turns between. */
const BATCH = 128
/** So many decisions wait for the disk at most: beyond, none can be recorded. */
const MAX_WAITING = 20_000
const FLUSH_MS = 50
const NAME = /^\d{12}\.jsonl$/

/** Why a decision could not be recorded. */
export class JournalError extends Error {
  override readonly name = 'JournalError'
  readonly code = 'log.unavailable'
}

export interface JournalHealth {
  readonly state: 'OK' | 'FAILED'
  readonly waiting: number
  readonly written: number
  /** Hash of the newest line on disk: what the next one will name. */
  readonly head: string
}

export class DecisionJournal implements AsyncDisposable {
  readonly #options: Required<Omit<JournalOptions, 'report'>> & Pick<JournalOptions, 'report'>
  #segment: number
  #bytes: number
  #head: string
  #file: FileHandle | undefined
  #waiting: Decided[] = []
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #written = 0
  #failed = false
  #closed = false

  private constructor(options: JournalOptions, found: Found) {
    this.#options = { segmentBytes: SEGMENT_BYTES, maxBytes: MAX_BYTES, ...options }
    this.#segment = found.segment
    this.#bytes = found.bytes
    this.#head = found.head
  }

  /**
   * Opens or makes the log in a directory (0700). A last line that a crash cut is removed. Throws what
   * the file system throws.
   */
  static open(options: JournalOptions): DecisionJournal {
    mkdirSync(options.directory, { recursive: true, mode: 0o700 })
    return new DecisionJournal(options, lookAround(options.directory))
  }

  /** Takes a decision; it is written within 50 ms, or at once where somebody waits for it. */
  add(decided: Decided): void {
    if (this.#closed || this.#waiting.length >= MAX_WAITING) {
      if (!this.#failed) this.#options.report(new JournalError('too many wait'), 'decision log')
      this.#failed = true
      return
    }
    this.#waiting.push(decided)
    this.#timer ??= setTimeout(() => void this.#flush(), FLUSH_MS)
  }

  /** Resolves when all that was added is on disk. Throws JournalError where it cannot be. */
  async settled(): Promise<void> {
    await this.#flush()
    if (this.#failed) throw new JournalError('a decision could not be recorded')
  }

  health(): JournalHealth {
    const { length: waiting } = this.#waiting
    return {
      state: this.#failed ? 'FAILED' : 'OK',
      waiting,
      written: this.#written,
      head: this.#head,
    }
  }

  /** The record of a decision, newest segments first; undefined where it is not kept (any more). */
  async find(id: string): Promise<DecisionRecord | undefined> {
    await this.#flush()
    const mark = JSON.stringify(id).slice(1, -1)
    for (const name of segmentsOf(this.#options.directory).toReversed()) {
      const text = await this.#read(name)
      const at = text.indexOf(`"decision_id":"${mark}"`)
      if (at < 0) continue
      const end = text.indexOf('\n', at)
      return readLine(text.slice(text.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end))
    }
    return undefined
  }

  /** Records from a time on (epoch milliseconds), oldest first, a segment in memory at a time. */
  async *since(from: number): AsyncGenerator<DecisionRecord> {
    await this.#flush()
    for (const name of segmentsOf(this.#options.directory))
      for (const line of (await this.#read(name)).split('\n')) {
        const record = line === '' ? undefined : readLine(line)
        if (record !== undefined && Date.parse(record.timestamp) >= from) yield record
      }
  }

  async #read(name: string): Promise<string> {
    return readFile(join(this.#options.directory, name), 'utf8').catch((error: unknown) => {
      // The oldest may be removed while somebody reads.
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return ''
      throw error
    })
  }

  async #flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) if (!(await this.#writeSome())) return
  }

  /** False where the disk did not take them; they wait on. */
  async #writeSome(): Promise<boolean> {
    const batch = this.#waiting.splice(0, BATCH)
    let head = this.#head
    const lines = batch.map((decided) => {
      const line = lineOf(decided, this.#options.place, head)
      head = hashOf(line)
      return `${line}\n`
    })
    try {
      await this.#append(Buffer.from(lines.join('')))
      this.#head = head
      this.#written += batch.length
      if (this.#failed) this.#options.report(undefined, 'decision log is written again')
      this.#failed = false
      return true
    } catch (error) {
      if (!this.#failed) this.#options.report(error, 'decision log cannot be written')
      this.#failed = true
      // A line that was half written is cut off before the next attempt.
      await this.#reopen()
      this.#waiting = [...batch, ...this.#waiting].slice(0, MAX_WAITING)
      this.#timer ??= setTimeout(() => void this.#flush(), 1000).unref()
      return false
    }
  }

  async #append(bytes: Buffer): Promise<void> {
    if (this.#bytes > 0 && this.#bytes + bytes.length > this.#options.segmentBytes)
      await this.#rotate()
    this.#file ??= await open(join(this.#options.directory, nameOf(this.#segment)), 'a', 0o600)
    await this.#file.appendFile(bytes)
    await this.#file.datasync()
    this.#bytes += bytes.length
  }

  async #rotate(): Promise<void> {
    await this.#file?.close()
    this.#file = undefined
    this.#segment++
    this.#bytes = 0
    const { directory, maxBytes, segmentBytes } = this.#options
    // The one that begins now is not there yet.
    const others = Math.max(1, Math.floor(maxBytes / segmentBytes) - 1)
    for (const name of segmentsOf(directory).slice(0, -others))
      await rm(join(directory, name), { force: true })
  }

  async #reopen(): Promise<void> {
    const path = join(this.#options.directory, nameOf(this.#segment))
    try {
      await this.#file?.close()
      this.#file = undefined
      const there = await stat(path).catch(() => undefined)
      if (there !== undefined && there.size > this.#bytes) truncateSync(path, this.#bytes)
    } catch (error) {
      this.#options.report(error, 'decision log cannot be mended')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#flush()
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#file?.close()
  }
}

function nameOf(segment: number): string {
  return `${String(segment).padStart(12, '0')}.jsonl`
}

function segmentsOf(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => NAME.test(name))
    .toSorted()
}

interface Found {
  readonly segment: number
  readonly bytes: number
  readonly head: string
}

/** Where the log goes on: after the last whole line of the newest segment. */
function lookAround(directory: string): Found {
  const names = segmentsOf(directory)
  for (const name of names.toReversed()) {
    const path = join(directory, name)
    const bytes = readFileSync(path)
    const end = bytes.lastIndexOf(0x0a) + 1
    if (end === 0) {
      rmSync(path)
      continue
    }
    if (end < bytes.length) truncateSync(path, end)
    const begin = bytes.lastIndexOf(0x0a, end - 2) + 1
    const head = hashOf(bytes.toString('utf8', begin, end - 1))
    return { segment: Number(name.slice(0, 12)), bytes: end, head }
  }
  return { segment: 0, bytes: 0, head: FIRST_PREV }
}
