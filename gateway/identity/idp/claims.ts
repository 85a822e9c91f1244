/**
 * What a company's provider may say about a person, read through the owner's allow-lists. Pure. The party and the
 * company come from the provider's row alone: no claim can make a vendor staff, or move them to another company.
 */
import type { IdpRow } from '../store.ts'
import { IdpError } from './errors.ts'

/** Somebody a provider has just signed in. */
export interface Person {
  readonly subject: string
  readonly email: string
  readonly name: string
  readonly groups: readonly string[]
  readonly roles: readonly string[]
  /** `federated`; and, where the provider says when, what the owner lets count of its `amr`. */
  readonly methods: readonly string[]
  /** Epoch seconds at which they proved who they are; 0: the provider does not say. */
  readonly at: number
  /** The provider's own name of the browser session, for back-channel logout. */
  readonly sid: string | null
}

/** How far a provider's clock may be from ours, either way. Seconds. */
export const SKEW_S = 60
const MAX_VALUES = 2_000
const MAX_GROUPS = 64

/** What the provider was asked for, which its answer is held to. */
export interface Asked {
  /** Epoch milliseconds at which the person was sent there. */
  readonly at: number
  /** OpenID Connect Core 3.1.2.1: how long before that they may have proven themselves. Seconds. */
  readonly maxAge: number
}

/**
 * Reads verified claims. `now` is epoch milliseconds. Throws IdpError: idp.claims, idp.unverified, idp.domain,
 * idp.token (an authentication in the future, or older than was asked for).
 */
export function readPerson(
  idp: IdpRow,
  claims: Readonly<Record<string, unknown>>,
  asked: Asked,
  now: number,
): Person {
  const subject = claims['sub']
  if (typeof subject !== 'string' || subject === '' || subject.length > 255)
    throw new IdpError('idp.claims', 'sub')
  const email = readEmail(idp, claims)
  const groups = readValues(claims[idp.groupsClaim])
  const amr = readValues(claims['amr'])
  const at = readTime(claims['auth_time'], asked, now)
  const sid = claims['sid']
  return {
    subject,
    email,
    name: readName(claims['name'], email),
    groups: mapped(idp.groups, groups),
    roles: idp.party === 'vendor' ? ['vendor'] : mapped(idp.roles, groups),
    // A second factor of nobody knows when is none: a session of last month says the same `amr`.
    methods: ['federated', ...(at === null ? [] : mapped(idp.methods, amr))],
    at: at ?? 0,
    sid: typeof sid === 'string' && sid !== '' && sid.length <= 255 ? sid : null,
  }
}

const ADDRESS = /^[^\s@<>"\p{C}]{1,64}@([a-z0-9.-]{1,253})$/u

function readEmail(idp: IdpRow, claims: Readonly<Record<string, unknown>>): string {
  const given = claims['email']
  if (typeof given !== 'string' || given.length > 320) throw new IdpError('idp.claims', 'email')
  const email = given.normalize('NFKC').trim().toLowerCase()
  const [, domain] = ADDRESS.exec(email) ?? []
  if (domain === undefined) throw new IdpError('idp.claims', 'email')
  if (!idp.domains.includes(domain)) throw new IdpError('idp.domain', domain)
  const verified = claims['email_verified']
  // OpenID Connect Core 5.1: a boolean. Some send the word; anything but a plain yes is no.
  if (verified !== true && !(idp.trustEmail && verified === undefined))
    throw new IdpError('idp.unverified')
  return email
}

function readName(given: unknown, email: string): string {
  if (typeof given !== 'string') return email
  const plain = given.toWellFormed().normalize('NFC').replace(/\p{C}/gu, '').trim().slice(0, 200)
  return plain === '' ? email : plain.toWellFormed()
}

/** A claim of one word or a list of words; what is longer than any honest list gives nothing. */
function readValues(claim: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(claim) ? claim : [claim]
  if (list.length > MAX_VALUES) throw new IdpError('idp.claims', 'too many groups')
  return list.filter((value) => typeof value === 'string')
}

function mapped(
  allowed: Readonly<Record<string, string>>,
  values: readonly string[],
): readonly string[] {
  const found = values.flatMap((value) => {
    const here = Object.hasOwn(allowed, value) ? allowed[value] : undefined
    return here === undefined ? [] : [here]
  })
  return [...new Set(found)].toSorted().slice(0, MAX_GROUPS)
}

/**
 * When they proved who they are, never later than now; null where the provider does not say. When the token was made
 * (`iat`) says nothing of it: a provider that still knows a browser makes a new one without asking anybody.
 */
function readTime(given: unknown, asked: Asked, now: number): number | null {
  if (given === undefined) return null
  const second = Math.floor(now / 1000)
  if (typeof given !== 'number' || !Number.isSafeInteger(Math.floor(given)) || given < 0)
    throw new IdpError('idp.claims', 'auth_time')
  const at = Math.floor(given)
  const oldest = Math.floor(asked.at / 1000) - asked.maxAge - SKEW_S
  if (at > second + SKEW_S || at < oldest) throw new IdpError('idp.token', 'auth_time')
  return Math.min(at, second)
}
