/** Accounts that are made: recorded before they are there, and recorded again where they do not come to be. */
import type { AccountsRoom, Actor, NewAccount } from './account.ts'
import { hashBootstrapToken } from './bootstrap.ts'
import { IdentityError } from './errors.ts'
import { recordAct, type AccountCreateEvent } from './events.ts'
import {
  checkFacts,
  checkPassword,
  newSub,
  normalise,
  withoutPassword,
  type Account,
} from './facts.ts'
import type { AccountRow } from './store.ts'

/** Errors: as `Accounts.create`. */
export async function create(
  context: AccountsRoom,
  account: NewAccount,
  by: Actor,
): Promise<Account> {
  const row = await rowOf(context, account)
  if ((await context.store.findAccountByEmail(row.email)) !== undefined)
    throw new IdentityError('account.exists')
  const add = async () => ((await context.store.addAccount(row)) ? 'added' : 'exists')
  const refusals = { exists: 'account.exists' } as const
  const outcome = await recordAct(context.log, [createEvent(context, row, by)], refusals, add)
  if (outcome !== 'added') throw new IdentityError('account.exists')
  return withoutPassword(row)
}

/** Errors: as `Accounts.redeemBootstrap`. */
export async function redeem(
  context: AccountsRoom,
  token: string,
  account: Pick<NewAccount, 'email' | 'name' | 'password'>,
  source: string | null,
): Promise<Account> {
  const hash = hashBootstrapToken(token.slice(0, 200))
  const open = await context.store.bootstrapHash(hash)
  if (open !== hash) {
    const answer = open === undefined ? 'bootstrap.spent' : 'bootstrap.invalid'
    throw new IdentityError(answer)
  }
  const row = await rowOf(context, { ...account, party: 'staff', roles: ['admin'] })
  const event = createEvent(context, row, { id: 'bootstrap', source })
  const refusals = { invalid: 'bootstrap.invalid', spent: 'bootstrap.spent' } as const
  const use = async () => context.store.redeemBootstrap(hash, row)
  const outcome = await recordAct(context.log, [event], refusals, use)
  if (outcome !== 'redeemed') throw new IdentityError(`bootstrap.${outcome}`)
  return withoutPassword(row)
}

function createEvent(context: AccountsRoom, row: AccountRow, by: Actor): AccountCreateEvent {
  const { email, party, vendor, roles, groups } = row
  const subject = `${context.issuer}|${row.sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party }
  return { code: 'account.create', ...common, subject, email, party, vendor, roles, groups }
}

async function rowOf(context: AccountsRoom, account: NewAccount): Promise<AccountRow> {
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
