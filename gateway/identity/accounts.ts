/** People: who they are, whether a password is theirs, and the end of what they may do. */
import { randomBytes } from 'node:crypto'
import { hashBootstrapToken } from './bootstrap.ts'
import { IdentityError } from './errors.ts'
import type { AccountChangeEvent, IdentityChange, IdentityEvent, IdentityLog } from './events.ts'
import type { LoginEvent, LogoutEvent } from './events.ts'
import { createPasswords, type Passwords } from './password.ts'
import type { AccountFields, AccountRow, IdentityStore, OidcStore, Throttle } from './store.ts'
import type { Party } from './subject.ts'

export const ROLES = ['admin', 'engineer', 'operator', 'auditor', 'vendor'] as const

/** An account as others see it: without the password. */
export type Account = Omit<AccountRow, 'password'>

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

export interface LoginAttempt {
  readonly email: string
  readonly password: string
  /** The address it comes from. */
  readonly source: string
  /** The client the person signs in to. */
  readonly client: string | null
  /** Whether the password is half of it only; such a sign-in is recorded as none, until whoever asks completes it. */
  readonly asksMore?: (account: Account) => Promise<boolean>
}

/** `login.failed` covers wrong password, unknown and disabled alike; `login.locked` depends on attempts only. */
export type LoginAnswer =
  | { readonly ok: true; readonly account: Account; readonly more: boolean }
  | {
      readonly ok: false
      readonly code: 'login.failed' | 'login.locked' | 'login.busy'
      readonly retryAfterMs: number
    }

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
  /** In order of `sub`, after `after` ('' for the first page), at most `limit` (500). */
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

const MINUTE = 60_000
/** A person at a keyboard, a source that tries many accounts, many sources that try one account. */
const LIMITS = { pair: 5, source: 50, account: 100, windowMs: 15 * MINUTE }

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
    async list(after, limit) {
      const rows = await store.listAccounts(after, Math.min(Math.max(limit, 1), 500))
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

/** Records, or stops the act. */
async function record(log: IdentityLog, event: IdentityEvent): Promise<void> {
  try {
    await log(event)
  } catch (cause) {
    throw new IdentityError('log.unavailable', { cause })
  }
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

/**
 * What a company's provider asks for, as often as it likes, and unasked by anybody here: one after the other for one
 * person, and nothing is recorded where nobody is signed in, or the room kept back for ends could be spent on none.
 */
async function endFromOutside(context: Context, sub: string, source: string | null): Promise<void> {
  const before = context.ending.get(sub) ?? Promise.resolve()
  const mine = before
    .catch(() => undefined)
    .then(async () => {
      const standing = await context.oidcStore.hasLogins(sub)
      if (standing) await endLogins(context, sub, 'backchannel', source)
      else context.changed({ kind: 'logged_out', subject: `${context.issuer}|${sub}`, login: null })
    })
  context.ending.set(sub, mine)
  try {
    await mine
  } finally {
    if (context.ending.get(sub) === mine) context.ending.delete(sub)
  }
}

/** Cuts first and reports a dead log afterwards: taking access away must not wait for a disk. */
async function endLogins(
  context: Context,
  sub: string,
  reason: LogoutEvent['reason'],
  source: string | null,
): Promise<void> {
  const subject = `${context.issuer}|${sub}`
  const party = (await context.store.findAccount(sub))?.party ?? null
  const at = context.now()
  const event = { code: 'auth.logout', at, source, subject, party, login: null } as const
  const logged = await record(context.log, { ...event, reason }).then(
    () => undefined,
    (error: unknown) => ({ error }),
  )
  await context.oidcStore.endLoginsOf(sub)
  const kind = reason === 'disabled' ? 'disabled' : 'logged_out'
  context.changed({ kind, subject, login: null })
  if (logged !== undefined) throw new IdentityError('log.incomplete', { cause: logged.error })
}

async function login(context: Context, attempt: LoginAttempt): Promise<LoginAnswer> {
  const email = normalise(attempt.email)
  const throttles = loginThrottles(email, attempt.source)
  const [pair, ...wider] = throttles.map((throttle) => throttle.key)
  const tell = async (reason: LoginEvent['reason'], who: AccountRow | undefined): Promise<void> =>
    record(context.log, {
      code: 'auth.login',
      at: context.now(),
      source: attempt.source,
      outcome: reason === null ? 'success' : 'failure',
      subject: who === undefined ? null : `${context.issuer}|${who.sub}`,
      party: who?.party ?? null,
      email: EMAIL.test(email) && email.length <= 320 ? email : null,
      client: attempt.client,
      // What was given: of who is asked for more, the password was right.
      methods: reason === null || reason === 'second_factor' ? ['pwd'] : [],
      reason,
    })
  const taken = await context.store.take(throttles, context.now())
  if (!taken.allowed) {
    if (isNewLock(context, `${attempt.source}:${email}`)) await tell('locked', undefined)
    return { ok: false, code: 'login.locked', retryAfterMs: taken.retryAfterMs }
  }
  const row = await context.store.findAccountByEmail(email)
  const right = await checked(context, attempt.password, row?.password ?? null)
  if (right === 'busy') {
    await context.store.settle(
      [],
      throttles.map((throttle) => throttle.key),
    )
    await tell('busy', undefined)
    return { ok: false, code: 'login.busy', retryAfterMs: 5_000 }
  }
  if (row === undefined || !right || row.disabled) {
    await tell(whyNot(row, right), row)
    return { ok: false, code: 'login.failed', retryAfterMs: 0 }
  }
  const account = withoutPassword(row)
  const more = (await attempt.asksMore?.(account)) ?? false
  await tell(more ? 'second_factor' : null, row)
  await context.store.settle(pair === undefined ? [] : [pair], wider)
  await refreshHash(context, row, attempt.password)
  return { ok: true, account, more }
}

function isNewLock({ toldLocks, now }: Context, key: string): boolean {
  const at = now()
  if ((toldLocks.get(key) ?? 0) > at) return false
  for (const [old, until] of toldLocks)
    if (until <= at || toldLocks.size > 10_000) toldLocks.delete(old)
  toldLocks.set(key, at + LIMITS.windowMs)
  return true
}

function whyNot(row: AccountRow | undefined, right: boolean): 'unknown' | 'disabled' | 'password' {
  if (row === undefined) return 'unknown'
  return right ? 'disabled' : 'password'
}

async function checked(
  context: Context,
  password: string,
  stored: string | null,
): Promise<boolean | 'busy'> {
  try {
    return await context.passwords.matches(password, stored)
  } catch (error) {
    if (error instanceof IdentityError && error.code === 'busy') return 'busy'
    throw error
  }
}

/** A hash made with older parameters is replaced while the password is at hand; not worth failing a login. */
async function refreshHash(context: Context, row: AccountRow, password: string): Promise<void> {
  if (row.password === null || !context.passwords.isOutdated(row.password)) return
  const hash = await context.passwords.hash(password).catch(() => undefined)
  const now = await context.store.findAccount(row.sub)
  if (hash === undefined || now?.password !== row.password) return
  const change = { sub: row.sub, password: hash, changedAt: context.now() }
  await context.store.changeAccount(change, { changedAt: now.changedAt })
}

function loginThrottles(email: string, source: string): readonly [Throttle, Throttle, Throttle] {
  const { windowMs } = LIMITS
  const name = email.slice(0, 320)
  return [
    { key: `login:${source}:${name}`, limit: LIMITS.pair, windowMs },
    { key: `login-source:${source}`, limit: LIMITS.source, windowMs },
    { key: `login-account:${name}`, limit: LIMITS.account, windowMs },
  ]
}

const EMAIL = /^[^\s@<>"]{1,64}@[^\s@<>"]{1,255}$/
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

/** One spelling per address: composed, lower-cased, without blanks around it. */
function normalise(email: string): string {
  return email.normalize('NFKC').trim().toLowerCase().toWellFormed()
}

type Facts = Pick<AccountRow, 'email' | 'name' | 'party' | 'vendor' | 'roles' | 'groups'>

/** A name people can read: no control characters, nothing that turns the text around. */
function isText(value: string): boolean {
  return value.trim() !== '' && value.length <= 200 && !CONTROL.test(value) && value.isWellFormed()
}

/** The facts, if an account may have them. Errors: account.email, .name, .vendor, .roles, .groups. */
export function checkFacts(facts: Facts): Facts {
  const { email, vendor, roles } = facts
  if (!EMAIL.test(email) || email.length > 320 || CONTROL.test(email))
    throw new IdentityError('account.email')
  if (!isText(facts.name)) throw new IdentityError('account.name')
  if ((facts.party === 'vendor') !== (vendor !== null)) throw new IdentityError('account.vendor')
  if (vendor !== null && !isText(vendor)) throw new IdentityError('account.vendor')
  const known: readonly string[] = facts.party === 'vendor' ? ['vendor'] : ROLES
  if (!roles.every((role) => known.includes(role))) throw new IdentityError('account.roles')
  if (facts.groups.length > 64 || !facts.groups.every(isText))
    throw new IdentityError('account.groups')
  return facts
}

const COMMON = new Set([
  'password',
  'passwort',
  'sallyport',
  'administrator',
  'changeme',
  'letmein',
])

function checkPassword(password: string, facts: Facts): void {
  const normal = password.normalize('NFKC')
  // By code point, as people count; an emoji of several counts as several, which does no harm.
  const length = Array.from(normal).length
  if (length < 12 || normal.length > 256) throw new IdentityError('password.length')
  const letters = normal.toLowerCase()
  const stem = letters.replace(/[^\p{L}]/gu, '')
  const own = [facts.email, facts.email.split('@')[0] ?? '', facts.name.toLowerCase()]
  const known = COMMON.has(stem) || own.includes(letters) || own.includes(stem)
  if (known || new Set(letters).size < 5) throw new IdentityError('password.weak')
}

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** 26 characters of Crockford's base 32: 128 random bits and two of padding. */
export function newSub(): string {
  let bits = BigInt(`0x${randomBytes(16).toString('hex')}`)
  let sub = ''
  for (let at = 0; at < 26; at++) {
    sub = (ALPHABET[Number(bits & 31n)] ?? '') + sub
    bits >>= 5n
  }
  return sub
}

function withoutPassword({ password: _, ...account }: AccountRow): Account {
  return account
}
function shown(row: AccountRow | undefined): Account | undefined {
  return row === undefined ? undefined : withoutPassword(row)
}
