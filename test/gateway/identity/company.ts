/**
 * The identity provider of a vendor's company, on a port of its own: oidc-provider, set up as an outsider would, which
 * knows the gateway only as one of its clients. And a forger: a provider that answers whatever a test wants.
 */
import { createHmac, generateKeyPairSync, randomUUID, type KeyObject } from 'node:crypto'
import { createServer, type Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { exportJWK, SignJWT, type JWK } from 'jose'
import { Provider, type ClientMetadata, type KoaContextWithOIDC } from 'oidc-provider'
import { Agent, fetch } from 'undici'
import { makeCertificates } from './house.ts'

const HOST = '127.0.0.1'
export const CLIENT = 'sallyport-at-the-plant'

export interface Employee {
  readonly email: string
  readonly name?: string
  readonly email_verified?: unknown
  readonly groups?: unknown
}

export interface Company extends AsyncDisposable {
  readonly issuer: string
  /** PEM of the root of its servers. */
  readonly anchor: string
  /** Who is at the browser the next time it asks; null: it says no. */
  who: string | null
  readonly staff: Map<string, Employee>
  /** New signing key, as after an incident: the old one is gone. */
  rotate(): void
  /** Enters the gateway otherwise than before. */
  enter(client: Partial<ClientMetadata>): void
  /** Sends a logout token for this person, as its own session end does. */
  logout(sub: string): Promise<void>
  /** Stops answering, or answers again on the same port. */
  down(isDown: boolean): Promise<void>
}

interface Listening {
  readonly server: Server
  readonly port: number
  readonly anchor: string
  answer: (request: IncomingMessage, response: ServerResponse) => void
  down(isDown: boolean): Promise<void>
}

async function listen(): Promise<Listening> {
  const { cert, key, anchor } = await makeCertificates()
  const server = createServer({ cert, key }, (request, response) => it.answer(request, response))
  const open = async (port: number): Promise<number> => {
    await new Promise<void>((resolve) => server.listen(port, HOST, resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    return address.port
  }
  const port = await open(0)
  const it: Listening = {
    server,
    port,
    anchor,
    answer: (_, response) => void response.writeHead(503).end(),
    async down(isDown) {
      if (!isDown) return void (await open(port))
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return it
}

function newJwk(alg: string): JWK {
  const pair =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = pair.privateKey.export({ format: 'jwk' }) as JWK
  return { ...jwk, alg, use: 'sig', kid: randomUUID() }
}

/** `gateway`: the origin it is a client for, and the PEM of its root; `id`: what the company is called there. */
export async function openCompany(
  gateway: { readonly origin: string; readonly anchor: string },
  id: string,
  options: { readonly alg?: 'ES256' | 'RS256'; readonly client?: Partial<ClientMetadata> } = {},
): Promise<Company> {
  const { alg = 'RS256' } = options
  const site = await listen()
  const issuer = `https://${HOST}:${site.port}`
  const outgoing = new Agent({ connect: { ca: gateway.anchor } })
  const staff = new Map<string, Employee>()
  let entered: Partial<ClientMetadata> = {}
  const build = (): Provider => {
    const provider = new Provider(issuer, {
      clients: [
        {
          client_id: CLIENT,
          client_secret: 'a secret of thirty-two characters',
          token_endpoint_auth_method: 'client_secret_basic',
          redirect_uris: [`${gateway.origin}/oidc/idp/${id}/callback`],
          backchannel_logout_uri: `${gateway.origin}/oidc/idp/${id}/logout`,
          id_token_signed_response_alg: alg,
          ...options.client,
          ...entered,
        },
      ],
      jwks: { keys: [newJwk(alg) as never] },
      cookies: { keys: ['company'] },
      ttl: { Interaction: 600, Grant: 600, Session: 600, AccessToken: 60, IdToken: 120 },
      claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
      features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
      interactions: { url: (_, { uid }) => `/interaction/${uid}` },
      findAccount: (_, sub) => ({
        accountId: sub,
        claims: () => ({ sub, email_verified: true, ...staff.get(sub) }) as never,
      }),
      fetch: (async (url: string, init: object) =>
        fetch(url, { ...init, dispatcher: outgoing })) as never,
      renderError(ctx, out) {
        ctx.body = out
      },
    })
    provider.use(async (ctx, next) => {
      if (!ctx.path.startsWith('/interaction/')) return next()
      return signInAtOnce(provider, ctx as KoaContextWithOIDC, company.who)
    })
    return provider
  }
  let provider = build()
  site.answer = (request, response) => void provider.callback()(request, response)
  const company: Company = {
    issuer,
    anchor: site.anchor,
    who: null,
    staff,
    rotate() {
      provider = build()
    },
    enter(client) {
      entered = client
      provider = build()
    },
    async logout(sub) {
      const client = (await provider.Client.find(CLIENT)) as unknown as {
        backchannelLogout(sub: string, sid: string): Promise<unknown>
      }
      await client.backchannelLogout(sub, 'whatever')
    },
    down: (isDown) => site.down(isDown),
    async [Symbol.asyncDispose]() {
      site.server.closeAllConnections()
      await new Promise((resolve) => site.server.close(resolve))
      await outgoing.close()
    },
  }
  return company
}

/** The company's own pages are none of our business: whoever is meant is signed in, and agrees. */
async function signInAtOnce(
  provider: Provider,
  ctx: KoaContextWithOIDC,
  who: string | null,
): Promise<void> {
  const { params } = await provider.interactionDetails(ctx.req, ctx.res)
  if (who === null)
    return provider.interactionFinished(ctx.req, ctx.res, { error: 'access_denied' })
  const grant = new provider.Grant({ accountId: who, clientId: String(params['client_id']) })
  grant.addOIDCScope(String(params['scope']))
  const result = { login: { accountId: who }, consent: { grantId: await grant.save() } }
  await provider.interactionFinished(ctx.req, ctx.res, result)
}

/** What a forged token says and how it is signed; whatever is absent is as it should be. */
export interface Forgery {
  readonly claims?: Readonly<Record<string, unknown>>
  readonly header?: Readonly<Record<string, unknown>>
  /** `none`: unsigned; `hs256`: an HMAC under the text of the public key; `other`: a key nobody published. */
  readonly sign?: 'good' | 'none' | 'hs256' | 'other'
}

export interface Forger extends AsyncDisposable {
  readonly issuer: string
  readonly anchor: string
  /** The address that the gateway sends people to, and this gives back at once. */
  forge: Forgery
  /** Changes the query of the answer. */
  bend: (answer: URLSearchParams) => void
  /** Makes a token; `nonce` only where it is an identity token. */
  token(forgery: Forgery, nonce?: string): Promise<string>
  /** What the gateway asked for when it last sent somebody. */
  asked: URLSearchParams
  /** How often its keys were asked for. */
  keysAsked: number
  userinfo: Readonly<Record<string, unknown>> | null
  /** More of its discovery document. */
  metadata: Readonly<Record<string, unknown>>
  publishes: 'keys' | 'rubbish'
}

export async function openForger(): Promise<Forger> {
  const site = await listen()
  const issuer = `https://${HOST}:${site.port}`
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const jwk = { ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }
  const nonces = new Map<string, string>()
  const forger: Forger = {
    issuer,
    anchor: site.anchor,
    forge: {},
    bend: () => undefined,
    asked: new URLSearchParams(),
    keysAsked: 0,
    userinfo: null,
    metadata: {},
    publishes: 'keys',
    token: async (forgery, nonce) =>
      sign(issuer, { privateKey, publicKey, stranger }, forgery, nonce),
    async [Symbol.asyncDispose]() {
      site.server.closeAllConnections()
      await new Promise((resolve) => site.server.close(resolve))
    },
  }
  const json = (response: ServerResponse, body: unknown): void =>
    void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  site.answer = (request, response) => {
    const url = new URL(request.url ?? '/', issuer)
    if (url.pathname === '/.well-known/openid-configuration')
      return json(response, {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        userinfo_endpoint: `${issuer}/me`,
        jwks_uri: `${issuer}/keys`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        // It lies as well as it can.
        id_token_signing_alg_values_supported: ['ES256', 'HS256', 'none'],
        authorization_response_iss_parameter_supported: true,
        ...forger.metadata,
      })
    if (url.pathname === '/keys') {
      forger.keysAsked++
      return json(response, forger.publishes === 'keys' ? { keys: [jwk] } : { keys: 'none' })
    }
    if (url.pathname === '/me') return json(response, forger.userinfo ?? {})
    if (url.pathname === '/authorize') {
      forger.asked = url.searchParams
      const code = randomUUID()
      nonces.set(code, url.searchParams.get('nonce') ?? '')
      const back = new URL(url.searchParams.get('redirect_uri') ?? '')
      const state = url.searchParams.get('state') ?? ''
      const answer = new URLSearchParams({ code, state, iss: issuer })
      forger.bend(answer)
      back.search = answer.toString()
      return void response.writeHead(303, { location: back.href }).end()
    }
    let form = ''
    request.on('data', (chunk: Buffer) => (form += chunk.toString()))
    request.on('end', () => {
      const code = new URLSearchParams(form).get('code') ?? ''
      forger
        .token(forger.forge, nonces.get(code) ?? '')
        .then((id_token) => json(response, { access_token: 'a', token_type: 'bearer', id_token }))
        .catch(() => response.destroy())
    })
  }
  return forger
}

interface Keys {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly stranger: KeyObject
}

async function sign(
  issuer: string,
  { privateKey, publicKey, stranger }: Keys,
  { claims = {}, header = {}, sign: how = 'good' }: Forgery,
  nonce: string | undefined,
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const body = {
    iss: issuer,
    aud: CLIENT,
    sub: 'mallory',
    iat: now,
    exp: now + 120,
    ...(nonce === undefined
      ? { jti: randomUUID(), events: { 'http://schemas.openid.net/event/backchannel-logout': {} } }
      : { nonce, email: 'mallory@forger.example', email_verified: true, name: 'Mallory' }),
    ...claims,
  }
  if (how === 'none' || how === 'hs256') {
    const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
    const alg = how === 'none' ? 'none' : 'HS256'
    const text = `${encode({ alg, kid: 'k1', ...header })}.${encode(body)}`
    const pem = publicKey.export({ type: 'spki', format: 'pem' })
    const mac = how === 'none' ? '' : createHmac('sha256', pem).update(text).digest('base64url')
    return `${text}.${mac}`
  }
  return new SignJWT(body)
    .setProtectedHeader({ alg: 'ES256', kid: 'k1', ...header })
    .sign(how === 'other' ? stranger : privateKey)
}
