/** One event, shown to be in the log without showing the rest: c2sp.org/tlog-proof, made and checked. */
import { openCheckpoint, parseCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import { joinOf } from './format/ocsf.ts'
import { fromBase64, parseVkey } from './note.ts'
import { LogReader } from './read.ts'
import type { Entry } from './read.ts'
import { tileReader } from './tile.ts'
import { consistencyProof, inclusionProof, leafHash, verifyInclusion } from './tree.ts'
import type { Hash, Perfect } from './tree.ts'

const firstLine = 'c2sp.org/tlog-proof@v1'

export interface Proof {
  readonly entry: Entry
  /** The text of a `.tlog-proof` file. */
  readonly proof: string
  readonly checkpoint: Checkpoint
}

/** Hashes of a log on disk: full tiles, and leaves read for the ragged edge. */
export function hashesOf(directory: string, reader: LogReader): Perfect {
  const recent = new Map<number, Hash>()
  return tileReader(directory, (idx) => {
    let known = recent.get(idx)
    if (known === undefined) {
      let count = 0
      for (const { idx: at, body } of reader.bodies(idx)) {
        recent.set(at, leafHash(body))
        if (++count >= 256) break
      }
      known = recent.get(idx)
    }
    if (known === undefined) throw new AuditError('log.range', `event ${idx} is not in the log`)
    return known
  })
}

/** So many questions are answered from the hashes that were read: then they are let go of, as are the leaves behind them. */
const questions = 1_024

/** The hashes of one log, kept for the head that many ask about, for a bounded number of questions. */
export class HashesKept {
  readonly #directory: string
  readonly #reader: LogReader
  #known: { readonly size: number; readonly perfect: Perfect; asked: number } | null = null

  constructor(directory: string, reader: LogReader) {
    this.#directory = directory
    this.#reader = reader
  }

  /** Hashes as the tree of `size` leaves has them. They reject what is not there with AuditError log.range. */
  of(size: number): Perfect {
    let known = this.#known
    if (known?.size !== size || known.asked >= questions)
      known = { size, perfect: hashesOf(this.#directory, this.#reader), asked: 0 }
    known.asked++
    this.#known = known
    return known.perfect
  }
}

function find(reader: LogReader, which: { idx: number } | { uid: string }): number {
  if ('idx' in which) return which.idx
  for (const { idx, body } of reader.bodies(0)) if (joinOf(body)?.uid === which.uid) return idx
  throw new AuditError('log.range', `no event has the uid ${which.uid}`)
}

/**
 * The proof that one event stands in the log, against the first checkpoint that covers it, or against `note`.
 * Works on a live log's directory and on a copy. Errors: log.range (no such event, or none signed yet).
 */
export function proveEntry(
  directory: string,
  origin: string,
  which: { readonly idx: number } | { readonly uid: string },
  note?: string,
): Proof {
  const reader = new LogReader(directory, origin)
  const idx = find(reader, which)
  const [entry] = reader.entries(idx, Number.MAX_SAFE_INTEGER, 1)
  if (entry?.idx !== idx) throw new AuditError('log.range', `event ${idx} is not in the log`)
  const checkpoint = note === undefined ? reader.notes.covering(idx) : parseCheckpoint(note)
  if (checkpoint === null || checkpoint.size <= idx)
    throw new AuditError('log.range', `event ${idx} is not covered by a checkpoint yet`)
  const path = inclusionProof(hashesOf(directory, reader), idx, checkpoint.size)
  const lines = path.map((value) => `${Buffer.from(value).toString('base64')}\n`)
  const proof = `${firstLine}\nindex ${idx}\n${lines.join('')}\n${checkpoint.note}`
  return { entry, proof, checkpoint }
}

/** Hashes that show the tree of `size` to begin with the tree of `oldSize`. Errors: log.range. */
export function proveConsistency(
  directory: string,
  origin: string,
  oldSize: number,
  size: number,
): Hash[] {
  if (!(oldSize >= 0 && oldSize <= size)) throw new AuditError('log.range', `${oldSize} of ${size}`)
  return consistencyProof(hashesOf(directory, new LogReader(directory, origin)), oldSize, size)
}

/**
 * Whether a `.tlog-proof` shows that `body` stands at its index in a log signed by every key given.
 * Errors: note.invalid, note.signature, key.invalid; false when the hashes do not lead to the root.
 */
export function verifyProof(
  proof: string,
  body: Uint8Array,
  verifierKeys: readonly string[],
): boolean {
  const blank = proof.indexOf('\n\n')
  const [first, index = '', ...path] = proof.slice(0, blank).split('\n')
  const match = /^index (0|[1-9]\d{0,15})$/.exec(index)
  if (blank < 0 || first !== firstLine || match === null || path.length > 63)
    throw new AuditError('note.invalid', 'not a tlog-proof')
  const hashes = path.map((line) => {
    const value = fromBase64(line)
    if (value === null || value.length !== 32)
      throw new AuditError('note.invalid', 'a hash of the proof is malformed')
    return value
  })
  const checkpoint = openCheckpoint(proof.slice(blank + 2), verifierKeys.map(parseVkey))
  const root = Buffer.from(checkpoint.root, 'hex')
  return verifyInclusion(leafHash(body), Number(match[1]), checkpoint.size, hashes, root)
}

/** Entries of a log on disk, offline: from `from` on, to the end or `limit`. */
export function* readLog(
  directory: string,
  origin: string,
  from = 0,
  limit = Number.POSITIVE_INFINITY,
): Generator<Entry> {
  const reader = new LogReader(directory, origin)
  let at = from
  let left = limit
  while (left > 0) {
    const entries = reader.entries(at, Number.MAX_SAFE_INTEGER, Math.min(left, 1_000), 1024 * 1024)
    const last = entries.at(-1)
    if (last === undefined) return
    yield* entries
    at = last.idx + 1
    left -= entries.length
  }
}
