/**
 * Recordings as they lie on disk: a directory for each session, its manifest in the clear, its parts sealed. What a
 * crash or a full disk left unfinished is kept, told to the log, and closed.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'
import { AuditError } from './errors.ts'
import { LogReader } from './read.ts'
import { MANIFEST, note, OPEN, syncDirectory, UNFINISHED, type RecordingFacts } from './recorder.ts'
import {
  distinct,
  fileOf,
  inOrder,
  numbersOf,
  rootOf,
  type Found,
  type Logged,
  type Part,
} from './recording/parts.ts'

export interface StoredPart extends Part {
  /** Of the event that has its hash. */
  readonly idx: number
}

export interface StoredEnd {
  readonly parts: number
  readonly root: string
  /** Of the event that closes it; null where the log could not take one. */
  readonly idx: number | null
  /** Why it ended: the session's own reason, or `recording_failed`, or `node_crash`. */
  readonly reason: string
}

export interface StoredRecording {
  readonly facts: RecordingFacts
  readonly parts: readonly StoredPart[]
  /** Undefined while it goes on. */
  readonly end: StoredEnd | undefined
}

const SESSION = /^s_[0-9a-z]{26}$/

/** Where a recording stands in the list of all. */
export interface RecordingPlace {
  readonly name: string
  readonly open: boolean
  /** When it was last written to, epoch milliseconds; 0 while it goes on, since that moves. */
  readonly at: number
}

/** Names of the recordings in `directory`, in no order. */
export async function recordingPlaces(directory: string): Promise<RecordingPlace[]> {
  const names = (await fs.readdir(directory).catch(absent)).filter((name) => SESSION.test(name))
  const open = new Set(await openRecordings(directory))
  const places: RecordingPlace[] = []
  for (const name of names) {
    const at = open.has(name) ? 0 : (await fs.stat(join(directory, name))).mtimeMs
    places.push({ name, open: open.has(name), at })
  }
  return places
}

/** The `limit` recordings in `directory` that something was written to last, oldest first. */
export async function listRecordings(
  directory: string,
  limit = Number.POSITIVE_INFINITY,
): Promise<StoredRecording[]> {
  const names = (await fs.readdir(directory).catch(absent)).filter((name) => SESSION.test(name))
  const touched: { readonly name: string; readonly at: number }[] = []
  for (const name of names) {
    const { mtimeMs: at } = await fs.stat(join(directory, name))
    touched.push({ name, at })
  }
  const all: StoredRecording[] = []
  for (const { name } of touched.toSorted((a, b) => b.at - a.at).slice(0, limit)) {
    const found = await readRecording(directory, name)
    if (found !== undefined) all.push(found)
  }
  return all.toSorted((a, b) => a.facts.began - b.facts.began)
}

/** Sessions whose recording has no end yet. */
export async function openRecordings(directory: string): Promise<string[]> {
  const names = await fs.readdir(join(directory, OPEN)).catch(absent)
  return names.filter((name) => SESSION.test(name))
}

/**
 * Takes away what was begun and never said what it is. The manifest is durable before the first part is begun; parts
 * without one are nobody's crash, and stay. Throws AuditError `recording.unknown`.
 */
export async function dropRecording(directory: string, session: string): Promise<void> {
  const files = await fs.readdir(join(directory, session)).catch(absent)
  if (files.some((file) => file !== MANIFEST))
    throw new AuditError(
      'recording.unknown',
      `${session} has parts, and no manifest that can be read`,
    )
  await fs.rm(join(directory, session), { recursive: true, force: true })
  await fs.rm(join(directory, OPEN, session), { force: true })
}

function absent(error: unknown): string[] {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
  throw error
}

/** What the manifest of one session's recording says; undefined where there is none that can be read. */
export async function readRecording(
  directory: string,
  session: string,
): Promise<StoredRecording | undefined> {
  if (!SESSION.test(session)) return undefined
  let text: string
  try {
    text = await fs.readFile(join(directory, session, MANIFEST), 'utf8')
  } catch {
    return undefined
  }
  const [facts, ...lines] = text.split('\n').map(parse)
  if (facts?.['v'] !== 1 || facts['session'] !== session) return undefined
  // A line that a crash cut short is said again, whole, on the next one.
  const said = lines.filter((line) => line !== undefined)
  const end = said.findLast((line) => line['end'] === true)
  const parts = said.filter((line) => typeof line['part'] === 'number')
  return {
    facts: facts as unknown as RecordingFacts,
    parts: inOrder(distinct(parts as unknown as StoredPart[])),
    end: end as unknown as StoredEnd | undefined,
  }
}

function parse(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null
      ? (value as Readonly<Record<string, unknown>>)
      : undefined
  } catch {
    return undefined
  }
}

/** Where a part lies. Throws AuditError `recording.unknown` for a name that no part has. */
export function partPath(directory: string, session: string, file: string): string {
  if (!SESSION.test(session) || numbersOf(file) === undefined)
    throw new AuditError('recording.unknown', `${session}/${file} is no part of a recording`)
  return join(directory, session, file)
}

/** Every part that lies there, hashed; one that is being written does not count. */
export async function findParts(directory: string, session: string): Promise<Found[]> {
  const path = join(directory, session)
  const files = (await fs.readdir(path).catch(absent)).filter((file) => numbersOf(file))
  const found: Found[] = []
  for (const file of files.toSorted()) found.push({ file, ...(await digest(join(path, file))) })
  return found
}

async function digest(path: string): Promise<{ sha256: string; bytes: number; at: number }> {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk as Buffer)
    bytes += (chunk as Buffer).length
  }
  return { sha256: hash.digest('hex'), bytes, at: Math.round((await fs.stat(path)).mtimeMs) }
}

/**
 * Brings the log up to what lies there: parts that no line of the manifest knows are hashed and logged, one that was
 * being written is kept as torn. Gives all parts, in order. Nobody may be writing the recording.
 */
export async function salvage(
  directory: string,
  session: string,
  logged: (part: Part) => Promise<number>,
): Promise<readonly StoredPart[]> {
  const recording = await readRecording(directory, session)
  if (recording === undefined)
    throw new AuditError('recording.unknown', `no recording of ${session}`)
  const path = join(directory, session)
  await endLine(join(path, MANIFEST))
  const known = new Map(recording.parts.map((part) => [fileOf(part), part]))
  for (const name of (await fs.readdir(path)).toSorted()) {
    const torn = name.endsWith(UNFINISHED)
    const file = torn ? name.slice(0, -UNFINISHED.length) : name
    const numbers = numbersOf(file)
    if (numbers === undefined || known.has(file)) continue
    const { sha256, bytes, at } = await digest(join(path, name))
    const part = { ...numbers, sha256, bytes, t0: at, t1: at, torn }
    const idx = await logged(part)
    if (torn) await fs.rename(join(path, name), join(path, file))
    await note(path, { ...part, idx })
    known.set(file, { ...part, idx })
  }
  await syncDirectory(path)
  return inOrder([...known.values()])
}

/** What a crash cut short stays a line of its own, and spoils no other. */
async function endLine(path: string): Promise<void> {
  const text = await fs.readFile(path)
  if (text.at(-1) !== 0x0a) await fs.appendFile(path, '\n')
}

/** The last line of a recording's manifest. */
export async function closeRecording(
  directory: string,
  session: string,
  parts: readonly Part[],
  { idx, reason }: Pick<StoredEnd, 'idx' | 'reason'>,
): Promise<void> {
  const end = { end: true, parts: parts.length, root: rootOf(parts), idx, reason }
  await note(join(directory, session), end)
  await fs.rm(join(directory, OPEN, session), { force: true })
}

/**
 * What the first `size` events of a log say of every recording, by session: those that have events, and those that
 * `session.start` says are made. Whether they are what was signed is another question: give the size of a checkpoint.
 */
export function loggedRecordings(
  directory: string,
  origin: string,
  size = Number.POSITIVE_INFINITY,
): Map<string, Logged> {
  return recordingsOver([{ directory, origin, size }])
}

/** The same over the epochs of one log, the first one first: what one began another may have ended. */
export function recordingsOver(
  epochs: readonly { readonly directory: string; readonly origin: string; readonly size: number }[],
): Map<string, Logged> {
  const all = new Map<string, Told>()
  const over = new Set<string>()
  for (const epoch of epochs) readTold(epoch, all, over)
  return new Map(
    [...all].map(([session, { began, ...told }]) => [
      session,
      { ...told, goesOn: began && told.end === undefined && !over.has(session) },
    ]),
  )
}

function readTold(
  { directory, origin, size }: { directory: string; origin: string; size: number },
  all: Map<string, Told>,
  over: Set<string>,
): void {
  for (const { idx, body } of new LogReader(directory, origin).bodies(0)) {
    if (idx >= size) break
    const text = Buffer.from(body.buffer, body.byteOffset, body.length)
    // Most events are of other things, and parsing is what costs.
    if (!CODES.some((code) => text.includes(code))) continue
    const event = JSON.parse(text.toString()) as LoggedEvent
    const { event_code: code, correlation_uid: session } = event.metadata
    if (session === undefined) continue
    if (code === 'session.end') over.add(session)
    else tell(all, session, { code, idx, facts: event.unmapped?.sallyport ?? {} })
  }
}

/** As they stand in the bytes of an event. */
const CODES = ['recording.', 'session.start"', 'session.end"'].map(
  (code) => `"event_code":"${code}`,
)

interface Told {
  /** The log has its `session.start`. */
  began: boolean
  readonly parts: (Part & { idx: number })[]
  end: Logged['end']
}

interface Telling {
  readonly code: string
  readonly idx: number
  readonly facts: Readonly<Record<string, unknown>>
}

function tell(all: Map<string, Told>, session: string, { code, idx, facts }: Telling): void {
  const starts = code === 'session.start'
  // Of `flow` there are no parts.
  if (starts && (facts['recording'] === undefined || facts['recording'] === 'flow')) return
  const one = all.get(session) ?? { began: false, parts: [], end: undefined }
  all.set(session, one)
  if (starts) one.began = true
  if (code === 'recording.part') one.parts.push({ ...partOf(facts), idx })
  if (code === 'recording.end')
    one.end = { idx, parts: Number(facts['parts']), root: String(facts['root']) }
}

interface LoggedEvent {
  readonly metadata: { readonly event_code: string; readonly correlation_uid?: string }
  readonly unmapped?: { readonly sallyport?: Readonly<Record<string, unknown>> }
}

function partOf(facts: Readonly<Record<string, unknown>>): Part {
  return {
    track: Number(facts['track']),
    part: Number(facts['part']),
    sha256: String(facts['sha256']),
    bytes: Number(facts['bytes']),
    t0: Number(facts['t0']),
    t1: Number(facts['t1']),
    torn: facts['torn'] === true,
  }
}
