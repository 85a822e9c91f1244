/**
 * What this room must find again after a crash. Rows are structured-clone data; every method is one
 * durable transaction: when it resolves, it holds. Instants are epoch milliseconds.
 */
import type { Party } from './subject.ts'

export interface AccountRow {
  /** Never used again, never changed: 26 characters. */
  readonly sub: string
  /** Lower-cased; unique. */
  readonly email: string
  readonly name: string
  readonly party: Party
  readonly vendor: string | null
  readonly groups: readonly string[]
  readonly roles: readonly string[]
  readonly disabled: boolean
  /** PHC string; null: this account has no password. */
  readonly password: string | null
  readonly createdAt: number
  readonly changedAt: number
}

/** One counter of attempts: so many within the window, then closed until the window has passed. */
export interface Throttle {
  /** What is counted, e.g. `login:<source>:<email>`. */
  readonly key: string
  readonly limit: number
  readonly windowMs: number
}

export interface ThrottleAnswer {
  readonly allowed: boolean
  /** How long until the first of the exhausted counters opens again; 0 when allowed. */
  readonly retryAfterMs: number
}

export interface IdentityStore {
  /** False if the address is taken; nothing was written. */
  addAccount(account: AccountRow): Promise<boolean>
  findAccount(sub: string): Promise<AccountRow | undefined>
  findAccountByEmail(email: string): Promise<AccountRow | undefined>
  /** In order of `sub`, after `after`, at most `limit`. */
  listAccounts(after: string, limit: number): Promise<readonly AccountRow[]>
  /**
   * Replaces the row. `taken`: another has the address; `last_admin`: no enabled administrator would
   * be left; `unknown`: no such row. Nothing was written unless `changed`.
   */
  changeAccount(account: AccountRow): Promise<'changed' | 'taken' | 'last_admin' | 'unknown'>

  /** Counts one attempt on every counter, unless one of them is exhausted: then none is touched. */
  take(throttles: readonly Throttle[], now: number): Promise<ThrottleAnswer>
  /** After an attempt that was none of the bad ones: drops some counters, takes one off others. */
  settle(forget: readonly string[], giveBack: readonly string[]): Promise<void>

  /** SHA-256 (hex) of the bootstrap token that can still be redeemed, if there is one. */
  bootstrapHash(): Promise<string | undefined>
  /** Sets the hash; false if an account exists or a token was redeemed before. */
  openBootstrap(hash: string): Promise<boolean>
  /** One transaction: the token is the open one, no account exists; then it is spent and the account there. */
  redeemBootstrap(hash: string, account: AccountRow): Promise<'redeemed' | 'invalid' | 'spent'>
}

/** A model of the OpenID provider, as it hands it over: JSON data under an id. */
export interface OidcRow {
  readonly model: string
  readonly id: string
  readonly payload: Readonly<Record<string, unknown>>
  /** Null: does not expire. */
  readonly expiresAt: number | null
}

/** One login: a grant of the provider, and until when its newest access token is good. */
export interface LoginRow {
  readonly login: string
  readonly sub: string
  readonly client: string
  readonly startedAt: number
  readonly tokenUntil: number
}

export interface OidcStore {
  upsert(row: OidcRow): Promise<void>
  /** As upsert, but false (and nothing written) if the row exists. */
  insert(row: OidcRow): Promise<boolean>
  /** These give expired rows too, until they are swept: the provider tells "expired" from "unknown". */
  find(model: string, id: string): Promise<OidcRow['payload'] | undefined>
  findByUid(model: string, uid: string): Promise<OidcRow['payload'] | undefined>
  findByUserCode(model: string, code: string): Promise<OidcRow['payload'] | undefined>
  /** Marks a code or token as used, at epoch second `at`; false if it was used before, or is gone. */
  consume(model: string, id: string, at: number): Promise<boolean>
  destroy(model: string, id: string): Promise<void>
  /** Removes every row of the model that belongs to the grant. */
  revokeByGrant(model: string, grant: string): Promise<void>

  /** The newest access token of a login is good until `tokenUntil`; makes the row with the first. */
  extendLogin(login: LoginRow): Promise<void>
  /** The login if its grant still stands at `now`. */
  findLogin(login: string, now: number): Promise<LoginRow | undefined>
  /** Ends one login with every code and token under it; false if it had ended. */
  endLogin(login: string): Promise<boolean>
  /** Ends everything of a person, browser sessions included; gives the logins that ended. */
  endLoginsOf(sub: string): Promise<readonly string[]>
  /** Removes what had expired by `before`, at most 10,000 rows; gives how many. */
  sweep(before: number): Promise<number>
}
