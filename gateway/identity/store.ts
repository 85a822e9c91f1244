/**
 * What this room must find again after a crash. Rows are structured-clone data; every method is one
 * durable transaction: when it resolves, it holds. Instants are epoch milliseconds.
 */
import type { KeyAlgorithm } from '#approval'
import type { Shown } from './passkeys/credential.ts'
import type { Authentication, Party } from './subject.ts'

export interface AccountRow {
  /** Never used again, never changed: 26 characters. */
  readonly sub: string
  /** Lower-cased; unique. */
  readonly email: string
  readonly name: string
  readonly party: Party
  readonly vendor: string | null
  readonly groups: readonly string[]
  readonly roles: readonly string[]
  readonly disabled: boolean
  /** PHC string; null: this account has no password. */
  readonly password: string | null
  /** Whom a company's own provider signs in; null: this gateway's own account. */
  readonly outside: Outside | null
  /** Accounts of one human being share it: such a person counts once where several must agree. */
  readonly person: string
  readonly createdAt: number
  readonly changedAt: number
}

/** The fields of an account that a change names. `changedAt` always moves on, whatever the clock says. */
export type AccountFields = Pick<AccountRow, 'sub' | 'changedAt'> &
  Partial<Omit<AccountRow, 'sub' | 'changedAt' | 'createdAt' | 'outside'>>

/** What must hold of the row at the moment of the change. */
export interface OnlyIf {
  /** It is still the one that was read. */
  readonly changedAt?: number
  readonly enabled?: true
}

export type ChangeOutcome = 'changed' | 'taken' | 'last_admin' | 'unknown' | 'moved' | 'disabled'

/** Under which name a company's provider knows somebody; no other account has the same three. */
export interface Outside {
  /** The id of the provider here. */
  readonly idp: string
  readonly issuer: string
  readonly subject: string
}

/** A company's own OpenID provider as the owner entered it. Lists are allow-lists: what they lack does not count. */
export interface IdpRow {
  /** Stands in its addresses; never changed. */
  readonly id: string
  /** What people read. */
  readonly name: string
  /** Exactly as the provider calls itself. */
  readonly issuer: string
  readonly clientId: string
  /** How we prove that we are the client: by nothing but PKCE, a secret, or our own signing key (RFC 7523). */
  readonly auth: 'none' | 'secret' | 'key'
  /** The secret, sealed under the gateway's keys. */
  readonly sealedSecret: string | null
  /** PEM of the only root its servers are trusted by; null: the public ones. */
  readonly ca: string | null
  readonly party: Party
  /** The company everybody from here belongs to; no claim changes it. */
  readonly vendor: string | null
  /** Domains of the addresses it may vouch for, lower-case; no two providers share one. */
  readonly domains: readonly string[]
  /** The owner vouches that it asserts only addresses it has verified, where it does not say so itself. */
  readonly trustEmail: boolean
  readonly groupsClaim: string
  /** Value of the groups claim -> group here. */
  readonly groups: Readonly<Record<string, string>>
  /** Value of the groups claim -> role here; staff only. */
  readonly roles: Readonly<Record<string, string>>
  /** Value of `amr` -> method that policy counts, e.g. `hwk` -> `webauthn`. */
  readonly methods: Readonly<Record<string, string>>
  /** How long one login can be refreshed. */
  readonly loginSeconds: number
  /** Named on the sign-in page to everybody; others are found by the domain of an address. */
  readonly listed: boolean
  readonly enabled: boolean
  readonly createdAt: number
  readonly changedAt: number
}

export interface IdpStore {
  /** `exists`: the id; `taken`: another has the issuer with this client, or one of the domains; `full`: there are 100. */
  addIdp(row: IdpRow): Promise<'added' | 'exists' | 'taken' | 'full'>
  findIdp(id: string): Promise<IdpRow | undefined>
  /** By id. */
  listIdps(): Promise<readonly IdpRow[]>
  /** False if there is none of this id. */
  setIdpEnabled(id: string, enabled: boolean, now: number): Promise<boolean>
  /** Removes it; its accounts are disabled for good and their addresses free. Gives their `sub`s. */
  removeIdp(id: string, now: number): Promise<readonly string[]>
  /** The `sub`s of everybody it signed in. */
  accountsOfIdp(id: string): Promise<readonly string[]>
}

/** One counter of attempts: so many within the window, then closed until the window has passed. */
export interface Throttle {
  /** What is counted, e.g. `login:<source>:<email>`. */
  readonly key: string
  readonly limit: number
  readonly windowMs: number
}

export interface ThrottleAnswer {
  readonly allowed: boolean
  /** How long until the first of the exhausted counters opens again; 0 when allowed. */
  readonly retryAfterMs: number
}

export interface IdentityStore {
  /** False if the address, or the name outside, is taken, or a provider has 10,000 accounts; nothing was written. */
  addAccount(account: AccountRow): Promise<boolean>
  findAccount(sub: string): Promise<AccountRow | undefined>
  findAccountByEmail(email: string): Promise<AccountRow | undefined>
  findAccountByOutside(outside: Outside): Promise<AccountRow | undefined>
  /** In order of `sub`, after `after`, at most `limit`. */
  listAccounts(after: string, limit: number): Promise<readonly AccountRow[]>
  /**
   * Writes the fields that are named, and leaves what others wrote meanwhile. `taken`: another has the address;
   * `last_admin`: no enabled administrator of our own would be left; `unknown`: no such row; `moved`, `disabled`: it is
   * not as `only` wants it. Nothing was written unless `changed`.
   */
  changeAccount(change: AccountFields, only?: OnlyIf): Promise<ChangeOutcome>

  /** Counts one attempt on every counter, unless one of them is exhausted: then none is touched. */
  take(throttles: readonly Throttle[], now: number): Promise<ThrottleAnswer>
  /** After an attempt that was none of the bad ones: drops some counters, takes one off others. */
  settle(forget: readonly string[], giveBack: readonly string[]): Promise<void>

  /** SHA-256 (hex) of the bootstrap token that can still be redeemed, if there is one; of several, `preferred` where it is one. */
  bootstrapHash(preferred?: string): Promise<string | undefined>
  /** Sets the hash; false if an account exists or a token was redeemed before. */
  openBootstrap(hash: string): Promise<boolean>
  /** One transaction: the token is the open one, no account exists; then it is spent and the account there. */
  redeemBootstrap(hash: string, account: AccountRow): Promise<'redeemed' | 'invalid' | 'spent'>
}

/** Who may come in, once, by a link whose secret hashes to `hash` (SHA-256, hex). */
export interface InvitationRow {
  readonly id: string
  readonly hash: string
  /** The account that comes of it, or that it renews. */
  readonly sub: string
  /** False: a guest is to become an account. True: an account that is there gets a new way in, and loses the old ones. */
  readonly renews: boolean
  readonly email: string
  readonly name: string
  readonly vendor: string | null
  readonly groups: readonly string[]
  /** `<iss>|<sub>` of who invited. */
  readonly by: string
  readonly createdAt: number
  readonly expiresAt: number
  readonly closed: { readonly at: number; readonly how: 'used' | 'revoked' } | null
}

/** Where one stands in the list. */
export type InvitationPlace = Pick<InvitationRow, 'createdAt' | 'id'>

export interface InvitationStore {
  /** Whether an account has the address, or an invitation that stands at `now`. */
  isTaken(email: string, now: number): Promise<boolean>
  /** How many stand at `now`. */
  standingInvitations(now: number): Promise<number>
  /** `exists`: the address is taken; `full`: `most` of them stand. One that renews ends those that would renew the same. */
  addInvitation(row: InvitationRow, most: number): Promise<'added' | 'exists' | 'full'>
  findInvitation(
    key: { readonly id: string } | { readonly hash: string },
  ): Promise<InvitationRow | undefined>
  /** Newest first, behind `after`; of those that are past, a thousand are kept. */
  listInvitations(limit: number, after?: InvitationPlace): Promise<readonly InvitationRow[]>
  /** Withdraws it, unless it was used or withdrawn before; gives it as it is then. */
  closeInvitation(id: string, at: number): Promise<InvitationRow | undefined>
  /**
   * One transaction: the invitation stands, the address and the passkey are nobody's; then the account and the passkey
   * are there, and the invitation is used. `taken`: the address; `exists`: the passkey.
   */
  redeemInvitation(
    hash: string,
    account: AccountRow,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'redeemed' | 'closed' | 'taken' | 'exists'>
  /**
   * One transaction: the invitation stands, its account is there, enabled and our own, the passkey nobody else's; then
   * the password is this one or none, the passkeys are this one or none, no login stands, and the invitation is used.
   */
  renewAccount(
    hash: string,
    password: string | null,
    passkey: PasskeyRow | null,
    at: number,
  ): Promise<'renewed' | 'closed' | 'gone' | 'exists'>
}

/** A model of the OpenID provider, as it hands it over: JSON data under an id. */
export interface OidcRow {
  readonly model: string
  readonly id: string
  readonly payload: Readonly<Record<string, unknown>>
  /** Null: does not expire. */
  readonly expiresAt: number | null
}

/** One login: a grant of the provider, and until when its newest access token is good. */
export interface LoginRow {
  readonly login: string
  readonly sub: string
  readonly client: string
  readonly startedAt: number
  readonly tokenUntil: number
}

/** A login as it stands: with the last passkey that was shown in it, where one was. */
export interface StandingLogin extends LoginRow {
  readonly stepped: Authentication | null
}

/** A passkey of an account. Ids and keys are base64url. */
export interface PasskeyRow {
  /** The credential id that its authenticator chose. */
  readonly id: string
  readonly sub: string
  /** What its owner calls it. */
  readonly name: string
  readonly alg: KeyAlgorithm
  /** DER SubjectPublicKeyInfo. */
  readonly spki: string
  /** The same key as the authenticator gave it. */
  readonly cose: string
  /** The highest signature counter seen; 0 for authenticators that do not count. */
  readonly counter: number
  readonly transports: readonly string[]
  /** Whether it may leave its device (a synchronised passkey). */
  readonly backedUp: boolean
  readonly createdAt: number
  readonly usedAt: number | null
}

/** Who adds a second factor: signed in with `login`, and what of the account they had shown when they asked for it. */
export interface FactorBy {
  readonly login: string
  readonly shown: Shown
}

export interface PasskeyStore {
  /**
   * `exists`: some account has this credential; `full`: the account has `most` already; `ended`: the login has ended, so
   * what it asked for counts no longer; `moved`: a second factor came meanwhile that whoever adds this has not shown.
   */
  addPasskey(
    row: PasskeyRow,
    most: number,
    by: FactorBy,
  ): Promise<'added' | 'exists' | 'full' | 'ended' | 'moved'>
  findPasskey(id: string): Promise<PasskeyRow | undefined>
  /** Oldest first. */
  passkeysOf(sub: string): Promise<readonly PasskeyRow[]>
  /** Notes a use. False, and nothing written, where the counter did not go up (0 after 0 is none that counts). */
  usePasskey(id: string, counter: number, at: number): Promise<boolean>
  /**
   * And forgets, in every login of the account, that a passkey was shown. `unknown`: it has no such passkey; `last`: it
   * would have fewer than `least`.
   */
  removePasskey(sub: string, id: string, least: number): Promise<'removed' | 'unknown' | 'last'>
}

export interface OidcStore {
  /** How far apart the clocks of those who write here may be, milliseconds; absent: there is one. */
  readonly skewMs?: number
  upsert(row: OidcRow): Promise<void>
  /** As upsert, but false (and nothing written) if the row exists. */
  insert(row: OidcRow): Promise<boolean>
  /** These give expired rows too, until they are swept: the provider tells "expired" from "unknown". */
  find(model: string, id: string): Promise<OidcRow['payload'] | undefined>
  findByUid(model: string, uid: string): Promise<OidcRow['payload'] | undefined>
  findByUserCode(model: string, code: string): Promise<OidcRow['payload'] | undefined>
  /** Marks a code or token as used, at epoch second `at`; false if it was used before, or is gone. */
  consume(model: string, id: string, at: number): Promise<boolean>
  destroy(model: string, id: string): Promise<void>
  /** Removes every row of the model that belongs to the grant. */
  revokeByGrant(model: string, grant: string): Promise<void>

  /** The newest access token of a login is good until `tokenUntil`; makes the row with the first. */
  extendLogin(login: LoginRow): Promise<void>
  /** The login if its grant still stands at `now`. */
  findLogin(login: string, now: number): Promise<StandingLogin | undefined>
  /** Somebody showed a passkey in this login; false if it has ended. */
  stepUp(login: string, authn: Authentication): Promise<boolean>
  /** Ends one login with every code and token under it; false if it had ended. */
  endLogin(login: string): Promise<boolean>
  /** Whether a person is signed in anywhere, browsers included. */
  hasLogins(sub: string): Promise<boolean>
  /** Ends everything of a person, browser sessions included; gives the logins that ended. */
  endLoginsOf(sub: string): Promise<readonly string[]>
  /** Removes what had expired by `before`, at most 10,000 rows; gives how many. */
  sweep(before: number): Promise<number>
}
