/**
 * Passkeys (WebAuthn Level 3): registered by somebody who has just proven who they are, and asked for a second
 * factor, a step up, or a signature. Every answer is verified twice, by our own check, whose codes people see, and by
 * the library; both must agree.
 */
import { randomBytes } from 'node:crypto'
import { isIP } from 'node:net'
import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from '@simplewebauthn/server'
import { checkAssertion, readAssertion, type GrantSignature, type RelyingParty } from '#approval'
import type { Accounts, Actor } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import { record, type IdentityChange, type IdentityEvent, type IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import type { IdentityStore, OidcStore, PasskeyRow, PasskeyStore } from '../store.ts'
import type { Authentication, Login, Subject } from '../subject.ts'
import { askOnce, lookUp, takeUp, type CeremonyKind, type Question } from './ceremony.ts'
import { ALGORITHMS, signingKey } from './key.ts'

/** The acr of somebody who showed a passkey. */
export const ACR_PASSKEY = 'urn:sallyport:acr:passkey'
/**
 * Whether it was this gateway that was shown a passkey, at `at`: in `methods` a company's provider may have said so too,
 * and its passkeys are none of ours.
 */
export const shownHere = ({ acr }: Pick<Authentication, 'acr'>): boolean => acr === ACR_PASSKEY
/** How policy calls the method (policy: `subject.authn.methods`). */
export const METHOD = 'webauthn'

const MOST_PASSKEYS = 10
/** How long after signing in a passkey may be added. Seconds. */
const FRESH_S = 15 * 60
const TIMEOUT_MS = 5 * 60_000

/** A passkey as its owner sees it. Instants are epoch milliseconds. */
export type Passkey = Pick<
  PasskeyRow,
  'id' | 'name' | 'alg' | 'backedUp' | 'createdAt' | 'usedAt' | 'spki'
>

/** What the browser's `toJSON()` of a credential holds, as far as it is read. All base64url. */
export interface BrowserAnswer {
  readonly id: string
  readonly response: {
    readonly clientDataJSON: string
    readonly attestationObject?: string
    readonly authenticatorData?: string
    readonly signature?: string
    readonly userHandle?: string | null
    readonly transports?: readonly string[]
  }
}

/** The browser's answer in `text` (JSON), or undefined for what cannot be one. */
export function readBrowserAnswer(text: string): BrowserAnswer | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null || !('id' in value) || !('response' in value))
    return undefined
  const { id, response } = value
  if (typeof id !== 'string' || typeof response !== 'object' || response === null) return undefined
  const members = new Map<string, unknown>(Object.entries(response))
  const text64 = (name: string): string => {
    const member = members.get(name)
    return typeof member === 'string' ? member : ''
  }
  const handle = members.get('userHandle')
  return {
    id,
    response: {
      clientDataJSON: text64('clientDataJSON'),
      authenticatorData: text64('authenticatorData'),
      signature: text64('signature'),
      userHandle: typeof handle === 'string' ? handle : null,
    },
  }
}

/** A question as it is handed out: the secret finds it, `options` go to the browser. */
export interface Ceremony {
  readonly secret: string
  readonly expiresAt: number
  readonly options: object
}

/** What a good answer proves. */
export interface Answered {
  readonly kind: CeremonyKind
  readonly login: Login | null
  readonly account: Account
  readonly about: string
  readonly passkey: Passkey
  /** What was signed; null for a registration. */
  readonly signed: GrantSignature | null
}

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
   * make use of. Errors: ceremony.unknown, account.disabled, passkey.refused (its `fault` says why), .exists, .full, log.unavailable.
   */
  answer(
    secret: string,
    kinds: readonly CeremonyKind[],
    answer: BrowserAnswer,
    source: string | null,
  ): Promise<Answered>
  /**
   * One's own: what any passkey of the account proved in a login under way, it proves no longer.
   * Errors: passkey.unknown, log.unavailable.
   */
  remove(sub: string, id: string, by: Actor): Promise<void>
  /**
   * An administrator's: all of an account's passkeys, then all its logins, and the questions under them; whoever showed
   * a lost one starts again too, and no registration under way lands afterwards. Errors: passkey.unknown, log.unavailable; log.incomplete after they ended.
   */
  reset(sub: string, by: Actor): Promise<void>
}

export interface PasskeysOptions {
  /** `https://<public host>:<port>`: its host is the relying party. */
  readonly origin: string
  readonly issuer: string
  readonly passkeyStore: PasskeyStore
  readonly store: Pick<IdentityStore, 'take'>
  readonly oidcStore: OidcStore
  readonly accounts: Pick<Accounts, 'find' | 'endLogins'>
  readonly log: IdentityLog
  /** Told after a removal holds. */
  readonly changed: (change: IdentityChange) => void
  readonly now: () => number
}

interface Context extends PasskeysOptions {
  readonly relyingParty: RelyingParty
}

export function openPasskeys(options: PasskeysOptions): Passkeys {
  const { origin, hostname } = new URL(options.origin)
  const relyingParty = { id: hostname, origins: [origin] }
  const context: Context = { ...options, relyingParty }
  return {
    list: async (sub) => (await options.passkeyStore.passkeysOf(sub)).map(shown),
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
    async remove(sub, id, by) {
      await remove(context, sub, id, by)
      const subject = `${options.issuer}|${sub}`
      options.changed({ kind: 'changed', subject, login: null })
    },
    async reset(sub, by) {
      try {
        await removeAll(context, sub, by)
      } finally {
        // Also where nothing is left to remove: a thief may have removed it.
        await options.accounts.endLogins(sub, by)
      }
      // What was added while the others were removed: the logins that could add more are gone.
      if ((await removeAll(context, sub, by)) > 0) await options.accounts.endLogins(sub, by)
    },
  }
}

function shown({ id, name, alg, backedUp, createdAt, usedAt, spki }: PasskeyRow): Passkey {
  return { id, name, alg, backedUp, createdAt, usedAt, spki }
}

function checkAddress({ relyingParty }: Context): void {
  // WebAuthn knows domains only; an address in brackets is IPv6.
  if (isIP(relyingParty.id.replace(/^\[|\]$/g, '')) !== 0)
    throw new IdentityError('passkey.address')
}

async function register(
  context: Context,
  subject: Subject,
  login: Login,
  name: string,
): Promise<Ceremony> {
  checkAddress(context)
  const sub = subject.id.slice(context.issuer.length + 1)
  const held = await context.passkeyStore.passkeysOf(sub)
  if (held.length >= MOST_PASSKEYS) throw new IdentityError('passkey.full')
  const fresh = context.now() / 1000 - subject.authn.at <= FRESH_S
  // Who has a passkey shows it before another is added: a password alone must not make a second factor.
  if (!fresh || (held.length > 0 && !shownHere(subject.authn)))
    throw new IdentityError('passkey.stale')
  const challenge = randomBytes(32).toString('base64url')
  const question = { kind: 'register', sub, login, challenge, about: name } as const
  const options = await creationOptions(context, question)
  return { ...(await askOnce(context, question)), options }
}

async function optionsOf(context: Context, question: Question): Promise<object> {
  return question.kind === 'register'
    ? creationOptions(context, question)
    : requestOptions(context, question)
}

const octets = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(Buffer.from(text, 'base64url'))

async function creationOptions(context: Context, { sub, challenge }: Question): Promise<object> {
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

async function requestOptions(context: Context, { sub, challenge }: Question): Promise<object> {
  checkAddress(context)
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

async function take(
  context: Context,
  secret: string,
  kinds: readonly CeremonyKind[],
  answer: BrowserAnswer,
  source: string | null,
): Promise<Answered> {
  const shownQuestion = await lookUp(context, secret)
  if (!kinds.includes(shownQuestion.kind)) throw new IdentityError('ceremony.unknown')
  const question = await takeUp(context, secret)
  const account = await context.accounts.find(question.sub)
  if (account === undefined || account.disabled) throw new IdentityError('account.disabled')
  const asked = { question, account, source }
  return question.kind === 'register'
    ? added(context, asked, answer)
    : proven(context, asked, answer)
}

interface Asked {
  readonly question: Question
  readonly account: Account
  readonly source: string | null
}

/** A wrong answer is recorded with what is wrong with it, and refused. */
async function refuse(context: Context, asked: Asked, fault: string): Promise<never> {
  await record(context.log, event(context, asked, fault))
  throw new IdentityError('passkey.refused', { fault })
}

function event(
  context: Context,
  { question, account, source }: Asked,
  fault: string | null,
): IdentityEvent {
  return {
    code: 'auth.stepup',
    at: context.now(),
    source,
    outcome: fault === null ? 'success' : 'failure',
    subject: `${context.issuer}|${account.sub}`,
    email: account.email,
    party: account.party,
    client: question.login?.client ?? null,
    methods: fault === null ? [METHOD] : [],
    purpose: question.kind,
    reason: fault,
  }
}

async function added(context: Context, asked: Asked, answer: BrowserAnswer): Promise<Answered> {
  const { question, account, source } = asked
  const { relyingParty, passkeyStore } = context
  const { id, response } = answer
  const verified = await verifyRegistrationResponse({
    response: {
      id,
      rawId: id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: response.clientDataJSON,
        attestationObject: response.attestationObject ?? '',
      },
    },
    expectedChallenge: question.challenge,
    expectedOrigin: [...relyingParty.origins],
    expectedRPID: relyingParty.id,
    requireUserVerification: true,
    supportedAlgorithmIDs: [...ALGORITHMS],
  }).catch(() => undefined)
  const info = verified?.registrationInfo
  const key = info === undefined ? undefined : signingKey(info.credential.publicKey)
  if (verified?.verified !== true || info === undefined || key === undefined)
    return refuse(context, asked, 'registration.invalid')
  const row: PasskeyRow = {
    id: info.credential.id,
    sub: account.sub,
    name: question.about,
    ...key,
    cose: Buffer.from(info.credential.publicKey).toString('base64url'),
    counter: info.credential.counter,
    transports: (response.transports ?? []).filter((one) => /^[a-z-]{1,20}$/.test(one)).slice(0, 8),
    backedUp: info.credentialBackedUp,
    createdAt: context.now(),
    usedAt: null,
  }
  const subject = `${context.issuer}|${account.sub}`
  const common = { at: context.now(), source, by: subject, subject }
  await record(context.log, { code: 'passkey.add', ...common, passkey: row.id, name: row.name })
  const outcome = await passkeyStore.addPasskey(row, MOST_PASSKEYS, question.login?.login ?? '')
  if (outcome === 'ended') return refuse(context, asked, 'login.ended')
  if (outcome !== 'added') throw new IdentityError(`passkey.${outcome}`)
  const { login, about } = question
  return { kind: 'register', login, account, about, passkey: shown(row), signed: null }
}

async function proven(context: Context, asked: Asked, answer: BrowserAnswer): Promise<Answered> {
  const { question, account } = asked
  const { response } = answer
  const assertion = readAssertion({
    credential: answer.id,
    authenticator_data: response.authenticatorData,
    client_data: response.clientDataJSON,
    signature: response.signature,
  })
  if (assertion === undefined) return refuse(context, asked, 'assertion.malformed')
  const row = await context.passkeyStore.findPasskey(answer.id)
  const handle = response.userHandle ?? null
  const own = handle === null || handle === Buffer.from(account.sub).toString('base64url')
  if (row?.sub !== account.sub || !own) return refuse(context, asked, 'passkey.foreign')
  const { id: rpId, origins } = context.relyingParty
  const challenge = Buffer.from(question.challenge, 'base64url')
  const key = { alg: row.alg, spki: row.spki }
  const outcome = checkAssertion(assertion, key, { challenge, rpId, origins })
  if (!outcome.ok) return refuse(context, asked, outcome.code)
  const { counter } = outcome
  if (counter <= row.counter && (counter !== 0 || row.counter !== 0))
    return refuse(context, asked, 'passkey.counter')
  if (!(await agrees(context, question, row, answer)))
    return refuse(context, asked, 'assertion.signature')
  await record(context.log, event(context, asked, null))
  // Two answers at once: the store takes one of them.
  if (!(await context.passkeyStore.usePasskey(row.id, counter, context.now())))
    return refuse(context, asked, 'passkey.counter')
  const { kind, login, about } = question
  const signed = { assertion, key, relying_party: context.relyingParty }
  return { kind, login, account, about, passkey: shown(row), signed }
}

/** The library's own verification of the same answer. */
async function agrees(
  { relyingParty }: Context,
  question: Question,
  row: PasskeyRow,
  { id, response }: BrowserAnswer,
): Promise<boolean> {
  const verified = await verifyAuthenticationResponse({
    response: {
      id,
      rawId: id,
      type: 'public-key',
      clientExtensionResults: {},
      response: {
        clientDataJSON: response.clientDataJSON,
        authenticatorData: response.authenticatorData ?? '',
        signature: response.signature ?? '',
      },
    },
    expectedChallenge: question.challenge,
    expectedOrigin: [...relyingParty.origins],
    expectedRPID: relyingParty.id,
    requireUserVerification: true,
    credential: { id: row.id, publicKey: octets(row.cose), counter: row.counter },
  }).catch(() => undefined)
  return verified?.verified === true
}

/** Gives how many there were. */
async function removeAll(context: Context, sub: string, by: Actor): Promise<number> {
  const held = await context.passkeyStore.passkeysOf(sub)
  for (const { id } of held) await remove(context, sub, id, by)
  return held.length
}

async function remove(context: Context, sub: string, id: string, by: Actor): Promise<void> {
  const row = await context.passkeyStore.findPasskey(id)
  if (row?.sub !== sub) throw new IdentityError('passkey.unknown')
  const subject = `${context.issuer}|${sub}`
  const common = { at: context.now(), source: by.source, by: by.id, byParty: by.party, subject }
  await record(context.log, { code: 'passkey.remove', ...common, passkey: id, name: row.name })
  if (!(await context.passkeyStore.removePasskey(sub, id)))
    throw new IdentityError('passkey.unknown')
}
