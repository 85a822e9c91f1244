/** What a provider is made of, and its times. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Accounts } from './accounts.ts'
import type { IdentityChange, IdentityLog } from './events.ts'
import type { Account } from './facts.ts'
import type { Person } from './idp/claims.ts'
import type { RelyingParty } from './idp/relying.ts'
import type { IdentityKeys } from './keys.ts'
import type { Invitations } from './invitations/invitations.ts'
import type { Passkeys } from './passkeys/passkeys.ts'
import type { Totps } from './totp/totp.ts'
import type { ServiceStore } from './services/store.ts'
import type { AccountRow, IdentityStore, IdpRow, OidcStore } from './store.ts'

/** Companies' own providers, as the pages meet them. */
export interface IdpDoor {
  /** The enabled provider of this id. */
  find(id: string): Promise<IdpRow | undefined>
  /** The enabled provider that signs in addresses like this one. */
  forAddress(email: string): Promise<IdpRow | undefined>
  /** Enabled, and shown to everybody. */
  listed(): Promise<readonly IdpRow[]>
  /** Whether an account from outside may still be used: its provider is there, enabled, and of the same issuer. */
  stands(account: Pick<AccountRow, 'outside'>): Promise<boolean>
  readonly relying: RelyingParty
  /** The account behind a person whom the provider named just now. Throws IdpError, IdentityError. */
  admit(idp: IdpRow, person: Person, source: string): Promise<Account>
  /** Throws IdpError, IdentityError. */
  logout(idp: IdpRow, token: string, source: string): Promise<boolean>
}

/** Seconds. */
export interface Lifetimes {
  readonly accessToken: number
  /** How long a login can be refreshed: a working day. */
  readonly login: number
  /** The session of the browser; its cookie ends with the browser. */
  readonly browserSession: number
  readonly deviceCode: number
  /** How often a program may ask whether its code was approved (RFC 8628 3.2). */
  readonly poll: number
  readonly interaction: number
}

export const LIFETIMES: Lifetimes = {
  accessToken: 3_600,
  login: 12 * 3_600,
  browserSession: 8 * 3_600,
  deviceCode: 600,
  poll: 2,
  interaction: 900,
}

/** A client beside the CLI. Public, with PKCE; its tokens are bound by DPoP like all others. */
export interface ProviderClient {
  readonly id: string
  readonly name: string
  readonly kind: 'web' | 'native'
  readonly redirectUris: readonly string[]
}

export interface ProviderOptions {
  /** `https://<host>:<port>/oidc`. */
  readonly issuer: string
  /** `https://<host>:<port>/api`. */
  readonly audience: string
  readonly keys: IdentityKeys
  readonly store: Pick<IdentityStore, 'take' | 'settle'>
  readonly oidcStore: OidcStore
  readonly serviceStore: ServiceStore
  readonly idps: IdpDoor
  readonly accounts: Accounts
  readonly passkeys: Passkeys
  readonly totps: Totps
  readonly invitations: Invitations
  readonly log: IdentityLog
  readonly changed: (change: IdentityChange) => void
  readonly now: () => number
  readonly source: (request: IncomingMessage) => string
  readonly clients?: readonly ProviderClient[]
  readonly lifetimes?: Partial<Lifetimes>
  readonly report: (error: unknown, id: string) => void
}

export interface OidcProvider {
  readonly issuer: string
  /** Answers a request under the issuer's path. */
  handle(request: IncomingMessage, response: ServerResponse): void
}

/** The options with everything filled in: what the provider's parts work from. */
export interface Setting extends ProviderOptions {
  readonly origin: URL
  readonly base: string
  readonly lifetimes: Lifetimes
  readonly newId: () => string
  readonly endLogin: (login: string) => Promise<void>
}
