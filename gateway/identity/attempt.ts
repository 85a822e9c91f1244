/** One attempt to sign in by a password: counted before it is looked at, and told the same whatever was wrong. */
import { IdentityError } from './errors.ts'
import { record, type IdentityLog, type LoginEvent } from './events.ts'
import { EMAIL, normalise, withoutPassword, type Account } from './facts.ts'
import type { Passwords } from './password.ts'
import type { AccountRow, IdentityStore, Throttle } from './store.ts'

/** The acr of somebody who gave a password and nothing else. */
export const ACR_PASSWORD = 'urn:sallyport:acr:password'

export interface LoginAttempt {
  readonly email: string
  readonly password: string
  /** The address it comes from. */
  readonly source: string
  /** The client the person signs in to. */
  readonly client: string | null
  /** What else is asked for; such a sign-in is recorded as none, until whoever asks completes it. */
  readonly asksMore?: (account: Account) => Promise<SecondFactors>
}

/** What an account has beside its password: with neither, the password is enough. */
export interface SecondFactors {
  readonly passkey: boolean
  readonly code: boolean
}

const NOTHING_MORE: SecondFactors = { passkey: false, code: false }

/** `login.failed` covers wrong password, unknown and disabled alike; `login.locked` depends on attempts only. */
export type LoginAnswer =
  | { readonly ok: true; readonly account: Account; readonly more: SecondFactors }
  | {
      readonly ok: false
      readonly code: 'login.failed' | 'login.locked' | 'login.busy'
      readonly retryAfterMs: number
    }

export interface AttemptRoom {
  readonly issuer: string
  readonly store: IdentityStore
  readonly log: IdentityLog
  readonly passwords: Passwords
  /** Epoch milliseconds. */
  readonly now: () => number
  /** Locks that the log has heard of, and until when: hammering a locked door must not fill the log. */
  readonly toldLocks: Map<string, number>
}

const MINUTE = 60_000
/** A person at a keyboard, a source that tries many accounts, many sources that try one account. */
const LIMITS = { pair: 5, source: 50, account: 100, windowMs: 15 * MINUTE }

/** Checks a password. Error: log.unavailable. */
export async function login(context: AttemptRoom, attempt: LoginAttempt): Promise<LoginAnswer> {
  const email = normalise(attempt.email)
  const throttles = loginThrottles(email, attempt.source)
  const [pair, ...wider] = keysOf(throttles)
  const tell = async (reason: LoginEvent['reason'], who: AccountRow | undefined): Promise<void> =>
    record(context.log, {
      code: 'auth.login',
      at: context.now(),
      source: attempt.source,
      outcome: reason === null ? 'success' : 'failure',
      subject: who === undefined ? null : `${context.issuer}|${who.sub}`,
      party: who?.party ?? null,
      email: EMAIL.test(email) && email.length <= 320 ? email : null,
      client: attempt.client,
      // What was given: of who is asked for more, the password was right.
      methods: reason === null || reason === 'second_factor' ? ['pwd'] : [],
      reason,
    })
  const taken = await context.store.take(throttles, context.now())
  if (!taken.allowed) {
    if (isNewLock(context, `${attempt.source}:${email}`)) await tell('locked', undefined)
    return { ok: false, code: 'login.locked', retryAfterMs: taken.retryAfterMs }
  }
  const row = await context.store.findAccountByEmail(email)
  const right = await checked(context, attempt.password, row?.password ?? null)
  if (right === 'busy') {
    await context.store.settle([], [pair, ...wider])
    await tell('busy', undefined)
    return { ok: false, code: 'login.busy', retryAfterMs: 5_000 }
  }
  if (row === undefined || !right || row.disabled) {
    await tell(whyNot(row, right), row)
    return { ok: false, code: 'login.failed', retryAfterMs: 0 }
  }
  const account = withoutPassword(row)
  const more = (await attempt.asksMore?.(account)) ?? NOTHING_MORE
  const told = tell(more.passkey || more.code ? 'second_factor' : null, row)
  await recorded(context.store, [pair, ...wider], told)
  // Where a code may follow, wrong ones count on the same: a right password in between wipes none of them off.
  if (more.code) await context.store.settle([], [pair, ...wider])
  else await context.store.settle([pair], wider)
  await refreshHash(context, row, attempt.password)
  return { ok: true, account, more }
}

/**
 * A right answer that is being recorded: where the log does not take it the fault is ours, and what was counted for it is
 * given back. Error: log.unavailable.
 */
export async function recorded(
  store: Pick<IdentityStore, 'settle'>,
  counted: readonly string[],
  recording: Promise<void>,
): Promise<void> {
  try {
    await recording
  } catch (error) {
    await store.settle([], counted)
    throw error
  }
}

/** Whether the log has not heard of this lock yet; it has then. */
export function isNewLock(
  { toldLocks, now }: Pick<AttemptRoom, 'toldLocks' | 'now'>,
  key: string,
): boolean {
  const at = now()
  if ((toldLocks.get(key) ?? 0) > at) return false
  for (const [old, until] of toldLocks)
    if (until <= at || toldLocks.size > 10_000) toldLocks.delete(old)
  toldLocks.set(key, at + LIMITS.windowMs)
  return true
}

function whyNot(row: AccountRow | undefined, right: boolean): 'unknown' | 'disabled' | 'password' {
  if (row === undefined) return 'unknown'
  return right ? 'disabled' : 'password'
}

async function checked(
  context: AttemptRoom,
  password: string,
  stored: string | null,
): Promise<boolean | 'busy'> {
  try {
    return await context.passwords.matches(password, stored)
  } catch (error) {
    if (error instanceof IdentityError && error.code === 'busy') return 'busy'
    throw error
  }
}

/** A hash made with older parameters is replaced while the password is at hand; not worth failing a login. */
async function refreshHash(context: AttemptRoom, row: AccountRow, password: string): Promise<void> {
  if (row.password === null || !context.passwords.isOutdated(row.password)) return
  const hash = await context.passwords.hash(password).catch(() => undefined)
  const now = await context.store.findAccount(row.sub)
  if (hash === undefined || now?.password !== row.password) return
  const change = { sub: row.sub, password: hash, changedAt: context.now() }
  await context.store.changeAccount(change, { changedAt: now.changedAt })
}

type Three<T> = readonly [T, T, T]

const keysOf = ([pair, source, account]: Three<Throttle>): Three<string> => [
  pair.key,
  source.key,
  account.key,
]

/** What an attempt of this address (in lower case) from this source counts on: the pair, the source, the address. */
export function loginThrottles(email: string, source: string): Three<Throttle> {
  const { windowMs } = LIMITS
  const name = email.slice(0, 320)
  return [
    { key: `login:${source}:${name}`, limit: LIMITS.pair, windowMs },
    { key: `login-source:${source}`, limit: LIMITS.source, windowMs },
    { key: `login-account:${name}`, limit: LIMITS.account, windowMs },
  ]
}
