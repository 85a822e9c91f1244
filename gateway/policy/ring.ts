/**
 * One chain of decision records on disk: lines appended in order, in segments of bounded size, the
 * oldest removed when the whole is full. What waits is bounded; what is refused is counted, never lost
 * unsaid. Where each record kept begins is in memory, so that finding one reads one line.
 */
import { mkdirSync } from 'node:fs'
import { open, readFile, rm, truncate, type FileHandle } from 'node:fs/promises'
import type { Place } from '../facts.ts'
import { pathOf, segmentsOf, unlessGone, type Chain, type RingName } from './chain.ts'
import {
  FIRST_PREV,
  hashOf,
  lineOf,
  readLine,
  walk,
  type Decided,
  type DecisionRecord,
} from './record.ts'

export interface RingOptions extends Chain {
  readonly place: Place
  /** Octets of one segment and of all of them. */
  readonly segmentBytes: number
  readonly maxBytes: number
  /** So many decisions wait for the disk at most: beyond, none is taken. */
  readonly maxWaiting: number
  /** Told when writing fails and when it works again. */
  readonly report: (error: unknown, what: string) => void
}

/** So many are made into lines at a time: the loop turns between. */
const BATCH = 128
const FLUSH_MS = 50
const RETRY_MS = 1000
/** A line is read so many octets at a time. */
const CHUNK = 64 * 1024

/** Why a decision could not be recorded. */
export class JournalError extends Error {
  override readonly name = 'JournalError'
  readonly code = 'log.unavailable'
}

/** How a chain stands: what an event of the audit log says of it. */
export interface RingHealth {
  readonly name: RingName
  readonly failed: boolean
  readonly waiting: number
  /** Since the start. */
  readonly written: number
  readonly dropped: number
  /** Lines since the first of all, removed ones included. */
  readonly count: number
  /** Hash of the newest line on disk: what the next one will name. */
  readonly head: string
  /** Where the chain was found broken when it was opened. */
  readonly broken: string | null
}

interface Found {
  /** By number, oldest first: where each record begins. */
  readonly segments: Map<number, Map<string, number>>
  readonly bytes: number
  readonly head: string
  readonly count: number
  readonly broken: string | null
}

export class Ring implements AsyncDisposable {
  readonly #options: RingOptions
  readonly #segments: Map<number, Map<string, number>>
  readonly #broken: string | null
  #segment: number
  #bytes: number
  #head: string
  #count: number
  #file: FileHandle | undefined
  readonly #waiting: Decided[] = []
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()
  #written = 0
  #dropped = 0
  #failed = false
  #full = false
  #closed = false

  private constructor(options: RingOptions, found: Found) {
    this.#options = options
    this.#segments = found.segments
    this.#broken = found.broken
    this.#segment = [...found.segments.keys()].at(-1) ?? 0
    this.#bytes = found.bytes
    this.#head = found.head
    this.#count = found.count
  }

  /**
   * Opens or makes a chain in a directory (0700), reading what is there once: a last line that a crash
   * cut is removed, a chain that does not hold is reported and goes on. Throws what the file system throws.
   */
  static async open(options: RingOptions): Promise<Ring> {
    mkdirSync(options.directory, { recursive: true, mode: 0o700 })
    const found = await lookAround(options)
    if (found.broken !== null)
      options.report(new Error(`decision log: ${found.broken}`), 'a chain of decisions is broken')
    return new Ring(options, found)
  }

  /** Takes a decision; gives the number it will have of those written since the start, or undefined where it is refused. */
  add(decided: Decided): number | undefined {
    if (this.#closed || this.#waiting.length >= this.#options.maxWaiting) {
      this.#dropped++
      if (!this.#full) this.#options.report(new JournalError('too many wait'), 'decision log')
      this.#full = true
      return undefined
    }
    const ticket = this.#written + this.#waiting.push(decided)
    this.#timer ??= setTimeout(() => void this.#flush(), FLUSH_MS)
    return ticket
  }

  /** Resolves when what has this number, or all that was taken, is on disk. Throws JournalError where it is not. */
  async settled(ticket = this.#written + this.#waiting.length): Promise<void> {
    if (this.#written >= ticket) return
    await this.#flush()
    if (this.#written < ticket) throw new JournalError('a decision could not be recorded')
  }

  health(): RingHealth {
    return {
      name: this.#options.name,
      failed: this.#failed || this.#full,
      waiting: this.#waiting.length,
      written: this.#written,
      dropped: this.#dropped,
      count: this.#count,
      head: this.#head,
      broken: this.#broken,
    }
  }

  /** The record of a decision; undefined where it is not kept (any more). Reads one line. */
  async find(id: string): Promise<DecisionRecord | undefined> {
    await this.#flush()
    for (const [segment, ids] of [...this.#segments].toReversed()) {
      const offset = ids.get(id)
      if (offset === undefined) continue
      const record = readLine(await this.#lineAt(segment, offset))
      return record?.decision_id === id ? record : undefined
    }
    return undefined
  }

  async #lineAt(segment: number, offset: number): Promise<string> {
    const file = await open(pathOf(this.#options, segment)).catch(unlessGone(undefined))
    if (file === undefined) return ''
    await using _closed = file
    const parts: Buffer[] = []
    for (let at = offset; ; at += CHUNK) {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(CHUNK), 0, CHUNK, at)
      const end = buffer.subarray(0, bytesRead).indexOf(0x0a)
      parts.push(buffer.subarray(0, end < 0 ? bytesRead : end))
      if (end >= 0 || bytesRead < CHUNK) return Buffer.concat(parts).toString()
    }
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
    try {
      const batch = this.#waiting.slice(0, BATCH)
      let head = this.#head
      const lines = batch.map((decided, at) => {
        const link = { seq: this.#count + at, prev: head }
        const line = Buffer.from(`${lineOf(decided, this.#options.place, link)}\n`)
        head = hashOf(line.subarray(0, -1))
        return line
      })
      await this.#append(Buffer.concat(lines))
      for (const [at, { decision }] of batch.entries()) {
        this.#segments.get(this.#segment)?.set(decision.decision_id, this.#bytes)
        this.#bytes += lines[at]?.length ?? 0
      }
      this.#waiting.splice(0, batch.length)
      this.#head = head
      this.#written += batch.length
      this.#count += batch.length
      if (this.#failed || this.#full)
        this.#options.report(undefined, 'decision log is written again')
      this.#failed = this.#full = false
      return true
    } catch (error) {
      if (!this.#failed) this.#options.report(error, 'decision log cannot be written')
      this.#failed = true
      await this.#file?.close().catch(() => undefined)
      this.#file = undefined
      this.#timer ??= setTimeout(() => void this.#flush(), RETRY_MS).unref()
      return false
    }
  }

  async #append(bytes: Buffer): Promise<void> {
    // Before a new segment begins: what was half written must not stay in this one.
    this.#file ??= await this.#resume()
    if (this.#bytes > 0 && this.#bytes + bytes.length > this.#options.segmentBytes)
      await this.#rotate()
    this.#file ??= await this.#resume()
    await this.#file.appendFile(bytes)
    await this.#file.datasync()
  }

  /** The newest segment, ready for the next line: what was half written is cut off. */
  async #resume(): Promise<FileHandle> {
    const file = await open(pathOf(this.#options, this.#segment), 'a', 0o600)
    try {
      const { size } = await file.stat()
      if (size > this.#bytes) await file.truncate(this.#bytes)
      this.#segments.set(this.#segment, this.#segments.get(this.#segment) ?? new Map())
      if (size >= this.#bytes) return file
    } catch (error) {
      await file.close()
      throw error
    }
    await file.close()
    this.#options.report(new Error('lines were taken away'), 'decision log')
    await this.#rotate()
    return this.#resume()
  }

  async #rotate(): Promise<void> {
    await this.#file?.close()
    this.#file = undefined
    this.#segment++
    this.#bytes = 0
    const { maxBytes, segmentBytes } = this.#options
    // The one that begins now is not there yet.
    const others = Math.max(1, Math.floor(maxBytes / segmentBytes) - 1)
    for (const segment of [...this.#segments.keys()].slice(0, -others)) {
      await rm(pathOf(this.#options, segment), { force: true })
      this.#segments.delete(segment)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#flush()
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#file?.close()
  }
}

/** Where a chain goes on: after the last whole line of the newest segment. */
async function lookAround(options: RingOptions): Promise<Found> {
  const segments = new Map<number, Map<string, number>>()
  let head: string | undefined
  let count = 0
  let bytes = 0
  let broken: string | null = null
  const numbers = segmentsOf(options)
  if ((numbers[0] ?? 0) === 0) head = FIRST_PREV
  for (const number of numbers) {
    const path = pathOf(options, number)
    const found = await readFile(path)
    const whole = found.subarray(0, found.lastIndexOf(0x0a) + 1)
    if (number === numbers.at(-1) && whole.length < found.length) await truncate(path, whole.length)
    const walked = walk(number === numbers.at(-1) ? whole : found, { head, seq: count })
    if (walked.broken !== undefined)
      broken ??= `line ${walked.broken + 1} of ${options.name}-${String(number).padStart(12, '0')}.jsonl does not name the one before`
    segments.set(number, walked.ids)
    ;({ head, seq: count } = walked)
    bytes = whole.length
  }
  return { segments, bytes, head: head ?? FIRST_PREV, count, broken }
}
