/**
 * Who watches this node's log from outside: witnesses whose keys the configuration names. Naming a witness lets it read
 * the whole log, as naming a sink lets that receive it; each says who it is by signing its requests.
 */
import {
  AuditError,
  Handovers,
  openWitnesses,
  parseTilePath,
  parseWitnessKey,
  Publisher,
  type AuditLog,
  type Checkpoint,
  type Cosigned,
  type EndedEpoch,
  type EventInput,
  type Verifier,
  type Witnesses,
} from '#audit'
import type { ShownHead } from '#api'
import { Refusal } from './problem.ts'
import { MAX_NAME, readHead, WitnessFindings } from './witnesses/findings.ts'
import { followerOf, readKeys, type Follower, type Proven } from './witnesses/proof.ts'

/** One epoch of the log as witnesses read it and hand in for it. */
interface Epoch {
  readonly signed: () => Checkpoint
  readonly witnesses: Witnesses
  readonly publisher: Publisher
}

export class WitnessRoom {
  readonly #log: AuditLog
  readonly #vkeys: readonly string[]
  readonly #keys: readonly Verifier[]
  #handovers!: Handovers
  #witnesses!: Witnesses
  #publisher!: Publisher
  /** By origin: the newest, and those that ended, which a mirror may still have to read to their end. */
  #epochs!: ReadonlyMap<string, Epoch>
  readonly #now: () => number
  readonly #findings: WitnessFindings

  /** `files` hold the vkeys of one witness each. Throws ConfigError for one that does not. */
  constructor(
    log: AuditLog,
    files: readonly string[],
    now: () => number,
    ended: readonly EndedEpoch[] = [],
  ) {
    this.#vkeys = files.flatMap(readKeys)
    this.#log = log
    this.#keys = this.#vkeys.map(parseWitnessKey)
    this.#now = now
    this.#findings = new WitnessFindings(log, now)
    this.follow(ended)
  }

  /** The log goes on in another epoch; `ended` are those before, the newest first. */
  follow(ended: readonly EndedEpoch[]): void {
    const log = this.#log
    const vkeys = this.#vkeys
    const newest = {
      signed: () => log.signed,
      witnesses: openWitnesses(log.directory, log.vkeys, vkeys),
      publisher: new Publisher(log.directory, log.origin),
    }
    const epochs = new Map<string, Epoch>([
      [log.origin, newest],
      ...ended.map(({ directory, origin, vkeys: own, last }): [string, Epoch] => [
        origin,
        {
          signed: () => last,
          witnesses: openWitnesses(directory, own, vkeys, last),
          publisher: new Publisher(directory, origin),
        },
      ]),
    ])
    // Whole or not at all: what was read of one epoch proves nothing of another.
    this.#handovers = new Handovers(log, ended)
    this.#witnesses = newest.witnesses
    this.#publisher = newest.publisher
    this.#epochs = epochs
  }

  #epoch(origin: string): Epoch {
    const epoch = this.#epochs.get(origin)
    if (epoch === undefined) throw new Refusal('tile.unknown', `the log here is not ${origin}`)
    return epoch
  }

  /** The log's own name. */
  get origin(): string {
    return this.#log.origin
  }

  /** The newest head, with what witnesses put under just that one; of an epoch that ended, its last. */
  head(origin = this.origin): string {
    const { witnesses, signed } = this.#epoch(origin)
    return witnesses.cosigned(signed())
  }

  /** The newest head that a witness cosigned; null while none did. */
  witnessed(origin = this.origin): string | null {
    return this.#epoch(origin).witnesses.newest()?.note ?? null
  }

  /** The bytes of a tile of the newest head. Throws Refusal `tile.unknown`. */
  tile(path: string, origin = this.origin): Uint8Array {
    const { publisher, signed } = this.#epoch(origin)
    const name = parseTilePath(path)
    if (name === null) throw new Refusal('tile.unknown', `${path} names no tile`)
    try {
      return publisher.tile(name, signed().size)
    } catch (cause) {
      if (cause instanceof AuditError && cause.code === 'log.range')
        throw new Refusal('tile.unknown', cause.message, { cause })
      throw cause
    }
  }

  /**
   * The newest head for somebody who holds the one of `from` leaves: devices and people are witnesses too. Where the log
   * has fewer, that is what is shown. `held`: those leaves are of an earlier epoch; then the rotations since are shown.
   */
  show(from: number, held?: string): ShownHead {
    const { origin, vkeys, signed } = this.#log
    if (held !== undefined && held !== origin) return this.#showOver(from, held)
    const proof = from > signed.size ? [] : this.#publisher.consistency(from, signed.size)
    return {
      origin,
      keys: [...vkeys],
      note: signed.note,
      from,
      proof: proof.map((hash) => Buffer.from(hash).toString('base64')),
    }
  }

  #showOver(from: number, held: string): ShownHead {
    const { origin, vkeys, signed } = this.#log
    const handovers = this.#handovers.to(signed.size, held, from)
    return { origin, keys: [...vkeys], note: signed.note, from: 0, proof: [], handovers }
  }

  /** Why a head speaks against this log, or an epoch of it that ended; null for any other text. */
  #stray(note: string): string | null {
    for (const { witnesses } of this.#epochs.values()) {
      const why = witnesses.stray(note)
      if (why !== null) return why
    }
    return null
  }

  /**
   * Takes the head that somebody holds against this log. One that this log signed and has not got is recorded, and
   * so is, once for each who says it, that somebody was shown a log of another name; then true is given. Anything else
   * is nothing.
   */
  async accuse(
    note: string,
    by: { readonly device: string } | Pick<EventInput, 'actor'>,
  ): Promise<boolean> {
    const why = this.#stray(note)
    if (why !== null) {
      await this.#findings.conflict(note, why, by)
      return true
    }
    const head = readHead(note)
    if (head === null || this.#epochs.has(head.origin)) return false
    await this.#findings.otherLog(head, by)
    return true
  }

  /** Every witness named, and the newest head it handed in. */
  status(): {
    readonly name: string
    readonly cosigned: Cosigned | null
    readonly behind: number
  }[] {
    const known = new Map(this.#witnesses.list().map((one) => [one.name, one]))
    const { size } = this.#log
    return this.#witnesses.names.map((name) => {
      const cosigned = known.get(name) ?? null
      return { name, cosigned, behind: size - (cosigned?.size ?? 0) }
    })
  }

  /**
   * The witness that signed this request, and the epoch it follows; undefined where none claims to have. Throws Refusal
   * `witness.refused`; `witness.other_log` for one that follows a log of another name, which is an event first.
   */
  async caller(request: Proven): Promise<Follower | undefined> {
    const follower = await followerOf(this.#keys, request, this.#now())
    if (follower === undefined) return undefined
    const { name, follows } = follower
    if (this.#epochs.has(follows)) return follower
    await this.#findings.otherLog({ origin: follows }, { actor: { uid: name, party: 'service' } })
    throw new Refusal(
      'witness.other_log',
      `the log here is ${this.#log.origin}, and ${name} follows ${follows.slice(0, MAX_NAME)}`,
      {
        nextStep:
          'find out why the log has another name; a mirror of the new one is another directory with the new keys',
      },
    )
  }

  /** Records that a witness follows, from this address. */
  async follows(name: string, ip: string | null): Promise<void> {
    await this.#findings.follows(name, ip)
  }

  /**
   * Takes a cosigned head. Throws Refusal `witness.refused`, `witness.conflict`, which is an event first, and
   * `tile.unknown` where it is of an epoch whose folder was moved away.
   */
  async take(note: string): Promise<Cosigned[]> {
    try {
      const of = readHead(note)?.origin ?? this.origin
      return (this.#epochs.get(of)?.witnesses ?? this.#witnesses).offer(note)
    } catch (cause) {
      if (!(cause instanceof AuditError)) throw cause
      if (cause.code === 'log.range') throw new Refusal('tile.unknown', cause.message, { cause })
      if (cause.code !== 'witness.conflict')
        throw new Refusal('witness.refused', cause.message, { cause })
      await this.#findings.conflict(note, cause.message, {})
      throw new Refusal('witness.conflict', cause.message, {
        cause,
        nextStep:
          'compare the log with the witness’s copy: sallyport audit verify --log COPY --key FILE; one of the two was rewritten or put back',
      })
    }
  }
}
