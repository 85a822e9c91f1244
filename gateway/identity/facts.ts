/** What an account may say of a person: checked wherever one is made, changed, or brought in by a company. */
import { randomBytes } from 'node:crypto'
import { IdentityError } from './errors.ts'
import type { AccountRow } from './store.ts'

/** An account as others see it: without the password. */
export type Account = Omit<AccountRow, 'password'>

export function withoutPassword({ password: _, ...account }: AccountRow): Account {
  return account
}

export const ROLES = ['admin', 'engineer', 'operator', 'auditor', 'vendor'] as const

export const EMAIL = /^[^\s@<>"]{1,64}@[^\s@<>"]{1,255}$/
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

/** One spelling per address: composed, lower-cased, without blanks around it. */
export function normalise(email: string): string {
  return email.normalize('NFKC').trim().toLowerCase().toWellFormed()
}

export type Facts = Pick<AccountRow, 'email' | 'name' | 'party' | 'vendor' | 'roles' | 'groups'>

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

/** Errors: password.length, password.weak. */
export function checkPassword(password: string, facts: Facts): void {
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
