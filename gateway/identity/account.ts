/** What it takes to make and to change an account, and who does it: words that the rooms around accounts share. */
import type { IdentityChange, IdentityLog } from './events.ts'
import type { Passwords } from './password.ts'
import type { IdentityStore, OidcStore } from './store.ts'
import type { Party } from './subject.ts'

export interface NewAccount {
  readonly email: string
  readonly name: string
  readonly party: Party
  /** The company; required for a vendor, absent or null for staff. */
  readonly vendor?: string | null
  readonly roles: readonly string[]
  readonly groups?: readonly string[]
  /** 12 to 256 characters. */
  readonly password: string
}

export type AccountChange = Partial<NewAccount & { readonly disabled: boolean }>

/** Who does it, for the log: `<iss>|<sub>` or `system`, and from where. */
export interface Actor {
  readonly id: string
  readonly source: string | null
  /** Absent where it is no person. */
  readonly party?: 'staff' | 'vendor' | undefined
}

export interface AccountsOptions {
  readonly issuer: string
  readonly store: IdentityStore
  readonly oidcStore: OidcStore
  readonly log: IdentityLog
  /** Told after a change holds. */
  readonly changed: (change: IdentityChange) => void
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly passwords?: Passwords
}

/** Everything that making, changing and ending are done with. */
export type AccountsRoom = AccountsOptions & {
  readonly passwords: Passwords
  /** Locks that the log has heard of, and until when: hammering a locked door must not fill the log. */
  readonly toldLocks: Map<string, number>
  /** By person: what their company's provider asked for, while it is done. */
  readonly ending: Map<string, Promise<void>>
}
