/**
 * One question to one authenticator, or for one code: asked for by somebody who is signed in, answered once, within five minutes.
 * Its secret finds it and proves nothing: who answers must hold the passkey.
 */
import { createHash, randomBytes } from 'node:crypto'
import { IdentityError } from '../errors.ts'
import type { IdentityStore, OidcStore } from '../store.ts'
import type { Login } from '../subject.ts'
import type { Begun } from '../removal.ts'

/** What the answer is for. */
export type CeremonyKind =
  | 'register'
  | 'step_up'
  | 'approve'
  | 'sign'
  | 'sign_in'
  | 'alone'
  | 'invited'
  | 'enrol_totp'
  | 'code'

export interface Question {
  readonly kind: CeremonyKind
  /** Whom it is put to; '' where the answer is to tell. */
  readonly sub: string
  /** The login that it belongs to and ends with; null while somebody signs in. */
  readonly login: Login | null
  /** Base64url; of an enrolment of an authenticator app its secret, sealed. */
  readonly challenge: string
  /** What it is about: the grant, the name of the passkey, the sign-in it belongs to. */
  readonly about: string
  /** Of what adds a second factor: what the asker had shown by then. */
  readonly begun?: Begun
}

/** A question as it is handed out: the secret finds it, `options` go to the browser. */
export interface Ceremony {
  readonly secret: string
  readonly expiresAt: number
  readonly options: object
}

/** How long a browser waits for its authenticator. */
export const TIMEOUT_MS = 5 * 60_000
const MODEL = 'Ceremony'
const LIFETIME_MS = 5 * 60_000
/** Questions of one account in ten minutes; more are somebody's loop. */
const RATE = { limit: 60, windowMs: 10 * 60_000 }

export interface CeremonyRoom {
  readonly oidcStore: Pick<OidcStore, 'upsert' | 'find' | 'consume'>
  readonly store: Pick<IdentityStore, 'take'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

const idOf = (secret: string): string =>
  createHash('sha256').update(secret.slice(0, 200)).digest('base64url')

/**
 * Keeps a question; gives the secret that finds it and the epoch second it ends at. Questions are counted for `asker`:
 * the account, or where nobody is known yet the address that asks. Error: ceremony.limit.
 */
export async function askOnce(
  { oidcStore, store, now }: CeremonyRoom,
  question: Question,
  asker: string = question.sub,
): Promise<{ readonly secret: string; readonly expiresAt: number }> {
  const taken = await store.take([{ key: `ceremony:${asker}`, ...RATE }], now())
  if (!taken.allowed) throw new IdentityError('ceremony.limit')
  const secret = randomBytes(32).toString('base64url')
  const expiresAt = now() + LIFETIME_MS
  const payload = {
    ...question,
    // The provider's own names: what a login or an account ends, ends this too.
    ...(question.sub === '' ? {} : { accountId: question.sub }),
    ...(question.login === null ? {} : { grantId: question.login.login }),
    until: expiresAt,
  }
  await oidcStore.upsert({ model: MODEL, id: idOf(secret), payload, expiresAt })
  return { secret, expiresAt: Math.floor(expiresAt / 1000) }
}

/** The question, unanswered. Error: ceremony.unknown. */
export async function lookUp({ oidcStore, now }: CeremonyRoom, secret: string): Promise<Question> {
  const payload = await oidcStore.find(MODEL, idOf(secret))
  const open = payload !== undefined && payload['consumed'] === undefined
  if (!open || Number(payload['until']) <= now()) throw new IdentityError('ceremony.unknown')
  // Written by `askOnce` alone.
  return payload as unknown as Question
}

/** The question, for its one answer: whatever that is worth, there is no second. Error: ceremony.unknown. */
export async function takeUp(room: CeremonyRoom, secret: string): Promise<Question> {
  const question = await lookUp(room, secret)
  const first = await room.oidcStore.consume(MODEL, idOf(secret), Math.floor(room.now() / 1000))
  if (!first) throw new IdentityError('ceremony.unknown')
  return question
}
