/**
 * Lets go of the oldest events of a log that nobody writes to: recorded and signed first, only what an archive is shown to
 * hold, whole segments, hashes kept. docs/audit.md section "Pruning".
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { archivedUpTo, demandApart } from './archive.ts'
import { openCheckpoint, parseCheckpoint, type Checkpoint } from './checkpoint.ts'
import { claim } from './claim.ts'
import { realDisk } from './disk.ts'
import { AuditError } from './errors.ts'
import { joinOf } from './format/ocsf.ts'
import { keepTiles } from './keep.ts'
import { openLog } from './log.ts'
import { formatVkey, parseVkey } from './note.ts'
import { walkNotes } from './notes.ts'
import type { LogOptions } from './options.ts'
import { LogReader } from './read.ts'
import { listSegments } from './recover.ts'
import { segmentFirst } from './segment.ts'
import { cursorOf } from './ship/cursor.ts'
import { tilePath, tileWidth } from './tile.ts'

export interface PruneOptions extends Pick<
  LogOptions,
  'directory' | 'signers' | 'clock' | 'random' | 'version' | 'tenant'
> {
  /** A mirror, or another copy, that keeps what is let go of. */
  readonly archive: string
  /** Events of before this instant may go, epoch ms. */
  readonly before: number
  /** Only says what would go. */
  readonly dry?: boolean
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

/** Of the heads over pruned events one is kept for so many. */
const headEvery = 1_000

/**
 * Prunes whole segments. Errors: prune.archive (it does not hold, or not all of it), log.locked (a gateway runs),
 * note.signature (the signers are not those of the log), log.corrupt, log.rollback, key.invalid and note.invalid from
 * reading, the disk's own. Killed at any point the log holds: what was recorded and not done is done the next time.
 */
export async function pruneLog(options: PruneOptions): Promise<Pruned> {
  const { directory, archive, dry = false } = options
  const note = fs.readFileSync(join(directory, 'checkpoint'), 'utf8')
  const { origin } = parseCheckpoint(note)
  const keys = [options.signers.ed25519, options.signers.mlDsa44].filter((key) => key !== undefined)
  const vkeys = keys.map((key) => formatVkey(origin, key))
  // Keys of another log are said to be that, before any archive is blamed for them.
  const head = openCheckpoint(note, vkeys.map(parseVkey))
  const archived = await archivedUpTo(directory, archive, head, vkeys)
  const segments = listSegments(directory)
  const from = segmentFirst(segments[0] ?? '') ?? 0
  const { first, held } = choose(options, origin, segments, archived)
  const going = segments.filter((name) => (segmentFirst(name) ?? 0) < first)
  const bytes = going.reduce((sum, name) => sum + fs.statSync(join(directory, 'seg', name)).size, 0)
  const pruned = { origin, first, from, segments: going.length, bytes, heads: 0, held }
  if (dry || going.length === 0) return pruned
  await record(options, pruned)
  const claimed = await claim(directory)
  try {
    // What was shown may have been mounted or linked otherwise since.
    demandApart(directory, archive)
    // Opening the log mended tiles, as it does, without a sync.
    keepTiles(directory, origin, from, first)
    const heads = thinHeads(directory, first)
    for (const name of going) {
      fs.rmSync(join(directory, 'seg', name))
      realDisk.syncDirectory(join(directory, 'seg'))
    }
    return { ...pruned, heads }
  } finally {
    claimed?.close()
  }
}

/** The first event to be left: where a segment begins, and nothing that is still needed lies before it. */
function choose(
  { directory, before }: PruneOptions,
  origin: string,
  segments: readonly string[],
  archived: number,
): { first: number; held: string } {
  const reader = new LogReader(directory, origin)
  let [first, held] = [segmentFirst(segments[0] ?? '') ?? 0, 'the newest segment always stays']
  const sinks = sinksOf(directory)
  const mark = newestMark(reader, segments)
  for (const name of segments.slice(1)) {
    const next = segmentFirst(name) ?? 0
    const behind = sinks.find(({ idx }) => idx < next)
    const reasons = [
      next > archived && `the archive holds ${archived} events`,
      timeOf(reader, next) >= before && `event ${next} is of ${iso(before)} or later`,
      behind !== undefined && `sink ${behind.name} has ${behind.idx} events`,
      mark !== null &&
        mark < next &&
        `event ${mark} is the newest that keeps an older policy from coming back: start the gateway once more`,
      !hasTile(directory, next) && `event ${next} stands in a tile that is not full yet`,
    ]
    const why = reasons.find((reason) => reason !== false)
    if (why !== undefined) return { first, held: why }
    first = next
  }
  return { first, held }
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

/** The event, signed, before anything goes: who reads the rest learns from it where the beginning went. */
async function record(
  options: PruneOptions,
  { first, from, segments, bytes, origin }: Pruned,
): Promise<void> {
  const { directory, signers, clock, random, version, tenant, archive } = options
  const log = await openLog({
    directory,
    origin,
    signers,
    clock,
    random,
    ...(version === undefined ? {} : { version }),
    ...(tenant === undefined ? {} : { tenant }),
  })
  try {
    await log.append({
      code: 'log.prune',
      message: `Log pruned: the events ${from} to ${first - 1} are in an archive`,
      status: 'success',
      data: { size: first, detail: { from, segments, bytes, archive } },
    })
    await log.checkpoint()
  } finally {
    await log.close()
  }
}

/** Keeps one head for a thousand pruned events, and the last of them; gives how many went. */
function thinHeads(directory: string, first: number): number {
  const path = join(directory, 'checkpoints.log')
  const temporary = `${path}.tmp`
  const fd = fs.openSync(temporary, 'w', 0o600)
  let [kept, gone] = [-headEvery, 0]
  let last: Checkpoint | null = null
  const keep = (checkpoint: Checkpoint): void => {
    fs.writeSync(fd, `${checkpoint.note}\n`)
    kept = checkpoint.size
    last = null
  }
  try {
    for (const found of walkNotes(path)) {
      if ('what' in found) throw new AuditError('log.corrupt', `checkpoints.log: ${found.what}`)
      const { checkpoint } = found
      const over = checkpoint.size <= first
      if (over && checkpoint.size < kept + headEvery) {
        if (last !== null) gone++
        last = checkpoint
        continue
      }
      if (last !== null) {
        if (over) gone++
        else keep(last)
      }
      keep(checkpoint)
    }
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
  fs.renameSync(temporary, path)
  realDisk.syncDirectory(directory)
  return gone
}
