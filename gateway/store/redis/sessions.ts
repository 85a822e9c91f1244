/** The index of sessions (sessions/session.ts) in Redis, of several gateways; sessioning.ts has the transactions. */
import type { EndReason } from '#audit'
import type {
  SessionEnd,
  SessionFilter,
  SessionRecord,
  SessionStore,
} from '../../sessions/session.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, flatten, lists, number, numberOrNull, text, type Fields } from './row.ts'

/** So many sessions that have ended are kept: the log is the proof, this is a list in memory. */
const KEPT = 100_000

function sessionOf(fields: Fields): SessionRecord {
  const took = fields.get('timeToCut')
  return {
    id: text(fields, 'id'),
    grant: text(fields, 'grant'),
    device: text(fields, 'device'),
    process: text(fields, 'process'),
    kind: text(fields, 'kind'),
    identity: text(fields, 'identity'),
    email: fields.get('email') ?? null,
    party: text(fields, 'party'),
    opened_at: number(fields, 'openedAt'),
    expires_at: number(fields, 'expiresAt'),
    ended_at: numberOrNull(fields, 'endedAt'),
    reason: (fields.get('reason') ?? null) as EndReason | null,
    bytes_in: numberOrNull(fields, 'bytesIn') ?? 0,
    bytes_out: numberOrNull(fields, 'bytesOut') ?? 0,
    connections: numberOrNull(fields, 'connections') ?? 0,
    time_to_cut_ms: took === undefined ? null : Number(took),
  }
}

/** Rejects with StoreError. `gateway` is whose sessions are added; `open` gives those that it left open, and no other's. */
export class RedisSessionStore implements SessionStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  readonly #gateway: string
  readonly #kept: number
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>, gateway: string, kept = KEPT) {
    this.#redis = redis
    this.#gateway = gateway
    this.#kept = kept
  }

  async add(session: SessionRecord): Promise<void> {
    const { id, grant, device, process, kind, identity, email, party } = session
    const row = {
      id,
      grant,
      device,
      process,
      kind,
      identity,
      email,
      party,
      openedAt: session.opened_at,
      expiresAt: session.expires_at,
      gateway: this.#gateway,
    }
    await this.#redis.write('addSession', ...flatten(row))
  }
  async end(end: SessionEnd): Promise<void> {
    const row = {
      endedAt: end.at,
      reason: end.reason,
      bytesIn: end.bytes_in,
      bytesOut: end.bytes_out,
      connections: end.connections,
      timeToCut: end.time_to_cut_ms,
    }
    await this.#redis.write('endSession', end.id, String(this.#kept), ...flatten(row))
  }
  async find(id: string): Promise<SessionRecord | undefined> {
    const fields = fieldsOf(await this.#redis.read('findSession', id))
    return fields.size === 0 ? undefined : sessionOf(fields)
  }
  async list({ identity = '', after, limit }: SessionFilter): Promise<readonly SessionRecord[]> {
    const from =
      after === undefined
        ? ['', '', '']
        : [after.ended ? 'ended' : 'open', String(after.opened_at), after.id]
    return rowsOf(await this.#redis.read('listSessions', identity, ...from, String(limit)))
  }
  async open(): Promise<readonly SessionRecord[]> {
    return rowsOf(await this.#redis.read('openSessions', this.#gateway))
  }
}

function rowsOf(value: unknown): SessionRecord[] {
  return lists(value).map((row) => sessionOf(fieldsOf(row)))
}
