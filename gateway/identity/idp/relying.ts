/**
 * Our side as the client of one company's provider: discovery, the way there with PKCE, state and nonce, the code for
 * an identity token, and the check of that token against keys and claims of our own choosing. Tokens are not kept.
 */
import * as oidc from 'openid-client'
import type { IdentityKeys } from '../keys.ts'
import type { IdpRow } from '../store.ts'
import { SKEW_S } from './claims.ts'
import { IdpError } from './errors.ts'
import { openIdpHttp, type IdpHttp } from './http.ts'
import { openKeySet, type Expected, type KeySet } from './keyset.ts'
import { openSecret } from '../sealing.ts'

/** What must be the same when the answer comes. */
export interface Begun {
  readonly url: string
  readonly state: string
  readonly nonce: string
  readonly verifier: string
}

/** How somebody is to be asked there. */
export interface Wish {
  /** The address they typed here, if they did. */
  readonly hint: string | null
  /** How long ago they may have proven themselves; 0: they are asked now, whatever the provider remembers. Seconds. */
  readonly maxAge: number
}

export interface RelyingParty extends AsyncDisposable {
  /** Asks the provider who it is, afresh. Throws IdpError: idp.unreachable, idp.token. */
  check(idp: IdpRow): Promise<void>
  /** The address that the person's browser goes to. Throws as check. */
  begin(idp: IdpRow, redirectUri: string, wish: Wish): Promise<Begun>
  /** The claims behind the answer at `current`. Throws IdpError. */
  redeem(
    idp: IdpRow,
    current: URL,
    begun: Omit<Begun, 'url'>,
    now: number,
  ): Promise<Readonly<Record<string, unknown>>>
  /** Claims of a JWT that the provider signed for us. Throws IdpError. */
  verify(
    idp: IdpRow,
    jwt: string,
    expected: Pick<Expected, 'types' | 'maxAgeSeconds'>,
    now: number,
  ): ReturnType<KeySet['verify']>
}

interface Peer {
  readonly row: IdpRow
  readonly http: IdpHttp
  readonly keySet: KeySet
  readonly client: oidc.Configuration
}

/** How long what a provider says of itself is believed. */
const DISCOVERY_MS = 10 * 60_000
/** OpenID Connect Core 3.1.3.7 (10): how old an identity token may be when it is handed over. */
const ID_TOKEN_AGE_S = 300

export interface RelyingOptions {
  readonly keys: IdentityKeys
  /** Epoch milliseconds. */
  readonly now: () => number
}

export function openRelyingParty(options: RelyingOptions): RelyingParty {
  const peers = new Map<
    string,
    { readonly row: IdpRow; readonly at: number; readonly peer: Promise<Peer> }
  >()
  const peerOf = async (row: IdpRow): Promise<Peer> => {
    const now = options.now()
    const known = peers.get(row.id)
    const same = known?.row.createdAt === row.createdAt && known.row.changedAt === row.changedAt
    if (known !== undefined && same && Math.abs(now - known.at) < DISCOVERY_MS) return known.peer
    // Whoever still waits for an answer of the old one gets it.
    known?.peer.then(({ http }) => http.close()).catch(() => undefined)
    const entry = { row, at: now, peer: meet(row, options) }
    peers.set(row.id, entry)
    return entry.peer.catch((error: unknown) => {
      if (peers.get(row.id) === entry) peers.delete(row.id)
      throw error
    })
  }
  return {
    async check(row) {
      const peer = await meet(row, options)
      await peer.http[Symbol.asyncDispose]()
    },
    begin: async (row, redirectUri, wish) => begin(await peerOf(row), redirectUri, wish),
    redeem: async (row, current, begun, now) => redeem(await peerOf(row), current, begun, now),
    async verify(row, jwt, expected, now) {
      const { keySet } = await peerOf(row)
      return keySet.verify(jwt, { issuer: row.issuer, audience: row.clientId, ...expected }, now)
    },
    async [Symbol.asyncDispose]() {
      const all = await Promise.allSettled([...peers.values()].map(({ peer }) => peer))
      for (const one of all)
        if (one.status === 'fulfilled') await one.value.http[Symbol.asyncDispose]()
    },
  }
}

/** Discovery (OpenID Connect Discovery 1.0, section 4): the issuer it names must be the one we were given. */
async function meet(row: IdpRow, { keys }: RelyingOptions): Promise<Peer> {
  const http = openIdpHttp(row.ca)
  try {
    const metadata = { [oidc.clockTolerance]: SKEW_S }
    const client = await oidc.discovery(
      new URL(row.issuer),
      row.clientId,
      metadata,
      await authentication(row, keys),
      { [oidc.customFetch]: http.fetch, timeout: 10 },
    )
    const { jwks_uri: jwks, authorization_endpoint, token_endpoint } = client.serverMetadata()
    for (const address of [jwks, authorization_endpoint, token_endpoint])
      if (address?.startsWith('https://') !== true) throw new IdpError('idp.token', 'discovery')
    const fetchKeys = async (): Promise<unknown> =>
      http.json(jwks ?? '').catch((error: unknown) => {
        throw new IdpError('idp.unreachable', 'keys', { cause: error })
      })
    return { row, http, client, keySet: openKeySet(fetchKeys) }
  } catch (error) {
    await http[Symbol.asyncDispose]()
    throw error instanceof IdpError ? error : outerError(error, 'discovery')
  }
}

async function authentication(row: IdpRow, keys: IdentityKeys): Promise<oidc.ClientAuth> {
  if (row.auth === 'none') return oidc.None()
  if (row.auth === 'secret') {
    const secret = openSecret(row.sealedSecret ?? '', row.id, keys.cookies, 'idp')
    if (secret === undefined) throw new IdpError('idp.exchange', 'the secret cannot be opened')
    return oidc.ClientSecretBasic(secret)
  }
  const [key] = keys.signing
  if (key === undefined) throw new IdpError('idp.exchange', 'no signing key')
  const kind = { name: 'ECDSA', namedCurve: 'P-256' }
  const { kty, crv, x, y, d } = key
  const imported = await crypto.subtle.importKey('jwk', { kty, crv, x, y, d }, kind, false, [
    'sign',
  ])
  return oidc.PrivateKeyJwt({ key: imported, kid: key.kid })
}

async function begin(
  { client }: Peer,
  redirectUri: string,
  { hint, maxAge }: Wish,
): Promise<Begun> {
  const verifier = oidc.randomPKCECodeVerifier()
  const state = oidc.randomState()
  const nonce = oidc.randomNonce()
  const url = oidc.buildAuthorizationUrl(client, {
    redirect_uri: redirectUri,
    response_type: 'code',
    scope: 'openid email profile',
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
    // OpenID Connect Core 3.1.2.1: the token must then say when they proved who they are.
    max_age: String(maxAge),
    ...(maxAge === 0 ? { prompt: 'login' } : {}),
    ...(hint === null ? {} : { login_hint: hint }),
  })
  return { url: url.href, state, nonce, verifier }
}

async function redeem(
  { client, keySet, row }: Peer,
  current: URL,
  { state, nonce, verifier }: Omit<Begun, 'url'>,
  now: number,
): Promise<Readonly<Record<string, unknown>>> {
  // RFC 9207 2.4, before anything of the answer is believed, its error included.
  const from = current.searchParams.get('iss')
  const named = client.serverMetadata().authorization_response_iss_parameter_supported === true
  if (from === null ? named : from !== row.issuer) throw new IdpError('idp.mixup', 'iss')
  const tokens = await oidc
    .authorizationCodeGrant(client, current, {
      expectedState: state,
      expectedNonce: nonce,
      pkceCodeVerifier: verifier,
      idTokenExpected: true,
    })
    .catch((error: unknown) => {
      throw outerError(error, 'token')
    })
  const us = { issuer: row.issuer, audience: row.clientId }
  const expected = { ...us, types: ['jwt'], maxAgeSeconds: ID_TOKEN_AGE_S }
  const claims = await keySet.verify(tokens.id_token ?? '', expected, now)
  if (claims['nonce'] !== nonce) throw new IdpError('idp.token', 'nonce')
  if (claims['email'] !== undefined || claims.sub === undefined) return claims
  const more = await userInfo(client, tokens.access_token, claims.sub)
  // How and when they signed in is of this sign-in, and only the token is.
  const { amr: _amr, auth_time: _time, sid: _sid, ...about } = more
  // What is signed wins over what is only fetched.
  return { ...about, ...claims }
}

/** OpenID Connect Core 5.3: many providers put the address there only; its `sub` must be the token's. */
async function userInfo(
  client: oidc.Configuration,
  token: string,
  sub: string,
): Promise<Readonly<Record<string, unknown>>> {
  if (client.serverMetadata().userinfo_endpoint === undefined) return {}
  try {
    return await oidc.fetchUserInfo(client, token, sub)
  } catch (error) {
    throw outerError(error, 'userinfo')
  }
}

/** What openid-client threw: their no, their silence, or an answer that is not one. */
function outerError(error: unknown, step: string): IdpError {
  const options = { cause: error }
  if (error instanceof oidc.AuthorizationResponseError)
    return new IdpError('idp.refused', word(error.error), options)
  if (error instanceof oidc.ResponseBodyError) {
    if (error.status >= 500) return new IdpError('idp.unreachable', word(error.error), options)
    return new IdpError('idp.exchange', word(error.error), options)
  }
  // openid-client wraps what fetch threw; a TypeError or a timeout inside is the connection's.
  const inner = error instanceof oidc.ClientError ? error.cause : error
  const gone = error instanceof oidc.ClientError && GONE.has(error.code ?? '')
  if (gone || inner instanceof TypeError || inner instanceof DOMException)
    return new IdpError('idp.unreachable', step, options)
  if (inner instanceof Response && inner.status >= 500)
    return new IdpError('idp.unreachable', `${step} ${inner.status}`, options)
  return new IdpError('idp.token', step, options)
}

const GONE: ReadonlySet<string> = new Set(['OAUTH_TIMEOUT', 'OAUTH_ABORT'])

/** An error code of theirs as it may stand in our log (RFC 6749 4.1.2.1 allows more than we want there). */
function word(text: string): string {
  return /^[a-z_]{1,64}$/.test(text) ? text : 'unnamed'
}
