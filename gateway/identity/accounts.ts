/** People: who they are, how that is changed, and who did it. */
import { login, type LoginAnswer, type LoginAttempt } from './attempt.ts'
import { hashBootstrapToken } from './bootstrap.ts'
import { endFromOutside, endLogins } from './ending.ts'
import { IdentityError } from './errors.ts'
import {
  record,
  type AccountChangeEvent,
  type IdentityChange,
  type IdentityEvent,
  type IdentityLog,
  type LogoutEvent,
} from './events.ts'
import {
  checkFacts,
  checkPassword,
  newSub,
  normalise,
  withoutPassword,
  type Account,
  type Facts,
} from './facts.ts'
import { createPasswords, type Passwords } from './password.ts'
import type { AccountFields, AccountRow, IdentityStore, OidcStore } from './store.ts'
import type { Party } from './subject.ts'

export interface NewAccount {
  readonly email: string
  readonly name: string
  readonly party: Party
  /** The company; required for a vendor, absent or null for staff. */
  readonly vendor?: string | null
  readonly roles: readonly string[]
  readonly groups?: readonly string[]
  /** 12 to 256 characters. */
  readonly password: string
}

export type AccountChange = Partial<NewAccount & { readonly disabled: boolean }>

/** Who does it, for the log: `<iss>|<sub>` or `system`, and from where. */
export interface Actor {
  readonly id: string
  readonly source: string | null
  /** Absent where it is no person. */
  readonly party?: 'staff' | 'vendor' | undefined
}

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

export interface AccountsOptions {
  readonly issuer: string
  readonly store: IdentityStore
  readonly oidcStore: OidcStore
  readonly log: IdentityLog
  /** Told after a change holds. */
  readonly changed: (change: IdentityChange) => void
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly passwords?: Passwords
}

export function openAccounts(options: AccountsOptions): Accounts {
  const context = {
    ...options,
    passwords: options.passwords ?? createPasswords(),
    toldLocks: new Map<string, number>(),
    ending: new Map<string, Promise<void>>(),
  }
  const { store } = context
  return {
    create: async (account, by) => create(context, account, by),
    change: async (sub, change, by) => changeAccount(context, sub, change, by),
    link: async (sub, to, by) => link(context, sub, to, by),
    find: async (sub) => shown(await store.findAccount(sub)),
    findByEmail: async (email) => shown(await store.findAccountByEmail(normalise(email))),
    hasPassword: async (sub) => ((await store.findAccount(sub))?.password ?? null) !== null,
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

type Context = AccountsOptions & {
  readonly passwords: Passwords
  /** Locks that the log has heard of, and until when: hammering a locked door must not fill the log. */
  readonly toldLocks: Map<string, number>
  /** By person: what their company's provider asked for, while it is done. */
  readonly ending: Map<string, Promise<void>>
}

async function create(context: Context, account: NewAccount, by: Actor): Promise<Account> {
  const row = await rowOf(context, account)
  if ((await context.store.findAccountByEmail(row.email)) !== undefined)
    throw new IdentityError('account.exists')
  await record(context.log, createEvent(context, row, by))
  if (!(await context.store.addAccount(row))) throw new IdentityError('account.exists')
  return withoutPassword(row)
}

async function redeem(
  context: Context,
  token: string,
  account: Pick<NewAccount, 'email' | 'name' | 'password'>,
  source: string | null,
): Promise<Account> {
  const hash = hashBootstrapToken(token.slice(0, 200))
  const open = await context.store.bootstrapHash()
  if (open !== hash) {
    const answer = open === undefined ? 'bootstrap.spent' : 'bootstrap.invalid'
    throw new IdentityError(answer)
  }
  const row = await rowOf(context, { ...account, party: 'staff', roles: ['admin'] })
  await record(context.log, createEvent(context, row, { id: 'bootstrap', source }))
  const outcome = await context.store.redeemBootstrap(hash, row)
  if (outcome !== 'redeemed') throw new IdentityError(`bootstrap.${outcome}`)
  return withoutPassword(row)
}

function createEvent(context: Context, row: AccountRow, by: Actor): IdentityEvent {
  const { email, party, vendor, roles, groups } = row
  const subject = `${context.issuer}|${row.sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party }
  return { code: 'account.create', ...common, subject, email, party, vendor, roles, groups }
}

async function rowOf(context: Context, account: NewAccount): Promise<AccountRow> {
  const facts = checkFacts({
    email: normalise(account.email),
    name: account.name.normalize('NFC').trim(),
    party: account.party,
    vendor: account.vendor ?? null,
    roles: [...new Set(account.roles)],
    groups: [...new Set(account.groups)],
  })
  checkPassword(account.password, facts)
  const now = context.now()
  const sub = newSub()
  return {
    sub,
    ...facts,
    disabled: false,
    password: await context.passwords.hash(account.password),
    outside: null,
    person: sub,
    createdAt: now,
    changedAt: now,
  }
}

async function changeAccount(
  context: Context,
  sub: string,
  change: AccountChange,
  by: Actor,
): Promise<Account> {
  const before = await context.store.findAccount(sub)
  if (before === undefined) throw new IdentityError('account.unknown')
  const { password, disabled, ...asked } = change
  // What the company says would undo it at the next sign-in.
  if (before.outside !== null && (password !== undefined || Object.keys(asked).length > 0))
    throw new IdentityError('account.outside')
  const facts = checkFacts(changedFacts(before, change))
  if (password !== undefined) checkPassword(password, facts)
  const fields: AccountFields = {
    sub,
    changedAt: context.now(),
    ...(disabled === undefined ? {} : { disabled }),
    ...(password === undefined ? {} : { password: await context.passwords.hash(password) }),
    ...(Object.keys(asked).length === 0 ? {} : facts),
  }
  const after: AccountRow = { ...before, ...fields }
  const subject = `${context.issuer}|${sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party, subject }
  await record(context.log, {
    code: 'account.change',
    ...common,
    changes: differences(before, after),
  })
  // Facts were checked against each other: they hold for the row that was read only. Disabling waits for nobody.
  const alone = disabled !== undefined && password === undefined && Object.keys(asked).length === 0
  const only = alone ? {} : { changedAt: before.changedAt }
  const outcome = await context.store.changeAccount(fields, only)
  if (outcome !== 'changed') throw new IdentityError(changeRefusals[outcome])
  if (disabled === true) await endLogins(context, sub, 'disabled', by.source)
  else if (password !== undefined) await endLogins(context, sub, 'password_changed', by.source)
  else context.changed({ kind: 'changed', subject, login: null })
  return withoutPassword((await context.store.findAccount(sub)) ?? after)
}

async function link(context: Context, sub: string, to: string | null, by: Actor): Promise<Account> {
  const before = await context.store.findAccount(sub)
  const other = to === null ? undefined : await context.store.findAccount(to)
  if (before === undefined || (to !== null && other === undefined))
    throw new IdentityError('account.unknown')
  if (to === sub) throw new IdentityError('account.self')
  // Alone again: under a name that no other account was ever given.
  const person = other?.person ?? newSub()
  const change = { sub, person, changedAt: context.now() }
  const subject = `${context.issuer}|${sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party, subject }
  await record(context.log, { code: 'account.change', ...common, changes: { person } })
  if ((await context.store.changeAccount(change)) !== 'changed')
    throw new IdentityError('account.unknown')
  context.changed({ kind: 'changed', subject, login: null })
  return withoutPassword((await context.store.findAccount(sub)) ?? { ...before, ...change })
}

function changedFacts(before: AccountRow, change: AccountChange): Facts {
  return {
    email: change.email === undefined ? before.email : normalise(change.email),
    name: change.name?.normalize('NFC').trim() ?? before.name,
    party: change.party ?? before.party,
    vendor: change.vendor === undefined ? before.vendor : change.vendor,
    roles: [...new Set(change.roles ?? before.roles)],
    groups: [...new Set(change.groups ?? before.groups)],
  }
}

const changeRefusals = {
  taken: 'account.exists',
  last_admin: 'account.last_admin',
  unknown: 'account.unknown',
  moved: 'account.moved',
  disabled: 'account.moved',
} as const

/** What an auditor must see: each changed field with its new value; of the password only that it changed. */
function differences(before: AccountRow, after: AccountRow): AccountChangeEvent['changes'] {
  const fields = ['email', 'name', 'party', 'vendor', 'roles', 'groups', 'disabled'] as const
  const changed = fields
    .filter((field) => JSON.stringify(before[field]) !== JSON.stringify(after[field]))
    .map((field) => [field, after[field]] as const)
  const secret = before.password === after.password ? [] : [['password', 'changed'] as const]
  return Object.fromEntries([...changed, ...secret])
}

function shown(row: AccountRow | undefined): Account | undefined {
  return row === undefined ? undefined : withoutPassword(row)
}
