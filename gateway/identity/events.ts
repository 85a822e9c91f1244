/** What this room tells the log, always before the act it records. Passwords, codes and tokens never appear. */
import { IdentityError, type IdentityCode } from './errors.ts'
import type { IdpCode } from './idp/errors.ts'
import type { Party } from './subject.ts'

interface Common {
  /** Epoch milliseconds. */
  readonly at: number
  /** Where the request came from: an IP address, or null for an act of the program itself. */
  readonly source: string | null
}

/** What was told and then did not come to be, or may not have, is told again, with why: the code of the refusal. */
interface Act extends Common {
  readonly failed?: IdentityCode | 'store.unavailable'
  /** With `failed`: it was not done, or nobody knows; absent where the gateway's own file failed. */
  readonly effect?: 'none' | 'unknown' | undefined
}

/** Whose the account is that this is about; null where it is nobody's we know. */
interface OfAccount {
  readonly party: Party | null
}

/** Somebody tried to sign in. */
export interface LoginEvent extends Common, OfAccount {
  readonly code: 'auth.login'
  readonly outcome: 'success' | 'failure'
  /** `<issuer>|<sub>`; null when the attempt named nobody we know. */
  readonly subject: string | null
  /** As typed, lower-cased; null unless it has the form of an address. Personal. */
  readonly email: string | null
  /** The client the person signs in to, e.g. `sallyport-cli`. */
  readonly client: string | null
  readonly methods: readonly string[]
  /**
   * Why not; null on success. The page never tells these apart, the log does. `second_factor`: the password was right and
   * a passkey or a code is asked for; nobody is signed in until a success follows. `passkey`: one that was shown alone was not
   * accepted; `detail` says why.
   */
  readonly reason:
    | 'password'
    | 'unknown'
    | 'disabled'
    | 'locked'
    | 'busy'
    | 'second_factor'
    | 'passkey'
    | IdpCode
    | null
  /** Who signed them in, where it was a company's own provider: its id here. */
  readonly idp?: string
  /** Which check said no, where `reason` is a provider's or `passkey`. */
  readonly detail?: string
}

/** A login is about to end. */
export interface LogoutEvent extends Common, OfAccount {
  readonly code: 'auth.logout'
  readonly subject: string
  /** The login that ends; null: all of that person's. */
  readonly login: string | null
  readonly reason:
    | 'signed_out'
    | 'revoked'
    | 'reused'
    | 'disabled'
    | 'password_changed'
    | 'ended'
    | 'backchannel'
}

/** An account is about to be made. */
export interface AccountCreateEvent extends Act {
  readonly code: 'account.create'
  readonly subject: string
  readonly email: string
  readonly party: Party
  readonly vendor: string | null
  readonly roles: readonly string[]
  readonly groups: readonly string[]
  /** `<iss>|<sub>` of who did it, or `bootstrap`, `system`, `invitation:<id>`. */
  readonly by: string
  readonly byParty?: Party | undefined
}

/** An account is about to change; `changes` names the fields and, but for the password, their new values. */
export interface AccountChangeEvent extends Act {
  readonly code: 'account.change'
  readonly subject: string
  readonly by: string
  readonly byParty?: Party | undefined
  readonly changes: Readonly<Record<string, string | boolean | null | readonly string[]>>
}

/** Somebody showed a passkey or gave a code of their authenticator app, or tried to. */
export interface StepUpEvent extends Common, OfAccount {
  readonly code: 'auth.stepup'
  readonly outcome: 'success' | 'failure'
  readonly subject: string
  readonly email: string
  readonly client: string | null
  /** Absent: a passkey. */
  readonly means?: 'code'
  readonly methods: readonly string[]
  /** What for: `sign_in`, `step_up`, `approve`, `sign`, `register`. */
  readonly purpose: string
  /** Which check said no; null on success. */
  readonly reason: string | null
}

/** A passkey is about to be added to an account, or removed from it. */
export interface PasskeyEvent extends Act {
  readonly code: 'passkey.add' | 'passkey.remove'
  readonly subject: string
  readonly by: string
  readonly byParty?: Party | undefined
  /** The credential id. */
  readonly passkey: string
  readonly name: string
}

/** An authenticator app is about to be added to an account, or removed from it. */
export interface TotpEvent extends Act {
  readonly code: 'totp.add' | 'totp.remove'
  readonly subject: string
  readonly by: string
  readonly byParty?: Party | undefined
  /** What its owner calls it. */
  readonly totp: string
}

/** Somebody is about to be invited as a guest, or to be given a new way into their account. */
export interface InviteEvent extends Act {
  readonly code: 'invitation.create'
  readonly invitation: string
  readonly email: string
  readonly vendor: string | null
  readonly groups: readonly string[]
  /** The account. */
  readonly sub: string
  readonly renews: boolean
  /** Epoch milliseconds. */
  readonly expiresAt: number
  readonly by: string
  readonly byParty?: Party | undefined
}

/** An invitation is about to be withdrawn. */
export interface UninviteEvent extends Act {
  readonly code: 'invitation.revoke'
  readonly invitation: string
  readonly email: string
  readonly by: string
  readonly byParty?: Party | undefined
}

/** A company's provider is about to be added, changed or removed. */
export interface IdpEvent extends Act {
  readonly code: 'idp.create' | 'idp.change' | 'idp.remove'
  readonly idp: string
  readonly by: string
  readonly byParty?: Party | undefined
  readonly changes: Readonly<Record<string, string | boolean | null | readonly string[]>>
}

/** A service is about to be entered or revoked. */
export interface ServiceEvent extends Act {
  readonly code: 'service.create' | 'service.revoke'
  /** `<issuer>|<id>`. */
  readonly service: string
  readonly by: string
  readonly byParty?: Party | undefined
  readonly changes: Readonly<Record<string, string | null | readonly string[]>>
}

export type IdentityEvent =
  | LoginEvent
  | LogoutEvent
  | AccountCreateEvent
  | AccountChangeEvent
  | StepUpEvent
  | PasskeyEvent
  | TotpEvent
  | InviteEvent
  | UninviteEvent
  | IdpEvent
  | ServiceEvent

/** Resolves when the event is durable; a rejection stops the act with `log.unavailable`. */
export type IdentityLog = (event: IdentityEvent) => Promise<void>

/** Records the event, or stops the act. Error: log.unavailable. */
export async function record(log: IdentityLog, event: IdentityEvent): Promise<void> {
  try {
    await log(event)
  } catch (cause) {
    throw new IdentityError('log.unavailable', { cause })
  }
}

type ActEvent =
  | AccountCreateEvent
  | AccountChangeEvent
  | PasskeyEvent
  | TotpEvent
  | InviteEvent
  | UninviteEvent
  | IdpEvent
  | ServiceEvent

/** How a store that gateways share says that it may have done what it did not confirm. */
const UNCONFIRMED: readonly unknown[] = ['store.unavailable', 'store.replicas']

/**
 * Records what is about to be, then does it; where the outcome is one of `refusals`, or `act` throws, records that it
 * did not come to be, or that nobody knows. Gives the outcome. Error: log.unavailable, and what `act` throws.
 */
export async function recordAct<O extends string>(
  log: IdentityLog,
  events: readonly ActEvent[],
  refusals: Readonly<Partial<Record<O, IdentityCode>>>,
  act: () => Promise<O>,
): Promise<O> {
  const fail = async (failed: NonNullable<Act['failed']>, effect: Act['effect']): Promise<void> => {
    for (const event of events) await record(log, { ...event, failed, effect })
  }
  for (const event of events) await record(log, event)
  let outcome: O
  try {
    outcome = await act()
  } catch (error) {
    const { code } = error as { readonly code?: unknown }
    await fail('store.unavailable', UNCONFIRMED.includes(code) ? 'unknown' : undefined)
    throw error
  }
  const refused = refusals[outcome]
  if (refused !== undefined) await fail(refused, 'none')
  return outcome
}

/** Something about a person changed: whoever holds a session of theirs asks again. Sent after the change holds. */
export interface IdentityChange {
  readonly kind: 'changed' | 'disabled' | 'logged_out'
  /** `<iss>|<sub>`. */
  readonly subject: string
  /** The one login that ended; null: everything of this person is concerned. */
  readonly login: string | null
}
