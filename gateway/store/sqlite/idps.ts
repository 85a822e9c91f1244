/** Companies' own providers, and the accounts they made: operations of room `identity`. */
import type { DatabaseSync } from 'node:sqlite'
import type { AccountRow, IdpRow, IdpStore, Outside } from '../../identity/store.ts'
import type { SqliteThread } from './thread.ts'

const MOST = 100
/** How many people one provider may bring: a broken or hostile one must not fill the store. */
export const MOST_PEOPLE = 10_000

/** One name for what an account is called outside. */
export function outsideKey({ idp, issuer, subject }: Outside): string {
  return JSON.stringify([idp, issuer, subject])
}

function rowOf(row: Record<string, unknown> | undefined): IdpRow | undefined {
  const json = row?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as IdpRow) : undefined
}

function all(db: DatabaseSync): IdpRow[] {
  const rows = db.prepare('SELECT row FROM idp ORDER BY id').all()
  return rows.map(rowOf).filter((row) => row !== undefined)
}

function subsOf(db: DatabaseSync, id: string): string[] {
  return db
    .prepare('SELECT sub FROM account WHERE idp = ? ORDER BY sub')
    .all(id)
    .map((row) => String(row['sub']))
}

export const idpOperations = {
  addIdp(db: DatabaseSync, row: IdpRow): 'added' | 'exists' | 'taken' | 'full' {
    const known = all(db)
    if (known.some(({ id }) => id === row.id)) return 'exists'
    const same = (other: IdpRow) =>
      (other.issuer === row.issuer && other.clientId === row.clientId) ||
      other.domains.some((domain) => row.domains.includes(domain))
    if (known.some(same)) return 'taken'
    if (known.length >= MOST) return 'full'
    db.prepare('INSERT INTO idp VALUES (?, ?)').run(row.id, JSON.stringify(row))
    return 'added'
  },
  findIdp: (db: DatabaseSync, id: string): IdpRow | undefined =>
    rowOf(db.prepare('SELECT row FROM idp WHERE id = ?').get(id)),
  listIdps: (db: DatabaseSync, _: null): IdpRow[] => all(db),
  setIdpEnabled(
    db: DatabaseSync,
    { id, enabled, now }: { id: string; enabled: boolean; now: number },
  ): boolean {
    const row = rowOf(db.prepare('SELECT row FROM idp WHERE id = ?').get(id))
    if (row === undefined) return false
    const after = JSON.stringify({ ...row, enabled, changedAt: now })
    db.prepare('UPDATE idp SET row = ? WHERE id = ?').run(after, id)
    return true
  },
  removeIdp(db: DatabaseSync, { id, now }: { id: string; now: number }): string[] {
    db.prepare('DELETE FROM idp WHERE id = ?').run(id)
    const people = subsOf(db, id)
    const find = db.prepare('SELECT row FROM account WHERE sub = ?')
    // The row keeps the address for the record; the column, which is unique, lets it go.
    const retire = db.prepare(
      'UPDATE account SET email = ?, admin = 0, outside = NULL, idp = NULL, row = ? WHERE sub = ?',
    )
    for (const sub of people) {
      const account = JSON.parse(String(find.get(sub)?.['row'])) as AccountRow
      const after = { ...account, disabled: true, changedAt: now }
      retire.run(`removed:${sub}`, JSON.stringify(after), sub)
    }
    return people
  },
  accountsOfIdp: (db: DatabaseSync, id: string): string[] => subsOf(db, id),
} as const

export class SqliteIdpStore implements IdpStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addIdp(row: IdpRow): Promise<'added' | 'exists' | 'taken' | 'full'> {
    return this.#thread.call('identity', 'addIdp', row)
  }
  async findIdp(id: string): Promise<IdpRow | undefined> {
    return this.#thread.call('identity', 'findIdp', id)
  }
  async listIdps(): Promise<readonly IdpRow[]> {
    return this.#thread.call('identity', 'listIdps', null)
  }
  async setIdpEnabled(id: string, enabled: boolean, now: number): Promise<boolean> {
    return this.#thread.call('identity', 'setIdpEnabled', { id, enabled, now })
  }
  async removeIdp(id: string, now: number): Promise<readonly string[]> {
    return this.#thread.call('identity', 'removeIdp', { id, now })
  }
  async accountsOfIdp(id: string): Promise<readonly string[]> {
    return this.#thread.call('identity', 'accountsOfIdp', id)
  }
}
