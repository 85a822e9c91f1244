/** The index of sessions in store.sqlite; the log is the proof, this is the list. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { EndReason } from '#audit'
import type {
  SessionEnd,
  SessionFilter,
  SessionRecord,
  SessionStore,
} from '../../sessions/session.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Row = Record<string, SQLOutputValue>

const orNull = (value: SQLOutputValue | undefined): number | null =>
  value === null || value === undefined ? null : Number(value)

function toSession(row: Row): SessionRecord {
  return {
    id: String(row['id']),
    grant: String(row['grant_id']),
    device: String(row['device']),
    process: String(row['process']),
    kind: String(row['kind']),
    identity: String(row['identity']),
    email: row['email'] === null ? null : String(row['email']),
    party: String(row['party']),
    opened_at: Number(row['opened_at']),
    expires_at: Number(row['expires_at']),
    ended_at: orNull(row['ended_at']),
    reason: row['reason'] === null ? null : (String(row['reason']) as EndReason),
    bytes_in: Number(row['bytes_in']),
    bytes_out: Number(row['bytes_out']),
    connections: Number(row['connections']),
    time_to_cut_ms: orNull(row['time_to_cut_ms']),
  }
}

export const sessionsRoom = {
  migrations: [
    `CREATE TABLE session (
       id TEXT PRIMARY KEY, grant_id TEXT NOT NULL, device TEXT NOT NULL, process TEXT NOT NULL,
       kind TEXT NOT NULL, identity TEXT NOT NULL, email TEXT, party TEXT NOT NULL,
       opened_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, ended_at INTEGER, reason TEXT,
       bytes_in INTEGER NOT NULL DEFAULT 0, bytes_out INTEGER NOT NULL DEFAULT 0,
       connections INTEGER NOT NULL DEFAULT 0, time_to_cut_ms REAL) STRICT;
     CREATE INDEX session_identity ON session (identity, opened_at);
     CREATE INDEX session_open ON session (id) WHERE ended_at IS NULL;`,
  ],
  operations: {
    add(db: DatabaseSync, one: SessionRecord): void {
      db.prepare(
        `INSERT INTO session (id, grant_id, device, process, kind, identity, email, party, opened_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ).run(
        one.id,
        one.grant,
        one.device,
        one.process,
        one.kind,
        one.identity,
        one.email,
        one.party,
        one.opened_at,
        one.expires_at,
      )
    },
    end(db: DatabaseSync, end: SessionEnd): void {
      db.prepare(
        `UPDATE session SET ended_at = ?, reason = ?, bytes_in = ?, bytes_out = ?, connections = ?, time_to_cut_ms = ?
         WHERE id = ? AND ended_at IS NULL`,
      ).run(
        end.at,
        end.reason,
        end.bytes_in,
        end.bytes_out,
        end.connections,
        end.time_to_cut_ms,
        end.id,
      )
    },
    find(db: DatabaseSync, id: string): SessionRecord | undefined {
      const row = db.prepare('SELECT * FROM session WHERE id = ?').get(id)
      return row === undefined ? undefined : toSession(row)
    },
    list(db: DatabaseSync, { identity, after, limit }: SessionFilter): SessionRecord[] {
      const conditions = [
        ...(identity === undefined ? [] : ['identity = ?']),
        // Behind an open one come older open ones, then all that have ended, also those that have since.
        ...(after === undefined
          ? []
          : [
              after.ended
                ? 'ended_at IS NOT NULL AND (opened_at, id) < (?, ?)'
                : '(ended_at IS NOT NULL OR (opened_at, id) < (?, ?))',
            ]),
      ]
      const where = conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`
      return db
        .prepare(
          `SELECT * FROM session ${where} ORDER BY ended_at IS NOT NULL, opened_at DESC, id DESC LIMIT ?`,
        )
        .all(
          ...(identity === undefined ? [] : [identity]),
          ...(after === undefined ? [] : [after.opened_at, after.id]),
          limit,
        )
        .map(toSession)
    },
    open(db: DatabaseSync, _: null): SessionRecord[] {
      return db
        .prepare('SELECT * FROM session WHERE ended_at IS NULL ORDER BY id')
        .all()
        .map(toSession)
    },
  },
} satisfies Room

export class SqliteSessionStore implements SessionStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async add(session: SessionRecord): Promise<void> {
    await this.#thread.call('sessions', 'add', session)
  }
  async end(end: SessionEnd): Promise<void> {
    await this.#thread.call('sessions', 'end', end)
  }
  find(id: string): Promise<SessionRecord | undefined> {
    return this.#thread.call('sessions', 'find', id)
  }
  list(filter: SessionFilter): Promise<readonly SessionRecord[]> {
    return this.#thread.call('sessions', 'list', filter)
  }
  open(): Promise<readonly SessionRecord[]> {
    return this.#thread.call('sessions', 'open', null)
  }
}
