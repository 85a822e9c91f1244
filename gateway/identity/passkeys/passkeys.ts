/**
 * Passkeys (WebAuthn Level 3): registered by somebody who has just proven who they are, and asked for a sign-in, a step
 * up, or a signature.
 */
import { randomBytes } from 'node:crypto'
import { generateAuthenticationOptions, generateRegistrationOptions } from '@simplewebauthn/server'
import type { RelyingParty } from '#approval'
import type { Actor } from '../account.ts'
import type { Accounts } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import { recordAct, type IdentityChange, type IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import { countedNow, noteRemoval } from '../removal.ts'
import type { IdentityStore, OidcStore, PasskeyStore } from '../store.ts'
import type { Login, Subject } from '../subject.ts'
import type { TotpStore } from '../totp/store.ts'
import { MOST_PASSKEYS, take, type Answered } from './answer.ts'
import { answerAlone, askAnybody, type AloneAttempt } from './alone.ts'
import {
  askOnce,
  lookUp,
  TIMEOUT_MS,
  type Ceremony,
  type CeremonyKind,
  type Question,
} from './ceremony.ts'
import { mayAdd, shown, type BrowserAnswer, type Passkey } from './credential.ts'
import { ALGORITHMS } from './key.ts'
import { checkAddress, octets } from './verify.ts'

/** How long after signing in a passkey may be added. Seconds. */
const FRESH_S = 15 * 60

export interface Passkeys {
  list(sub: string): Promise<readonly Passkey[]>
  /** Asks for a new passkey called `name`. Errors: passkey.address, .stale, .full, ceremony.limit. */
  register(subject: Subject, login: Login, name: string): Promise<Ceremony>
  /**
   * Asks one of the account's passkeys; `challenge` is what is to be signed, random where absent.
   * Errors: passkey.address, passkey.none, ceremony.limit.
   */
  ask(
    question: Omit<Question, 'challenge'> & { readonly challenge?: Uint8Array },
  ): Promise<Ceremony>
  /** The open question of a secret, with its options for the browser. Errors: ceremony.unknown, passkey.none. */
  show(secret: string): Promise<{ readonly question: Question; readonly options: object }>
  /**
   * Takes the answer: recorded, then it counts; a wrong one uses the question up too. `kind` is what the caller can
   * make use of. Errors: ceremony.unknown, account.disabled, passkey.refused (its `fault` says why), .exists, .full, .moved, log.unavailable.
   */
  answer(
    secret: string,
    kinds: readonly CeremonyKind[],
    answer: BrowserAnswer,
    source: string | null,
  ): Promise<Answered>
  /** Asks whoever is there, by a passkey alone. Errors: passkey.address, ceremony.limit. */
  askAnybody(attempt: Pick<AloneAttempt, 'about' | 'source'>): Promise<Ceremony>
  /**
   * The account whose passkey answered such a question: one that is enabled and has no password. The caller records
   * the sign-in. Errors: ceremony.unknown, passkey.refused (its `fault` says why), log.unavailable.
   */
  answerAlone(secret: string, answer: BrowserAnswer, attempt: AloneAttempt): Promise<Account>
  /**
   * One's own: what any passkey of the account proved in a login under way, it proves no longer.
   * Errors: passkey.unknown, passkey.last (nothing else opens the account), log.unavailable.
   */
  remove(sub: string, id: string, by: Actor): Promise<void>
  /**
   * An administrator's: all of an account's passkeys, then all its logins, and the questions under them; whoever showed
   * a lost one starts again too, and no registration under way lands afterwards. Errors: passkey.unknown, log.unavailable; log.incomplete after they ended.
   */
  reset(sub: string, by: Actor): Promise<void>
}

export interface PasskeysOptions {
  readonly relyingParty: RelyingParty
  readonly issuer: string
  readonly passkeyStore: PasskeyStore
  readonly totpStore: Pick<TotpStore, 'findTotp'>
  readonly store: Pick<IdentityStore, 'take'>
  readonly oidcStore: OidcStore
  readonly accounts: Pick<Accounts, 'find' | 'hasPassword' | 'endLogins'>
  readonly log: IdentityLog
  /** Told after a removal holds. */
  readonly changed: (change: IdentityChange) => void
  readonly now: () => number
}

export function openPasskeys(context: PasskeysOptions): Passkeys {
  return {
    list: async (sub) => (await context.passkeyStore.passkeysOf(sub)).map(shown),
    register: async (subject, login, name) => register(context, subject, login, name),
    async ask({ challenge, ...rest }) {
      const bytes = challenge ?? randomBytes(32)
      const question = { ...rest, challenge: Buffer.from(bytes).toString('base64url') }
      const asked = await requestOptions(context, question)
      return { ...(await askOnce(context, question)), options: asked }
    },
    async show(secret) {
      const question = await lookUp(context, secret)
      return { question, options: await optionsOf(context, question) }
    },
    answer: async (secret, kinds, answer, source) => take(context, secret, kinds, answer, source),
    askAnybody: async (attempt) => askAnybody(context, attempt),
    answerAlone: async (secret, answer, attempt) => answerAlone(context, secret, answer, attempt),
    async remove(sub, id, by) {
      const account = await context.accounts.find(sub)
      const other = account?.outside !== null || (await context.accounts.hasPassword(sub))
      await remove(context, sub, id, by, other ? 0 : 1)
      const subject = `${context.issuer}|${sub}`
      context.changed({ kind: 'changed', subject, login: null })
    },
    async reset(sub, by) {
      try {
        await removeAll(context, sub, by)
      } finally {
        // Also where nothing is left to remove: a thief may have removed it.
        await context.accounts.endLogins(sub, by)
      }
      // What was added while the others were removed: the logins that could add more are gone.
      if ((await removeAll(context, sub, by)) > 0) await context.accounts.endLogins(sub, by)
    },
  }
}

async function register(
  context: PasskeysOptions,
  subject: Subject,
  login: Login,
  name: string,
): Promise<Ceremony> {
  checkAddress(context.relyingParty)
  const sub = subject.id.slice(context.issuer.length + 1)
  const held = await context.passkeyStore.passkeysOf(sub)
  if (held.length >= MOST_PASSKEYS) throw new IdentityError('passkey.full')
  const fresh = context.now() / 1000 - subject.authn.at <= FRESH_S
  const code = (await context.totpStore.findTotp(sub)) !== undefined
  const begun = await countedNow(context, sub, subject.authn)
  if (!fresh || !mayAdd({ passkey: held.length > 0, code }, begun.shown))
    throw new IdentityError('passkey.stale')
  const challenge = randomBytes(32).toString('base64url')
  const common = { sub, login, challenge, begun }
  const question = { kind: 'register', about: name, ...common } as const
  const options = await creationOptions(context, question)
  return { ...(await askOnce(context, question)), options }
}

async function optionsOf(context: PasskeysOptions, question: Question): Promise<object> {
  return question.kind === 'register'
    ? creationOptions(context, question)
    : requestOptions(context, question)
}

async function creationOptions(
  context: PasskeysOptions,
  { sub, challenge }: Question,
): Promise<object> {
  const account = await context.accounts.find(sub)
  if (account === undefined) throw new IdentityError('account.unknown')
  const held = await context.passkeyStore.passkeysOf(sub)
  return generateRegistrationOptions({
    rpName: 'Sallyport',
    rpID: context.relyingParty.id,
    userID: Uint8Array.from(Buffer.from(sub)),
    userName: account.email,
    userDisplayName: account.name,
    challenge: octets(challenge),
    timeout: TIMEOUT_MS,
    attestationType: 'none',
    authenticatorSelection: { residentKey: 'preferred', userVerification: 'required' },
    supportedAlgorithmIDs: [...ALGORITHMS],
    excludeCredentials: held.map(({ id, transports }) => ({ id, transports: [...transports] })),
  })
}

async function requestOptions(
  context: PasskeysOptions,
  { sub, challenge }: Question,
): Promise<object> {
  checkAddress(context.relyingParty)
  const held = await context.passkeyStore.passkeysOf(sub)
  if (held.length === 0) throw new IdentityError('passkey.none')
  return generateAuthenticationOptions({
    rpID: context.relyingParty.id,
    challenge: octets(challenge),
    timeout: TIMEOUT_MS,
    userVerification: 'required',
    allowCredentials: held.map(({ id, transports }) => ({ id, transports: [...transports] })),
  })
}

/** Gives how many there were. */
async function removeAll(context: PasskeysOptions, sub: string, by: Actor): Promise<number> {
  const held = await context.passkeyStore.passkeysOf(sub)
  for (const { id } of held) await remove(context, sub, id, by, 0)
  return held.length
}

/** `least`: how many passkeys must be left. */
async function remove(
  context: PasskeysOptions,
  sub: string,
  id: string,
  by: Actor,
  least: 0 | 1,
): Promise<void> {
  const held = await context.passkeyStore.passkeysOf(sub)
  const row = held.find((one) => one.id === id)
  if (row === undefined) throw new IdentityError('passkey.unknown')
  if (held.length <= least) throw new IdentityError('passkey.last')
  const subject = `${context.issuer}|${sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party, subject }
  const event = { code: 'passkey.remove', ...common, passkey: id, name: row.name } as const
  const refusals = { unknown: 'passkey.unknown', last: 'passkey.last' } as const
  const act = async () => {
    await noteRemoval(context, sub)
    return await context.passkeyStore.removePasskey(sub, id, least)
  }
  const outcome = await recordAct(context.log, [event], refusals, act)
  if (outcome !== 'removed') throw new IdentityError(`passkey.${outcome}`)
}
