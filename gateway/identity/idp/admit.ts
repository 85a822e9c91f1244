/** The account behind somebody whom a company signed in: made at the first sign-in, brought up to date at each. */
import { checkFacts, newSub, type Account } from '../facts.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityChange, type IdentityLog } from '../events.ts'
import type { AccountRow, IdentityStore, IdpRow, Outside } from '../store.ts'
import type { Person } from './claims.ts'
import { IdpError } from './errors.ts'

export interface AdmitOptions {
  /** Ours, not the company's: it names the accounts. */
  readonly issuer: string
  readonly store: Pick<IdentityStore, 'findAccountByOutside' | 'addAccount' | 'changeAccount'>
  readonly log: IdentityLog
  readonly changed: (change: IdentityChange) => void
  readonly now: () => number
}

const FIELDS = ['email', 'name', 'party', 'vendor', 'roles', 'groups'] as const

/**
 * The account, as the company says now; each change is recorded before it holds, and tells whoever has a session of
 * this person open. An address that another account has is never taken over. Throws IdpError: idp.address,
 * idp.disabled, idp.claims; IdentityError: log.unavailable.
 */
export async function admit(
  options: AdmitOptions,
  idp: IdpRow,
  person: Person,
  source: string,
): Promise<Account> {
  const outside = { idp: idp.id, issuer: idp.issuer, subject: person.subject }
  const known = await options.store.findAccountByOutside(outside)
  if (known?.disabled === true) throw new IdpError('idp.disabled')
  const facts = factsOf(idp, person)
  return known === undefined
    ? create(options, outside, facts, source)
    : update(options, known, facts, source)
}

function factsOf(idp: IdpRow, person: Person): ReturnType<typeof checkFacts> {
  const { email, name, roles, groups } = person
  try {
    return checkFacts({ email, name, party: idp.party, vendor: idp.vendor, roles, groups })
  } catch (cause) {
    throw new IdpError('idp.claims', cause instanceof IdentityError ? cause.code : null, { cause })
  }
}

async function create(
  options: AdmitOptions,
  outside: Outside,
  facts: ReturnType<typeof checkFacts>,
  source: string,
): Promise<Account> {
  const now = options.now()
  const sub = newSub()
  const row: AccountRow = {
    sub,
    ...facts,
    disabled: false,
    password: null,
    outside,
    person: sub,
    createdAt: now,
    changedAt: now,
  }
  const common = { at: now, source, by: `idp:${outside.idp}`, subject: `${options.issuer}|${sub}` }
  const event = { code: 'account.create', ...common, ...facts } as const
  const add = async () => ((await options.store.addAccount(row)) ? 'added' : 'taken')
  const outcome = await recordAct(options.log, [event], NOT_TAKEN, add)
  if (outcome !== 'added') throw new IdpError('idp.address')
  return row
}

/** What the log is told of what the store did not take. */
const NOT_TAKEN = {
  taken: 'account.exists',
  last_admin: 'account.last_admin',
  unknown: 'account.unknown',
  moved: 'account.moved',
  disabled: 'account.disabled',
} as const

async function update(
  options: AdmitOptions,
  before: AccountRow,
  facts: ReturnType<typeof checkFacts>,
  source: string,
): Promise<Account> {
  const changed = FIELDS.filter(
    (field) => JSON.stringify(before[field]) !== JSON.stringify(facts[field]),
  )
  if (changed.length === 0) return before
  const subject = `${options.issuer}|${before.sub}`
  const event = {
    code: 'account.change',
    at: options.now(),
    source,
    by: `idp:${before.outside?.idp ?? ''}`,
    subject,
    changes: Object.fromEntries(changed.map((field) => [field, facts[field]])),
  } as const
  // Only what the company says, and only of an account that is still enabled: who disabled or linked it meanwhile wins.
  const change = { sub: before.sub, ...facts, changedAt: options.now() }
  const act = async () => options.store.changeAccount(change, { enabled: true })
  const outcome = await recordAct(options.log, [event], NOT_TAKEN, act)
  if (outcome !== 'changed')
    throw new IdpError(outcome === 'taken' ? 'idp.address' : 'idp.disabled')
  options.changed({ kind: 'changed', subject, login: null })
  return { ...before, ...change }
}
