/** Locks in store.sqlite: one row each, kept after they were lifted. */
import type { DatabaseSync } from 'node:sqlite'
import type { Lock, LockPlace, LockStore } from '../../locks/lock.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function lockOf(row: Record<string, unknown> | undefined): Lock | undefined {
  const json = row?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as Lock) : undefined
}

const all = (rows: readonly Record<string, unknown>[]): Lock[] =>
  rows.map(lockOf).filter((lock) => lock !== undefined)

const find = (db: DatabaseSync, id: string): Lock | undefined =>
  lockOf(db.prepare('SELECT row FROM access_lock WHERE id = ?').get(id))

const standing = (db: DatabaseSync): Lock[] =>
  all(db.prepare('SELECT row FROM access_lock WHERE lifted = 0 ORDER BY rowid').all())

export const locksRoom = {
  migrations: [
    `CREATE TABLE access_lock (
       id TEXT PRIMARY KEY, at INTEGER NOT NULL, lifted INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE INDEX access_lock_standing ON access_lock (at) WHERE lifted = 0;`,
  ],
  operations: {
    addLock(db: DatabaseSync, { lock, most }: { lock: Lock; most: number }): boolean {
      if (standing(db).length >= most) return false
      db.prepare('INSERT INTO access_lock VALUES (?, ?, 0, ?)').run(
        lock.id,
        lock.at,
        JSON.stringify(lock),
      )
      return true
    },
    findLock: find,
    standingLocks: (db: DatabaseSync, _: null): Lock[] => standing(db),
    listLocks: (db: DatabaseSync, args: { limit: number; after: LockPlace | null }): Lock[] => {
      const { limit, after } = args
      const order = 'ORDER BY lifted, at DESC, id DESC LIMIT ?'
      if (after === null) return all(db.prepare(`SELECT row FROM access_lock ${order}`).all(limit))
      // Behind one that stands come older ones, then all that were lifted, also those that have been since.
      const behind = after.lifted
        ? 'lifted = 1 AND (at, id) < (?, ?)'
        : '(lifted = 1 OR (at, id) < (?, ?))'
      const rows = db.prepare(`SELECT row FROM access_lock WHERE ${behind} ${order}`)
      return all(rows.all(after.at, after.id, limit))
    },
    liftLock(
      db: DatabaseSync,
      { id, lifted }: { id: string; lifted: NonNullable<Lock['lifted']> },
    ): Lock | undefined {
      const before = find(db, id)
      if (before === undefined || before.lifted !== null) return undefined
      const after = { ...before, lifted }
      db.prepare('UPDATE access_lock SET lifted = 1, row = ? WHERE id = ?').run(
        JSON.stringify(after),
        id,
      )
      return after
    },
  },
} as const satisfies Room

export class SqliteLockStore implements LockStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addLock(lock: Lock, most: number): Promise<boolean> {
    return this.#thread.call('locks', 'addLock', { lock, most })
  }
  async findLock(id: string): Promise<Lock | undefined> {
    return this.#thread.call('locks', 'findLock', id)
  }
  async standingLocks(): Promise<readonly Lock[]> {
    return this.#thread.call('locks', 'standingLocks', null)
  }
  async listLocks(limit: number, after?: LockPlace): Promise<readonly Lock[]> {
    return this.#thread.call('locks', 'listLocks', { limit, after: after ?? null })
  }
  async liftLock(id: string, lifted: NonNullable<Lock['lifted']>): Promise<Lock | undefined> {
    return this.#thread.call('locks', 'liftLock', { id, lifted })
  }
}
