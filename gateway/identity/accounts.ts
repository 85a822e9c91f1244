/** People: who they are, how that is changed, and who did it. */
import type { AccountChange, AccountsOptions, AccountsRoom, Actor, NewAccount } from './account.ts'
import { login, type LoginAnswer, type LoginAttempt } from './attempt.ts'
import { changeAccount, link } from './changing.ts'
import { endFromOutside, endLogins } from './ending.ts'
import type { LogoutEvent } from './events.ts'
import { normalise, withoutPassword, type Account } from './facts.ts'
import { create, redeem } from './making.ts'
import { createPasswords } from './password.ts'
import type { AccountRow } from './store.ts'

export interface Accounts {
  /** Errors: account.email, .name, .vendor, .roles, .groups, .exists, password.*, log.unavailable. */
  create(account: NewAccount, by: Actor): Promise<Account>
  /** Ends every login when the account is disabled or its password changes. Errors: as create, and account.unknown, account.last_admin, account.moved, log.incomplete. */
  change(sub: string, change: AccountChange, by: Actor): Promise<Account>
  /**
   * Says that two accounts are one human being, or with null that this one is nobody else's: such a person counts
   * once where several must agree. Errors: account.unknown, account.self, log.unavailable.
   */
  link(sub: string, to: string | null, by: Actor): Promise<Account>
  find(sub: string): Promise<Account | undefined>
  findByEmail(email: string): Promise<Account | undefined>
  /** Whether a password opens this account. */
  hasPassword(sub: string): Promise<boolean>
  /** Whether a person is signed in anywhere, browsers included. */
  hasLogins(sub: string): Promise<boolean>
  /** In order of `sub`, after `after` ('' for the first page), at most `limit` (501). */
  list(after: string, limit: number): Promise<readonly Account[]>
  /** Checks a password: counted, logged, and equally slow for accounts that do not exist. Error: log.unavailable. */
  login(attempt: LoginAttempt): Promise<LoginAnswer>
  /** Ends every login and browser session of a person. Error: log.incomplete, after they ended. */
  endLogins(sub: string, by: Actor, reason?: LogoutEvent['reason']): Promise<void>
  /** The first administrator, once. Errors: bootstrap.invalid, bootstrap.spent, and those of create. */
  redeemBootstrap(
    token: string,
    account: Pick<NewAccount, 'email' | 'name' | 'password'>,
    source: string | null,
  ): Promise<Account>
}

export function openAccounts(options: AccountsOptions): Accounts {
  const context: AccountsRoom = {
    ...options,
    passwords: options.passwords ?? createPasswords(),
    toldLocks: new Map<string, number>(),
    ending: new Map<string, Promise<void>>(),
  }
  const { store, oidcStore } = context
  return {
    create: async (account, by) => create(context, account, by),
    change: async (sub, change, by) => changeAccount(context, sub, change, by),
    link: async (sub, to, by) => link(context, sub, to, by),
    find: async (sub) => shown(await store.findAccount(sub)),
    findByEmail: async (email) => shown(await store.findAccountByEmail(normalise(email))),
    hasPassword: async (sub) => ((await store.findAccount(sub))?.password ?? null) !== null,
    hasLogins: async (sub) => await oidcStore.hasLogins(sub),
    async list(after, limit) {
      const rows = await store.listAccounts(after, Math.min(Math.max(limit, 1), 501))
      return rows.map(withoutPassword)
    },
    login: async (attempt) => login(context, attempt),
    endLogins: async (sub, by, reason = 'ended') =>
      reason === 'backchannel'
        ? endFromOutside(context, sub, by.source)
        : endLogins(context, sub, reason, by.source),
    redeemBootstrap: async (token, account, source) => redeem(context, token, account, source),
  }
}

function shown(row: AccountRow | undefined): Account | undefined {
  return row === undefined ? undefined : withoutPassword(row)
}
