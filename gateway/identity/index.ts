/** Identity: who is asking. The embedded provider, its accounts, and the check of every token. */
export { openIdentity, type Identity, type IdentityOptions } from './identity.ts'
export { createProvider, CLI_CLIENT_ID } from './provider.ts'
export type { Lifetimes, OidcProvider, ProviderClient, ProviderOptions } from './setting.ts'
export {
  openAccounts,
  ROLES,
  type Account,
  type AccountChange,
  type Accounts,
  type AccountsOptions,
  type LoginAnswer,
  type LoginAttempt,
  type NewAccount,
  type Role,
} from './accounts.ts'
export { openBootstrap, removeBootstrapFile, writeBootstrapToken } from './bootstrap.ts'
export { openIdentityKeys, type IdentityKeys } from './keys.ts'
export { createVerifier, type Verifier, type VerifierOptions } from './verify.ts'
export { isRefusal } from './subject.ts'
export type {
  AuthCode,
  AuthRefusal,
  AuthRequest,
  Authentication,
  Login,
  Party,
  Subject,
} from './subject.ts'
export { IdentityError, identityRows, type IdentityCode } from './errors.ts'
export type {
  AccountChangeEvent,
  AccountCreateEvent,
  IdentityChange,
  IdentityEvent,
  IdentityLog,
  LoginEvent,
  LogoutEvent,
} from './events.ts'
export type {
  AccountRow,
  IdentityStore,
  LoginRow,
  OidcRow,
  OidcStore,
  Throttle,
  ThrottleAnswer,
} from './store.ts'
