/** Invitations in store.sqlite: one row each; the account, its passkey and the end of the invitation are one write. */
import type { DatabaseSync } from 'node:sqlite'
import type {
  AccountRow,
  InvitationPlace,
  InvitationRow,
  InvitationStore,
  PasskeyRow,
} from '../../identity/store.ts'
import { changeAccount, endLoginsOf, findAccount, insertAccount } from './identity.ts'
import { insertPasskey, isPasskey, removePasskeys } from './passkeys.ts'
import { removeTotp } from './totp.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

/** Those that were used, withdrawn or ran out, and are kept for the list. */
const KEPT = 1_000
/** Before all others. */
const NEWEST: InvitationPlace = { createdAt: Number.MAX_SAFE_INTEGER, id: '' }

function rowOf(row: Record<string, unknown> | undefined): InvitationRow | undefined {
  const json = row?.['row']
  return typeof json === 'string' ? (JSON.parse(json) as InvitationRow) : undefined
}

type Key = Parameters<InvitationStore['findInvitation']>[0]

const find = (db: DatabaseSync, key: Key): InvitationRow | undefined =>
  'id' in key
    ? rowOf(db.prepare('SELECT row FROM invitation WHERE id = ?').get(key.id))
    : rowOf(db.prepare('SELECT row FROM invitation WHERE hash = ?').get(key.hash))

const OPEN = 'SELECT 1 FROM invitation WHERE open = 1 AND expires > ?'

const standing = (db: DatabaseSync, now: number): number => db.prepare(OPEN).all(now).length

function isTaken(db: DatabaseSync, { email, now }: { email: string; now: number }): boolean {
  if (db.prepare('SELECT 1 FROM account WHERE email = ?').get(email) !== undefined) return true
  return db.prepare(`${OPEN} AND email = ?`).get(now, email) !== undefined
}

const stands = ({ closed, expiresAt }: InvitationRow, at: number): boolean =>
  closed === null && expiresAt > at

function close(db: DatabaseSync, row: InvitationRow, closed: InvitationRow['closed']) {
  const after: InvitationRow = { ...row, closed }
  db.prepare('UPDATE invitation SET open = 0, row = ? WHERE id = ?').run(
    JSON.stringify(after),
    row.id,
  )
  return after
}

/** The newest link is the one that counts. */
function closeRenewals(db: DatabaseSync, { sub, email, createdAt }: InvitationRow): void {
  const open = db.prepare('SELECT row FROM invitation WHERE open = 1 AND email = ?').all(email)
  for (const row of open.map(rowOf))
    if (row?.renews === true && row.sub === sub) close(db, row, { at: createdAt, how: 'revoked' })
}

export const invitationsRoom = {
  migrations: [
    `CREATE TABLE invitation (
       id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, email TEXT NOT NULL, created INTEGER NOT NULL,
       expires INTEGER NOT NULL, open INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE INDEX invitation_email ON invitation (email) WHERE open = 1;
     CREATE INDEX invitation_created ON invitation (created);`,
  ],
  operations: {
    isTaken,
    standingInvitations: standing,
    addInvitation(
      db: DatabaseSync,
      { row, most }: { row: InvitationRow; most: number },
    ): Awaited<ReturnType<InvitationStore['addInvitation']>> {
      const { id, hash, email, createdAt, expiresAt } = row
      if (!row.renews && isTaken(db, { email, now: createdAt })) return 'exists'
      if (standing(db, createdAt) >= most) return 'full'
      db.prepare(
        `DELETE FROM invitation WHERE id IN (SELECT id FROM invitation WHERE open = 0 OR expires <= ?
         ORDER BY created DESC LIMIT -1 OFFSET ${KEPT})`,
      ).run(createdAt)
      if (row.renews) closeRenewals(db, row)
      db.prepare('INSERT INTO invitation VALUES (?, ?, ?, ?, ?, 1, ?)').run(
        id,
        hash,
        email,
        createdAt,
        expiresAt,
        JSON.stringify(row),
      )
      return 'added'
    },
    findInvitation: find,
    listInvitations: (
      db: DatabaseSync,
      { limit, after }: { limit: number; after: InvitationPlace },
    ): InvitationRow[] =>
      db
        .prepare(
          `SELECT row FROM invitation WHERE (created, id) < (?, ?)
           ORDER BY created DESC, id DESC LIMIT ?`,
        )
        .all(after.createdAt, after.id, limit)
        .map(rowOf)
        .filter((row) => row !== undefined),
    closeInvitation(
      db: DatabaseSync,
      { id, at }: { id: string; at: number },
    ): InvitationRow | undefined {
      const row = find(db, { id })
      return row?.closed === null ? close(db, row, { at, how: 'revoked' }) : row
    },
    redeemInvitation(
      db: DatabaseSync,
      args: { hash: string; account: AccountRow; passkey: PasskeyRow | null; at: number },
    ): Awaited<ReturnType<InvitationStore['redeemInvitation']>> {
      const { account, passkey, at } = args
      const row = find(db, { hash: args.hash })
      if (row === undefined || row.renews || !stands(row, at)) return 'closed'
      // Everything is looked at before anything is written: an answer here rolls nothing back.
      if (passkey !== null && isPasskey(db, passkey.id)) return 'exists'
      if (!insertAccount(db, account)) return 'taken'
      if (passkey !== null) insertPasskey(db, passkey)
      close(db, row, { at, how: 'used' })
      return 'redeemed'
    },
    renewAccount(
      db: DatabaseSync,
      args: { hash: string; password: string | null; passkey: PasskeyRow | null; at: number },
    ): Awaited<ReturnType<InvitationStore['renewAccount']>> {
      const { password, passkey, at } = args
      const row = find(db, { hash: args.hash })
      if (row === undefined || !row.renews || !stands(row, at)) return 'closed'
      const { sub } = row
      if (findAccount(db, sub)?.outside !== null) return 'gone'
      if (passkey !== null && isPasskey(db, passkey.id, sub)) return 'exists'
      const change = { sub, password, changedAt: at }
      if (changeAccount(db, { change, only: { enabled: true } }) !== 'changed') return 'gone'
      removePasskeys(db, sub)
      removeTotp(db, sub)
      endLoginsOf(db, sub)
      if (passkey !== null) insertPasskey(db, passkey)
      close(db, row, { at, how: 'used' })
      return 'renewed'
    },
  },
} as const satisfies Room

export class SqliteInvitationStore implements InvitationStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async isTaken(email: string, now: number): Promise<boolean> {
    return this.#thread.call('invitations', 'isTaken', { email, now })
  }
  async standingInvitations(now: number): Promise<number> {
    return this.#thread.call('invitations', 'standingInvitations', now)
  }
  async addInvitation(row: InvitationRow, most: number): Promise<'added' | 'exists' | 'full'> {
    return this.#thread.call('invitations', 'addInvitation', { row, most })
  }
  async findInvitation(key: Key): Promise<InvitationRow | undefined> {
    return this.#thread.call('invitations', 'findInvitation', key)
  }
  async listInvitations(limit: number, after = NEWEST): Promise<readonly InvitationRow[]> {
    return this.#thread.call('invitations', 'listInvitations', { limit, after })
  }
  async closeInvitation(id: string, at: number): Promise<InvitationRow | undefined> {
    return this.#thread.call('invitations', 'closeInvitation', { id, at })
  }
  async redeemInvitation(
    hash: string,
    account: AccountRow,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'redeemed' | 'closed' | 'taken' | 'exists'> {
    return this.#thread.call('invitations', 'redeemInvitation', { hash, account, passkey, at })
  }
  async renewAccount(
    hash: string,
    password: string | null,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'renewed' | 'closed' | 'gone' | 'exists'> {
    return this.#thread.call('invitations', 'renewAccount', { hash, password, passkey, at })
  }
}
