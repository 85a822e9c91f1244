/**
 * Who watches this node's log from outside: witnesses whose keys the configuration names. Naming a witness lets it read
 * the whole log, as naming a sink lets that receive it; each says who it is by signing its requests.
 */
import { readFileSync } from 'node:fs'
import { errors, jwtVerify } from 'jose'
import {
  AuditError,
  Handovers,
  openWitnesses,
  parseCheckpoint,
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
import { ConfigError } from './config.ts'
import { Refusal } from './problem.ts'

/** A request of a witness is good for this long, by either clock. */
const PROOF_SECONDS = 60
/** A witness that asked nothing for this long and comes again has begun to follow anew, and that is recorded. */
const FOLLOWING_MS = 600_000
const CONFLICTS_TOLD = 64
/** What a witness says of a log of another name, in the event: nobody here can tell whether it is so. */
const MAX_NAME = 256

/** What of a request its proof is over. */
export interface Proven {
  readonly authorization: string | undefined
  readonly method: string
  /** Path and query as sent. */
  readonly path: string
}

/** One epoch of the log as witnesses read it and hand in for it. */
interface Epoch {
  readonly signed: () => Checkpoint
  readonly witnesses: Witnesses
  readonly publisher: Publisher
}

export class WitnessRoom {
  readonly #log: AuditLog
  readonly #handovers: Handovers
  readonly #keys: readonly Verifier[]
  readonly #witnesses: Witnesses
  readonly #publisher: Publisher
  /** By origin: the newest, and those that ended, which a mirror may still have to read to their end. */
  readonly #epochs: ReadonlyMap<string, Epoch>
  readonly #now: () => number
  /** When each witness was last seen, and what records that it follows. */
  readonly #following = new Map<string, { at: number; readonly recorded: Promise<unknown> }>()
  /** What records each conflict: settled well, or on its way. */
  readonly #told = new Map<string, Promise<unknown>>()
  /** The same for those who were shown a log of another name: one a witness, and none of the places of the former. */
  readonly #others = new Map<string, Promise<unknown>>()

  /** `files` hold the vkeys of one witness each. Throws ConfigError for one that does not. */
  constructor(
    log: AuditLog,
    files: readonly string[],
    now: () => number,
    ended: readonly EndedEpoch[] = [],
  ) {
    this.#handovers = new Handovers(log, ended)
    const vkeys = files.flatMap(readKeys)
    this.#log = log
    this.#keys = vkeys.map(parseWitnessKey)
    this.#witnesses = openWitnesses(log.directory, log.vkeys, vkeys)
    this.#publisher = new Publisher(log.directory, log.origin)
    this.#now = now
    const newest = {
      signed: () => log.signed,
      witnesses: this.#witnesses,
      publisher: this.#publisher,
    }
    this.#epochs = new Map<string, Epoch>([
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
      await this.#tell(note, why, by)
      return true
    }
    const head = readHead(note)
    if (head === null || this.#epochs.has(head.origin)) return false
    await this.#tellOther(head, by)
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
   * The witness that signed this request (a JWT by one of its Ed25519 keys, over method, path, time and the log's
   * origin), and the epoch it follows; undefined where none claims to have. Throws Refusal `witness.refused`;
   * `witness.other_log` for one that follows a log of another name, which is an event first.
   */
  async caller({
    authorization,
    method,
    path,
  }: Proven): Promise<{ readonly name: string; readonly follows: string } | undefined> {
    const [scheme, token] = authorization?.split(' ', 2) ?? []
    if (scheme !== 'Witness' || token === undefined) return undefined
    const { name, follows } = await this.#proven(token, method, path)
    if (this.#epochs.has(follows)) return { name, follows }
    await this.#tellOther({ origin: follows }, { actor: { uid: name, party: 'service' } })
    throw new Refusal(
      'witness.other_log',
      `the log here is ${this.#log.origin}, and ${name} follows ${follows.slice(0, MAX_NAME)}`,
      {
        nextStep:
          'find out why the log has another name; a mirror of the new one is another directory with the new keys',
      },
    )
  }

  /** Who signed a request, and the log it is meant for. */
  async #proven(
    token: string,
    method: string,
    path: string,
  ): Promise<{ readonly name: string; readonly follows: string }> {
    try {
      const { payload, protectedHeader } = await jwtVerify(token, ({ kid }) => this.#key(kid).key, {
        algorithms: ['EdDSA'],
        typ: 'witness+jwt',
        currentDate: new Date(this.#now()),
        maxTokenAge: PROOF_SECONDS,
        clockTolerance: PROOF_SECONDS,
      })
      if (payload['htm'] !== method || payload['htu'] !== path) throw new Error('another request')
      if (typeof payload.aud !== 'string') throw new Error('it names no log')
      return { name: this.#key(protectedHeader.kid).name, follows: payload.aud }
    } catch (cause) {
      const why = cause instanceof errors.JOSEError ? cause.code : 'it is of another request or key'
      throw new Refusal('witness.refused', `the request is not a known witness's: ${why}`, {
        cause,
        nextStep:
          'name the mirror’s keys under `witnesses` of the gateway’s configuration, and see that both clocks agree',
      })
    }
  }

  #key(kid: string | undefined): Verifier {
    const key = this.#keys.find(({ id, type }) => id === kid && type === 4)
    if (key === undefined) throw new Error(`no witness has the key ${kid}`)
    return key
  }

  /** Records that a witness follows: once, not for every tile, or the log would be read for being read. */
  async follows(name: string, ip: string | null): Promise<void> {
    const at = this.#now()
    const last = this.#following.get(name)
    if (last !== undefined && at - last.at < FOLLOWING_MS) {
      last.at = at
      await last.recorded
      return
    }
    const recorded = this.#log.append({
      code: 'admin.call',
      message: `${name} follows the log`,
      status: 'success',
      disposition: 'allowed',
      actor: { uid: name, party: 'service' },
      src: ip === null ? undefined : { ip },
      data: { operation: 'audit:follow', verb: 'read', path: '/api/v1/audit/log' },
    })
    const following = { at, recorded }
    this.#following.set(name, following)
    await kept(recorded, () => {
      if (this.#following.get(name) === following) this.#following.delete(name)
    })
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
      await this.#tell(note, cause.message, {})
      throw new Refusal('witness.conflict', cause.message, {
        cause,
        nextStep:
          'compare the log with the witness’s copy: sallyport audit verify --log COPY --key FILE; one of the two was rewritten or put back',
      })
    }
  }

  /** One event a witness, whatever it says: its word alone stands behind it. */
  async #tellOther(
    {
      origin,
      ...head
    }: { readonly origin: string; readonly size?: number; readonly root?: string },
    by: Pick<EventInput, 'actor' | 'device'>,
  ): Promise<void> {
    const told = JSON.stringify([by.device ?? null, by.actor?.uid ?? null])
    const before = this.#others.get(told)
    if (before !== undefined) return void (await before)
    if (this.#others.size >= CONFLICTS_TOLD) return
    const name = origin.slice(0, MAX_NAME)
    const recorded = this.#log.append({
      code: 'finding.witness_conflict',
      message: `A witness was shown a log of another name before: ${name}`,
      status: 'failure',
      ...by,
      data: {
        finding: 'witness-other',
        title: 'A witness holds a log of another name',
        detail: { ...head, origin: name },
      },
    })
    this.#others.set(told, recorded)
    await kept(recorded, () => this.#others.delete(told))
  }

  /** One event per head and witness: each says it again at every look. */
  async #tell(note: string, why: string, by: Pick<EventInput, 'actor' | 'device'>): Promise<void> {
    const [, size = '', root = ''] = note.split('\n', 3)
    const told = JSON.stringify([root, by.device ?? by.actor?.uid ?? null])
    const before = this.#told.get(told)
    if (before !== undefined) return void (await before)
    if (this.#told.size >= CONFLICTS_TOLD) return
    const recorded = this.#log.append({
      code: 'finding.witness_conflict',
      message: `The log is not what a witness holds: ${why}`,
      status: 'failure',
      ...by,
      data: {
        finding: `witness-${size}`,
        title: 'A witness holds another history of this log',
        detail: { size, root },
      },
    })
    this.#told.set(told, recorded)
    await kept(recorded, () => this.#told.delete(told))
  }
}

/** What a note says it is a head of, whoever signed it; null for another text. */
function readHead(
  note: string,
): { readonly origin: string; readonly size: number; readonly root: string } | null {
  try {
    const { origin, size, root } = parseCheckpoint(note)
    return { origin, size, root }
  } catch (error) {
    if (error instanceof AuditError) return null
    throw error
  }
}

/** Everybody who asks meanwhile waits for the same event; where it is not durable, it is as if nobody had asked. */
async function kept(recorded: Promise<unknown>, undo: () => void): Promise<void> {
  try {
    await recorded
  } catch (error) {
    undo()
    throw error
  }
}

function readKeys(path: string): string[] {
  try {
    const vkeys = readFileSync(path, 'utf8')
      .split('\n')
      .map((row) => row.trim())
      .filter((row) => row !== '' && !row.startsWith('#'))
    const [first, ...rest] = vkeys.map(parseWitnessKey)
    if (first === undefined) throw new Error('it holds no key')
    if (rest.some(({ name }) => name !== first.name)) throw new Error('one file is one witness')
    if (![first, ...rest].some(({ type }) => type === 4)) throw new Error('it holds no Ed25519 key')
    return vkeys
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new ConfigError('config.value', 'witnesses', `${path}: ${why}`, { cause })
  }
}
