/**
 * The embedded OpenID provider: oidc-provider behind our own TLS server, with our own pages, store and keys.
 * Its address is a fact of the configuration, never of a request: what a Host or Forwarded header says changes
 * nothing that it writes.
 */
import { randomBytes } from 'node:crypto'
import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import {
  errors,
  interactionPolicy,
  Provider,
  type ClientMetadata,
  type Configuration,
  type KoaContextWithOIDC,
} from 'oidc-provider'
import { createAdapter } from './adapter.ts'
import { deviceFlow } from './codes.ts'
import { API_SCOPE } from './enter.ts'
import type { LogoutEvent } from './events.ts'
import { clientOf, isService, serviceClaims, TOKEN_S } from './services/client.ts'
import { checkAssertion, countAsking, settleAskings } from './services/limits.ts'
import { guard, renderError, route } from './guard.ts'
import {
  LIFETIMES,
  type OidcProvider,
  type ProviderClient,
  type ProviderOptions,
  type Setting,
} from './setting.ts'

export const CLI_CLIENT_ID = 'sallyport-cli'
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

/** Builds the provider. Throws on an issuer that is not an https URL with a path, and on unusable keys. */
export function createProvider(options: ProviderOptions): OidcProvider {
  const origin = new URL(options.issuer)
  if (origin.protocol !== 'https:' || origin.pathname.length < 2)
    throw new TypeError('the issuer is an https URL with a path')
  // A token that is revoked ten times at once is one login that ends.
  const ending = new Map<string, Promise<void>>()
  const setting: Setting = {
    ...options,
    origin,
    base: origin.pathname,
    lifetimes: { ...LIFETIMES, ...options.lifetimes },
    newId: () => `e_${randomBytes(8).toString('hex')}`,
    endLogin: async (login) => {
      const begun = ending.get(login)
      if (begun !== undefined) return begun
      const mine = endLogin(options, login, logoutReason()).finally(() => ending.delete(login))
      ending.set(login, mine)
      return mine
    },
  }
  const provider = new Provider(options.issuer, configure(setting))
  // What every address the provider writes is made of, whichever socket and headers a request came with.
  Object.defineProperty(provider.request, 'protocol', { get: () => 'https' })
  Object.defineProperty(provider.request, 'host', { get: () => origin.host })
  provider.on('server_error', (_, error) => setting.report(error, setting.newId()))
  const emitter: EventEmitter = provider
  emitter.on('error', (error: unknown) => setting.report(error, setting.newId()))
  provider.use(guard(setting))
  provider.use(route(setting, provider))
  provider.use(settleAskings(setting))
  const answer = provider.callback()
  return {
    issuer: options.issuer,
    handle(request, response) {
      const mounted: IncomingMessage & { originalUrl?: string } = request
      const url = request.url ?? '/'
      mounted.originalUrl = url
      const rest = url.startsWith(setting.base) ? url.slice(setting.base.length) : '/'
      request.url = rest.startsWith('/') ? rest : `/${rest}`
      answer(request, response).catch((error: unknown) => {
        setting.report(error, setting.newId())
        response.destroy()
      })
    },
  }
}

/** Which act of the provider removes a grant is told by where it happens. */
function logoutReason(): LogoutEvent['reason'] {
  const name: unknown = Provider.ctx?.oidc.route
  if (name === 'revocation') return 'revoked'
  return name === 'token' ? 'reused' : 'signed_out'
}

/** Ends the login even when the log is gone: giving access up is always allowed, and the failure is reported. */
async function endLogin(
  options: ProviderOptions,
  login: string,
  reason: LogoutEvent['reason'],
): Promise<void> {
  const { oidcStore, now, report, changed } = options
  const row = await oidcStore.findLogin(login, now())
  const subject = row === undefined ? undefined : `${options.issuer}|${row.sub}`
  const request = Provider.ctx?.req
  const source = request === undefined ? null : options.source(request)
  if (subject !== undefined) {
    const party = (await options.accounts.find(row?.sub ?? ''))?.party ?? null
    const about = { at: now(), source, subject, party, login, reason }
    const event = { code: 'auth.logout', ...about } as const
    await options.log(event).catch((error: unknown) => report(error, login))
  }
  await oidcStore.endLogin(login)
  if (subject !== undefined) changed({ kind: 'logged_out', subject, login })
}

function configure(setting: Setting): Configuration {
  const { lifetimes, keys, accounts } = setting
  return {
    adapter: createAdapter({
      store: setting.oidcStore,
      endLogin: setting.endLogin,
      client: async (id) => {
        if (isService(id)) await countAsking(setting)
        return clientOf(setting.serviceStore, id, setting.now())
      },
      now: setting.now,
    }),
    clients: [cliClient, ...(setting.clients ?? []).map(clientMetadata)],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    clientAuthMethods: ['none', 'private_key_jwt'],
    assertJwtClientAuthClaimsAndHeader: async (ctx, claims, _header, { clientId }) =>
      checkAssertion(setting, ctx, claims, clientId),
    clientBasedCORS: () => false,
    cookies: cookies(keys.cookies),
    extraTokenClaims: async (ctx, token) => tokenClaims(setting, ctx, token),
    features: features(setting),
    async findAccount(_, sub) {
      const account = await accounts.find(sub)
      if (account === undefined || account.disabled) return undefined
      if (!(await setting.idps.stands(account))) return undefined
      return { accountId: sub, claims: () => ({ sub }), outside: account.outside !== null }
    },
    interactions: {
      policy: promptPolicy(),
      url: (_, { uid }) => `${setting.base}/interaction/${uid}`,
    },
    jwks: { keys: keys.signing.map((key) => ({ ...key })) },
    loadExistingGrant: async ({ oidc }) => findGrant(oidc),
    pkce: { required: () => true },
    renderError: (ctx, out, error) => renderError(setting, ctx, out, error),
    responseTypes: ['code'],
    // RFC 9700 4.14.2: bound to a key, so it need not rotate, and two programs at once do not end the login.
    rotateRefreshToken: false,
    scopes: ['openid', 'offline_access'],
    ttl: {
      AccessToken: lifetimes.accessToken,
      AuthorizationCode: 60,
      ClientCredentials: TOKEN_S,
      DeviceCode: lifetimes.deviceCode,
      Grant: lifetimes.login,
      IdToken: lifetimes.accessToken,
      Interaction: lifetimes.interaction,
      RefreshToken: lifetimes.login,
      Session: lifetimes.browserSession,
    },
  }
}

function cookies(keys: readonly string[]): NonNullable<Configuration['cookies']> {
  return {
    keys: [...keys],
    names: {
      // __Host-: a page on a sibling host name cannot plant one.
      session: '__Host-sallyport-session',
      interaction: '__Secure-sallyport-interaction',
      resume: '__Secure-sallyport-resume',
    },
    long: { httpOnly: true, sameSite: 'lax', secure: true, signed: true, path: '/' },
    short: { httpOnly: true, sameSite: 'lax', secure: true, signed: true },
  }
}

async function findGrant(
  oidc: KoaContextWithOIDC['oidc'],
): Promise<InstanceType<Provider['Grant']> | undefined> {
  const given = oidc.result?.consent?.grantId
  // A native client is one program on one machine: each of its logins ends on its own.
  const native = oidc.client?.applicationType === 'native'
  const held = native ? undefined : oidc.session?.grantIdFor(oidc.client?.clientId ?? '')
  const id = given ?? held
  return id === undefined ? undefined : oidc.provider.Grant.find(id)
}

const cliClient: ClientMetadata = {
  client_id: CLI_CLIENT_ID,
  client_name: 'Sallyport CLI',
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: [DEVICE_GRANT, 'refresh_token'],
  response_types: [],
  redirect_uris: [],
  dpop_bound_access_tokens: true,
}

function clientMetadata({ id, name, kind, redirectUris }: ProviderClient): ClientMetadata {
  return {
    client_id: id,
    client_name: name,
    application_type: kind,
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    redirect_uris: [...redirectUris],
    dpop_bound_access_tokens: true,
  }
}

function features(setting: Setting): NonNullable<Configuration['features']> {
  const { audience, lifetimes } = setting
  return {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: true },
    deviceFlow: deviceFlow(setting),
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo(_, resource, { clientId }) {
        if (resource !== audience) throw new errors.InvalidTarget()
        return {
          scope: API_SCOPE,
          audience,
          accessTokenTTL: isService(clientId) ? TOKEN_S : lifetimes.accessToken,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }
      },
    },
    revocation: {
      enabled: true,
      allowedPolicy: (_, client, token) => token.clientId === client.clientId,
    },
    // Ours is /sign-out: it needs no script.
    rpInitiatedLogout: { enabled: false },
    userinfo: { enabled: false },
  }
}

/** The default questions, and one more: a session whose account is gone or disabled must sign in again. */
function promptPolicy(): interactionPolicy.DefaultPolicy {
  const policy = interactionPolicy.base()
  policy
    .get('login')
    ?.checks.add(
      new interactionPolicy.Check(
        'account_gone',
        'the account of this session is not available',
        ({ oidc }) => oidc.session?.accountId !== undefined && oidc.account === undefined,
      ),
    )
  policy
    .get('login')
    ?.checks.add(
      new interactionPolicy.Check(
        'company_asked_each_time',
        'who comes from a company is signed in by it for each login',
        ({ oidc }) => oidc.account?.['outside'] === true && oidc.result?.login === undefined,
      ),
    )
  return policy
}

/** What the verifier needs beside RFC 9068's claims; notes until when the login's newest token is good. */
async function tokenClaims(
  setting: Setting,
  ctx: KoaContextWithOIDC,
  token: unknown,
): Promise<Record<string, unknown>> {
  const { oidcStore, now } = setting
  const { oidc } = ctx
  if (token instanceof oidc.provider.ClientCredentials) return serviceClaims(setting, ctx, token)
  if (!(token instanceof oidc.provider.AccessToken)) throw new errors.InvalidGrant('no such token')
  const source = oidc.refreshToken ?? oidc.deviceCode ?? oidc.authorizationCode
  const { grantId, accountId, clientId } = token
  if (source === undefined || grantId === undefined || accountId === undefined)
    throw new errors.InvalidGrant('no login behind this token')
  const startedAt = now()
  await oidcStore.extendLogin({
    login: grantId,
    sub: accountId,
    client: clientId ?? '',
    startedAt,
    tokenUntil: (Math.floor(startedAt / 1000) + token.expiration) * 1000,
  })
  return { login: grantId, amr: source.amr ?? [], acr: source.acr, auth_time: source.authTime }
}
