/**
 * Reads a log as a stranger would: its directory, the reader's own keys, nothing else. It writes nothing, and names
 * the file and byte where the log stops being what was signed. docs/audit.md section "Verifying".
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { openCheckpoint, parseCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { AuditError, type Place } from './errors.ts'
import { walkNotes } from './notes.ts'
import { byName, cosignedBy, type Cosigned } from './cosign.ts'
import { closingIn, mayJoin, openingIn, type Closing, type Opening } from './epoch.ts'
import { parseVkey, parseWitnessKey, type Verifier } from './note.ts'
import { beginningFault, firstOf, prunedLeaves, pruneIn } from './pruned.ts'
import { isTornTail, listSegments } from './recover.ts'
import { frameBatch, frameEnd, frameFault, frameIdx, headerBytes, segmentFirst } from './segment.ts'
import { TileWriter, tileWidth } from './tile.ts'
import { Frontier, leafHashInPlace } from './tree.ts'
import { keptNotes } from './witnesses.ts'

export interface Verdict {
  /** Everything up to the last checkpoint is as signed; something is not; or it cannot be told. */
  readonly outcome: 'proven' | 'violated' | 'not-provable'
  /** Leaves in all. */
  readonly events: number
  /** Of the first so many only the hashes are left: they were pruned, as a later event says. Absent: of none. */
  readonly pruned?: number
  /** Leaves after the last checkpoint: intact by checksum, not yet signed. */
  readonly uncovered: number
  readonly checkpoint: Checkpoint | null
  /** How many signed checkpoints held. */
  readonly checkpoints: number
  readonly place?: Place
  /** Why it is not provable, in words. */
  readonly why?: string
  /** The log goes on from another epoch, as its first leaf says; absent: it is the first, or that leaf was pruned. */
  readonly opening?: Opening
  /** The log has ended, as its signed last leaf says; absent: it goes on. */
  readonly closing?: Closing
  /** The newest head of this log that each known witness cosigned, and when; only where witnesses were named. */
  readonly witnesses?: readonly Cosigned[]
}

export interface VerifyOptions {
  readonly directory: string
  /** C2SP vkeys the reader trusts, all of the log's origin; every one of them must have signed each checkpoint. */
  readonly verifierKeys: readonly string[]
  /** Signed notes the reader kept from earlier: the log must still contain them. */
  readonly held?: readonly string[]
  /** Vkeys of witnesses: what they cosigned, found beside the log or in `held`, must be this log. */
  readonly witnessKeys?: readonly string[]
  /** How many witnesses must have cosigned it; default every one named. */
  readonly quorum?: number
}

/** Ends the reading: a verdict found before the end. */
class Found extends Error {
  readonly outcome: 'violated' | 'not-provable'
  readonly place: Place | undefined
  constructor(outcome: 'violated' | 'not-provable', why: string, place?: Place) {
    super(why)
    this.outcome = outcome
    this.place = place
  }
}

interface Reading {
  readonly directory: string
  readonly origin: string
  readonly verifiers: readonly Verifier[]
  readonly frontier: Frontier
  readonly tiles: TileWriter
  /** Roots the tree must pass through, by size. */
  readonly heads: Map<number, { readonly root: string; readonly where: Place }>
  lastSigned: number
  /** Size of the last head the events were found to match. */
  matched: number
  batch: number
  /** The index of the first event that is left, and up to which the log says that it was pruned. */
  begin: number
  said: number
  /** What its first and its last leaf say of the epochs around it. */
  opening: Opening | null
  closing: Closing | null
  readonly window: Buffer
}

function violated(
  reading: Reading,
  file: string,
  offset: number,
  idx: number | null,
  what: string,
): never {
  throw new Found('violated', what, { origin: reading.origin, idx, segment: file, offset, what })
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** What was signed, as it stood at one moment: the published head, and how long the notes are. Null: no such file. */
interface Signed {
  readonly published: string | null
  readonly notes: number | null
}

/** The published head first: a note is in checkpoints.log before it is published, also while heads are being signed. */
function readSigned({ directory }: Reading): Signed {
  const path = join(directory, 'checkpoint')
  const published = fs.existsSync(path) ? fs.readFileSync(path, 'utf8') : null
  const notes = fs.statSync(join(directory, 'checkpoints.log'), { throwIfNoEntry: false })
  return { published, notes: notes?.size ?? null }
}

/** How often the heads are read where they change meanwhile. */
const looks = 3

/** The heads of a log that may be signing at this moment: what two files say is a fault only where neither moved. */
function readSettled(reading: Reading): { last: Checkpoint[]; count: number } {
  let signed = readSigned(reading)
  for (let look = 1; ; look++) {
    try {
      const heads = readHeads(reading, signed.notes)
      readPublished(reading, signed.published, heads.last)
      return heads
    } catch (error) {
      const before = signed
      signed = readSigned(reading)
      const moved = signed.published !== before.published || signed.notes !== before.notes
      if (look === looks || !moved) throw error
      reading.heads.clear()
    }
  }
}

/** Every note of checkpoints.log: well-formed, signed by every key, growing. Gives the last two. */
function readHeads(reading: Reading, length: number | null): { last: Checkpoint[]; count: number } {
  const file = 'checkpoints.log'
  if (length === null) throw new Found('not-provable', 'there is no checkpoint: nothing was signed')
  const last: Checkpoint[] = []
  let count = 0
  for (const found of walkNotes(join(reading.directory, file), length)) {
    const { offset } = found
    if ('what' in found) violated(reading, file, offset, null, found.what)
    const { checkpoint } = found
    try {
      openCheckpoint(checkpoint.note, reading.verifiers)
    } catch (error) {
      violated(reading, file, offset, null, words(error))
    }
    if (checkpoint.origin !== reading.origin)
      violated(reading, file, offset, null, `a checkpoint of ${checkpoint.origin}`)
    if (checkpoint.size <= (last.at(-1)?.size ?? 0))
      violated(reading, file, offset, null, `size ${checkpoint.size} does not grow`)
    const where = { origin: reading.origin, idx: null, segment: file, offset, what: '' }
    reading.heads.set(checkpoint.size, { root: checkpoint.root, where })
    last.push(checkpoint)
    if (last.length > 2) last.shift()
    count++
  }
  if (count === 0) throw new Found('not-provable', 'there is no checkpoint: nothing was signed')
  return { last, count }
}

/** The published head must be the last note, or the one before it (a crash between the two). */
function readPublished(reading: Reading, note: string | null, last: readonly Checkpoint[]): void {
  if (note === null) violated(reading, 'checkpoint', 0, null, 'the published checkpoint is missing')
  if (last.some((checkpoint) => checkpoint.note === note)) return
  const known = last.at(-1)?.note ?? ''
  let offset = 0
  while (offset < note.length && note[offset] === known[offset]) offset++
  violated(
    reading,
    'checkpoint',
    offset,
    null,
    'the published checkpoint is not the last one signed',
  )
}

/** Notes the reader brought: signed by the same keys, so the tree must pass through them too. */
function readHeld(reading: Reading, held: readonly string[]): void {
  for (const note of held) {
    const place = { origin: reading.origin, idx: null, segment: 'held note', offset: 0, what: '' }
    let checkpoint: Checkpoint
    try {
      checkpoint = openCheckpoint(note, reading.verifiers)
    } catch (error) {
      throw new Found('not-provable', `a held note does not hold: ${words(error)}`)
    }
    if (checkpoint.origin !== reading.origin || checkpoint.size === 0) continue
    const known = reading.heads.get(checkpoint.size)
    const what = `the log's own checkpoint of size ${checkpoint.size} has another root than the held one`
    if (known !== undefined && known.root !== checkpoint.root)
      throw new Found('violated', what, { ...place, idx: checkpoint.size - 1, what })
    reading.heads.set(checkpoint.size, { root: checkpoint.root, where: place })
    reading.lastSigned = Math.max(reading.lastSigned, checkpoint.size)
  }
}

/**
 * What witnesses cosigned: in the log's own heads (a mirror's), beside it (a gateway's) and in the reader's notes. The
 * tree must pass through each, as through a held note.
 */
function readCosigned(
  reading: Reading,
  witnesses: readonly Verifier[],
  heads: readonly Checkpoint[],
  held: readonly string[],
): Cosigned[] {
  const beside = keptNotes(reading.directory, reading.verifiers)
  const brought = held.map((note) => parseCheckpoint(note))
  const newest = new Map<string, Cosigned>()
  for (const checkpoint of [...heads, ...beside, ...brought]) {
    if (checkpoint.origin !== reading.origin) continue
    const all = cosignedBy(checkpoint, witnesses)
    if (all.length > 0) readHeld(reading, [checkpoint.note])
    for (const one of all)
      if (one.size > (newest.get(one.name)?.size ?? 0)) newest.set(one.name, one)
  }
  return [...newest.values()]
}

/** Fewer witnesses than the reader wants: intact, and nobody else says that it is all there was. */
function demandQuorum(found: readonly Cosigned[], quorum: number): void {
  if (found.length >= quorum) return
  const names = found.map(({ name }) => name).join(', ')
  throw new Found(
    'not-provable',
    `${found.length} of the ${quorum} witnesses wanted cosigned it${names === '' ? '' : `: ${names}`}`,
  )
}

function checkHead(reading: Reading, file: string, offset: number): void {
  const { size } = reading.frontier
  const head = reading.heads.get(size)
  if (head === undefined) return
  reading.heads.delete(size)
  if (Buffer.from(reading.frontier.root()).toString('hex') === head.root) {
    reading.matched = size
    return
  }
  const since = reading.matched
  const what = `the events from ${since} to ${size - 1} are not those that the checkpoint of size ${size} signed`
  violated(reading, file, offset, since, what)
}

/** Read at a time: memory that is used again costs less than a new piece for every segment. */
const windowBytes = 1024 * 1024

/** Reads a segment to where it ended when it was opened: what its log writes behind that is not looked at. */
function readFrames(reading: Reading, name: string, isLast: boolean): void {
  const fd = fs.openSync(join(reading.directory, 'seg', name), 'r')
  try {
    const { size } = fs.fstatSync(fd)
    for (let base = 0; base < size;) {
      const read = fs.readSync(fd, reading.window, 0, Math.min(windowBytes, size - base), base)
      if (read === 0) return
      const bytes = reading.window.subarray(0, read)
      const { end, fault } = readWindow(reading, name, base, bytes)
      base += end
      // A frame may go on past the window: it is looked at again as the first of the next.
      if (fault === null || (fault === 'cut short' && end > 0 && base + read - end < size)) continue
      badFrame(reading, { name, isLast, offset: base, size, fault })
    }
  } finally {
    fs.closeSync(fd)
  }
}

/** Follows the frames of a window that begins at `base` of its file: where they end, and why. */
function readWindow(
  reading: Reading,
  name: string,
  base: number,
  bytes: Buffer,
): { readonly end: number; readonly fault: string | null } {
  let at = 0
  while (at < bytes.length) {
    const fault = frameFault(bytes, at)
    if (fault !== null) return { end: at, fault }
    const [idx, batch, end] = [frameIdx(bytes, at), frameBatch(bytes, at), frameEnd(bytes, at)]
    const belongs = reading.frontier.size
    if (reading.batch === -1 && belongs > 0) reading.batch = batch
    if (idx !== belongs || (batch !== reading.batch && batch !== reading.batch + 1)) {
      const what =
        idx === belongs
          ? `batch ${batch} after batch ${reading.batch}`
          : `index ${idx} where ${belongs} belongs`
      violated(reading, `seg/${name}`, base + at, belongs, what)
    }
    reading.batch = batch
    if (reading.begin > 0 && belongs < reading.lastSigned)
      reading.said = Math.max(reading.said, pruneIn(bytes.subarray(at + headerBytes, end)))
    reading.frontier.push(leafHashInPlace(bytes, at + headerBytes, end), reading.tiles.add)
    checkHead(reading, `seg/${name}`, base + at)
    if (reading.closing !== null)
      violated(reading, `seg/${name}`, base + at, belongs, 'the log goes on behind its end')
    const body = bytes.subarray(at + headerBytes, end)
    if (mayJoin(body)) readJoint(reading, body, belongs, `seg/${name}`, base + at)
    at = end
  }
  return { end: at, fault: null }
}

/** The leaf that ends an epoch, or begins one: it names the epoch next to it, in words that can be relied on. */
function readJoint(
  reading: Reading,
  body: Uint8Array,
  idx: number,
  file: string,
  offset: number,
): void {
  let opening: Opening | null = null
  try {
    reading.closing = closingIn(body)
    opening = openingIn(body)
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    violated(reading, file, offset, idx, error.message)
  }
  if (opening === null) return
  if (idx > 0) violated(reading, file, offset, idx, 'the log begins a second time')
  reading.opening = opening
}

interface Bad {
  readonly name: string
  readonly isLast: boolean
  readonly offset: number
  /** Where the segment ended when it was opened. */
  readonly size: number
  readonly fault: string
}

/** A tail that an interrupted write explains is not provable; everything else is a violation. */
function badFrame(reading: Reading, { name, isLast, offset, size, fault }: Bad): never {
  const file = `seg/${name}`
  const idx = reading.frontier.size
  const place = { origin: reading.origin, idx, segment: file, offset, what: fault }
  const tail = (): Buffer => fs.readFileSync(join(reading.directory, file)).subarray(offset, size)
  if (isLast && idx >= reading.lastSigned && isTornTail(tail(), 0, reading.batch))
    throw new Found(
      'not-provable',
      'the last, unsigned write is incomplete; opening the log recovers it',
      place,
    )
  throw new Found('violated', fault, place)
}

/** The hashes of what was pruned, held to every head that was signed over it and, with what follows, to every later one. */
async function readPruned(reading: Reading): Promise<void> {
  const { directory, begin, frontier } = reading
  if (begin === 0) return
  try {
    for (const leaf of prunedLeaves(directory, begin)) {
      frontier.push(leaf, reading.tiles.add)
      checkHead(reading, 'tile/0', Math.floor((frontier.size - 1) / tileWidth))
      if (frontier.size % 65_536 === 0) await setImmediate()
    }
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    throw new Found('not-provable', error.message)
  }
}

async function readSegments(reading: Reading, listed: readonly string[]): Promise<void> {
  // Of what was pruned since, no head that was read speaks; what was added since is read too.
  const names = [...new Set([...listed, ...listSegments(reading.directory)])].toSorted()
  reading.begin = firstOf(names)
  await readPruned(reading)
  for (const [i, name] of names.entries()) {
    const idx = reading.frontier.size
    if (segmentFirst(name) !== idx)
      violated(reading, `seg/${name}`, 0, idx, `the segment begins elsewhere than at ${idx}`)
    readFrames(reading, name, i === names.length - 1)
    await setImmediate()
  }
  const unsaid = beginningFault(reading.begin, reading.said)
  if (unsaid !== null) violated(reading, `seg/${names[0]}`, 0, reading.begin, unsaid)
  const { size } = reading.frontier
  if (size >= reading.lastSigned) return
  const name = names.at(-1)
  const offset = name === undefined ? 0 : fs.statSync(join(reading.directory, 'seg', name)).size
  const what = `${size} events are left of the ${reading.lastSigned} that were signed`
  violated(reading, name === undefined ? 'seg' : `seg/${name}`, offset, size, what)
}

/** Full tiles on disk must hold the hashes just computed; one that is absent proves nothing and harms nothing. */
function tileCheck(
  directory: string,
  reading: () => Reading,
): (path: string, bytes: Uint8Array) => void {
  return (path, bytes) => {
    if (!fs.existsSync(path)) return
    const stored = fs.readFileSync(path)
    if (Buffer.compare(stored, bytes) === 0) return
    let offset = 0
    while (offset < bytes.length && stored[offset] === bytes[offset]) offset++
    const file = path.slice(directory.length + 1)
    violated(reading(), file, offset, null, 'a stored hash is not the hash of the events')
  }
}

/**
 * Verifies a log offline. `proven`: every checkpoint is signed by every key given, sizes grow, the events hash to
 * every signed root, frames and tiles are intact. Throws key.invalid for a vkey that is not one; everything that is
 * wrong with the log itself is a verdict.
 */
export async function verifyLog(options: VerifyOptions): Promise<Verdict> {
  for (;;) {
    const listed = listSegments(options.directory)
    const verdict = await readOnce(options, listed)
    // Pruned while it was read: what is left is read again, with the heads that say so. As often as that is so: what goes is
    // the very segment that is read first, and the beginning only moves on, to the newest segment at most.
    const pruned = firstOf(listSegments(options.directory)) > firstOf(listed)
    if (verdict.outcome === 'proven' || !pruned) return verdict
  }
}

/** Before the heads are read the segments were listed: what had gone by then, those heads cover the word of. */
async function readOnce(options: VerifyOptions, listed: readonly string[]): Promise<Verdict> {
  const reading = begin(options)
  const witnesses = (options.witnessKeys ?? []).map(parseWitnessKey)
  let last: Checkpoint[] = []
  let checkpoints = 0
  let cosigned: Cosigned[] | undefined
  const verdict = (): Omit<Verdict, 'outcome'> => ({
    events: reading.frontier.size,
    uncovered: Math.max(0, reading.frontier.size - (last.at(-1)?.size ?? 0)),
    checkpoint: last.at(-1) ?? null,
    checkpoints,
    ...(reading.begin === 0 ? {} : { pruned: reading.begin }),
    ...(cosigned === undefined ? {} : { witnesses: cosigned }),
    ...(reading.opening === null ? {} : { opening: reading.opening }),
    // An end that nobody signed may still be taken back.
    ...(reading.closing === null || reading.frontier.size > reading.matched
      ? {}
      : { closing: reading.closing }),
  })
  try {
    if (reading.origin === '') throw new Found('not-provable', 'no verifier key was given')
    ;({ last, count: checkpoints } = readSettled(reading))
    reading.lastSigned = last.at(-1)?.size ?? 0
    const held = options.held ?? []
    readHeld(reading, held)
    if (witnesses.length > 0) cosigned = readCosigned(reading, witnesses, last, held)
    await readSegments(reading, listed)
    demandQuorum(cosigned ?? [], options.quorum ?? byName(witnesses).size)
    return { outcome: 'proven', ...verdict() }
  } catch (error) {
    if (error instanceof Error && 'syscall' in error)
      return { outcome: 'not-provable', ...verdict(), why: `it cannot be read: ${error.message}` }
    if (!(error instanceof Found)) throw error
    const { outcome, place, message } = error
    return { outcome, ...verdict(), ...(place === undefined ? {} : { place }), why: message }
  }
}

function begin({ directory, verifierKeys }: VerifyOptions): Reading {
  const verifiers = verifierKeys.map(parseVkey)
  const reading: Reading = {
    directory,
    origin: verifiers[0]?.name ?? '',
    verifiers,
    frontier: new Frontier(),
    tiles: new TileWriter(
      directory,
      tileCheck(directory, () => reading),
    ),
    heads: new Map(),
    lastSigned: 0,
    matched: 0,
    batch: -1,
    begin: 0,
    said: 0,
    opening: null,
    closing: null,
    window: Buffer.allocUnsafe(windowBytes),
  }
  return reading
}
