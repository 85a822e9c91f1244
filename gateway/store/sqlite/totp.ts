/** Authenticator apps in store.sqlite: one row an account, and a step that only goes up. */
import type { DatabaseSync } from 'node:sqlite'
import type { FactorBy } from '../../identity/store.ts'
import type { TotpRow, TotpStore } from '../../identity/totp/store.ts'
import { whyNotAdd } from './factors.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function find(db: DatabaseSync, sub: string): TotpRow | undefined {
  const json = db.prepare('SELECT row FROM totp WHERE sub = ?').get(sub)?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as TotpRow) : undefined
}

const put = (db: DatabaseSync, row: TotpRow): void =>
  void db
    .prepare('INSERT INTO totp VALUES (?, ?) ON CONFLICT DO UPDATE SET row = excluded.row')
    .run(row.sub, JSON.stringify(row))

/** Takes an account's; false if there was none. */
export const removeTotp = (db: DatabaseSync, sub: string): boolean =>
  db.prepare('DELETE FROM totp WHERE sub = ?').run(sub).changes === 1

export const totpRoom = {
  migrations: ['CREATE TABLE totp (sub TEXT PRIMARY KEY, row TEXT NOT NULL) STRICT;'],
  operations: {
    findTotp: find,
    putTotp(
      db: DatabaseSync,
      { row, replaces, by }: { row: TotpRow; replaces: number | null; by: FactorBy },
    ): Awaited<ReturnType<TotpStore['putTotp']>> {
      const not = whyNotAdd(db, row.sub, by)
      if (not !== null) return not
      if ((find(db, row.sub)?.createdAt ?? null) !== replaces) return 'moved'
      put(db, row)
      return 'added'
    },
    useTotp(
      db: DatabaseSync,
      args: { sub: string; createdAt: number; step: number; at: number },
    ): boolean {
      const row = find(db, args.sub)
      if (row?.createdAt !== args.createdAt || args.step <= row.step) return false
      put(db, { ...row, step: args.step, usedAt: args.at })
      return true
    },
    removeTotp,
  },
} as const satisfies Room

export class SqliteTotpStore implements TotpStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async findTotp(sub: string): Promise<TotpRow | undefined> {
    return this.#thread.call('totp', 'findTotp', sub)
  }
  async putTotp(
    row: TotpRow,
    replaces: number | null,
    by: FactorBy,
  ): Promise<'added' | 'moved' | 'ended'> {
    return this.#thread.call('totp', 'putTotp', { row, replaces, by })
  }
  async useTotp(sub: string, createdAt: number, step: number, at: number): Promise<boolean> {
    return this.#thread.call('totp', 'useTotp', { sub, createdAt, step, at })
  }
  async removeTotp(sub: string): Promise<boolean> {
    return this.#thread.call('totp', 'removeTotp', sub)
  }
}
