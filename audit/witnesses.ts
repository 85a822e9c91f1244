/**
 * What witnesses handed in: the newest head each of them cosigned, kept beside the log. A cosignature of another
 * history than this log's is kept too, as evidence against one of the two.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openCheckpoint } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { byName, cosignedBy, withLines } from './cosign.ts'
import type { Cosigned } from './cosign.ts'
import { realDisk, type Disk } from './disk.ts'
import { AuditError } from './errors.ts'
import { parseVkey, parseWitnessKey, type Verifier } from './note.ts'
import { firstOf, prunedEdge } from './pruned.ts'
import { NoteReader } from './read.ts'
import { listSegments } from './recover.ts'

const witnessFolder = 'witness'
/** Conflicts kept; there is something to look at from the first. */
const conflictsKept = 16

export interface WitnessesOptions {
  /** The log's directory. */
  readonly directory: string
  /** The log's own keys. */
  readonly verifiers: readonly Verifier[]
  /** The keys of every witness that may hand something in. */
  readonly witnesses: readonly Verifier[]
  readonly disk: Disk
  /** The last head of an epoch that ended: its folder may be moved away while this is in use. */
  readonly last?: Checkpoint
}

export class Witnesses {
  readonly #options: WitnessesOptions
  readonly #notes: NoteReader
  readonly #newest = new Map<string, Cosigned & { readonly checkpoint: Checkpoint }>()

  /** Reads what was kept; a file that does not hold says nothing. */
  constructor(options: WitnessesOptions) {
    this.#options = options
    const { directory, verifiers, witnesses } = options
    this.#notes = new NoteReader(directory, verifiers[0]?.name ?? '')
    for (const checkpoint of keptNotes(directory, verifiers))
      for (const cosigned of cosignedBy(checkpoint, witnesses)) this.#take(cosigned, checkpoint)
  }

  get names(): string[] {
    return [...byName(this.#options.witnesses).keys()]
  }

  /** The newest word of each witness that has given one. */
  list(): Cosigned[] {
    return [...this.#newest.values()]
  }

  /**
   * Takes a head with cosignatures under it, and says whose were new. Errors: note.* (not signed by this log),
   * witness.unknown (no known witness signed it), witness.conflict (signed by both, and not what this log holds),
   * log.range (the folder of an epoch that ended is not here any more).
   */
  offer(note: string): Cosigned[] {
    const { verifiers, witnesses } = this.#options
    const checkpoint = openCheckpoint(note, verifiers)
    const all = cosignedBy(checkpoint, witnesses)
    if (all.length === 0)
      throw new AuditError('witness.unknown', 'no witness known here signed this head')
    this.#demandOurs(checkpoint)
    if (this.#moved) throw this.#notHere()
    const fresh = all.filter(({ name, size }) => size > (this.#newest.get(name)?.size ?? 0))
    for (const cosigned of fresh) {
      this.#keep(`${fileOf(cosigned.name)}.note`, note)
      this.#take(cosigned, checkpoint)
    }
    return fresh
  }

  /** The note of a head of ours, with every line that witnesses put under that head. */
  cosigned(checkpoint: Checkpoint): string {
    return this.list()
      .filter(({ size, root }) => size === checkpoint.size && root === checkpoint.root)
      .reduce((note, { lines }) => withLines(note, lines), checkpoint.note)
  }

  /** The newest head that a witness cosigned, with all lines; null while there is none. */
  newest(): Checkpoint | null {
    const [first, ...rest] = this.#newest.values()
    if (first === undefined) return null
    const top = rest.reduce((best, one) => (one.size > best.size ? one : best), first)
    return { ...top.checkpoint, note: this.cosigned(top.checkpoint) }
  }

  /** Why a head speaks against this log: its keys signed it, and it is not there. Null for any other text. */
  stray(note: string): string | null {
    try {
      this.#demandOurs(openCheckpoint(note, this.#options.verifiers))
      return null
    } catch (error) {
      if (error instanceof AuditError && error.code === 'witness.conflict') return error.message
      if (error instanceof AuditError) return null
      throw error
    }
  }

  /** A head that both signed is one of ours, or somebody rewrote something. */
  #demandOurs(checkpoint: Checkpoint): void {
    const { last } = this.#options
    if (last?.size === checkpoint.size && last.root === checkpoint.root) return
    const moved = this.#moved
    // More than it ended with, or another end, speaks against it wherever its folder is.
    if (moved && checkpoint.size < (last?.size ?? 0)) throw this.#notHere()
    const own = moved || checkpoint.size === 0 ? null : this.#notes.covering(checkpoint.size - 1)
    if (own?.size === checkpoint.size && own.root === checkpoint.root) return
    if (this.#wasOurs(checkpoint)) return
    const { size, root, note } = checkpoint
    const { directory } = this.#options
    if (!moved) this.#keepConflict(`conflict-${size}-${root.slice(0, 16)}.note`, note)
    throw new AuditError(
      'witness.conflict',
      `a witness holds a head of ${size} events with this log's signature that is not in ${directory}`,
    )
  }

  /** The first is the evidence: whoever has the note may add lines to it and show it again. */
  #keepConflict(name: string, note: string): void {
    const names = readdirSync(this.#folder()).filter((one) => one.startsWith('conflict-'))
    if (names.length < conflictsKept && !names.includes(name)) this.#keep(name, note)
  }

  #notHere(): AuditError {
    return new AuditError('log.range', `${this.#options.verifiers[0]?.name} was moved away`)
  }

  /** Whether this is an epoch that ended and whose folder somebody took to an archive. */
  get #moved(): boolean {
    const { directory, last } = this.#options
    return last !== undefined && !existsSync(join(directory, 'checkpoint'))
  }

  /** Of what was pruned most heads are let go of, and all hashes are kept: whoever holds one holds nothing against us. */
  #wasOurs({ size, root }: Checkpoint): boolean {
    const { directory } = this.#options
    if (size > firstOf(listSegments(directory))) return false
    return Buffer.from(prunedEdge(directory, size).root()).toString('hex') === root
  }

  #take(cosigned: Cosigned, checkpoint: Checkpoint): void {
    if (cosigned.size > (this.#newest.get(cosigned.name)?.size ?? 0))
      this.#newest.set(cosigned.name, { ...cosigned, checkpoint })
  }

  #folder(): string {
    const path = join(this.#options.directory, witnessFolder)
    // Not what it lies in: a log's folder that is not here is not made by who hands something in.
    if (!existsSync(path)) mkdirSync(path, { mode: 0o700 })
    return path
  }

  #keep(name: string, note: string): void {
    this.#options.disk.replace(join(this.#folder(), name), Buffer.from(note))
  }
}

/**
 * What witnesses handed in for the log in `directory`. `logKeys` are the log's own vkeys, `witnessKeys` those of every
 * witness that may hand something in; `last` is the last head of an epoch that ended. Errors: key.invalid.
 */
export function openWitnesses(
  directory: string,
  logKeys: readonly string[],
  witnessKeys: readonly string[],
  last?: Checkpoint,
): Witnesses {
  return new Witnesses({
    directory,
    verifiers: logKeys.map(parseVkey),
    witnesses: witnessKeys.map(parseWitnessKey),
    disk: realDisk,
    ...(last === undefined ? {} : { last }),
  })
}

/** A name holds what a file name may not. */
function fileOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 16)
}

/** The cosigned heads that lie beside a log, conflicts left out; one that the log did not sign is not given. */
export function keptNotes(directory: string, verifiers: readonly Verifier[]): Checkpoint[] {
  const path = join(directory, witnessFolder)
  if (!existsSync(path)) return []
  return readdirSync(path)
    .filter((name) => /^[0-9a-f]{16}\.note$/.test(name))
    .flatMap((name) => {
      try {
        return [openCheckpoint(readFileSync(join(path, name), 'utf8'), verifiers)]
      } catch {
        // A file that does not hold is no witness's word; the count of those that do says so.
        return []
      }
    })
}
