/** What an invitation is, and what the rooms that make and accept one work with. */
import { createHash } from 'node:crypto'
import type { RelyingParty } from '#approval'
import type { Accounts } from '../accounts.ts'
import type { IdentityLog } from '../events.ts'
import type { Account } from '../facts.ts'
import type { Passwords } from '../password.ts'
import type { CeremonyRoom } from '../passkeys/ceremony.ts'
import type { BrowserAnswer } from '../passkeys/credential.ts'
import type { IdpDoor } from '../setting.ts'
import type { IdentityStore, InvitationRow, InvitationStore, PasskeyStore } from '../store.ts'

/** An invitation as others see it: without the hash. Instants are epoch milliseconds. */
export type Invitation = Omit<InvitationRow, 'hash'>

export interface NewInvitation {
  /** What the guest signs in with; made of the name where absent. It need not receive mail. */
  readonly email?: string | undefined
  readonly name: string
  /** The company. */
  readonly vendor: string
  readonly groups: readonly string[]
  /** From 600 (ten minutes) to 2,592,000 (30 days); 72 hours where absent. */
  readonly standsSeconds?: number | undefined
}

/** How the guest will sign in from now on. */
export type Way =
  | { readonly password: string }
  | { readonly question: string; readonly answer: BrowserAnswer }

/** A guest who came in: the account, and what they proved. */
export interface Accepted {
  readonly account: Account
  readonly methods: readonly string[]
  readonly acr: string
}

export interface InvitationsRoom extends CeremonyRoom {
  readonly issuer: string
  readonly relyingParty: RelyingParty
  readonly store: Pick<IdentityStore, 'take' | 'settle'>
  readonly invitationStore: InvitationStore
  readonly passkeyStore: Pick<PasskeyStore, 'findPasskey'>
  readonly accounts: Pick<Accounts, 'find' | 'findByEmail' | 'endLogins'>
  readonly passwords: Passwords
  readonly idps: Pick<IdpDoor, 'forAddress'>
  readonly log: IdentityLog
}

export const shown = ({ hash: _, ...invitation }: InvitationRow): Invitation => invitation

/** What the store has of a link's secret. */
export const hashOf = (secret: string): string =>
  createHash('sha256').update(secret.slice(0, 200)).digest('hex')
