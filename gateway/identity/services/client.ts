/** A service as the OpenID provider meets it: a client that signs for its tokens, and what those say. */
import { errors, type ClientMetadata, type KoaContextWithOIDC } from 'oidc-provider'
import { record } from '../events.ts'
import type { Setting } from '../setting.ts'
import { stands, type ServiceStore } from './store.ts'

/** How long a token of a service is good; seconds. A program signs for the next one by itself. */
export const TOKEN_S = 600
/** RFC 8176: proof of possession of a key in software; no method that policy counts as a second factor. */
const METHODS = ['swk']
const ACR = 'urn:sallyport:acr:service'

export const isService = (client: string): boolean => client.startsWith('v_')

/** What the provider must know of it; undefined: it does not stand. */
export async function clientOf(
  store: ServiceStore,
  id: string,
  now: number,
): Promise<ClientMetadata | undefined> {
  const row = isService(id) ? await store.findService(id) : undefined
  if (row === undefined || !stands(row, now)) return undefined
  return {
    client_id: id,
    client_name: row.name,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'ES256',
    jwks: { keys: [{ ...row.key }] },
    dpop_bound_access_tokens: true,
  }
}

/** The claims of its token, which is recorded before it is given. Error: log.unavailable. */
export async function serviceClaims(
  setting: Setting,
  ctx: KoaContextWithOIDC,
  { clientId = '' }: { readonly clientId?: string | undefined },
): Promise<Record<string, unknown>> {
  const { serviceStore, log, now, source } = setting
  const { oidc, req } = ctx
  const at = now()
  const row = await serviceStore.findService(clientId)
  if (row === undefined) throw new errors.InvalidGrant('no such service')
  await record(log, {
    code: 'auth.login',
    at,
    source: source(req),
    outcome: 'success',
    subject: `${oidc.issuer}|${clientId}`,
    email: row.email,
    party: row.party,
    client: clientId,
    methods: METHODS,
    reason: null,
  })
  // Revoked while it was recorded: then there is none.
  if (!(await serviceStore.useService(clientId, at, at + TOKEN_S * 1000)))
    throw new errors.InvalidGrant('the service does not stand any more')
  return { login: clientId, amr: METHODS, acr: ACR, auth_time: Math.floor(at / 1000) }
}
