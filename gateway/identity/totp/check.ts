/**
 * One code in a sign-in, after the password: counted on the counters of the password before it is looked at, so that who
 * knows the password guesses codes no faster than others guess passwords; and on two of the account's own besides.
 */
import type { Accounts } from '../accounts.ts'
import { isNewLock, loginThrottles, recorded, type AttemptRoom } from '../attempt.ts'
import { IdentityError } from '../errors.ts'
import { record, type IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import type { IdentityKeys } from '../keys.ts'
import { lookUp, takeUp, type CeremonyRoom, type Question } from '../passkeys/ceremony.ts'
import { openSecret } from '../sealing.ts'
import type { IdentityStore, Throttle } from '../store.ts'
import { readCode, stepOf } from './code.ts'
import type { TotpStore } from './store.ts'

export interface CheckRoom extends CeremonyRoom {
  readonly issuer: string
  readonly keys: Pick<IdentityKeys, 'cookies'>
  readonly totpStore: Pick<TotpStore, 'findTotp' | 'useTotp'>
  readonly store: Pick<IdentityStore, 'take' | 'settle'>
  readonly accounts: Pick<Accounts, 'find'>
  readonly log: IdentityLog
  readonly toldLocks: AttemptRoom['toldLocks']
}

export interface CodeAttempt {
  /** Of the question, as `Totps.ask` gave it. */
  readonly secret: string
  /** The sign-in that it was asked in. */
  readonly about: string
  /** As typed. */
  readonly code: string
  readonly source: string
  readonly client: string | null
}

/** `wrong` covers a code that is wrong and one that was used; `locked` depends on attempts only. */
export type CodeAnswer =
  | { readonly ok: true; readonly account: Account }
  | {
      readonly ok: false
      readonly code: 'stale' | 'wrong' | 'locked'
      readonly email: string
      readonly retryAfterMs: number
    }

const HOUR_MS = 3_600_000

/**
 * Three of a million codes are right at any moment (RFC 4226 7.3). Whatever the number of sources, ten wrong ones close the
 * account's for an hour; a hundred without a right one between, until thirty days have passed (SP 800-63B 5.2.2) or the
 * account has another app. Whoever closed it has the password: the account is renewed, where that was not its owner.
 */
function codeThrottles(sub: string): readonly Throttle[] {
  return [
    { key: `totp:${sub}`, limit: 10, windowMs: HOUR_MS },
    { key: `totp-all:${sub}`, limit: 100, windowMs: 30 * 24 * HOUR_MS },
  ]
}

/** The account's counters of codes, to be forgotten with its app. */
export const codeCounters = (sub: string): readonly string[] =>
  codeThrottles(sub).map(({ key }) => key)

/** Errors: log.unavailable. */
export async function checkCode(room: CheckRoom, attempt: CodeAttempt): Promise<CodeAnswer> {
  const question = await questionOf(room, attempt)
  const account = question === undefined ? undefined : await room.accounts.find(question.sub)
  if (account === undefined || account.disabled) return no('stale', '')
  const { sub, email } = account
  const [pair, ...wider] = loginThrottles(email, attempt.source)
  const own = codeThrottles(sub)
  const taken = await room.store.take([pair, ...wider, ...own], room.now())
  if (!taken.allowed) {
    if (isNewLock(room, `${attempt.source}:${sub}`))
      await tell(room, account, attempt, 'code.locked')
    return no('locked', email, taken.retryAfterMs)
  }
  const row = await room.totpStore.findTotp(sub)
  const secret =
    row === undefined ? undefined : openSecret(row.sealed, sub, room.keys.cookies, 'totp')
  const code = readCode(attempt.code)
  const step =
    secret === undefined || code === undefined ? undefined : stepOf(secret, code, room.now())
  if (row === undefined || secret === undefined || step === undefined) {
    await tell(room, account, attempt, secret === undefined ? 'code.unreadable' : 'code.wrong')
    return no('wrong', email)
  }
  if (step <= row.step) return replayed(room, account, attempt)
  const counted = [pair, ...wider, ...own].map(({ key }) => key)
  await recorded(room.store, counted, tell(room, account, attempt, null))
  // Two answers at once: the store takes one of them, and the question has one end. The log has the end of the other too.
  if (!(await room.totpStore.useTotp(sub, row.createdAt, step, room.now())))
    return replayed(room, account, attempt)
  const first = await takeUp(room, attempt.secret).catch((error: unknown) => {
    if (error instanceof IdentityError && error.code === 'ceremony.unknown') return undefined
    throw error
  })
  if (first === undefined) {
    await tell(room, account, attempt, 'code.stale')
    return no('stale', email)
  }
  await room.store.settle(
    [pair, ...own].map(({ key }) => key),
    wider.map(({ key }) => key),
  )
  return { ok: true, account }
}

async function questionOf(
  room: CheckRoom,
  { secret, about }: CodeAttempt,
): Promise<Question | undefined> {
  const question = await lookUp(room, secret).catch((error: unknown) => {
    if (error instanceof IdentityError && error.code === 'ceremony.unknown') return undefined
    throw error
  })
  // The password was given in this very sign-in.
  return question?.kind === 'code' && question.about === about ? question : undefined
}

async function replayed(
  room: CheckRoom,
  account: Account,
  attempt: CodeAttempt,
): Promise<CodeAnswer> {
  await tell(room, account, attempt, 'code.replayed')
  return no('wrong', account.email)
}

const no = (code: 'stale' | 'wrong' | 'locked', email: string, retryAfterMs = 0): CodeAnswer => ({
  ok: false,
  code,
  email,
  retryAfterMs,
})

async function tell(
  { issuer, log, now }: CheckRoom,
  { sub, email, party }: Account,
  { source, client }: CodeAttempt,
  fault: string | null,
): Promise<void> {
  await record(log, {
    code: 'auth.stepup',
    at: now(),
    source,
    outcome: fault === null ? 'success' : 'failure',
    subject: `${issuer}|${sub}`,
    email,
    party,
    client,
    means: 'code',
    methods: fault === null ? ['otp'] : [],
    purpose: 'sign_in',
    reason: fault,
  })
}
