/** Notices that wait in store.sqlite, and the keys of those that were ever added. */
import type { DatabaseSync } from 'node:sqlite'
import type { Message } from '../../notices/notice.ts'
import type { NoticeStore, Waiting } from '../../notices/queue.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Add = Parameters<NoticeStore['addNotice']>[0]
type Due = Parameters<NoticeStore['dueOf']>[0]

const count = (db: DatabaseSync): number =>
  Number(db.prepare('SELECT count(*) AS n FROM notice').get()?.['n'] ?? 0)
const countIn = (db: DatabaseSync, channel: string): number =>
  Number(db.prepare('SELECT count(*) AS n FROM notice WHERE channel = ?').get(channel)?.['n'] ?? 0)

/** What was added before channels had marks of their own was added for every one. */
const KNOWN = "SELECT 1 FROM notice_told WHERE key = ? AND channel IN ('', ?)"

export const noticesRoom = {
  migrations: [
    `CREATE TABLE notice_key (key TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE notice (
       id TEXT PRIMARY KEY, channel TEXT NOT NULL, recipient TEXT NOT NULL, message TEXT NOT NULL,
       urgent INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
       created_at INTEGER NOT NULL, next_at INTEGER NOT NULL) STRICT;
     CREATE INDEX notice_channel ON notice (channel, urgent DESC, next_at);`,
    `CREATE TABLE notice_told (
       key TEXT NOT NULL, channel TEXT NOT NULL, at INTEGER NOT NULL,
       PRIMARY KEY (key, channel)) STRICT, WITHOUT ROWID;
     INSERT INTO notice_told SELECT key, '', at FROM notice_key;
     DROP TABLE notice_key;`,
  ],
  operations: {
    newOf(db: DatabaseSync, { channel, keys }: { channel: string; keys: readonly string[] }) {
      const known = db.prepare(KNOWN)
      return keys.filter((key) => known.get(key, channel) === undefined)
    },
    toldOf(db: DatabaseSync, { channel, series }: { channel: string; series: string }): number {
      // The sign after a blank: a range, that the primary key answers.
      const end = `${series.slice(0, -1)}!`
      const row = db
        .prepare('SELECT count(*) AS n FROM notice_told WHERE key >= ? AND key < ? AND channel = ?')
        .get(series, end, channel)
      return Number(row?.['n'] ?? 0)
    },
    countOf(db: DatabaseSync, channel: string): number {
      return countIn(db, channel)
    },
    addNotice(db: DatabaseSync, { key, channel, urgent, rows, now, most }: Add): boolean {
      if (db.prepare(KNOWN).get(key, channel) !== undefined) return true
      if (countIn(db, channel) + rows.length > most) return false
      db.prepare('INSERT INTO notice_told VALUES (?, ?, ?)').run(key, channel, now)
      const add = db.prepare(
        `INSERT OR IGNORE INTO notice (id, channel, recipient, message, urgent, created_at, next_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      )
      for (const { id, recipient, message } of rows)
        add.run(id, channel, recipient, JSON.stringify(message), urgent ? 1 : 0, now, now)
      return true
    },
    dueOf(db: DatabaseSync, { channel, now, latest, limit }: Due): Waiting[] {
      const rows = db
        .prepare(
          `SELECT * FROM notice WHERE channel = ? AND (next_at <= ? OR next_at > ?)
           ORDER BY urgent DESC, next_at, id LIMIT ?`,
        )
        .all(channel, now, latest, limit)
      return rows.map((row) => ({
        id: String(row['id']),
        channel,
        recipient: String(row['recipient']),
        message: JSON.parse(String(row['message'])) as Message,
        tries: Number(row['tries']),
        created_at: Number(row['created_at']),
        next_at: Number(row['next_at']),
      }))
    },
    drop(db: DatabaseSync, id: string): void {
      db.prepare('DELETE FROM notice WHERE id = ?').run(id)
    },
    failed(db: DatabaseSync, { id, next_at }: { id: string; next_at: number }): void {
      db.prepare('UPDATE notice SET tries = tries + 1, next_at = ? WHERE id = ?').run(next_at, id)
    },
    tidy(db: DatabaseSync, before: number): number {
      db.prepare('DELETE FROM notice_told WHERE at < ?').run(before)
      return count(db)
    },
  },
} as const satisfies Room

export class SqliteNoticeStore implements NoticeStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async newOf(channel: string, keys: readonly string[]): Promise<readonly string[]> {
    return await this.#thread.call('notices', 'newOf', { channel, keys })
  }
  async toldOf(channel: string, series: string): Promise<number> {
    return await this.#thread.call('notices', 'toldOf', { channel, series })
  }
  async countOf(channel: string): Promise<number> {
    return await this.#thread.call('notices', 'countOf', channel)
  }
  async addNotice(of: Add): Promise<boolean> {
    return await this.#thread.call('notices', 'addNotice', of)
  }
  async dueOf(of: Due): Promise<readonly Waiting[]> {
    return await this.#thread.call('notices', 'dueOf', of)
  }
  async drop(id: string): Promise<void> {
    await this.#thread.call('notices', 'drop', id)
  }
  async failed(id: string, next_at: number): Promise<void> {
    await this.#thread.call('notices', 'failed', { id, next_at })
  }
  async tidy(before: number): Promise<number> {
    return await this.#thread.call('notices', 'tidy', before)
  }
}
