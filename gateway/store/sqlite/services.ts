/** Service accounts in store.sqlite: one row each, kept after they were revoked. */
import type { DatabaseSync } from 'node:sqlite'
import { stands, type ServiceRow, type ServiceStore } from '../../identity/services/store.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

/** Those that are past, and are kept for the list. */
const KEPT = 1_000

function rowOf(row: Record<string, unknown> | undefined): ServiceRow | undefined {
  const json = row?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as ServiceRow) : undefined
}

const find = (db: DatabaseSync, id: string): ServiceRow | undefined =>
  rowOf(db.prepare('SELECT row FROM service WHERE id = ?').get(id))

const all = (db: DatabaseSync): ServiceRow[] =>
  db
    .prepare('SELECT row FROM service ORDER BY created DESC, id DESC')
    .all()
    .map(rowOf)
    .filter((row) => row !== undefined)

function put(db: DatabaseSync, row: ServiceRow): void {
  db.prepare('UPDATE service SET row = ? WHERE id = ?').run(JSON.stringify(row), row.id)
}

type Add = { readonly row: ServiceRow; readonly most: number; readonly now: number }

export const servicesRoom = {
  migrations: [
    `CREATE TABLE service (id TEXT PRIMARY KEY, created INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE INDEX service_created ON service (created);`,
  ],
  operations: {
    addService(db: DatabaseSync, { row, most, now }: Add): 'added' | 'exists' | 'full' {
      const known = all(db)
      const standing = known.filter((one) => stands(one, now))
      const same = ({ name, thumbprint }: ServiceRow) =>
        name === row.name || thumbprint === row.thumbprint
      if (standing.some(same)) return 'exists'
      if (standing.length >= most) return 'full'
      const past = known.filter((one) => !stands(one, now)).slice(KEPT)
      for (const { id } of past) db.prepare('DELETE FROM service WHERE id = ?').run(id)
      db.prepare('INSERT INTO service VALUES (?, ?, ?)').run(
        row.id,
        row.createdAt,
        JSON.stringify(row),
      )
      return 'added'
    },
    findService: find,
    listServices: (db: DatabaseSync, _: null): ServiceRow[] => all(db),
    revokeService(db: DatabaseSync, { id, at }: { id: string; at: number }): boolean {
      const row = find(db, id)
      if (row === undefined || row.revokedAt !== null) return false
      put(db, { ...row, revokedAt: at })
      return true
    },
    useService(db: DatabaseSync, args: { id: string; at: number; until: number }): boolean {
      const row = find(db, args.id)
      if (row === undefined || !stands(row, args.at)) return false
      put(db, { ...row, usedAt: args.at, tokenUntil: Math.max(row.tokenUntil, args.until) })
      return true
    },
  },
} satisfies Room

export class SqliteServiceStore implements ServiceStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addService(
    row: ServiceRow,
    most: number,
    now: number,
  ): Promise<'added' | 'exists' | 'full'> {
    return await this.#thread.call('services', 'addService', { row, most, now })
  }
  async findService(id: string): Promise<ServiceRow | undefined> {
    return await this.#thread.call('services', 'findService', id)
  }
  async listServices(): Promise<readonly ServiceRow[]> {
    return await this.#thread.call('services', 'listServices', null)
  }
  async revokeService(id: string, at: number): Promise<boolean> {
    return await this.#thread.call('services', 'revokeService', { id, at })
  }
  async useService(id: string, at: number, until: number): Promise<boolean> {
    return await this.#thread.call('services', 'useService', { id, at, until })
  }
}
