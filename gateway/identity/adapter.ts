/** The provider's storage interface on our own store: every model of oidc-provider goes through here. */
import { errors, type Adapter, type AdapterFactory, type AdapterPayload } from 'oidc-provider'
import type { OidcStore } from './store.ts'

export interface AdapterOptions {
  readonly store: OidcStore
  /** Called instead of removing a grant: the provider ends a login (revoked, reused, signed out). */
  /** The client of this id that is not of the configuration: a service that stands. */
  readonly client: (id: string) => Promise<AdapterPayload | undefined>
  readonly endLogin: (login: string) => Promise<void>
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** The adapter factory for `new Provider(issuer, { adapter })`. */
export function createAdapter({ store, endLogin, client, now }: AdapterOptions): AdapterFactory {
  return (model: string): Adapter => ({
    async upsert(id, payload, expiresIn) {
      const expiresAt = expiresIn === undefined ? null : now() + expiresIn * 1000
      const row = { model, id, payload: { ...payload }, expiresAt }
      if (model !== 'ReplayDetection') return store.upsert(row)
      // The provider looks first and writes then; two requests at once are told apart here.
      if (!(await store.insert(row)))
        throw new errors.InvalidGrant('DPoP proof JWT Replay detected')
    },
    find: async (id) => (model === 'Client' ? client(id) : load(store.find(model, id))),
    findByUid: async (uid) => load(store.findByUid(model, uid)),
    findByUserCode: async (code) => load(store.findByUserCode(model, code)),
    async consume(id) {
      const first = await store.consume(model, id, Math.floor(now() / 1000))
      if (!first) throw new errors.InvalidGrant(`${model} was used before`)
    },
    destroy: async (id) => (model === 'Grant' ? endLogin(id) : store.destroy(model, id)),
    revokeByGrantId: async (grant) => store.revokeByGrant(model, grant),
  })
}

/** What the provider wrote, it reads back; only it knows the shape, and it checks what it needs. */
async function load(
  found: Promise<Readonly<Record<string, unknown>> | undefined>,
): Promise<AdapterPayload | undefined> {
  return (await found) as AdapterPayload | undefined
}
