/**
 * Signing in by a passkey and nothing else: the authenticator names the person (a discoverable credential's user
 * handle), verifies them, and signs a question that was put to nobody in particular. For accounts that have no
 * password; who has one shows both.
 */
import { randomBytes } from 'node:crypto'
import { generateAuthenticationOptions } from '@simplewebauthn/server'
import type { Accounts } from '../accounts.ts'
import { IdentityError } from '../errors.ts'
import { record } from '../events.ts'
import type { Account } from '../facts.ts'
import type { AnswerRoom } from './answer.ts'
import { askOnce, takeUp, TIMEOUT_MS, type Ceremony } from './ceremony.ts'
import type { BrowserAnswer } from './credential.ts'
import { checkAddress, checkAnswer, octets } from './verify.ts'

export interface AloneRoom extends AnswerRoom {
  readonly accounts: Pick<Accounts, 'find' | 'hasPassword'>
}

/** What the attempt belongs to, for the log and for the one form it may be used in. */
export interface AloneAttempt {
  /** The sign-in that asks. */
  readonly about: string
  readonly source: string
  readonly client: string | null
}

/** Asks whoever holds a passkey of this site. Errors: passkey.address, ceremony.limit (counted by source). */
export async function askAnybody(
  room: AloneRoom,
  { about, source }: Pick<AloneAttempt, 'about' | 'source'>,
): Promise<Ceremony> {
  checkAddress(room.relyingParty)
  const challenge = randomBytes(32).toString('base64url')
  const question = { kind: 'alone', sub: '', login: null, challenge, about } as const
  // No list of credentials: it would tell a stranger who has one.
  const options = await generateAuthenticationOptions({
    rpID: room.relyingParty.id,
    challenge: octets(challenge),
    timeout: TIMEOUT_MS,
    userVerification: 'required',
  })
  return { ...(await askOnce(room, question, `source:${source}`)), options }
}

/**
 * The account whose passkey answered, its use noted. The caller records the sign-in.
 * Errors: ceremony.unknown, passkey.refused (its `fault` says why, the log too), log.unavailable.
 */
export async function answerAlone(
  room: AloneRoom,
  secret: string,
  answer: BrowserAnswer,
  attempt: AloneAttempt,
): Promise<Account> {
  const question = await takeUp(room, secret)
  if (question.kind !== 'alone' || question.about !== attempt.about)
    throw new IdentityError('ceremony.unknown')
  const row = await room.passkeyStore.findPasskey(answer.id)
  const account = row === undefined ? undefined : await room.accounts.find(row.sub)
  if (row === undefined || account === undefined)
    return refuse(room, attempt, undefined, 'passkey.foreign')
  // Here the handle is what says who it is: an authenticator that leaves it out has named nobody.
  const handle = answer.response.userHandle ?? null
  if (handle !== Buffer.from(row.sub).toString('base64url'))
    return refuse(room, attempt, undefined, 'passkey.handle')
  const verdict = await checkAnswer(room.relyingParty, question.challenge, row, answer)
  if (!verdict.ok) return refuse(room, attempt, account, verdict.code)
  const closed = await whyClosed(room, account)
  if (closed !== null) return refuse(room, attempt, account, closed)
  // Two answers at once: the store takes one of them.
  if (!(await room.passkeyStore.usePasskey(row.id, verdict.counter, room.now())))
    return refuse(room, attempt, account, 'passkey.counter')
  return account
}

/** Why this account is not opened by a passkey alone, told to who has proven to hold it; null: it is. */
async function whyClosed({ accounts }: AloneRoom, account: Account): Promise<string | null> {
  if (account.disabled) return 'account.disabled'
  if (account.outside !== null) return 'account.outside'
  return (await accounts.hasPassword(account.sub)) ? 'passkey.second' : null
}

async function refuse(
  { issuer, log, now }: AloneRoom,
  { source, client }: AloneAttempt,
  account: Account | undefined,
  fault: string,
): Promise<never> {
  await record(log, {
    code: 'auth.login',
    at: now(),
    source,
    outcome: 'failure',
    subject: account === undefined ? null : `${issuer}|${account.sub}`,
    party: account?.party ?? null,
    email: account?.email ?? null,
    client,
    methods: [],
    reason: 'passkey',
    detail: fault,
  })
  throw new IdentityError('passkey.refused', { fault })
}
