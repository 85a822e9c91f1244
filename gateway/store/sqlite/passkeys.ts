/** Passkeys in store.sqlite: one row a credential, and a counter that only goes up. */
import type { DatabaseSync } from 'node:sqlite'
import type { FactorBy, PasskeyRow, PasskeyStore } from '../../identity/store.ts'
import { whyNotAdd } from './factors.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function rowOf(row: Record<string, unknown> | undefined): PasskeyRow | undefined {
  const json = row?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as PasskeyRow) : undefined
}

const find = (db: DatabaseSync, id: string): PasskeyRow | undefined =>
  rowOf(db.prepare('SELECT row FROM passkey WHERE id = ?').get(id))

/** Whether somebody has this credential; `but` does not count. */
export function isPasskey(db: DatabaseSync, id: string, but?: string): boolean {
  const row = find(db, id)
  return row !== undefined && row.sub !== but
}

/** Takes all of an account's, and forgets that one of them was shown. */
export function removePasskeys(db: DatabaseSync, sub: string): void {
  db.prepare('DELETE FROM passkey WHERE sub = ?').run(sub)
  db.prepare('UPDATE login SET stepped = NULL WHERE sub = ?').run(sub)
}

export function insertPasskey(db: DatabaseSync, row: PasskeyRow): void {
  db.prepare('INSERT INTO passkey VALUES (?, ?, ?, ?)').run(
    row.id,
    row.sub,
    row.createdAt,
    JSON.stringify(row),
  )
}

const ofAccount = (db: DatabaseSync, sub: string): PasskeyRow[] =>
  db
    .prepare('SELECT row FROM passkey WHERE sub = ? ORDER BY created, id')
    .all(sub)
    .map(rowOf)
    .filter((row) => row !== undefined)

export const passkeysRoom = {
  migrations: [
    `CREATE TABLE passkey (
       id TEXT PRIMARY KEY, sub TEXT NOT NULL, created INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE INDEX passkey_sub ON passkey (sub);`,
  ],
  operations: {
    addPasskey(
      db: DatabaseSync,
      { row, most, by }: { row: PasskeyRow; most: number; by: FactorBy },
    ): Awaited<ReturnType<PasskeyStore['addPasskey']>> {
      const not = whyNotAdd(db, row.sub, by)
      if (not !== null) return not
      if (isPasskey(db, row.id)) return 'exists'
      if (ofAccount(db, row.sub).length >= most) return 'full'
      insertPasskey(db, row)
      return 'added'
    },
    findPasskey: find,
    passkeysOf: ofAccount,
    usePasskey(
      db: DatabaseSync,
      { id, counter, at }: { id: string; counter: number; at: number },
    ): boolean {
      const row = find(db, id)
      if (row === undefined) return false
      if (counter <= row.counter && (counter !== 0 || row.counter !== 0)) return false
      const after = { ...row, counter, usedAt: at }
      db.prepare('UPDATE passkey SET row = ? WHERE id = ?').run(JSON.stringify(after), id)
      return true
    },
    removePasskey(
      db: DatabaseSync,
      { sub, id, least }: { sub: string; id: string; least: number },
    ): Awaited<ReturnType<PasskeyStore['removePasskey']>> {
      if (find(db, id)?.sub !== sub) return 'unknown'
      if (ofAccount(db, sub).length <= least) return 'last'
      db.prepare('DELETE FROM passkey WHERE id = ?').run(id)
      // One transaction: no instant at which the key is gone and still counts.
      db.prepare('UPDATE login SET stepped = NULL WHERE sub = ?').run(sub)
      return 'removed'
    },
  },
} as const satisfies Room

export class SqlitePasskeyStore implements PasskeyStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addPasskey(
    row: PasskeyRow,
    most: number,
    by: FactorBy,
  ): Promise<'added' | 'exists' | 'full' | 'ended' | 'moved'> {
    return this.#thread.call('passkeys', 'addPasskey', { row, most, by })
  }
  async findPasskey(id: string): Promise<PasskeyRow | undefined> {
    return this.#thread.call('passkeys', 'findPasskey', id)
  }
  async passkeysOf(sub: string): Promise<readonly PasskeyRow[]> {
    return this.#thread.call('passkeys', 'passkeysOf', sub)
  }
  async usePasskey(id: string, counter: number, at: number): Promise<boolean> {
    return this.#thread.call('passkeys', 'usePasskey', { id, counter, at })
  }
  async removePasskey(
    sub: string,
    id: string,
    least: number,
  ): Promise<'removed' | 'unknown' | 'last'> {
    return this.#thread.call('passkeys', 'removePasskey', { sub, id, least })
  }
}
