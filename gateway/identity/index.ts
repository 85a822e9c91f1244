/** Identity: who is asking. The embedded provider, its accounts, and the check of every token. */
export { openIdentity, type Identity, type IdentityOptions } from './identity.ts'
export type { ProviderClient } from './setting.ts'
export type { NewAccount } from './account.ts'
export { openAccounts, type Accounts } from './accounts.ts'
export type { LoginAnswer } from './attempt.ts'
export type { Account } from './facts.ts'
export { openBootstrap } from './bootstrap.ts'
export { openIdentityKeys } from './keys.ts'
export {
  isRefusal,
  type AuthRefusal,
  type AuthRequest,
  type Login,
  type Subject,
} from './subject.ts'
export type { Answered } from './passkeys/answer.ts'
export { secondShown, shownHere, type BrowserAnswer, type Passkey } from './passkeys/credential.ts'
export type { Ceremony } from './passkeys/ceremony.ts'
export type { Totp } from './totp/totp.ts'
export { scopeOf } from './services/scopes.ts'
export type { ServiceRow } from './services/store.ts'
export type { Invitation } from './invitations/invitation.ts'
export { IdentityError, identityRows, type IdentityCode } from './errors.ts'
export type { Idp, NewIdp } from './idp/idps.ts'
export type { IdentityChange, IdentityEvent } from './events.ts'
