/**
 * The heads somebody outside was shown: the newest of each log, kept where the gateway cannot reach. A head that does
 * not go on from the one kept is refused, and both stay as evidence. docs/audit.md section "Everybody a witness".
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { openCheckpoint, splitNotes } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { realDisk, type Disk } from './disk.ts'
import { AuditError } from './errors.ts'
import { fromBase64, parseVkey } from './note.ts'
import { verifyConsistency, type Hash } from './tree.ts'

/** Logs whose heads are kept, at most: a gateway has one, and its alternatives each one. */
const logsKept = 16
/** Evidence kept of heads that were signed with the keys held. */
const conflictsKept = 8
/** What was signed with other keys or not at all, anybody can make: one file of each kind, and none of the places above. */
const unproven = { unsigned: 'conflict-unsigned.json', earlier: 'conflict-earlier.json' } as const
const unprovenNames: ReadonlySet<string> = new Set(Object.values(unproven))
/** A tree of 2^53 leaves has proofs of at most so many hashes. */
const proofLimit = 64
const keysLimit = 4

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

/**
 * `first`, `same`, `grew`: in order. `conflict`: the head is not kept; `code` is `head.rollback` (shorter, or of an
 * epoch gone by), `head.fork` (two of one size), `head.unproven` (longer, and not shown to begin with what was held),
 * `head.signature` (not signed by the keys known), `head.invalid` (not of the format), `head.hidden` (not shown at
 * all), `head.full` (more logs than one place needs).
 */
export type Verdict =
  | { readonly kind: 'first' | 'same' | 'grew' }
  | { readonly kind: 'conflict'; readonly code: string; readonly message: string }

function conflict(code: string, message: string): Verdict {
  return { kind: 'conflict', code, message }
}

export class HeadKeeper {
  readonly #directory: string
  readonly #now: () => number
  readonly #disk: Disk

  /** Keeps heads in `directory`, made when there is one to keep. */
  constructor(directory: string, now: () => number, disk: Disk = realDisk) {
    this.#directory = directory
    this.#now = now
    this.#disk = disk
  }

  /** What is kept of a log. Errors: note.invalid for a file that somebody damaged. */
  held(origin: string): Kept | null {
    const path = this.#path(origin)
    return existsSync(path) ? parseKept(readFileSync(path, 'utf8'), path) : null
  }

  /** Everything kept. Errors: note.invalid. */
  all(): Kept[] {
    if (!existsSync(this.#directory)) return []
    return readdirSync(this.#directory)
      .filter((name) => /^[0-9a-f]{16}\.json$/.test(name))
      .map((name) => join(this.#directory, name))
      .map((path) => parseKept(readFileSync(path, 'utf8'), path))
  }

  /** Judges what a gateway shows, `value` as it came; keeps it where it is in order, durably before this returns. */
  see(value: unknown): Verdict {
    const shown = parseShown(value)
    if (shown === null)
      return conflict('head.invalid', 'what the gateway shows of its log is no head')
    const kept = this.held(shown.origin)
    const known = kept?.keys ?? shown.keys
    let head: Checkpoint
    try {
      head = openCheckpoint(shown.note, known.map(parseVkey))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return this.#refuse(
        kept,
        shown,
        'head.signature',
        `the head of the log is not signed: ${why}`,
        unproven.unsigned,
      )
    }
    if (head.origin !== shown.origin)
      return this.#refuse(kept, shown, 'head.signature', `the head is of ${head.origin}`)
    if (kept === null) return this.#first(shown, head)
    const wrong = compare(kept, head, shown)
    if (wrong !== null) return this.#refuse(kept, shown, wrong.code, wrong.message)
    this.#keep(shown.origin, kept.keys, head)
    return { kind: head.size === kept.size ? 'same' : 'grew' }
  }

  /** What to say of a gateway that shows nothing: nothing, unless it has shown something before. */
  hidden(): Verdict | null {
    const [kept] = this.all()
    if (kept === undefined) return null
    return conflict('head.hidden', `the gateway showed ${kept.origin} before, and now shows no log`)
  }

  /** Lets go of a log: the next head of it is a first one. Says whether there was one. */
  forget(origin: string): boolean {
    const path = this.#path(origin)
    const there = existsSync(path)
    rmSync(path, { force: true })
    return there
  }

  /** The files of evidence. */
  conflicts(): string[] {
    if (!existsSync(this.#directory)) return []
    return readdirSync(this.#directory)
      .filter((name) => name.startsWith('conflict-'))
      .map((name) => join(this.#directory, name))
  }

  #first(shown: Shown, head: Checkpoint): Verdict {
    const all = this.all()
    const later = all.find(({ origin }) => succeeds(origin, shown.origin))
    if (later !== undefined) {
      const message = `the gateway shows ${shown.origin}, and showed ${later.origin} before`
      return this.#refuse(later, shown, 'head.rollback', message, unproven.earlier)
    }
    if (all.length >= logsKept)
      return conflict('head.full', `${all.length} logs were shown here; forget those that are gone`)
    this.#keep(shown.origin, shown.keys, head)
    return { kind: 'first' }
  }

  #keep(origin: string, keys: readonly string[], { note, size, root }: Checkpoint): void {
    const kept: Kept = { origin, keys, note, size, root, at: this.#now() }
    this.#write(this.#path(origin), kept)
  }

  /** Keeps both heads, a bounded number of times. */
  #refuse(kept: Kept | null, shown: Shown, code: string, message: string, place?: string): Verdict {
    if (kept === null) return conflict(code, message)
    const id = createHash('sha256').update(shown.note).digest('hex').slice(0, 16)
    const path = join(this.#directory, place ?? `conflict-${id}.json`)
    const proven = this.conflicts().filter((name) => !unprovenNames.has(basename(name)))
    if (!existsSync(path) && (place !== undefined || proven.length < conflictsKept))
      this.#write(path, { code, message, at: this.#now(), held: kept, shown })
    return conflict(code, message)
  }

  #write(path: string, value: unknown): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    this.#disk.replace(path, Buffer.from(`${JSON.stringify(value)}\n`))
  }

  #path(origin: string): string {
    const name = createHash('sha256').update(origin).digest('hex').slice(0, 16)
    return join(this.#directory, `${name}.json`)
  }
}

/** Whether `origin` is a later epoch of the same node's log: `<domain>/audit/<node>/<epoch>`. */
function succeeds(origin: string, before: string): boolean {
  const split = (text: string): [string, number] => {
    const at = text.lastIndexOf('/')
    return [text.slice(0, at), Number(text.slice(at + 1))]
  }
  const [stem, epoch] = split(origin)
  const [other, earlier] = split(before)
  return stem === other && epoch > earlier
}

function compare(
  kept: Kept,
  head: Checkpoint,
  { from, proof }: Shown,
): { readonly code: string; readonly message: string } | null {
  if (head.size < kept.size)
    return {
      code: 'head.rollback',
      message: `the log has ${head.size} events where it had ${kept.size} before`,
    }
  const [old, root] = [Buffer.from(kept.root, 'hex'), Buffer.from(head.root, 'hex')]
  if (head.size === kept.size)
    return head.root === kept.root
      ? null
      : { code: 'head.fork', message: `two heads of ${head.size} events are signed` }
  if (from === kept.size && verifyConsistency(kept.size, head.size, proof.map(hashOf), old, root))
    return null
  return {
    code: 'head.unproven',
    message: `the log of ${head.size} events is not shown to begin with the ${kept.size} it had before`,
  }
}

function hashOf(text: string): Hash {
  return fromBase64(text) ?? new Uint8Array(0)
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}

function texts(value: unknown, most: number): string[] | null {
  if (!Array.isArray(value) || value.length > most) return null
  return value.every((one) => typeof one === 'string') ? value : null
}

function parseShown(value: unknown): Shown | null {
  const { origin, keys: keysOf, note, from, proof: proofOf } = record(value)
  const [keys, proof] = [texts(keysOf, keysLimit), texts(proofOf, proofLimit)]
  if (typeof origin !== 'string' || typeof note !== 'string' || !Number.isSafeInteger(from))
    return null
  if (keys === null || keys.length === 0 || proof === null) return null
  if (proof.some((one) => hashOf(one).length !== 32)) return null
  return { origin, keys, note, from: from as number, proof }
}

/** A file of ours, read as strictly as if it were not. */
function parseKept(text: string, path: string): Kept {
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

/**
 * The heads in a text of notes, each followed by a blank line: what somebody exported. All must be of one log and signed
 * by every key. Errors: note.invalid, note.signature, key.invalid.
 */
export function openHeads(text: string, verifierKeys: readonly string[]): Checkpoint[] {
  const verifiers = verifierKeys.map(parseVkey)
  const heads: Checkpoint[] = []
  for (const found of splitNotes(Buffer.from(text))) {
    if (!('checkpoint' in found)) throw new AuditError('note.invalid', found.what)
    heads.push(openCheckpoint(found.checkpoint.note, verifiers))
    if (heads.at(-1)?.origin !== verifiers[0]?.name)
      throw new AuditError('note.invalid', `a head of ${found.checkpoint.origin}`)
  }
  if (heads.length === 0) throw new AuditError('note.invalid', 'it holds no head')
  return heads
}
