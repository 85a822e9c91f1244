/** What a gateway shows of its log, and the file that is kept of it: both read strictly, into what can be judged. */
import { openCheckpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import { fromBase64, parseVkey } from './note.ts'
import type { Hash } from './tree.ts'

/** Rotations that one answer shows, at most: who missed more of them has the log accepted anew. */
export const handoversLimit = 4
/** A tree of 2^53 leaves has proofs of at most so many hashes. */
const proofLimit = 64
export const keysLimit = 4

/** One rotation, for somebody who holds a head of the epoch that ended by it. Hashes and leaves in base64. */
export interface Handover {
  /** The last head of that epoch, a signed note, and what leads to it from the head of `from` events. */
  readonly note: string
  readonly from: number
  readonly proof: readonly string[]
  /** Its last leaf, and the hashes that lead from there to that head. */
  readonly closing: string
  readonly closing_path: readonly string[]
  /** The first leaf of the next epoch, and the hashes to the head of that which is shown next. */
  readonly opening: string
  readonly opening_path: readonly string[]
}

/** What a gateway shows of its log. */
export interface Shown {
  readonly origin: string
  /** Vkeys of the log, believed only the first time. */
  readonly keys: readonly string[]
  /** The newest head, a signed note. */
  readonly note: string
  /** The size of the head that was held, and the hashes (base64) that lead from it to this one. */
  readonly from: number
  readonly proof: readonly string[]
  /** Where a head of an earlier epoch is held: the rotations from that one to this, in order. */
  readonly handovers?: readonly Handover[]
}

/** What is kept of one log. */
export interface Kept {
  readonly origin: string
  /** Vkeys that signed the first head seen, and must have signed every other. */
  readonly keys: readonly string[]
  readonly note: string
  readonly size: number
  /** Root, 64 hex digits. */
  readonly root: string
  /** When it was last shown, epoch ms by this machine's clock. */
  readonly at: number
}

/** A hash in base64; empty for what is none. */
export function hashOf(text: string): Hash {
  return fromBase64(text) ?? new Uint8Array(0)
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

/** An object of JSON, or one without members. */
export function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    return record(JSON.parse(text))
  } catch {
    // What is no JSON has no members either: whoever reads it misses them, and says so.
    return {}
  }
}

/** The log that a file of evidence was shown. */
export function shownIn(text: string): unknown {
  return record(parsed(text)['shown'])['origin']
}

/** At most so many texts, or null. */
export function texts(value: unknown, most: number): string[] | null {
  if (!Array.isArray(value) || value.length > most) return null
  return value.every((one) => typeof one === 'string') ? value : null
}

/** What came from a gateway; null where it is not of the format. */
export function parseShown(value: unknown): Shown | null {
  const { origin, keys: keysOf, note, from, proof: proofOf } = record(value)
  const [keys, proof] = [texts(keysOf, keysLimit), hashesIn(proofOf)]
  if (typeof origin !== 'string' || typeof note !== 'string' || !Number.isSafeInteger(from))
    return null
  if (keys === null || keys.length === 0 || proof === null) return null
  const { handovers: rotations = [] } = record(value)
  if (!Array.isArray(rotations) || rotations.length > handoversLimit) return null
  const handovers = rotations.map(parseHandover).filter((one) => one !== null)
  if (handovers.length !== rotations.length) return null
  return {
    origin,
    keys,
    note,
    from: from as number,
    proof,
    ...(handovers.length === 0 ? {} : { handovers }),
  }
}

/** Hashes in base64, at most as many as a proof has; null for anything else. */
function hashesIn(value: unknown): string[] | null {
  const hashes = texts(value, proofLimit)
  return hashes === null || hashes.some((one) => hashOf(one).length !== 32) ? null : hashes
}

function parseHandover(value: unknown): Handover | null {
  const { note, from, closing, opening, ...rest } = record(value)
  const [proof, closingPath, openingPath] = [
    hashesIn(rest['proof']),
    hashesIn(rest['closing_path']),
    hashesIn(rest['opening_path']),
  ]
  if (typeof note !== 'string' || typeof closing !== 'string' || typeof opening !== 'string')
    return null
  if (proof === null || closingPath === null || openingPath === null) return null
  if (!Number.isSafeInteger(from)) return null
  return {
    note,
    from: from as number,
    proof,
    closing,
    closing_path: closingPath,
    opening,
    opening_path: openingPath,
  }
}

/** A file of ours, read as strictly as if it were not. */
export function parseKept(text: string, path: string): Kept {
  try {
    const { origin, keys: keysOf, note, at } = record(JSON.parse(text))
    const keys = texts(keysOf, keysLimit)
    if (keys === null || typeof origin !== 'string' || typeof note !== 'string')
      throw new Error('it is not of the format')
    const { size, root } = openCheckpoint(note, keys.map(parseVkey))
    return { origin, keys, note, size, root, at: typeof at === 'number' ? at : 0 }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new AuditError('note.invalid', `${path} cannot be used: ${why}`, { cause })
  }
}
