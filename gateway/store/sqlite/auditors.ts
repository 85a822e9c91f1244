/** Who can open recordings, in store.sqlite. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { Auditor, AuditorStore } from '../../recordings/auditors.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function toAuditor(row: Record<string, SQLOutputValue>): Auditor {
  const confirmed = row['confirmed_at']
  const secret = row['secret_sha256']
  return {
    name: String(row['name']),
    recipient: String(row['recipient']),
    confirmed_at: confirmed === null ? null : Number(confirmed),
    added_at: Number(row['added_at']),
    by: String(row['by']),
    secret_sha256: typeof secret === 'string' ? secret : null,
  }
}

export const auditorsRoom = {
  migrations: [
    `CREATE TABLE auditor (
       name TEXT PRIMARY KEY, recipient TEXT NOT NULL UNIQUE, confirmed_at INTEGER,
       added_at INTEGER NOT NULL, by TEXT NOT NULL, secret_sha256 TEXT) STRICT;`,
  ],
  operations: {
    list(db: DatabaseSync): Auditor[] {
      return db.prepare('SELECT * FROM auditor ORDER BY added_at, name').all().map(toAuditor)
    },
    find(db: DatabaseSync, name: string): Auditor | undefined {
      const row = db.prepare('SELECT * FROM auditor WHERE name = ?').get(name)
      return row === undefined ? undefined : toAuditor(row)
    },
    add(db: DatabaseSync, auditor: Auditor): boolean {
      const { name, recipient, confirmed_at, added_at, by, secret_sha256 } = auditor
      const { changes } = db
        .prepare('INSERT INTO auditor VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING')
        .run(name, recipient, confirmed_at, added_at, by, secret_sha256)
      return changes === 1
    },
    confirm(db: DatabaseSync, { name, at }: { name: string; at: number }): void {
      db.prepare('UPDATE auditor SET confirmed_at = ?, secret_sha256 = NULL WHERE name = ?').run(
        at,
        name,
      )
    },
    remove(db: DatabaseSync, name: string): void {
      db.prepare('DELETE FROM auditor WHERE name = ?').run(name)
    },
  },
} satisfies Room

export class SqliteAuditorStore implements AuditorStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  list(): Promise<readonly Auditor[]> {
    return this.#thread.call('auditors', 'list', undefined as never)
  }
  find(name: string): Promise<Auditor | undefined> {
    return this.#thread.call('auditors', 'find', name)
  }
  add(auditor: Auditor): Promise<boolean> {
    return this.#thread.call('auditors', 'add', auditor)
  }
  async confirm(name: string, at: number): Promise<void> {
    await this.#thread.call('auditors', 'confirm', { name, at })
  }
  async remove(name: string): Promise<void> {
    await this.#thread.call('auditors', 'remove', name)
  }
}
