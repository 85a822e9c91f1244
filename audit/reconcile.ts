/**
 * A SIEM's own export against the log: either it has every event, unaltered, or what it lacks is named. Each line of the
 * export is searched for what a sink was sent; whatever the SIEM put around it does not matter. docs/audit.md
 * section "Reconciling".
 */
import { AuditError } from './errors.ts'
import { openCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { joinOf } from './format/ocsf.ts'
import { parseVkey } from './note.ts'
import { prunedLeaves } from './pruned.ts'
import { LogReader } from './read.ts'
import { Frontier, leafHash, type Hash } from './tree.ts'

/** One event as an export shows it. `body` is null where the sink was sent no verbatim body (CEF, a stub). */
interface Found {
  readonly idx: number
  readonly body: Uint8Array | null
  /** Leaf hash the export carries beside it, 64 hex digits; null when it carries none. */
  readonly leaf: string | null
  /** Line of the export, from 1. */
  readonly line: number
}

interface Mismatch {
  readonly idx: number
  readonly line: number
  readonly what: 'altered' | 'not in the log' | 'another log'
}

export interface Reconciliation {
  /** `complete`: every event of the range is there, bytes as signed; `violated`: not; `not-provable`: see `why`. */
  readonly outcome: 'complete' | 'violated' | 'not-provable'
  readonly why?: string
  /** The range looked for: from, and one past its last. */
  readonly from: number
  readonly to: number
  /** Events found whole, and those of which only the fields that join them were sent. */
  readonly verbatim: number
  readonly stubs: number
  readonly duplicates: number
  /** Runs of indexes that are not in the export, both ends inclusive. */
  readonly missing: readonly { readonly from: number; readonly to: number }[]
  readonly mismatches: readonly Mismatch[]
  /** Lines in which no event of this log could be read. */
  readonly strange: number
}

export interface ReconcileOptions {
  /** The log, or a copy of it. */
  readonly directory: string
  readonly vkeys: readonly string[]
  /** Lines of the export, without their line ends. */
  readonly lines: Iterable<Uint8Array> | AsyncIterable<Uint8Array>
  /** First index the sink was to have; default 0. */
  readonly from?: number
  /** One past the last; default the last signed head. */
  readonly to?: number
}

/** Where an OCSF body begins in a line: our bodies begin so and no other part of a message does. */
const bodyBegin = Buffer.from('{"class_uid":')
const stubBegin = Buffer.from('{"severity_id":')

/** An event in one line of an export; null when there is none. */
function findEvent(bytes: Uint8Array, line: number, origin: string): Found | 'other' | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  return (
    findVerbatim(text, line, origin) ??
    findWrapped(text, line, origin) ??
    findFields(text, line, origin)
  )
}

/** The body as it was sent, perhaps behind a header: from its beginning to the end that joins it. */
function findVerbatim(text: Buffer, line: number, origin: string): Found | 'other' | null {
  const end = text.lastIndexOf('}')
  const first = text.indexOf(bodyBegin)
  const last = text.lastIndexOf(bodyBegin)
  if (first < 0) return null
  // A receiver that was killed leaves half a line, and the next message behind it.
  const at = first === last || isJson(text.subarray(first, end + 1)) ? first : last
  const body = text.subarray(at, end + 1)
  const join = joinOf(body)
  if (join === null) return null
  if (!body.includes(`"log_name":${JSON.stringify(origin)}`)) return 'other'
  return { idx: join.sequence, body, leaf: leafIn(text.subarray(0, at)), line }
}

function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}

/** The body as a string inside JSON: Splunk's `_raw` or `event`, Elastic's `event.original`, OTLP's `stringValue`. */
function findWrapped(text: Buffer, line: number, origin: string): Found | 'other' | null {
  const at = text.indexOf('"{\\"class_uid\\":')
  if (at < 0) return null
  let end = at + 1
  while (end < text.length && text[end] !== 0x22) end += text[end] === 0x5c ? 2 : 1
  let body: unknown
  try {
    body = JSON.parse(text.toString('utf8', at, end + 1))
  } catch {
    return null
  }
  if (typeof body !== 'string') return null
  return findVerbatim(Buffer.from(body), line, origin)
}

const fieldForms = {
  origin: /(?:^|[\s[{,"|])(?:origin|cs6)(?:"?\s*[:=]\s*"?)([^\s"\],]+)/,
  idx: /(?:^|[\s[{,"|])(?:idx|cn1)(?:"?\s*[:=]\s*"?)(\d{1,16})/,
}

/** What is left where no body was sent: the fields that join it. */
function findFields(text: Buffer, line: number, origin: string): Found | 'other' | null {
  const stub = text.indexOf(stubBegin)
  const head = text.toString('latin1', 0, Math.min(text.length, 4_096))
  if (stub < 0 && !head.includes('CEF:0|Sallyport|')) return null
  if (fieldForms.origin.exec(head)?.[1] !== origin) return 'other'
  const idx = fieldForms.idx.exec(head)?.[1]
  return idx === undefined ? null : { idx: Number(idx), body: null, leaf: leafIn(text), line }
}

/** The last leaf hash named in front of a body, or anywhere in a line without one. */
function leafIn(text: Buffer): string | null {
  const near = text.toString('latin1', Math.max(0, text.length - 8_192))
  return [...near.matchAll(/(?:leaf|cs4)(?:"?\s*[:=]\s*"?)([0-9a-f]{64})/g)].at(-1)?.[1] ?? null
}

/** What is known of each index while the export is read: a byte each. */
const absent = 0
const seenStub = 1
const seenBody = 2

interface Tally {
  readonly from: number
  readonly seen: Uint8Array
  readonly leaves: Buffer
  verbatim: number
  stubs: number
  duplicates: number
  strange: number
  readonly mismatches: Mismatch[]
}

const mismatchesKept = 1_000

function blame(tally: Tally, found: Found, what: Mismatch['what']): void {
  if (tally.mismatches.length < mismatchesKept)
    tally.mismatches.push({ idx: found.idx, line: found.line, what })
}

function take(tally: Tally, found: Found): void {
  const at = found.idx - tally.from
  // Before or after the range asked for is nobody's fault.
  if (at < 0 || at >= tally.seen.length) return
  const expected = tally.leaves.toString('hex', at * 32, at * 32 + 32)
  const hex = found.body === null ? found.leaf : Buffer.from(leafHash(found.body)).toString('hex')
  if (hex !== null && hex !== expected) return blame(tally, found, 'altered')
  // The hash beside a body may have been altered while the body was not.
  if (found.leaf !== null && found.leaf !== expected) return blame(tally, found, 'altered')
  if (tally.seen[at] !== absent) tally.duplicates++
  if (found.body !== null) {
    if (tally.seen[at] === seenStub) tally.stubs--
    if (tally.seen[at] !== seenBody) tally.verbatim++
    tally.seen[at] = seenBody
  } else if (tally.seen[at] === absent) {
    tally.stubs++
    tally.seen[at] = seenStub
  }
}

function runs(tally: Tally): { from: number; to: number }[] {
  const found: { from: number; to: number }[] = []
  for (const [at, state] of tally.seen.entries()) {
    if (state !== absent) continue
    const idx = tally.from + at
    const last = found.at(-1)
    if (last !== undefined && last.to === idx - 1) last.to = idx
    else found.push({ from: idx, to: idx })
  }
  return found
}

/** Leaf hashes of the log up to the head, which they must hash to. Errors: log.rollback. */
function signedLeaves(
  directory: string,
  reader: LogReader,
  head: Checkpoint,
  from: number,
  to: number,
): Buffer {
  const leaves = Buffer.alloc((to - from) * 32)
  const frontier = new Frontier()
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
  }
  if (frontier.size !== head.size || Buffer.from(frontier.root()).toString('hex') !== head.root)
    throw new AuditError('log.rollback', `the log is not what was signed at ${head.size}`)
  return leaves
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

/**
 * Compares an export with the log under a head that the reader's keys signed. Needs no gateway and no network.
 * Errors: key.invalid, note.signature, log.rollback (the log itself does not hold), log.range.
 */
export async function reconcile(options: ReconcileOptions): Promise<Reconciliation> {
  const origin = options.vkeys.map(parseVkey)[0]?.name
  if (origin === undefined) throw new AuditError('key.invalid', 'no verifier key was given')
  const reader = new LogReader(options.directory, origin)
  const head = newestHead(reader, options.vkeys)
  const { from = 0, to = head?.size ?? 0 } = options
  if (!(from >= 0 && from <= to))
    throw new AuditError('log.range', `no such range: ${from} to ${to}`)
  const none = {
    from,
    to,
    verbatim: 0,
    stubs: 0,
    duplicates: 0,
    missing: [],
    mismatches: [],
    strange: 0,
  }
  if (head === null || to > head.size)
    return { outcome: 'not-provable', why: `only ${head?.size ?? 0} events are signed`, ...none }
  const tally: Tally = {
    from,
    seen: new Uint8Array(to - from),
    leaves: signedLeaves(options.directory, reader, head, from, to),
    verbatim: 0,
    stubs: 0,
    duplicates: 0,
    strange: 0,
    mismatches: [],
  }
  await readExport(options.lines, origin, tally)
  return verdictOf(tally, to)
}

async function readExport(
  lines: ReconcileOptions['lines'],
  origin: string,
  tally: Tally,
): Promise<void> {
  let number = 0
  for await (const line of lines) {
    number++
    if (line.length === 0 || isCheckpoint(line)) continue
    const found = findEvent(line, number, origin)
    if (found === null || found === 'other') tally.strange++
    else take(tally, found)
  }
}

function isCheckpoint(line: Uint8Array): boolean {
  return Buffer.from(line.buffer, line.byteOffset, line.length).includes('audit.checkpoint')
}

function verdictOf(tally: Tally, to: number): Reconciliation {
  const { from, verbatim, stubs, duplicates, strange, mismatches } = tally
  const missing = runs(tally)
  const counts = { from, to, verbatim, stubs, duplicates, missing, mismatches, strange }
  if (missing.length > 0 || mismatches.length > 0) return { outcome: 'violated', ...counts }
  if (stubs === 0) return { outcome: 'complete', ...counts }
  const why = `every event is there; of ${stubs} the sink was sent fields only, so their content is not proven`
  return { outcome: 'complete', why, ...counts }
}

/** Lines of a file's chunks, without their line ends; a line of over 1 MiB is given in pieces. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let held: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    held = Buffer.concat([held, chunk])
    let at = 0
    for (let end = held.indexOf(10); end >= 0; end = held.indexOf(10, at)) {
      yield held.subarray(at, held[end - 1] === 13 ? end - 1 : end)
      at = end + 1
    }
    held = held.subarray(at)
    if (held.length > 1024 * 1024) {
      yield held
      held = Buffer.alloc(0)
    }
  }
  if (held.length > 0) yield held
}
