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
import { parseVkey } from './note.ts'
import { compare, follow } from './handover.ts'
import { keysLimit, parseKept, parsed, parseShown, shownIn, texts } from './shown.ts'
import type { Kept, Shown } from './shown.ts'

/** Logs whose heads are kept, at most: a gateway has one, and its alternatives, which the owner accepts, each one. */
const logsKept = 16
/** Evidence kept of heads that were signed with the keys held. */
const conflictsKept = 8
/** What was signed with other keys or not at all, anybody can make: one file of each kind, and none of the places above. */
const unproven = {
  unsigned: 'conflict-unsigned.json',
  earlier: 'conflict-earlier.json',
  other: 'conflict-other.json',
} as const
const unprovenNames: ReadonlySet<string> = new Set(Object.values(unproven))
/**
 * `first`, `same`, `grew`: in order. `followed`: the log was rotated, and is shown to go on from the epoch that was held,
 * which is let go of. `conflict`: the head is not kept; `code` is `head.rollback` (shorter, or of an
 * epoch gone by), `head.fork` (two of one size), `head.unproven` (longer, and not shown to begin with what was held),
 * `head.signature` (not signed by the keys known), `head.invalid` (not of the format), `head.hidden` (not shown at
 * all), `head.other` (a log of another name, which the owner has not accepted), `head.full` (more logs than one place
 * needs). `held` is the note that it speaks against, for whoever is told.
 */
export type Verdict =
  | { readonly kind: 'first' | 'same' | 'grew' | 'followed' }
  | {
      readonly kind: 'conflict'
      readonly code: string
      readonly message: string
      readonly held?: string
    }

function conflict(code: string, message: string, held?: Kept | null): Verdict {
  return { kind: 'conflict', code, message, ...(held ? { held: held.note } : {}) }
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

  /** What is kept of the newest epoch before `origin` of the same node's log; null where none is. Errors: note.invalid. */
  before(origin: string): Kept | null {
    const earlier = this.all().filter((kept) => succeeds(origin, kept.origin))
    return earlier.toSorted((a, b) => (succeeds(b.origin, a.origin) ? 1 : -1))[0] ?? null
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
    const rotated = kept === null && shown.handovers !== undefined
    const before = rotated ? this.before(shown.origin) : null
    const accepted = kept === null ? this.#accepted(shown.origin) : null
    if (before !== null) {
      const found = follow(before, shown)
      // The owner's word stands above what the old keys say: whoever stole those ends their epoch for keys of his own.
      if (accepted === null || agrees(found, accepted.keys)) return this.#over(before, shown, found)
    }
    const known = kept?.keys ?? accepted?.keys ?? shown.keys
    let head: Checkpoint
    try {
      head = openCheckpoint(shown.note, known.map(parseVkey))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return this.#refuse(
        kept ?? before,
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
    const message = `the gateway showed ${kept.origin} before, and now shows no log`
    return conflict('head.hidden', message, kept)
  }

  /**
   * The owner's word that a gateway may show a log of this name too: the next head of it is a first one, signed by
   * `keys` (vkeys; none: by those it comes with). What lies here against that name is let go of. Says whether that was
   * news: a log whose head is kept already needs no word. Errors: key.invalid.
   */
  accept(origin: string, keys: readonly string[]): boolean {
    if (keys.map(parseVkey).some(({ name }) => name !== origin))
      throw new AuditError('key.invalid', `not all of these keys are of ${origin}`)
    if (this.held(origin) !== null) return false
    this.#write(this.#path(origin, 'accepted-'), { origin, keys, at: this.#now() })
    const against = join(this.#directory, unproven.other)
    if (existsSync(against) && shownIn(readFileSync(against, 'utf8')) === origin)
      rmSync(against, { force: true })
    return true
  }

  /** Lets go of a log and of the owner's word for it: the next head is a first one. Says whether there was either. */
  forget(origin: string): boolean {
    const paths = [this.#path(origin), this.#path(origin, 'accepted-')]
    const there = paths.some((path) => existsSync(path))
    for (const path of paths) rmSync(path, { force: true })
    return there
  }

  /** The files of evidence. */
  conflicts(): string[] {
    if (!existsSync(this.#directory)) return []
    return readdirSync(this.#directory)
      .filter((name) => name.startsWith('conflict-'))
      .map((name) => join(this.#directory, name))
  }

  /** A rotation: the epoch that was held ended for just this one, or this one is refused and both stay. */
  #over(before: Kept, shown: Shown, found: ReturnType<typeof follow>): Verdict {
    // What does not even lead to this log anybody can make.
    const place = 'code' in found && found.code === 'head.unproven' ? unproven.other : undefined
    if ('code' in found) return this.#refuse(before, shown, found.code, found.message, place)
    this.#keep(shown.origin, found.keys, openCheckpoint(shown.note, found.keys.map(parseVkey)))
    // Only now that the new one is durable; killed between, the old one is an epoch gone by.
    rmSync(this.#path(before.origin), { force: true })
    rmSync(this.#path(shown.origin, 'accepted-'), { force: true })
    return { kind: 'followed' }
  }

  #first(shown: Shown, head: Checkpoint): Verdict {
    const all = this.all()
    const later = all.find(({ origin }) => succeeds(origin, shown.origin))
    if (later !== undefined) {
      const message = `the gateway shows ${shown.origin}, and showed ${later.origin} before`
      return this.#refuse(later, shown, 'head.rollback', message, unproven.earlier)
    }
    const [newest] = all.toSorted((a, b) => b.at - a.at)
    const accepted = this.#accepted(shown.origin)
    if (newest !== undefined && accepted === null) {
      const message = `the gateway shows the log ${shown.origin}, which nobody has accepted here, and showed ${newest.origin} before`
      return this.#refuse(newest, shown, 'head.other', message, unproven.other)
    }
    if (all.length >= logsKept)
      return conflict('head.full', `${all.length} logs were shown here; forget those that are gone`)
    this.#keep(shown.origin, accepted?.keys ?? shown.keys, head)
    rmSync(this.#path(shown.origin, 'accepted-'), { force: true })
    return { kind: 'first' }
  }

  /** The owner's word for a log not seen yet. Errors: note.invalid for a file that somebody damaged. */
  #accepted(origin: string): { readonly keys: readonly string[] | undefined } | null {
    const path = this.#path(origin, 'accepted-')
    if (!existsSync(path)) return null
    const keys = texts(parsed(readFileSync(path, 'utf8'))['keys'], keysLimit)
    if (keys === null) throw new AuditError('note.invalid', `${path} cannot be used`)
    return { keys: keys.length === 0 ? undefined : keys }
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
    return conflict(code, message, kept)
  }

  #write(path: string, value: unknown): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    this.#disk.replace(path, Buffer.from(`${JSON.stringify(value)}\n`))
  }

  #path(origin: string, kind: 'accepted-' | '' = ''): string {
    const name = createHash('sha256').update(origin).digest('hex').slice(0, 16)
    return join(this.#directory, `${kind}${name}.json`)
  }
}

/** Whether a rotation is shown, and leads to the keys that the owner named, if any. */
function agrees(found: ReturnType<typeof follow>, named: readonly string[] = []): boolean {
  return 'keys' in found && named.every((key) => found.keys.includes(key))
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
