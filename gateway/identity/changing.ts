/** Accounts that are changed and linked: recorded before, and again where the store does not take it. */
import type { AccountChange, AccountsRoom, Actor } from './account.ts'
import { endLogins } from './ending.ts'
import { IdentityError } from './errors.ts'
import { recordAct, type AccountChangeEvent } from './events.ts'
import {
  checkFacts,
  checkPassword,
  newSub,
  normalise,
  withoutPassword,
  type Account,
  type Facts,
} from './facts.ts'
import type { AccountFields, AccountRow } from './store.ts'

/** Errors: as `Accounts.change`. */
export async function changeAccount(
  context: AccountsRoom,
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
  const event = { code: 'account.change', ...common, changes: differences(before, after) } as const
  // Facts were checked against each other: they hold for the row that was read only. Disabling waits for nobody.
  const alone = disabled !== undefined && password === undefined && Object.keys(asked).length === 0
  const only = alone ? {} : { changedAt: before.changedAt }
  const act = async () => context.store.changeAccount(fields, only)
  const outcome = await recordAct(context.log, [event], changeRefusals, act)
  if (outcome !== 'changed') throw new IdentityError(changeRefusals[outcome])
  if (disabled === true) await endLogins(context, sub, 'disabled', by.source)
  else if (password !== undefined) await endLogins(context, sub, 'password_changed', by.source)
  else context.changed({ kind: 'changed', subject, login: null })
  return withoutPassword((await context.store.findAccount(sub)) ?? after)
}

/** Errors: as `Accounts.link`. */
export async function link(
  context: AccountsRoom,
  sub: string,
  to: string | null,
  by: Actor,
): Promise<Account> {
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
  const event = { code: 'account.change', ...common, changes: { person } } as const
  const act = async () => context.store.changeAccount(change)
  const outcome = await recordAct(context.log, [event], changeRefusals, act)
  if (outcome !== 'changed') throw new IdentityError(changeRefusals[outcome])
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
