/** Accounts, attempts, the bootstrap token (room `identity`) and the OpenID provider's models (room `oidc`). */
import type { DatabaseSync } from 'node:sqlite'
import type {
  AccountFields,
  AccountRow,
  ChangeOutcome,
  IdentityStore,
  LoginRow,
  StandingLogin,
  OidcRow,
  OidcStore,
  OnlyIf,
  Outside,
  Throttle,
  ThrottleAnswer,
} from '../../identity/store.ts'
import type { Authentication } from '../../identity/subject.ts'
import { account, number, text, type Row } from './account.ts'
import { belongings } from './belongings.ts'
import { idpOperations, MOST_PEOPLE, outsideKey } from './idps.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function isAdmin(row: AccountRow): 0 | 1 {
  return !row.disabled && row.roles.includes('admin') ? 1 : 0
}

export function findAccount(db: DatabaseSync, sub: string): AccountRow | undefined {
  return account(db.prepare('SELECT row FROM account WHERE sub = ?').get(sub))
}

export function insertAccount(db: DatabaseSync, row: AccountRow): boolean {
  const idp = row.outside?.idp ?? null
  const held = idp === null ? 0 : number(countOf(db, idp), 'count')
  if (held >= MOST_PEOPLE) return false
  const inserted = db
    .prepare('INSERT INTO account VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING')
    .run(
      row.sub,
      row.email,
      isAdmin(row),
      JSON.stringify(row),
      row.outside === null ? null : outsideKey(row.outside),
      idp,
    )
  return inserted.changes === 1
}

function countOf(db: DatabaseSync, idp: string): Row | undefined {
  return db.prepare('SELECT count(*) AS count FROM account WHERE idp = ?').get(idp)
}

function anyAccount(db: DatabaseSync): boolean {
  return db.prepare('SELECT 1 AS one FROM account LIMIT 1').get() !== undefined
}

export const identityRoom = {
  migrations: [
    `CREATE TABLE account (sub TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, admin INTEGER NOT NULL, row TEXT NOT NULL) STRICT;
     CREATE TABLE throttle (key TEXT PRIMARY KEY, count INTEGER NOT NULL, until INTEGER NOT NULL) STRICT;
     CREATE INDEX throttle_until ON throttle (until);
     CREATE TABLE bootstrap (one INTEGER PRIMARY KEY CHECK (one = 1), hash TEXT NOT NULL, spent INTEGER NOT NULL) STRICT;`,
    `CREATE TABLE idp (id TEXT PRIMARY KEY, row TEXT NOT NULL) STRICT;
     ALTER TABLE account ADD COLUMN outside TEXT;
     ALTER TABLE account ADD COLUMN idp TEXT;
     CREATE UNIQUE INDEX account_outside ON account (outside) WHERE outside IS NOT NULL;
     CREATE INDEX account_idp ON account (idp) WHERE idp IS NOT NULL;`,
  ],
  operations: {
    ...idpOperations,
    findAccountByOutside: (db: DatabaseSync, outside: Outside): AccountRow | undefined =>
      account(db.prepare('SELECT row FROM account WHERE outside = ?').get(outsideKey(outside))),
    addAccount: (db: DatabaseSync, row: AccountRow): boolean => insertAccount(db, row),
    findAccount,
    findAccountByEmail: (db: DatabaseSync, email: string): AccountRow | undefined =>
      account(db.prepare('SELECT row FROM account WHERE email = ?').get(email)),
    listAccounts: (db: DatabaseSync, args: { after: string; limit: number }): AccountRow[] =>
      db
        .prepare('SELECT row FROM account WHERE sub > ? ORDER BY sub LIMIT ?')
        .all(args.after, args.limit)
        .map((row) => account(row))
        .filter((row) => row !== undefined),
    changeAccount,
    take,
    settle(
      db: DatabaseSync,
      args: { forget: readonly string[]; giveBack: readonly string[] },
    ): void {
      const forget = db.prepare('DELETE FROM throttle WHERE key = ?')
      for (const key of args.forget) forget.run(key)
      const back = db.prepare('UPDATE throttle SET count = count - 1 WHERE key = ? AND count > 0')
      for (const key of args.giveBack) back.run(key)
    },
    belongings,
    bootstrapHash: (db: DatabaseSync, _: null): string | undefined =>
      text(db.prepare('SELECT hash FROM bootstrap WHERE spent = 0').get(), 'hash'),
    openBootstrap(db: DatabaseSync, hash: string): boolean {
      const spent = db.prepare('SELECT spent FROM bootstrap').get()
      if (anyAccount(db) || number(spent, 'spent') === 1) return false
      db.prepare(
        'INSERT INTO bootstrap VALUES (1, ?, 0) ON CONFLICT DO UPDATE SET hash = excluded.hash',
      ).run(hash)
      return true
    },
    redeemBootstrap(
      db: DatabaseSync,
      args: { hash: string; account: AccountRow },
    ): 'redeemed' | 'invalid' | 'spent' {
      const row = db.prepare('SELECT hash, spent FROM bootstrap').get()
      if (text(row, 'hash') !== args.hash) return 'invalid'
      if (number(row, 'spent') === 1 || anyAccount(db) || !insertAccount(db, args.account))
        return 'spent'
      db.exec('UPDATE bootstrap SET spent = 1')
      return 'redeemed'
    },
  },
} as const satisfies Room

export function changeAccount(
  db: DatabaseSync,
  { change, only }: { readonly change: AccountFields; readonly only: OnlyIf },
): ChangeOutcome {
  const before = db
    .prepare('SELECT row, email, admin, idp FROM account WHERE sub = ?')
    .get(change.sub)
  const held = account(before)
  if (held === undefined) return 'unknown'
  if (only.enabled === true && held.disabled) return 'disabled'
  if (only.changedAt !== undefined && only.changedAt !== held.changedAt) return 'moved'
  const row = { ...held, ...change, changedAt: Math.max(change.changedAt, held.changedAt + 1) }
  // Of an account whose provider was removed, the address is free: the row keeps it for the record only.
  const email = change.email ?? text(before, 'email') ?? row.email
  const other = db.prepare('SELECT sub FROM account WHERE email = ?').get(email)
  if (other !== undefined && text(other, 'sub') !== row.sub) return 'taken'
  // An administrator from outside does not count: their provider may be down on the day they are needed.
  const own = held.outside === null
  if (own && number(before, 'admin') === 1 && isAdmin(row) === 0) {
    const left = db
      .prepare('SELECT 1 AS one FROM account WHERE admin = 1 AND idp IS NULL AND sub <> ?')
      .get(row.sub)
    if (left === undefined) return 'last_admin'
  }
  db.prepare('UPDATE account SET email = ?, admin = ?, row = ? WHERE sub = ?').run(
    email,
    // Never again of one whose provider was removed: it would count as one of our own.
    own || text(before, 'idp') !== undefined ? isAdmin(row) : 0,
    JSON.stringify(row),
    row.sub,
  )
  return 'changed'
}

function take(
  db: DatabaseSync,
  args: { throttles: readonly Throttle[]; now: number },
): ThrottleAnswer {
  db.prepare('DELETE FROM throttle WHERE until <= ?').run(args.now)
  const find = db.prepare('SELECT count, until FROM throttle WHERE key = ?')
  const waits = args.throttles
    .map((throttle) => ({ throttle, row: find.get(throttle.key) }))
    .filter(({ throttle, row }) => number(row, 'count') >= throttle.limit)
    .map(({ row }) => number(row, 'until') - args.now)
  if (waits.length > 0) return { allowed: false, retryAfterMs: Math.max(...waits) }
  // Each attempt moves the end of the window, so a lock lasts a whole window after the last guess.
  const count = db.prepare(
    'INSERT INTO throttle VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET count = count + 1, until = excluded.until',
  )
  for (const { key, windowMs } of args.throttles) count.run(key, args.now + windowMs)
  return { allowed: true, retryAfterMs: 0 }
}

/** A row of the provider as it crosses the thread: its payload is JSON already. */
interface OidcRecord {
  readonly model: string
  readonly id: string
  readonly payload: string
  readonly grant: string | null
  readonly uid: string | null
  readonly userCode: string | null
  readonly sub: string | null
  readonly expiresAt: number | null
}

export const oidcRoom = {
  migrations: [
    `CREATE TABLE oidc (
       model TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, grant_id TEXT, uid TEXT, user_code TEXT,
       sub TEXT, expires INTEGER, PRIMARY KEY (model, id)) STRICT, WITHOUT ROWID;
     CREATE INDEX oidc_grant ON oidc (grant_id) WHERE grant_id IS NOT NULL;
     CREATE INDEX oidc_uid ON oidc (uid) WHERE uid IS NOT NULL;
     CREATE INDEX oidc_user_code ON oidc (user_code) WHERE user_code IS NOT NULL;
     CREATE INDEX oidc_sub ON oidc (sub) WHERE sub IS NOT NULL;
     CREATE INDEX oidc_expires ON oidc (expires) WHERE expires IS NOT NULL;
     CREATE TABLE login (
       login TEXT PRIMARY KEY, sub TEXT NOT NULL, client TEXT NOT NULL, started INTEGER NOT NULL,
       until INTEGER NOT NULL) STRICT;
     CREATE INDEX login_sub ON login (sub);
     CREATE INDEX login_until ON login (until);`,
    'ALTER TABLE login ADD COLUMN stepped TEXT;',
  ],
  operations: {
    upsert(db: DatabaseSync, row: OidcRecord): void {
      db.prepare(
        `INSERT INTO oidc VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET payload = excluded.payload,
         grant_id = excluded.grant_id, uid = excluded.uid, user_code = excluded.user_code, sub = excluded.sub,
         expires = excluded.expires`,
      ).run(
        row.model,
        row.id,
        row.payload,
        row.grant,
        row.uid,
        row.userCode,
        row.sub,
        row.expiresAt,
      )
    },
    insert(db: DatabaseSync, row: OidcRecord): boolean {
      const values = [row.model, row.id, row.payload, row.grant, row.uid, row.userCode, row.sub]
      const inserted = db
        .prepare('INSERT INTO oidc VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING')
        .run(...values, row.expiresAt)
      return inserted.changes === 1
    },
    find: (db: DatabaseSync, { model, id }: { model: string; id: string }): string | undefined =>
      text(
        db.prepare('SELECT payload FROM oidc WHERE model = ? AND id = ?').get(model, id),
        'payload',
      ),
    findByUid: (db: DatabaseSync, args: { model: string; uid: string }): string | undefined =>
      text(
        db
          .prepare('SELECT payload FROM oidc WHERE uid = ? AND model = ?')
          .get(args.uid, args.model),
        'payload',
      ),
    findByUserCode: (db: DatabaseSync, args: { model: string; code: string }): string | undefined =>
      text(
        db
          .prepare('SELECT payload FROM oidc WHERE user_code = ? AND model = ?')
          .get(args.code, args.model),
        'payload',
      ),
    consume(db: DatabaseSync, args: { model: string; id: string; at: number }): boolean {
      const consumed = db
        .prepare(
          `UPDATE oidc SET payload = json_set(payload, '$.consumed', ?)
           WHERE model = ? AND id = ? AND payload ->> '$.consumed' IS NULL`,
        )
        .run(args.at, args.model, args.id)
      return consumed.changes === 1
    },
    destroy(db: DatabaseSync, { model, id }: { model: string; id: string }): void {
      db.prepare('DELETE FROM oidc WHERE model = ? AND id = ?').run(model, id)
    },
    revokeByGrant(db: DatabaseSync, args: { model: string; grant: string }): void {
      db.prepare('DELETE FROM oidc WHERE grant_id = ? AND model = ?').run(args.grant, args.model)
    },
    extendLogin(db: DatabaseSync, row: LoginRow): void {
      db.prepare(
        'INSERT INTO login (login, sub, client, started, until) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)',
      ).run(row.login, row.sub, row.client, row.startedAt, row.tokenUntil)
    },
    findLogin,
    stepUp: (db: DatabaseSync, args: { login: string; authn: Authentication }): boolean =>
      db
        .prepare('UPDATE login SET stepped = ? WHERE login = ?')
        .run(JSON.stringify(args.authn), args.login).changes === 1,
    endLogin(db: DatabaseSync, login: string): boolean {
      db.prepare('DELETE FROM oidc WHERE grant_id = ?').run(login)
      db.prepare("DELETE FROM oidc WHERE model = 'Grant' AND id = ?").run(login)
      return db.prepare('DELETE FROM login WHERE login = ?').run(login).changes === 1
    },
    hasLogins: (db: DatabaseSync, sub: string): boolean =>
      db
        .prepare(
          `SELECT 1 FROM login WHERE sub = ?1 UNION ALL SELECT 1 FROM oidc
           WHERE sub = ?1 AND model IN ('Session', 'Grant', 'Interaction', 'IdpReturn') LIMIT 1`,
        )
        .get(sub) !== undefined,
    endLoginsOf,
    sweep(db: DatabaseSync, before: number): number {
      const swept = db
        .prepare(
          'DELETE FROM oidc WHERE (model, id) IN (SELECT model, id FROM oidc WHERE expires <= ? LIMIT 10000)',
        )
        .run(before)
      db.prepare(
        `DELETE FROM login WHERE until <= ? AND NOT EXISTS
         (SELECT 1 FROM oidc WHERE model = 'Grant' AND id = login.login)`,
      ).run(before)
      return Number(swept.changes)
    },
  },
} as const satisfies Room

/** Every login of a person, and what waits to become one; gives the logins. */
export function endLoginsOf(db: DatabaseSync, sub: string): string[] {
  db.prepare('DELETE FROM oidc WHERE sub = ?').run(sub)
  return db
    .prepare('DELETE FROM login WHERE sub = ? RETURNING login')
    .all(sub)
    .map((row) => text(row, 'login') ?? '')
}

function findLogin(
  db: DatabaseSync,
  args: { login: string; now: number },
): StandingLogin | undefined {
  const row = db
    .prepare(
      `SELECT l.* FROM login l JOIN oidc g ON g.model = 'Grant' AND g.id = l.login
       WHERE l.login = ? AND g.expires > ?`,
    )
    .get(args.login, args.now)
  if (row === undefined) return undefined
  const stepped = text(row, 'stepped')
  return {
    stepped: stepped === undefined ? null : (JSON.parse(stepped) as Authentication),
    login: args.login,
    sub: text(row, 'sub') ?? '',
    client: text(row, 'client') ?? '',
    startedAt: number(row, 'started'),
    tokenUntil: number(row, 'until'),
  }
}

export class SqliteIdentityStore implements IdentityStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addAccount(row: AccountRow): Promise<boolean> {
    return this.#thread.call('identity', 'addAccount', row)
  }
  async findAccount(sub: string): Promise<AccountRow | undefined> {
    return this.#thread.call('identity', 'findAccount', sub)
  }
  async findAccountByEmail(email: string): Promise<AccountRow | undefined> {
    return this.#thread.call('identity', 'findAccountByEmail', email)
  }
  async findAccountByOutside(outside: Outside): Promise<AccountRow | undefined> {
    return this.#thread.call('identity', 'findAccountByOutside', outside)
  }
  async listAccounts(after: string, limit: number): Promise<readonly AccountRow[]> {
    return this.#thread.call('identity', 'listAccounts', { after, limit })
  }
  async changeAccount(change: AccountFields, only: OnlyIf = {}): Promise<ChangeOutcome> {
    return this.#thread.call('identity', 'changeAccount', { change, only })
  }
  async take(throttles: readonly Throttle[], now: number): Promise<ThrottleAnswer> {
    return this.#thread.call('identity', 'take', { throttles, now })
  }
  async settle(forget: readonly string[], giveBack: readonly string[]): Promise<void> {
    await this.#thread.call('identity', 'settle', { forget, giveBack })
  }
  async bootstrapHash(): Promise<string | undefined> {
    return this.#thread.call('identity', 'bootstrapHash', null)
  }
  async openBootstrap(hash: string): Promise<boolean> {
    return this.#thread.call('identity', 'openBootstrap', hash)
  }
  async redeemBootstrap(hash: string, row: AccountRow): Promise<'redeemed' | 'invalid' | 'spent'> {
    return this.#thread.call('identity', 'redeemBootstrap', { hash, account: row })
  }
}

type Payload = OidcRow['payload']

/** Whom a question of the provider was answered as, while the answer waits for its browser to come back. */
function ofAnswer({ result }: Payload): string | null {
  const { login } = (result ?? {}) as { readonly login?: Row }
  return text(login, 'accountId') ?? null
}

/** The members that are looked for stand beside the row. */
export function recordOf({ model, id, payload, expiresAt }: OidcRow): OidcRecord {
  const member = (name: string): string | null => text(payload, name) ?? null
  return {
    model,
    id,
    payload: JSON.stringify(payload),
    grant: member('grantId'),
    uid: member('uid'),
    userCode: member('userCode'),
    sub: member('accountId') ?? ofAnswer(payload),
    expiresAt,
  }
}

function parse(payload: string | undefined): Payload | undefined {
  return payload === undefined ? undefined : (JSON.parse(payload) as Payload)
}

export class SqliteOidcStore implements OidcStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async upsert(row: OidcRow): Promise<void> {
    await this.#thread.call('oidc', 'upsert', recordOf(row))
  }
  async insert(row: OidcRow): Promise<boolean> {
    return this.#thread.call('oidc', 'insert', recordOf(row))
  }
  async find(model: string, id: string): Promise<Payload | undefined> {
    return parse(await this.#thread.call('oidc', 'find', { model, id }))
  }
  async findByUid(model: string, uid: string): Promise<Payload | undefined> {
    return parse(await this.#thread.call('oidc', 'findByUid', { model, uid }))
  }
  async findByUserCode(model: string, code: string): Promise<Payload | undefined> {
    return parse(await this.#thread.call('oidc', 'findByUserCode', { model, code }))
  }
  async consume(model: string, id: string, at: number): Promise<boolean> {
    return this.#thread.call('oidc', 'consume', { model, id, at })
  }
  async destroy(model: string, id: string): Promise<void> {
    await this.#thread.call('oidc', 'destroy', { model, id })
  }
  async revokeByGrant(model: string, grant: string): Promise<void> {
    await this.#thread.call('oidc', 'revokeByGrant', { model, grant })
  }
  async extendLogin(login: LoginRow): Promise<void> {
    await this.#thread.call('oidc', 'extendLogin', login)
  }
  async findLogin(login: string, now: number): Promise<StandingLogin | undefined> {
    return this.#thread.call('oidc', 'findLogin', { login, now })
  }
  async stepUp(login: string, authn: Authentication): Promise<boolean> {
    return this.#thread.call('oidc', 'stepUp', { login, authn })
  }
  async endLogin(login: string): Promise<boolean> {
    return this.#thread.call('oidc', 'endLogin', login)
  }
  async hasLogins(sub: string): Promise<boolean> {
    return this.#thread.call('oidc', 'hasLogins', sub)
  }
  async endLoginsOf(sub: string): Promise<readonly string[]> {
    return this.#thread.call('oidc', 'endLoginsOf', sub)
  }
  async sweep(before: number): Promise<number> {
    return this.#thread.call('oidc', 'sweep', before)
  }
}
