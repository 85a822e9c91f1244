/** Companies' own providers as the rest of this room meets them: who there is, and what each may do now. */
import type { Accounts } from '../accounts.ts'
import type { IdentityChange, IdentityLog } from '../events.ts'
import type { IdpDoor } from '../setting.ts'
import type { IdentityStore, IdpRow, IdpStore, OidcStore } from '../store.ts'
import { admit } from './admit.ts'
import { backChannelLogout } from './logout.ts'
import type { RelyingParty } from './relying.ts'

export interface DoorOptions {
  readonly issuer: string
  readonly store: IdentityStore
  readonly idpStore: IdpStore
  readonly oidcStore: OidcStore
  readonly accounts: Accounts
  readonly relying: RelyingParty
  readonly log: IdentityLog
  readonly changed: (change: IdentityChange) => void
  readonly now: () => number
}

export function openIdpDoor(options: DoorOptions): IdpDoor {
  const { idpStore, relying } = options
  const enabled = async (): Promise<readonly IdpRow[]> =>
    (await idpStore.listIdps()).filter((row) => row.enabled)
  const find = async (id: string): Promise<IdpRow | undefined> => {
    const row = await idpStore.findIdp(id)
    return row?.enabled === true ? row : undefined
  }
  return {
    find,
    relying,
    async forAddress(email) {
      const domain = email
        .slice(email.lastIndexOf('@') + 1)
        .trim()
        .toLowerCase()
      return (await enabled()).find(({ domains }) => domains.includes(domain))
    },
    listed: async () => (await enabled()).filter((row) => row.listed),
    async stands({ outside }) {
      if (outside === null) return true
      return (await find(outside.idp))?.issuer === outside.issuer
    },
    admit: async (idp, person, source) => admit(options, idp, person, source),
    logout: async (idp, token, source) => backChannelLogout(options, idp, token, source),
  }
}
