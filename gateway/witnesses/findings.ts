/**
 * What the log says of those who watch it: that one follows, and what one holds against it. Each is told once, or a
 * witness that asks again and again would fill the log; whoever asks meanwhile waits for the same event.
 */
import { AuditError, parseCheckpoint, type AuditLog, type EventInput } from '#audit'

/** A witness that asked nothing for this long and comes again has begun to follow anew, and that is recorded. */
const FOLLOWING_MS = 600_000
const CONFLICTS_TOLD = 64
/** What a witness says of a log of another name, in the event: nobody here can tell whether it is so. */
export const MAX_NAME = 256

/** What a note says it is a head of, whoever signed it. */
interface Head {
  readonly origin: string
  readonly size: number
  readonly root: string
}

export class WitnessFindings {
  readonly #log: Pick<AuditLog, 'append'>
  readonly #now: () => number
  /** When each witness was last seen, and what records that it follows. */
  readonly #following = new Map<string, { at: number; readonly recorded: Promise<unknown> }>()
  /** What records each conflict: settled well, or on its way. */
  readonly #told = new Map<string, Promise<unknown>>()
  /** The same for those who were shown a log of another name: one a witness, and none of the places of the former. */
  readonly #others = new Map<string, Promise<unknown>>()

  /** `now` gives epoch milliseconds. */
  constructor(log: Pick<AuditLog, 'append'>, now: () => number) {
    this.#log = log
    this.#now = now
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

  /** One event a witness, whatever it says: its word alone stands behind it. */
  async otherLog(
    { origin, ...head }: Pick<Head, 'origin'> & Partial<Head>,
    by: Pick<EventInput, 'actor' | 'device'>,
  ): Promise<void> {
    const name = origin.slice(0, MAX_NAME)
    await this.#once(this.#others, [by.device ?? null, by.actor?.uid ?? null], {
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
  }

  /** One event per head and witness: each says it again at every look. */
  async conflict(
    note: string,
    why: string,
    by: Pick<EventInput, 'actor' | 'device'>,
  ): Promise<void> {
    const [, size = '', root = ''] = note.split('\n', 3)
    await this.#once(this.#told, [root, by.device ?? by.actor?.uid ?? null], {
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
  }

  async #once(
    told: Map<string, Promise<unknown>>,
    what: readonly (string | null)[],
    event: EventInput,
  ): Promise<void> {
    const name = JSON.stringify(what)
    const before = told.get(name)
    if (before !== undefined) return void (await before)
    if (told.size >= CONFLICTS_TOLD) return
    const recorded = this.#log.append(event)
    told.set(name, recorded)
    await kept(recorded, () => told.delete(name))
  }
}

/** The head that a text is a note of; null for another text. */
export function readHead(note: string): Head | null {
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
