/**
 * What a directory holds, established byte by byte before anything is appended. A tail that one interrupted batch can
 * explain is moved to quarantine/; every other damage is refused and left as it is. docs/audit.md section "Recovery".
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { openCheckpoint, parseCheckpoint, splitNotes } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import type { Disk } from './disk.ts'
import { closingIn, openingIn, type Closing } from './epoch.ts'
import { AuditError } from './errors.ts'
import type { AuditCode, Place } from './errors.ts'
import { joinOf } from './format/ocsf.ts'
import type { Verifier } from './note.ts'
import { beginningFault, firstOf, prunedEdge, prunedHashes, pruneIn } from './pruned.ts'
import { framesAfter, readFrame, segmentFirst, segmentName } from './segment.ts'
import { mendTile, TileWriter } from './tile.ts'
import { Frontier, leafHash } from './tree.ts'

/** What the writer goes on from. */
export interface Found {
  readonly frontier: Frontier
  readonly tiles: TileWriter
  /** The last batch number in use; -1 in an empty log. */
  readonly batch: number
  /** The open segment: its first idx and its length in bytes. */
  readonly segment: { readonly first: number; readonly bytes: number }
  readonly signed: Checkpoint | null
  /** The note that is published; a crash may have left it one behind. */
  readonly published: string | null
  /** Length of checkpoints.log. */
  readonly notesBytes: number
  readonly heartbeat: number | null
  /** Bodies of session.start without their session.end, by session. */
  readonly sessions: ReadonlyMap<string, string>
  /** What the last leaf says, where it ends the log. */
  readonly closing: Closing | null
  readonly quarantinedBytes: number
  readonly place: Place | null
}

interface Scan {
  readonly directory: string
  readonly origin: string
  readonly disk: Disk
  frontier: Frontier
  readonly tiles: TileWriter
  readonly sessions: Map<string, string>
  /** Up to which index events of the log say that it was pruned. */
  pruned: number
  /** The last signed head: the tree must pass through it. */
  readonly signed: Checkpoint | null
  batch: number
  heartbeat: number | null
  closing: Closing | null
  quarantinedBytes: number
  place: Place | null
}

/** The names of the segments, in order. */
export function listSegments(directory: string): string[] {
  const path = join(directory, 'seg')
  if (!fs.existsSync(path)) return []
  return fs
    .readdirSync(path)
    .filter((name) => segmentFirst(name) !== null)
    .toSorted()
}

function refuse(code: AuditCode, place: Place): never {
  const { segment, offset, what, idx } = place
  const leaf = idx === null ? '' : `, event ${idx}`
  throw new AuditError(code, `${segment} at byte ${offset}${leaf}: ${what}`, { place })
}

/** Copies `bytes` aside, then cuts the file: nothing is lost, nothing torn stays. */
function quarantine(scan: Scan, file: string, offset: number, bytes: Uint8Array): void {
  const name = `${file.replaceAll('/', '-')}.${offset}`
  fs.mkdirSync(join(scan.directory, 'quarantine'), { recursive: true })
  scan.disk.replace(join(scan.directory, 'quarantine', name), bytes)
  scan.disk.truncate(join(scan.directory, file), offset)
  scan.quarantinedBytes += bytes.length
}

/** The tree passes through the last signed head. */
function demandRoot({ signed, frontier }: Scan, at: (what: string) => Place): void {
  if (signed === null || frontier.size !== signed.size) return
  if (Buffer.from(frontier.root()).toString('hex') === signed.root) return
  const what = `the events up to ${frontier.size - 1} are not those the checkpoint of size ${signed.size} signed`
  refuse('log.rollback', at(what))
}

function follow(scan: Scan, body: Uint8Array): void {
  const idx = scan.frontier.size
  scan.frontier.push(leafHash(body), scan.tiles.add)
  const at = (what: string): Place => ({
    origin: scan.origin,
    idx,
    segment: 'seg',
    offset: 0,
    what,
  })
  demandRoot(scan, at)
  if (scan.closing !== null) refuse('log.corrupt', at('the log goes on behind its end'))
  const code = joinOf(body)?.code
  if (code === 'log.epoch_end') scan.closing = endOf(body, at)
  if (code === 'log.heartbeat') scan.heartbeat = idx
  if (code === 'log.epoch_begin') carry(scan, body, at)
  // What is not signed may have been written by whoever took the beginning away.
  if (code === 'log.prune' && idx < (scan.signed?.size ?? 0))
    scan.pruned = Math.max(scan.pruned, pruneIn(body))
  if (code !== 'session.start' && code !== 'session.end') return
  const text = Buffer.from(body).toString()
  const session = correlationOf(text)
  if (code === 'session.start') scan.sessions.set(session, text)
  else scan.sessions.delete(session)
}

/** What the epoch before began and did not end is to be ended here: its start is there, and nothing of it here. */
function carry(scan: Scan, body: Uint8Array, at: (what: string) => Place): void {
  const { carried = [] } = joined(() => openingIn(body), at) ?? {}
  for (const session of carried) scan.sessions.set(session, '{}')
}

/** Whoever the end names is who goes on: one that names nobody is damage. */
function endOf(body: Uint8Array, at: (what: string) => Place): Closing | null {
  return joined(() => closingIn(body), at)
}

function joined<T>(read: () => T, at: (what: string) => Place): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    return refuse('log.corrupt', at(error.message))
  }
}

/** The session that an event is of. */
export function correlationOf(text: string): string {
  const body = JSON.parse(text) as { readonly metadata?: { readonly correlation_uid?: string } }
  return body.metadata?.correlation_uid ?? ''
}

/** Fewer leaves than were signed: the log went back in time, and nothing of it may be cut or continued. */
function demandSigned(scan: Scan, segment: string, offset: number): void {
  const signedSize = scan.signed?.size ?? 0
  const idx = scan.frontier.size
  if (idx >= signedSize) return
  const what = `${idx} events are left of the ${signedSize} that were signed`
  refuse('log.rollback', { origin: scan.origin, idx, segment, offset, what })
}

/** Whether what follows a bad offset can be the rest of one interrupted batch. */
export function isTornTail(bytes: Buffer, offset: number, lastBatch: number): boolean {
  const later = new Set<number>()
  for (const frame of framesAfter(bytes, offset)) later.add(frame.batch)
  if (later.size === 0) return true
  const [batch = -1] = later
  return later.size === 1 && (batch === lastBatch || batch === lastBatch + 1)
}

/** Reads one segment's frames into the scan; returns the length that holds. */
function readSegment(scan: Scan, name: string, isLast: boolean): number {
  const segment = `seg/${name}`
  const bytes = fs.readFileSync(join(scan.directory, segment))
  let offset = 0
  while (offset < bytes.length) {
    const frame = readFrame(bytes, offset)
    const idx = scan.frontier.size
    const place = (what: string): Place => ({ origin: scan.origin, idx, segment, offset, what })
    if (typeof frame === 'string') {
      if (!isLast || !isTornTail(bytes, offset, scan.batch)) refuse('log.corrupt', place(frame))
      demandSigned(scan, segment, offset)
      scan.place = place(frame)
      quarantine(scan, segment, offset, bytes.subarray(offset))
      return offset
    }
    if (frame.idx !== idx) refuse('log.corrupt', place(`index ${frame.idx} where ${idx} belongs`))
    // What came before the first that is left is not known.
    if (scan.batch === -1 && idx > 0) scan.batch = frame.batch
    if (frame.batch !== scan.batch && frame.batch !== scan.batch + 1)
      refuse('log.corrupt', place(`batch ${frame.batch} after batch ${scan.batch}`))
    scan.batch = frame.batch
    follow(scan, frame.body)
    offset = frame.end
  }
  return offset
}

/** Goes on behind events that were pruned: their hashes are held to by the signed head over what follows. */
function skipPruned(scan: Scan, first: number): void {
  const place = (what: string): Place => ({
    origin: scan.origin,
    idx: first,
    segment: `seg/${segmentName(first)}`,
    offset: 0,
    what,
  })
  if ((scan.signed?.size ?? 0) <= first)
    refuse('log.corrupt', place(`the events before ${first} are gone, and no later head is signed`))
  try {
    scan.frontier = prunedEdge(scan.directory, first)
    scan.tiles.resume(first, prunedHashes(scan.directory))
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    refuse('log.corrupt', place(error.message))
  }
}

function readSegments(scan: Scan): { first: number; bytes: number } {
  const names = listSegments(scan.directory)
  const begin = firstOf(names)
  if (begin > 0) skipPruned(scan, begin)
  let segment = { first: 0, bytes: 0 }
  for (const [i, name] of names.entries()) {
    const first = segmentFirst(name) ?? 0
    if (first !== scan.frontier.size)
      refuse('log.corrupt', {
        origin: scan.origin,
        idx: scan.frontier.size,
        segment: `seg/${name}`,
        offset: 0,
        what: `the segment begins at ${first} where ${scan.frontier.size} belongs`,
      })
    segment = { first, bytes: readSegment(scan, name, i === names.length - 1) }
  }
  const what = beginningFault(begin, scan.pruned)
  if (what !== null)
    refuse('log.corrupt', {
      origin: scan.origin,
      idx: begin,
      segment: `seg/${segmentName(begin)}`,
      offset: 0,
      what,
    })
  return segment
}

/** How much of the end of checkpoints.log is read: enough for its last notes. */
const tailBytes = 256 * 1024

interface Notes {
  readonly published: string | null
  readonly last: Checkpoint | null
  readonly bytes: number
  readonly torn: { readonly offset: number; readonly bytes: Uint8Array } | null
}

function readTail(path: string): { bytes: Buffer; start: number } {
  const { size } = fs.statSync(path)
  const start = Math.max(0, size - tailBytes)
  const bytes = Buffer.alloc(size - start)
  const fd = fs.openSync(path, 'r')
  try {
    fs.readSync(fd, bytes, 0, bytes.length, start)
  } finally {
    fs.closeSync(fd)
  }
  return { bytes, start }
}

function signedBy(note: string, verifiers: readonly Verifier[]): Checkpoint | null {
  try {
    return openCheckpoint(note, verifiers)
  } catch {
    return null
  }
}

/** The last note of checkpoints.log that holds, and what an interrupted write left behind it. */
function readNotes(
  directory: string,
  origin: string,
  verifiers: readonly Verifier[],
): Omit<Notes, 'published'> {
  const path = join(directory, 'checkpoints.log')
  if (!fs.existsSync(path)) return { last: null, bytes: 0, torn: null }
  const { bytes, start } = readTail(path)
  const begins = start === 0 ? [0] : []
  const mark = `\n\n${origin}\n`
  for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, at + 1))
    begins.push(at + 2)
  // One interrupted write damages the last note only, so the one before it is a safe place to begin.
  let end = begins.at(-2) ?? begins.at(-1) ?? 0
  let last: Checkpoint | null = null
  for (const found of splitNotes(bytes, end)) {
    const holds = 'checkpoint' in found ? signedBy(found.checkpoint.note, verifiers) : null
    if (holds === null || !('end' in found)) break
    last = holds
    end = found.end
  }
  const torn = end === bytes.length ? null : { offset: start + end, bytes: bytes.subarray(end) }
  return { last, bytes: start + end, torn }
}

/** The published head, which a crash may leave one behind checkpoints.log but never ahead of it. */
function readPublished(
  directory: string,
  origin: string,
  verifiers: readonly Verifier[],
): Checkpoint | null {
  const path = join(directory, 'checkpoint')
  if (!fs.existsSync(path)) return null
  const place = (what: string): Place => ({
    origin,
    idx: null,
    segment: 'checkpoint',
    offset: 0,
    what,
  })
  const note = fs.readFileSync(path, 'utf8')
  try {
    const published = parseCheckpoint(note)
    if (published.origin !== origin)
      refuse('log.origin', place(`it belongs to ${published.origin}, not to ${origin}`))
    return openCheckpoint(note, verifiers)
  } catch (cause) {
    if (cause instanceof AuditError && cause.code === 'log.origin') throw cause
    return refuse('log.corrupt', place(cause instanceof Error ? cause.message : String(cause)))
  }
}

function readSigned(directory: string, origin: string, verifiers: readonly Verifier[]): Notes {
  const published = readPublished(directory, origin, verifiers)
  const notes = readNotes(directory, origin, verifiers)
  if (published !== null && published.size > (notes.last?.size ?? -1))
    refuse('log.rollback', {
      origin,
      idx: null,
      segment: 'checkpoints.log',
      offset: notes.bytes,
      what: `it ends before the published size ${published.size}`,
    })
  return { ...notes, published: published?.note ?? null }
}

/**
 * Reads the whole log. Changes nothing unless the tail is torn; then quarantines it.
 * Errors: log.corrupt, log.rollback, log.origin, each with its place.
 */
export function recover(
  directory: string,
  origin: string,
  verifiers: readonly Verifier[],
  disk: Disk,
): Found {
  for (const name of ['seg', 'ship']) fs.mkdirSync(join(directory, name), { recursive: true })
  const notes = readSigned(directory, origin, verifiers)
  const signed = notes.last
  const scan: Scan = {
    directory,
    origin,
    disk,
    frontier: new Frontier(),
    tiles: new TileWriter(directory, mendTile),
    sessions: new Map(),
    signed,
    pruned: 0,
    batch: -1,
    heartbeat: null,
    closing: null,
    quarantinedBytes: 0,
    place: null,
  }
  const segment = readSegments(scan)
  demandSigned(scan, `seg/${segmentName(segment.first)}`, segment.bytes)
  if (notes.torn !== null) {
    scan.place ??= {
      origin,
      idx: null,
      segment: 'checkpoints.log',
      offset: notes.torn.offset,
      what: 'cut short',
    }
    quarantine(scan, 'checkpoints.log', notes.torn.offset, notes.torn.bytes)
  }
  return { ...scan, segment, published: notes.published, notesBytes: notes.bytes }
}
