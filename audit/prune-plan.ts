/**
 * What of a log may go: whole segments, the oldest first, that an archive is shown to hold and nothing needs any more.
 * Reads a log that rests, or one that is being written. docs/audit.md section "Pruning".
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { archivedUpTo } from './archive.ts'
import { openCheckpoint, parseCheckpoint } from './checkpoint.ts'
import { epochOf, openingIn } from './epoch.ts'
import type { Actor, EventInput } from './event.ts'
import { joinOf } from './format/ocsf.ts'
import { parseVkey } from './note.ts'
import { LogReader } from './read.ts'
import { listSegments } from './recover.ts'
import { segmentFirst } from './segment.ts'
import { cursorOf } from './ship/cursor.ts'
import { tilePath, tileWidth } from './tile.ts'
import { keptNotes } from './witnesses.ts'

export interface PlanOptions {
  readonly directory: string
  /** A mirror, or another copy, that keeps what is let go of. */
  readonly archive: string
  /** Events of before this instant may go, epoch ms. */
  readonly before: number
  /** Who must have signed every head, here and in the archive. */
  readonly verifierKeys: readonly string[]
  /** The log is being written: whose session is open needs its start, should this gateway crash. */
  readonly running: boolean
}

export interface Pruned {
  readonly origin: string
  /** The first event that is left, and that was the first before. */
  readonly first: number
  readonly from: number
  readonly segments: number
  readonly bytes: number
  /** Signed heads over pruned events that were let go of: about one in a thousand events is kept. */
  readonly heads: number
  /** What keeps more from going, in words. */
  readonly held: string
}

export interface Plan {
  readonly pruned: Pruned
  /** The segments that go, the oldest first. */
  readonly going: readonly string[]
}

/**
 * Proves the archive and says what may go. Errors: prune.archive (it does not hold, or not all of it), note.signature
 * (other keys signed the log), key.invalid and note.invalid from reading, the disk's own.
 */
export async function planPrune(options: PlanOptions): Promise<Plan> {
  const { directory, archive, verifierKeys } = options
  const note = fs.readFileSync(join(directory, 'checkpoint'), 'utf8')
  const { origin } = parseCheckpoint(note)
  // Keys of another log are said to be that, before any archive is blamed for them.
  const head = openCheckpoint(note, verifierKeys.map(parseVkey))
  const archived = await archivedUpTo(directory, archive, head, verifierKeys)
  const segments = listSegments(directory)
  const from = segmentFirst(segments[0] ?? '') ?? 0
  const { first, held } = choose(options, origin, segments, archived)
  const going = segments.filter((name) => (segmentFirst(name) ?? 0) < first)
  const bytes = going.reduce((sum, name) => sum + fs.statSync(join(directory, 'seg', name)).size, 0)
  return { pruned: { origin, first, from, segments: going.length, bytes, heads: 0, held }, going }
}

/** What the log says of it, before anything goes; `by`: who asked a running gateway for it. */
export function pruneEvent(
  { first, from, segments, bytes }: Pruned,
  archive: string,
  by?: Actor,
): EventInput {
  return {
    code: 'log.prune',
    message: `Log pruned: the events ${from} to ${first - 1} are in an archive`,
    status: 'success',
    ...(by === undefined ? {} : { actor: by }),
    data: { size: first, detail: { from, segments, bytes, archive } },
  }
}

/** The first event to be left: where a segment begins, and nothing that is still needed lies before it. */
function choose(
  { directory, before, running, verifierKeys }: PlanOptions,
  origin: string,
  segments: readonly string[],
  archived: number,
): { first: number; held: string } {
  const reader = new LogReader(directory, origin)
  let [first, held] = [segmentFirst(segments[0] ?? '') ?? 0, 'the newest segment always stays']
  const sinks = sinksOf(directory)
  const followed = Math.min(
    ...keptNotes(directory, verifierKeys.map(parseVkey)).map(({ size }) => size),
  )
  const mark = newestMark(reader, segments)
  const open = running ? oldestOpen(reader) : null
  const older = first === 0 ? epochBefore(directory, origin) : null
  for (const name of segments.slice(1)) {
    const next = segmentFirst(name) ?? 0
    const behind = sinks.find(({ idx }) => idx < next)
    const reasons = [
      older !== null &&
        `epoch ${older}, from which this one goes on, lies beside it: put that whole into an archive first`,
      next > archived && `the archive holds ${archived} events`,
      timeOf(reader, next) >= before && `event ${next} is of ${iso(before)} or later`,
      behind !== undefined && `sink ${behind.name} has ${behind.idx} events`,
      followed < next &&
        `a mirror has ${followed} events and needs the next: let it follow on, or take its note out of witness/ of the log`,
      mark !== null &&
        mark < next &&
        `event ${mark} is the newest that keeps an older policy from coming back: start the gateway once more`,
      open !== null &&
        open.idx < next &&
        `session ${open.session} began with event ${open.idx} and has not ended`,
      !hasTile(directory, next) && `event ${next} stands in a tile that is not full yet`,
    ]
    const why = reasons.find((reason) => reason !== false)
    if (why !== undefined) return { first, held: why }
    first = next
  }
  return { first, held }
}

/**
 * The epoch that this one goes on from, where its folder lies beside: without event 0, which names it, what that still owes
 * to sinks would not be sent, nor be shown to belong to this log. Null: it is not here, or there is none.
 */
function epochBefore(directory: string, origin: string): number | null {
  const older = (epochOf(origin) ?? 1) - 1
  const there = older > 0 && fs.existsSync(join(directory, '..', `${older}`, 'checkpoint'))
  return there ? older : null
}

const iso = (ms: number): string => new Date(ms).toISOString()

/** The time of the event at `idx`: those before it are of before, as far as the clock went forward. */
function timeOf(reader: LogReader, idx: number): number {
  for (const { body } of reader.bodies(idx))
    return (JSON.parse(Buffer.from(body).toString()) as { readonly time: number }).time
  return Number.POSITIVE_INFINITY
}

/** The last event that says which policy was in force: a gateway looks for it at its start, and writes another. */
function newestMark(reader: LogReader, segments: readonly string[]): number | null {
  let end = Number.POSITIVE_INFINITY
  for (const name of segments.toReversed()) {
    const from = segmentFirst(name) ?? 0
    let mark: number | null = null
    for (const { idx, body } of reader.bodies(from)) {
      if (idx >= end) break
      if (marks.has(joinOf(body)?.code ?? '')) mark = idx
    }
    if (mark !== null) return mark
    end = from
  }
  return null
}
const marks: ReadonlySet<string> = new Set(['policy.activate', 'policy.rollback'])

/** The oldest start of a session that has no end yet; null: all have ended. */
function oldestOpen(reader: LogReader): { readonly idx: number; readonly session: string } | null {
  const open = new Map<string, number>()
  for (const { idx, body } of reader.bodies(0)) {
    const join = joinOf(body)
    // What went on from the epoch before is named by the first event alone.
    if (join?.code === 'log.epoch_begin')
      for (const session of openingIn(body)?.carried ?? []) open.set(session, idx)
    if (join?.code !== 'session.start' && join?.code !== 'session.end') continue
    const text = Buffer.from(body).toString()
    const { metadata } = JSON.parse(text) as { readonly metadata: { correlation_uid?: string } }
    const session = metadata.correlation_uid ?? ''
    if (join.code === 'session.end') open.delete(session)
    else open.set(session, idx)
  }
  // In the order of their starts.
  for (const [session, idx] of open) return { idx, session }
  return null
}

/** How far each sink has everything. */
function sinksOf(directory: string): { readonly name: string; readonly idx: number }[] {
  const ship = join(directory, 'ship')
  if (!fs.existsSync(ship)) return []
  return fs
    .readdirSync(ship)
    .filter((name) => name.endsWith('.cur'))
    .map((name) => ({ name: name.slice(0, -4), idx: cursorOf(join(ship, name)) ?? 0 }))
}

/** Whether the hashes of everything before `size` stand in full tiles. */
function hasTile(directory: string, size: number): boolean {
  return (
    size % tileWidth === 0 ||
    fs.existsSync(join(directory, tilePath(0, Math.floor(size / tileWidth))))
  )
}
