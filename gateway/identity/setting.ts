/** What a provider is made of, and its times. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Accounts } from './accounts.ts'
import type { IdentityChange, IdentityLog } from './events.ts'
import type { IdentityKeys } from './keys.ts'
import type { IdentityStore, OidcStore } from './store.ts'

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
  readonly accounts: Accounts
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
