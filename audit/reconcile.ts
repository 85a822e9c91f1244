/**
 * A SIEM's own export against the log: either it has every event, unaltered, or what it lacks is named; of one epoch, or of
 * all that a node's folder has. docs/audit.md section "Reconciling".
 */
import { openCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { epochOf, stemOf } from './epoch.ts'
import { verifyEpochs, type EpochsVerdict, type EpochVerdict } from './epochs.ts'
import { AuditError } from './errors.ts'
import { findEvent, isCheckpoint } from './export.ts'
import { joinOf } from './format/ocsf.ts'
import { parseVkey } from './note.ts'
import { prunedLeaves } from './pruned.ts'
import { LogReader } from './read.ts'
import { Tally, type Counted, type Expected } from './tally.ts'
import { Frontier, leafHash, type Hash } from './tree.ts'

/** `complete`: every event of the range is there, bytes as signed; `violated`: not; `not-provable`: see `why`. */
type Outcome = 'complete' | 'violated' | 'not-provable'

/** A log that the export has events of, and that it was not compared with. */
export interface OtherLog {
  readonly origin: string
  readonly lines: number
  /** The first such line, from 1. */
  readonly line: number
}

interface Strange {
  /** Lines in which no event of this log could be read. */
  readonly strange: number
  /** Whose events were read in some of those. */
  readonly others: readonly OtherLog[]
}

export interface Reconciliation extends Counted, Strange {
  readonly outcome: Outcome
  readonly why?: string
}

/** One epoch of several. */
export interface EpochReconciliation extends Counted {
  readonly epoch: number
  readonly directory: string
  readonly origin: string
  /** Its last event is the end of the epoch. */
  readonly ended: boolean
}

export interface EpochsReconciliation extends Strange {
  readonly outcome: Outcome
  readonly why?: string
  /** What was looked for, the first epoch first. */
  readonly epochs: readonly EpochReconciliation[]
  /** The log from which the first epoch here goes on: its events were not looked for. Absent: it is the very first. */
  readonly before?: EpochsVerdict['before']
}

/** Lines of an export, without their line ends. */
type Lines = Iterable<Uint8Array> | AsyncIterable<Uint8Array>

export interface ReconcileOptions {
  /** The log, or a copy of it. */
  readonly directory: string
  readonly vkeys: readonly string[]
  readonly lines: Lines
  /** First index the sink was to have; default 0. */
  readonly from?: number
  /** One past the last; default the last signed head. */
  readonly to?: number
}

/** An event's place in a log of several epochs. */
export interface EpochIndex {
  readonly epoch: number
  readonly idx: number
}

export interface ReconcileEpochsOptions {
  /** A node's folder with its epochs, or a copy of it. */
  readonly directory: string
  /** Verifier keys of any one epoch at least. */
  readonly vkeys: readonly string[]
  readonly lines: Lines
  /** First event the sink was to have; default the first of the first epoch. */
  readonly from?: EpochIndex
  /** One past the last; default the last signed head of the newest. */
  readonly to?: EpochIndex
}

/** Leaf hashes of the log up to the head, which they must hash to. Errors: log.rollback. */
function expectedOf(directory: string, head: Checkpoint, from: number, to: number): Expected {
  const reader = new LogReader(directory, head.origin)
  const leaves = Buffer.alloc((to - from) * 32)
  const frontier = new Frontier()
  let ended = false
  const take = (leaf: Hash): void => {
    const idx = frontier.size
    frontier.push(leaf)
    if (idx >= from && idx < to) leaves.set(leaf, (idx - from) * 32)
  }
  // Of what was pruned the hashes are left, and an export is held to them.
  for (const leaf of prunedLeaves(directory, reader.first)) take(leaf)
  for (const { idx, body } of reader.bodies(0)) {
    if (idx >= head.size) break
    take(leafHash(body))
    ended = idx === head.size - 1 && joinOf(body)?.code === 'log.epoch_end'
  }
  if (frontier.size !== head.size || Buffer.from(frontier.root()).toString('hex') !== head.root)
    throw new AuditError('log.rollback', `the log is not what was signed at ${head.size}`)
  return { from, to, leaves, ended: ended ? head.size : null }
}

/** The newest head that every key signed; of a log whose end is not signed, that is not its end. */
function newestHead(reader: LogReader, vkeys: readonly string[]): Checkpoint | null {
  let size = 0
  let head: Checkpoint | null = null
  for (let next = reader.notes.covering(0); next !== null; next = reader.notes.covering(size)) {
    head = next
    size = next.size
  }
  return head === null ? null : openCheckpoint(head.note, vkeys.map(parseVkey))
}

interface Other {
  readonly origin: string
  lines: number
  readonly line: number
}

/** Other logs than these that are named, the first so many. */
const othersKept = 16

/** The latest epoch of a log that is compared, in place of one before it: what is named of other logs never pushes it out. */
function keepLatest(
  others: Map<string, Other>,
  { origin, line }: Omit<Other, 'lines'>,
  stems: ReadonlySet<string>,
): void {
  const stem = stemOf(origin)
  if (!stems.has(stem)) return
  const kept = [...others.keys()].filter((one) => stemOf(one) === stem)
  const latest = Math.max(0, ...kept.map((one) => epochOf(one) ?? 0))
  if ((epochOf(origin) ?? 0) <= latest) return
  if (kept.length >= othersKept) others.delete(kept.at(-1) ?? '')
  others.set(origin, { origin, lines: 1, line })
}

/** Each line to the log that it says it is of; null: one that is here and was not asked for. */
async function readExport(
  lines: Lines,
  tallies: ReadonlyMap<string, Tally | null>,
): Promise<Strange> {
  const others = new Map<string, Other>()
  const stems = new Set([...tallies.keys()].map(stemOf))
  let strange = 0
  let number = 0
  for await (const line of lines) {
    number++
    if (line.length === 0) continue
    const found = findEvent(line, number)
    const tally = found === null ? undefined : tallies.get(found.origin)
    if (found !== null && tally !== undefined) {
      tally?.take(found)
      continue
    }
    if (found === null && isCheckpoint(line)) continue
    strange++
    if (found === null) continue
    const { origin } = found
    const other = others.get(origin)
    if (other !== undefined) other.lines++
    else if (others.size < othersKept) others.set(origin, { origin, lines: 1, line: number })
    else keepLatest(others, { origin, line: number }, stems)
  }
  return { strange, others: [...others.values()] }
}

const isShort = ({ missing, mismatches }: Counted): boolean =>
  missing.length > 0 || mismatches.length > 0

/** What the export has of a log behind all that is signed of it here; null: nothing. A log cut short would say nothing of that. */
const whyBehind = (origin: string, { to, behind }: Counted): string | null =>
  behind === null
    ? null
    : `the export has event ${behind.idx} of ${origin} (line ${behind.line}), and only ${to} are signed in the log that is here`

/** Completeness is not content where a sink was sent no bodies. */
function whyOf(stubs: number): { readonly why?: string } {
  const why = `every event is there; of ${stubs} the sink was sent fields only, so their content is not proven`
  return stubs === 0 ? {} : { why }
}

/** `why`: what leaves it open; null: nothing does. */
function concluded(
  of: readonly Counted[],
  why: string | null,
): { readonly outcome: Outcome; readonly why?: string } {
  if (of.some(isShort)) return { outcome: 'violated', ...(why === null ? {} : { why }) }
  if (why !== null) return { outcome: 'not-provable', why }
  return { outcome: 'complete', ...whyOf(of.reduce((sum, { stubs }) => sum + stubs, 0)) }
}

/**
 * Compares an export with one epoch of a log under a head that the reader's keys signed. Needs no gateway and no network.
 * Errors: key.invalid, note.signature, log.rollback (the log itself does not hold), log.range.
 */
export async function reconcile(options: ReconcileOptions): Promise<Reconciliation> {
  const { directory, vkeys } = options
  const origin = vkeys.map(parseVkey)[0]?.name
  if (origin === undefined) throw new AuditError('key.invalid', 'no verifier key was given')
  const head = newestHead(new LogReader(directory, origin), vkeys)
  const { from = 0, to = head?.size ?? 0 } = options
  if (!(from >= 0 && from <= to))
    throw new AuditError('log.range', `no such range: ${from} to ${to}`)
  if (head === null || to > head.size) {
    const nothing = new Tally({ from: 0, to: 0, leaves: Buffer.alloc(0), ended: null }).counted()
    const why = `only ${head?.size ?? 0} events are signed`
    return { outcome: 'not-provable', why, ...nothing, from, to, strange: 0, others: [] }
  }
  const tally = new Tally(expectedOf(directory, head, from, to))
  const strange = await readExport(options.lines, new Map([[origin, tally]]))
  const counted = tally.counted()
  // A range that ends here is not about what came behind it.
  const behind = options.to === undefined ? whyBehind(origin, counted) : null
  return { ...concluded([counted], behind), ...counted, ...strange }
}

/** What of an epoch was asked for; null: nothing. */
function rangeIn(
  { epoch }: EpochVerdict,
  size: number,
  { from, to }: Pick<ReconcileEpochsOptions, 'from' | 'to'>,
): { readonly from: number; readonly to: number } | null {
  if (epoch < (from?.epoch ?? 0) || epoch > (to?.epoch ?? Number.POSITIVE_INFINITY)) return null
  return {
    from: from?.epoch === epoch ? from.idx : 0,
    to: to?.epoch === epoch ? to.idx : size,
  }
}

/** Demands that the range begins and ends in epochs that are here, in order. Errors: log.range. */
function demandRange(read: EpochsVerdict, { from, to }: ReconcileEpochsOptions): void {
  for (const at of [from, to])
    if (at !== undefined && !read.epochs.some(({ epoch }) => epoch === at.epoch))
      throw new AuditError('log.range', `epoch ${at.epoch} is not here, or could not be read`)
  const before = (a: EpochIndex, b: EpochIndex): boolean =>
    a.epoch === b.epoch ? a.idx < b.idx : a.epoch < b.epoch
  if (from !== undefined && to !== undefined && before(to, from))
    throw new AuditError('log.range', 'the range ends before it begins')
}

interface Asked {
  readonly read: EpochVerdict
  readonly expected: Expected
  readonly tally: Tally
}

/** The epochs asked for, as far as each is proven; `short`: what is not signed yet. Errors: log.rollback, log.range. */
function askedOf(
  read: EpochsVerdict,
  options: ReconcileEpochsOptions,
): { readonly asked: readonly Asked[]; readonly short: string | null } {
  demandRange(read, options)
  let short: string | null = null
  const asked: Asked[] = []
  for (const epoch of read.epochs) {
    const head = epoch.verdict.checkpoint
    if (epoch.verdict.outcome !== 'proven' || head === null) continue
    const range = rangeIn(epoch, head.size, options)
    if (range === null) continue
    const to = Math.min(range.to, head.size)
    if (range.to > to || range.from > to)
      short ??= `epoch ${epoch.epoch}: only ${head.size} events are signed`
    const expected = expectedOf(epoch.directory, head, Math.min(range.from, to), to)
    asked.push({ read: epoch, expected, tally: new Tally(expected) })
  }
  return { asked, short }
}

/** The latest epoch that the export has events of, where that is behind all that are here. */
function laterThan(read: EpochsVerdict, others: readonly OtherLog[]): string | null {
  const newest = read.epochs.at(-1)
  if (newest === undefined) return null
  const later = others.find(
    ({ origin }) =>
      stemOf(origin) === stemOf(newest.origin) && (epochOf(origin) ?? 0) > newest.epoch,
  )
  return later === undefined
    ? null
    : `the export has events of ${later.origin}, a later epoch than any that is here (line ${later.line})`
}

/** What the export has behind all that is here of the log; null: nothing. */
function beyond(
  read: EpochsVerdict,
  others: readonly OtherLog[],
  epochs: readonly EpochReconciliation[],
): string | null {
  const newest = epochs.at(-1)
  return laterThan(read, others) ?? (newest === undefined ? null : whyBehind(newest.origin, newest))
}

/**
 * Compares an export with every epoch in a node's folder, each under its own keys and joined to the one before as
 * `verifyEpochs` proves it. Needs no gateway and no network. Errors: key.invalid, note.invalid, log.rollback (the log itself
 * does not hold), log.range.
 */
export async function reconcileEpochs(
  options: ReconcileEpochsOptions,
): Promise<EpochsReconciliation> {
  const { directory, vkeys: verifierKeys } = options
  if (verifierKeys.length === 0) throw new AuditError('key.invalid', 'no verifier key was given')
  const read = await verifyEpochs({ directory, verifierKeys })
  if (read.outcome === 'violated') throw new AuditError('log.rollback', read.why ?? '')
  const { asked, short } = askedOf(read, options)
  const tallies = new Map<string, Tally | null>(read.epochs.map(({ origin }) => [origin, null]))
  for (const one of asked) tallies.set(one.read.origin, one.tally)
  const strange = await readExport(options.lines, tallies)
  const epochs = asked.map(({ read: { epoch, directory: own, origin }, expected, tally }) => ({
    epoch,
    directory: own,
    origin,
    ended: expected.ended !== null,
    ...tally.counted(),
  }))
  const rest = {
    epochs,
    ...strange,
    ...(read.before === undefined ? {} : { before: read.before }),
  }
  const unread = read.outcome === 'proven' ? null : (read.why ?? read.outcome)
  // A range that ends here is not about what came behind it.
  const later = options.to === undefined ? beyond(read, strange.others, epochs) : null
  return { ...concluded(epochs, short ?? unread ?? later), ...rest }
}
