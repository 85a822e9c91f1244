/**
 * An evidence package: every event of a time with the signed heads around it, the answers people ask for, and the program
 * that checks both. Same log, time and catalogue: same bytes, on any node. docs/audit.md section "Evidence".
 */
import type { KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { signCheckpoint } from '../checkpoint.ts'
import { claimed } from '../epochs.ts'
import { AuditError } from '../errors.ts'
import { noteSigner } from '../note.ts'
import { hashesOf } from '../prove.ts'
import type { LogReader } from '../read.ts'
import { consistencyProof, leafHash, subtreesOf } from '../tree.ts'
import type { Catalogue } from './catalogue.ts'
import { headsBetween, slicesOf, type Slice } from './slices.ts'
import {
  derive,
  isNodeName,
  judge,
  manifestText,
  nodeOf,
  proveEvents,
  proveSite,
  readVkey,
} from './verify.mjs'
import type { Epoch, Judgement, Proven, Vkey } from './verify.mjs'
import { listed, packEntry, zipOf, type Packed } from './zip.ts'

const hourMs = 3_600_000

export interface EvidenceOptions {
  /** The log, or a copy of it: one epoch, or the node's folder with all of them. */
  readonly directory: string
  /** Verifier keys of the log, of any one epoch at least: every head of that must be signed by all of them. */
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
  /** Which epochs are in it, the first one first. */
  readonly epochs: readonly Epoch[]
  /** Gateways of the site, of a package of several; those that are left out as well. */
  readonly nodes: readonly string[]
  readonly events: number
  /** How many events before those in it were pruned from the log; 0 where what came before is still there. */
  readonly pruned: number
}

/** Hashes of the perfect subtrees that make up the tree of `size`, the largest first. */
function edgeOf(directory: string, reader: LogReader, size: number): string[] {
  const perfect = hashesOf(directory, reader)
  return subtreesOf(size).map(({ level, index }) =>
    Buffer.from(perfect(level, index)).toString('hex'),
  )
}

/** The proof that the epoch's end, which the next one holds, begins with what is in the package of it; none where that is the end. */
function consistencyOf({ directory, reader, ended, followed }: Slice, from: number): string | null {
  if (!followed || ended === null || from >= ended) return null
  const hashes = consistencyProof(hashesOf(directory, reader), from, ended)
  const texts = hashes.map((hash) => Buffer.from(hash).toString('hex'))
  return `${JSON.stringify({ from, size: ended, hashes: texts })}\n`
}

/**
 * Of an epoch what belongs into the package: its heads, its events, their hashes and those of all that came before; and
 * where it goes on behind that to its end, what shows that this begins with it.
 */
function logEntries(folder: string, slice: Slice): Packed[] {
  const { directory, reader, before, last: end } = slice
  const first = before?.size ?? reader.first
  const heads = headsBetween(reader, first, end)
  const last = heads.at(-1)?.size ?? 0
  if (last <= first) throw new AuditError('evidence.range', 'no event of that time is signed yet')
  const bodies: Uint8Array[] = []
  const leaves: string[] = []
  for (const { idx, body } of reader.bodies(first)) {
    if (idx >= last) break
    bodies.push(Buffer.from(body), newline)
    leaves.push(`${Buffer.from(leafHash(body)).toString('hex')}\n`)
  }
  const consistency = consistencyOf(slice, last)
  const notes = [...(before === null ? [] : [before]), ...heads]
  return [
    packEntry(`${folder}checkpoints`, notes.map(({ note }) => `${note}\n`).join('')),
    ...(consistency === null ? [] : [packEntry(`${folder}consistency.json`, consistency)]),
    packEntry(`${folder}events.ndjson`, Buffer.concat(bodies)),
    packEntry(`${folder}leaves.txt`, leaves.join('')),
    packEntry(
      `${folder}left-edge.json`,
      `${JSON.stringify({ size: first, hashes: edgeOf(directory, reader, first) })}\n`,
    ),
  ]
}
const newline = Buffer.from('\n')

const iso = (ms: number): string => new Date(ms).toISOString()
const day = (ms: number): string => iso(ms).slice(0, 16).replaceAll(':', '').replace('T', '-')

const own = (name: string): Buffer => readFileSync(new URL(name, import.meta.url))

/** A package of several gateways of one site. */
export interface SiteEvidenceOptions extends Omit<EvidenceOptions, 'directory'> {
  /** A log of each gateway, or a copy of it: one epoch, or the node's folder with all of them. */
  readonly directories: readonly string[]
  /** Gateways that the site has: one whose log is not given is named as left out. */
  readonly nodes?: readonly string[]
}

/** The log's entries, and what of them is the oldest that is shown. */
interface Chosen {
  readonly entries: readonly Packed[]
  readonly oldest: Slice | undefined
}

/** Of a log's epochs what belongs to the time, under the folder `log/`. Errors: evidence.range. */
function chosenOf(
  directory: string,
  named: string,
  { from, to, leadMs = 31 * 24 * hourMs }: Pick<EvidenceOptions, 'from' | 'to' | 'leadMs'>,
): Chosen {
  const { shown, links } = slicesOf(directory, named, from - leadMs, to)
  const [oldest, ...later] = shown
  const entries = [
    ...shown.flatMap((slice) =>
      logEntries(later.length > 0 ? `log/${slice.epoch}/` : 'log/', slice),
    ),
    ...links.flatMap((slice) => logEntries(`log/keys/${slice.epoch}/`, slice)),
  ]
  return { entries, oldest }
}

/** The reader's keys, parsed, and the time in order. Errors: key.invalid, evidence.range. */
function demand({ vkeys, from, to }: Pick<EvidenceOptions, 'vkeys' | 'from' | 'to'>): {
  readonly keys: Vkey[]
  readonly named: string
} {
  const keys = vkeys.map(readVkey)
  const [key] = keys
  if (key === undefined) throw new AuditError('key.invalid', 'no verifier key was given')
  if (!(to >= from)) throw new AuditError('evidence.range', 'the time ends before it begins')
  return { keys, named: key.name }
}

/**
 * Builds the package, checking every byte of it with the same keys a reader will use. Needs no gateway and no network.
 * Errors: evidence.range (no signed event of that time), key.invalid (also for `signWith`); Violated when the log is not what was signed.
 */
export function buildEvidence(options: EvidenceOptions): Evidence {
  const { keys, named } = demand(options)
  const { entries, oldest } = chosenOf(options.directory, named, options)
  const proven = proveEvents(entriesOf(entries), keys)
  return packaged(options, entries, proven, prunedBefore(proven, oldest))
}

/**
 * Builds one package of the logs of several gateways, each in a folder of its own and proven by itself; what is said of
 * grants and sessions is said of all of them. Needs no gateway and no network. Errors: as `buildEvidence`, and log.origin for
 * two logs of one gateway or of two sites, or a name that is no gateway's.
 */
export function buildSiteEvidence(options: SiteEvidenceOptions): Evidence {
  const { keys, named } = demand(options)
  const logs = options.directories.map((directory) => nodeLog(directory, named, options))
  const entries = logs.flatMap(({ node, chosen }) =>
    chosen.entries.map((entry) => ({ ...entry, name: `nodes/${node}/${entry.name}` })),
  )
  const here = logs.map(({ node }) => node)
  const twice = here.find((node, i) => here.indexOf(node) !== i)
  if (twice !== undefined) throw new AuditError('log.origin', `two of the logs are of ${twice}`)
  const odd = options.nodes?.find((node) => !isNodeName(node))
  if (odd !== undefined) throw new AuditError('log.origin', `no gateway has the name ${odd}`)
  const nodes = [...new Set([...here, ...(options.nodes ?? [])])].toSorted()
  const proven = proveSite(entriesOf(entries), keys, nodes)
  return packaged(options, entries, proven, 0)
}

/** One gateway's part of a site. Errors: evidence.range, log.origin (its name is no gateway's). */
function nodeLog(
  directory: string,
  named: string,
  options: SiteEvidenceOptions,
): { readonly node: string; readonly chosen: Chosen } {
  try {
    const chosen = chosenOf(directory, named, options)
    const { node } = nodeOf(claimed(chosen.oldest?.directory ?? directory) ?? '')
    if (node === '') throw new AuditError('log.origin', 'the log is not named after a gateway')
    return { node, chosen }
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    throw new AuditError(error.code, `${directory}: ${error.message}`, { cause: error })
  }
}

const entriesOf = (log: readonly Packed[]): Map<string, ReturnType<typeof asRead>> =>
  new Map(log.map((entry) => [entry.name, asRead(entry)]))

/** The whole package, of logs that are proven. Errors: key.invalid (`signWith`). */
function packaged(
  options: Omit<EvidenceOptions, 'directory'>,
  log: readonly Packed[],
  proven: Proven,
  pruned: number,
): Evidence {
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
    bytes: zipOf([...entries, manifest, ...signatureOf(manifest, proven, options), sum]),
    judgement,
    epochs: proven.epochs,
    nodes: proven.site?.named ?? [],
    events: proven.events.length,
    pruned,
  }
}

function prunedBefore({ epochs }: Proven, oldest: Slice | undefined): number {
  const left = oldest?.reader.first ?? 0
  return epochs[0]?.first === left ? left : 0
}

/**
 * manifest.note: a head of a tree whose only leaf is the manifest, under an origin that is no log's, so that what signs
 * heads signs packages, both keys alike, and neither can be taken for the other. The keys are those of an epoch that is in
 * it, or of which the verifier keys were given: those of ended ones are gone. Errors: key.invalid.
 */
function signatureOf(
  manifest: Packed,
  { keys }: Proven,
  { signWith = [], now }: Pick<EvidenceOptions, 'signWith' | 'now'>,
): Packed[] {
  if (signWith.length === 0) return []
  for (const [origin, known] of keys) {
    const signers = signWith.map((key) => noteSigner(origin, key))
    const own = new Set(signers.map(({ verifier }) => verifier.vkey))
    if (own.size !== known.length || !known.every(({ vkey }) => own.has(vkey))) continue
    if (now === undefined) break
    const root = leafHash(manifest.bytes)
    const { note } = signCheckpoint({ origin: `${origin}/evidence`, size: 1, root }, signers, now)
    return [packEntry('manifest.note', note)]
  }
  throw new AuditError(
    'key.invalid',
    'the keys to sign with are not those of the log: one private key for each verifier key is needed',
  )
}

function asRead({ name, bytes, packed }: Packed): { name: string; bytes: Buffer; packed: Buffer } {
  return { name, bytes: Buffer.from(bytes), packed: Buffer.from(packed) }
}
