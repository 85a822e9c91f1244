/**
 * A copy of a log that its gateway cannot take back. A head is on disk before a leaf it covers is asked for, a leaf is
 * shown to be in a signed tree before it is written, and a head is cosigned only when all it covers is durable here.
 * docs/audit.md section "The mirror".
 */
import { existsSync, readFileSync, mkdirSync } from 'node:fs'
import type { Server } from 'node:net'
import { join } from 'node:path'
import { packBodies } from '../batch.ts'
import { openCheckpoint, parseCheckpoint } from '../checkpoint.ts'
import type { Checkpoint } from '../checkpoint.ts'
import { claim } from '../claim.ts'
import { cosign, withLines } from '../cosign.ts'
import type { Disk } from '../disk.ts'
import { closingIn, mayJoin, type Closing } from '../epoch.ts'
import { AuditError } from '../errors.ts'
import type { NoteSigner, Verifier } from '../note.ts'
import { leafHash } from '../tree.ts'
import { Writer } from '../writer.ts'
import { conflictsIn, keepConflict, type Conflict } from './evidence.ts'
import { batchesOf, bodiesFrom } from './entries.ts'
import { belongs, compare, kept, type FetchTile } from './tiles.ts'

/**
 * A log as it is served in the public format. Every call may reject; AuditError `mirror.source` says so, and
 * `mirror.other` that the log there has another name.
 */
export interface Source {
  /** The newest head, a signed note. */
  readonly checkpoint: () => Promise<string>
  /** A tile or an entry bundle by its path (c2sp.org/tlog-tiles). */
  readonly tile: FetchTile
  /** Takes a head with this mirror's lines under it. */
  readonly submit: (note: string) => Promise<void>
}

export interface MirrorOptions {
  readonly directory: string
  /** The log's keys; every one must have signed each head. Their name is the log's origin. */
  readonly verifiers: readonly Verifier[]
  /** This mirror's own. */
  readonly signers: readonly NoteSigner[]
  readonly disk: Disk
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly segmentBytes?: number
}

/** What one look at the source brought. */
export interface Followed {
  /** Events written by it. */
  readonly events: number
  /** The head now held and cosigned. */
  readonly checkpoint: Checkpoint
  /** Whether the gateway has this head's cosignature. */
  readonly submitted: boolean
  /** Why not, where it has not. */
  readonly why?: string
  /** The log has ended with this head, all of it is here, and it goes on as this one; absent: it has not. */
  readonly ended?: Closing
}

export class Mirror implements Disposable {
  readonly origin: string
  readonly #options: MirrorOptions
  readonly #claimed: Server | null
  readonly #writer: Writer
  /** The newest head that was found to extend all before it; its leaves may still be on their way. */
  #seen: Checkpoint | null
  /** The newest head of which everything is here, cosigned. */
  #held: Checkpoint | null
  #unsent: boolean
  /** What the last event here says, where it ends the log. */
  #closing: Closing | null

  private constructor(options: MirrorOptions, claimed: Server | null) {
    const { directory, verifiers, disk, segmentBytes = 64 * 1024 * 1024 } = options
    this.origin = verifiers[0]?.name ?? ''
    this.#options = options
    this.#claimed = claimed
    this.#writer = new Writer({
      directory,
      origin: this.origin,
      signers: [],
      verifiers,
      disk,
      segmentBytes,
    })
    const { signed, closing } = this.#writer.open()
    this.#held = signed
    this.#closing = closing
    const path = join(directory, 'seen')
    this.#seen = existsSync(path)
      ? openCheckpoint(readFileSync(path, 'utf8'), verifiers)
      : this.#held
    this.#unsent = this.#held !== null
  }

  /**
   * Opens or makes the mirror in `directory`, recovering what a crash left. Errors: mirror.conflict, log.locked,
   * log.corrupt, log.rollback, log.origin, key.invalid.
   */
  static async open(options: MirrorOptions): Promise<Mirror> {
    const { directory, verifiers } = options
    const name = verifiers[0]?.name
    if (name === undefined || verifiers.some((key) => key.name !== name))
      throw new AuditError('key.invalid', 'a mirror follows one log: keys of one origin are needed')
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const evidence = conflictsIn(directory)
    if (evidence.length > 0)
      throw new AuditError(
        'mirror.conflict',
        `evidence of a conflict lies in ${directory}/conflict`,
      )
    const claimed = await claim(directory)
    try {
      return new Mirror(options, claimed)
    } catch (error) {
      claimed?.close()
      throw error
    }
  }

  /** Durable events. */
  get size(): number {
    return this.#writer.size
  }

  /** The newest cosigned head. */
  get held(): Checkpoint | null {
    return this.#held
  }

  /**
   * Looks once: takes the newest head, what it covers, cosigns, hands the cosignature in. Errors: mirror.fork,
   * mirror.rollback, mirror.other (evidence is durable then), mirror.unproven, mirror.source, note.*, and the disk's own.
   */
  async follow(source: Source): Promise<Followed> {
    const head = await this.#newest(source)
    const tiles = kept(source.tile)
    const show = async (error: unknown): Promise<never> => {
      // The gateway is shown what is held here: an honest one that was put back records the conflict itself.
      if (isConflict(error) && this.#held !== null)
        await source.submit(this.#held.note).catch(() => undefined)
      throw error
    }
    await this.#judge(head, tiles).catch(show)
    if (head.size > (this.#seen?.size ?? 0)) this.#remember(head)
    const target = this.#seen
    if (target === null) throw new AuditError('mirror.source', 'the log has no event yet')
    const before = this.size
    await this.#fill(target, source.tile, tiles).catch(show)
    if (this.#held?.size !== target.size) this.#cosign(target)
    const checkpoint = this.#held ?? target
    const why = await this.#submit(source, checkpoint)
    const events = this.size - before
    const ended = this.#closing
    return {
      events,
      ...(ended === null ? {} : { ended }),
      checkpoint,
      submitted: why === undefined,
      ...(why === undefined ? {} : { why }),
    }
  }

  [Symbol.dispose](): void {
    this.#writer.close()
    this.#claimed?.close()
  }

  /** The newest head, signed by the log that is followed. One of another name is a conflict, where a head is held. */
  async #newest(source: Source): Promise<Checkpoint> {
    let presented: string | undefined
    try {
      presented = await source.checkpoint()
      const { origin } = parseCheckpoint(presented)
      if (origin !== this.origin)
        throw new AuditError('mirror.other', `the gateway shows the log ${origin}`)
      return openCheckpoint(presented, this.#options.verifiers)
    } catch (error) {
      if (!(error instanceof AuditError) || error.code !== 'mirror.other') throw error
      const what = `${error.message}, where this mirror follows ${this.origin}`
      if (this.#seen === null) throw new AuditError('note.invalid', what, { cause: error })
      return this.#conflict('mirror.other', what, this.#seen, presented ?? `${error.message}\n`)
    }
  }

  #conflict(code: Conflict['code'], what: string, held: Checkpoint, presented: string): never {
    const { directory, disk, now } = this.#options
    keepConflict(directory, disk, now(), { code, what, held: held.note, presented })
    throw new AuditError(code, what)
  }

  /** Whether `head` goes on from what was seen. Throws what the class of its failure is called. */
  async #judge(head: Checkpoint, tiles: FetchTile): Promise<void> {
    const seen = this.#seen
    if (seen === null) return
    const conflict = (code: Conflict['code'], what: string): never =>
      this.#conflict(code, what, seen, head.note)
    if (head.size === seen.size) {
      if (head.root !== seen.root)
        conflict('mirror.fork', `two heads of ${head.size} events are signed, and they differ`)
      return
    }
    if (head.size < seen.size)
      return conflict(
        'mirror.rollback',
        `the log shows ${head.size} events where ${seen.size} were signed before`,
      )
    const old = { size: seen.size, root: Buffer.from(seen.root, 'hex') }
    const found = await compare(tiles, old, head.size, Buffer.from(head.root, 'hex'))
    if (found === 'differs')
      conflict(
        'mirror.fork',
        `the head of ${head.size} events does not begin with the ${seen.size} signed before`,
      )
    if (found === 'unproven')
      throw new AuditError(
        'mirror.unproven',
        `the log does not show that its head of ${head.size} events extends the one of ${seen.size}`,
      )
  }

  #remember(head: Checkpoint): void {
    const { directory, disk } = this.#options
    disk.replace(join(directory, 'seen'), Buffer.from(head.note))
    this.#seen = head
  }

  /** Takes the leaves up to `target`, each chunk shown to be in its tree before it is written. */
  async #fill(target: Checkpoint, entries: FetchTile, tiles: FetchTile): Promise<void> {
    const root = Buffer.from(target.root, 'hex')
    while (this.size < target.size) {
      const bodies = await bodiesFrom(entries, this.size, target.size)
      const tree = this.#writer.tree()
      for (const body of bodies) tree.push(leafHash(body))
      if (!(await belongs(tiles, tree, target.size, root)))
        throw new AuditError(
          'mirror.unproven',
          `the events from ${this.size} on are not those that the head of ${target.size} signed`,
        )
      const closing = this.#endIn(bodies, target)
      for (const batch of batchesOf(bodies)) this.#writer.append(packBodies(batch, this.size))
      this.#closing = closing
    }
    if (Buffer.compare(this.#writer.tree().root(), root) !== 0)
      throw new AuditError('mirror.unproven', `the events here are not those of ${target.size}`)
  }

  /** Nothing follows the end of a log, whoever signed it: the head over it is the evidence, and none of it is kept. */
  #endIn(bodies: readonly Uint8Array[], target: Checkpoint): Closing | null {
    let closing = this.#closing
    for (const [i, body] of bodies.entries()) {
      if (closing !== null)
        this.#conflict(
          'mirror.fork',
          `the head of ${target.size} events goes on behind the end of the log, with event ${this.size + i}`,
          this.#held ?? target,
          target.note,
        )
      if (mayJoin(body)) closing = closingIn(body)
    }
    return closing
  }

  /** Everything it covers is durable: says so, durably, before anybody hears of it. */
  #cosign(target: Checkpoint): void {
    const lines = cosign(target, this.#options.signers, this.#options.now())
    const held = { ...target, note: withLines(target.note, lines) }
    this.#writer.keep(held)
    this.#held = held
    this.#unsent = true
  }

  /** Hands in what the gateway has not got; that it does not take it stops no copying. */
  async #submit(source: Source, checkpoint: Checkpoint): Promise<string | undefined> {
    if (!this.#unsent) return undefined
    try {
      await source.submit(checkpoint.note)
      this.#unsent = false
      return undefined
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }
}

function isConflict(error: unknown): boolean {
  const code = error instanceof AuditError ? error.code : null
  return code === 'mirror.fork' || code === 'mirror.rollback'
}
