/**
 * An evidence package: every event of a time with the signed heads around it, the answers people ask for, and the program
 * that checks both. Same log, time and catalogue: same bytes, on any node. docs/audit.md section "Evidence".
 */
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { signCheckpoint } from '../checkpoint.ts'
import { AuditError } from '../errors.ts'
import { noteSigner } from '../note.ts'
import { hashesOf } from '../prove.ts'
import { LogReader } from '../read.ts'
import { leafHash, subtreesOf } from '../tree.ts'
import type { Checkpoint } from '../checkpoint.ts'
import type { Catalogue } from './catalogue.ts'
import { derive, judge, manifestText, proveEvents, readVkey } from './verify.mjs'
import type { Judgement } from './verify.mjs'
import { listed, packEntry, zipOf, type Packed } from './zip.ts'

const hourMs = 3_600_000

export interface EvidenceOptions {
  /** The log, or a copy of it. */
  readonly directory: string
  /** Verifier keys of the log: every head must be signed by all of them. */
  readonly vkeys: readonly string[]
  /** The time asked for, epoch ms, both inclusive. */
  readonly from: number
  readonly to: number
  /** Events from before `from` that go with it, so that grants in force are whole. Default 31 days, in ms. */
  readonly leadMs?: number
  readonly catalogue: Catalogue
  /** One framework of the catalogue; default all. */
  readonly framework?: string
  /** Narrows the report, not the proof. */
  readonly device?: string
  /** Private keys of the log: with them the manifest is signed, and so the package vouched for. */
  readonly signWith?: readonly KeyObject[]
  /** Dates that signature, epoch ms; needed with `signWith`. */
  readonly now?: number
}

export interface Evidence {
  readonly name: string
  readonly bytes: Buffer
  readonly judgement: Judgement
  readonly events: number
  /** How many events before those in it were pruned from the log; 0 where what came before is still there. */
  readonly pruned: number
}

/** What the log says of times, read without parsing bodies. */
const timeForm = /"time":(\d{1,16})/

interface Span {
  readonly first: number
  /** One past the last. */
  readonly last: number
}

/** The events whose time lies in [from, to], as indexes; and up to the heartbeat that closes it. */
function spanOf(reader: LogReader, from: number, to: number): Span {
  let first: number | null = null
  let last = 0
  let open = false
  for (const { idx, body } of reader.bodies(0)) {
    const head = Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, 256))
    const time = Number(timeForm.exec(head.toString('latin1'))?.[1])
    const inside = time >= from && time <= to
    if (inside) first ??= idx
    // The first event after the time is the one that shows when silence ended.
    if (inside || open) last = idx + 1
    open = inside || (open && !isHeartbeat(body))
  }
  if (first === null)
    throw new AuditError(
      'evidence.range',
      'the log has no event of that time: nothing can be shown',
    )
  return { first, last }
}

function isHeartbeat(body: Uint8Array): boolean {
  const end = Buffer.from(body.buffer, body.byteOffset + Math.max(0, body.length - 160))
  return end.includes('"event_code":"log.heartbeat"')
}

/** The last head at or before `idx`; null when only the empty tree is, or what was pruned lies behind it. */
function headBefore(reader: LogReader, idx: number): Checkpoint | null {
  for (let back = 1; back <= idx; back *= 2) {
    const head = reader.notes.covering(idx - back)
    if (head !== null && head.size <= idx) return head.size < reader.first ? null : head
  }
  return null
}

/** About `count` heads from the one at `first` on, the last one that is signed at or after `last` among them. */
function headsBetween(reader: LogReader, first: number, last: number, count = 64): Checkpoint[] {
  const heads: Checkpoint[] = []
  const step = Math.max(1, Math.floor((last - first) / count))
  for (let at = first; at < last; at += step) {
    const head = reader.notes.covering(at)
    if (head !== null && head.size > (heads.at(-1)?.size ?? 0)) heads.push(head)
  }
  const end = reader.notes.covering(last - 1) ?? lastHead(reader, last)
  if (end !== null && end.size > (heads.at(-1)?.size ?? 0)) heads.push(end)
  return heads
}

/** Where the end is not signed yet: the newest head there is. */
function lastHead(reader: LogReader, below: number): Checkpoint | null {
  for (let back = 1; back <= below; back *= 2) {
    const head = reader.notes.covering(below - back)
    if (head !== null) {
      let best = head
      for (let next = reader.notes.covering(best.size); next !== null;) {
        best = next
        next = reader.notes.covering(best.size)
      }
      return best
    }
  }
  return null
}

/** Hashes of the perfect subtrees that make up the tree of `size`, the largest first. */
function edgeOf(directory: string, reader: LogReader, size: number): string[] {
  const perfect = hashesOf(directory, reader)
  return subtreesOf(size).map(({ level, index }) =>
    Buffer.from(perfect(level, index)).toString('hex'),
  )
}

function logEntries(options: EvidenceOptions, reader: LogReader): Packed[] {
  const { directory, from, to, leadMs = 31 * 24 * hourMs } = options
  const span = spanOf(reader, from - leadMs, to)
  // One event of before that time shows that none of it is left out.
  const before = headBefore(reader, span.first - 1)
  const first = before?.size ?? reader.first
  const heads = headsBetween(reader, first, span.last)
  const last = heads.at(-1)?.size ?? 0
  if (last <= first) throw new AuditError('evidence.range', 'no event of that time is signed yet')
  const bodies: Uint8Array[] = []
  const leaves: string[] = []
  for (const { idx, body } of reader.bodies(first)) {
    if (idx >= last) break
    bodies.push(Buffer.from(body), newline)
    leaves.push(`${Buffer.from(leafHash(body)).toString('hex')}\n`)
  }
  const notes = [...(before === null ? [] : [before]), ...heads]
  return [
    packEntry('log/checkpoints', notes.map(({ note }) => `${note}\n`).join('')),
    packEntry('log/events.ndjson', Buffer.concat(bodies)),
    packEntry('log/leaves.txt', leaves.join('')),
    packEntry(
      'log/left-edge.json',
      `${JSON.stringify({ size: first, hashes: edgeOf(directory, reader, first) })}\n`,
    ),
  ]
}
const newline = Buffer.from('\n')

const iso = (ms: number): string => new Date(ms).toISOString()
const day = (ms: number): string => iso(ms).slice(0, 16).replaceAll(':', '').replace('T', '-')

const own = (name: string): Buffer => readFileSync(new URL(name, import.meta.url))

/**
 * Builds the package, checking every byte of it with the same keys a reader will use. Needs no gateway and no network.
 * Errors: evidence.range (no signed event of that time), key.invalid (also for `signWith`); Violated when the log is not what was signed.
 */
export function buildEvidence(options: EvidenceOptions): Evidence {
  const keys = options.vkeys.map(readVkey)
  const origin = keys[0]?.name
  if (origin === undefined) throw new AuditError('key.invalid', 'no verifier key was given')
  if (!(options.to >= options.from))
    throw new AuditError('evidence.range', 'the time ends before it begins')
  const reader = new LogReader(options.directory, origin)
  const log = logEntries(options, reader)
  const proven = proveEvents(new Map(log.map((entry) => [entry.name, asRead(entry)])), keys)
  const judgement = judge(proven, options.from, options.to)
  const asked = {
    from: options.from,
    to: options.to,
    framework: options.framework,
    device: options.device,
    catalogueSha256: options.catalogue.sha256,
  }
  const controls = options.catalogue.controls.filter(
    ({ framework }) => options.framework === undefined || framework === options.framework,
  )
  const entries = [
    ...log,
    packEntry('catalogue.json', `${JSON.stringify(controls, null, 1)}\n`),
    ...[...derive(proven, judgement, asked, controls)].map(([name, text]) => packEntry(name, text)),
    packEntry('verify.mjs', own('verify.mjs')),
    packEntry('verify.py', own('verify.py')),
  ]
  const listing = entries.map(listed)
  const manifest = packEntry('manifest.json', manifestText(proven, judgement, asked, listing))
  const sum = packEntry('manifest.sha256', `${listed(manifest).sha256}  manifest.json\n`)
  const name = `evidence-${options.framework ?? 'all'}-${day(options.from)}_${day(options.to)}.zip`
  return {
    name,
    bytes: zipOf([...entries, manifest, ...signatureOf(manifest, origin, options), sum]),
    judgement,
    events: proven.last - proven.first,
    pruned: proven.first === reader.first ? reader.first : 0,
  }
}

/**
 * manifest.note: a head of a tree whose only leaf is the manifest, under an origin that is no log's, so that what signs
 * heads signs packages, both keys alike, and neither can be taken for the other. Errors: key.invalid.
 */
function signatureOf(
  manifest: Packed,
  origin: string,
  { signWith = [], vkeys, now }: EvidenceOptions,
): Packed[] {
  if (signWith.length === 0) return []
  const signers = signWith.map((key) => noteSigner(origin, key))
  const unsigned = vkeys.filter((vkey) => !signers.some(({ verifier }) => verifier.vkey === vkey))
  if (unsigned.length > 0 || signers.length !== vkeys.length || now === undefined)
    throw new AuditError(
      'key.invalid',
      'the keys to sign with are not those of the log: one private key for each verifier key is needed',
    )
  const root = leafHash(manifest.bytes)
  const { note } = signCheckpoint({ origin: `${origin}/evidence`, size: 1, root }, signers, now)
  return [packEntry('manifest.note', note)]
}

function asRead({ name, bytes, packed }: Packed): { name: string; bytes: Buffer; packed: Buffer } {
  return { name, bytes: Buffer.from(bytes), packed: Buffer.from(packed) }
}
