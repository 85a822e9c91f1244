/**
 * Signing in without a browser on this machine (RFC 8628): the gateway gives a code, a person approves it in any
 * browser, and the tokens that come back are bound to a key made here (RFC 9449).
 */
import { generateKeyPair } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import * as oidc from 'openid-client'
import { fetchAnchor, unreachable } from '../anchor.ts'
import { CliError } from '../exit.ts'
import type { Credentials, PrivateKey } from './credentials.ts'
import { openPinnedHttp, type PinnedHttp } from './tls.ts'

/** What makes the gateway believable: its root in a file, as PEM, or the SHA-256 of it (hex). */
export type Trust =
  | { readonly caFile: string }
  | { readonly anchor: string }
  | { readonly pin: string }

export interface DevicePrompt {
  /** What a person types, `ABCD-EFGH`. */
  readonly code: string
  readonly url: string
  /** The same with the code filled in. */
  readonly completeUrl: string
  readonly expiresInSeconds: number
}

export interface DeviceLoginOptions {
  /** `https://<host>:<port>` */
  readonly gateway: string | URL
  /**
   * With a pin, the root is fetched once from `/.well-known/est/cacerts` over TLS that trusts nobody yet, and
   * used only if its SHA-256 is the pin (RFC 7030 4.1.1). Every later connection is verified against it.
   */
  readonly trust: Trust
  /** Shows the person where to go. */
  readonly onPrompt: (prompt: DevicePrompt) => void | Promise<void>
  readonly signal?: AbortSignal
  /** Ask the person now, whatever their browser or their company's provider remembers (`max_age`). */
  readonly again?: boolean
}

const CLIENT_ID = 'sallyport-cli'
const SCOPE = 'openid offline_access api'

/**
 * Resolves when the person has approved. Throws CliError: login.denied, login.timeout, login.interrupted,
 * login.refused, gateway.unreachable, gateway.untrusted.
 */
export async function deviceLogin(options: DeviceLoginOptions): Promise<Credentials> {
  const gateway = new URL(options.gateway).origin
  const anchor = await readAnchor(gateway, options.trust)
  await using http = openPinnedHttp(anchor)
  try {
    return await login(gateway, anchor, http, options)
  } catch (error) {
    throw options.signal?.aborted === true ? interrupted(error) : failure(gateway, error)
  }
}

async function readAnchor(gateway: string, trust: Trust): Promise<string> {
  if ('anchor' in trust) return trust.anchor
  if ('caFile' in trust) return readFile(trust.caFile, 'utf8')
  return fetchAnchor(new URL(gateway), trust.pin)
}

/** The gateway's provider, as a client of it. */
export async function discover(
  issuer: string,
  clientId: string,
  http: PinnedHttp,
  auth: oidc.ClientAuth = oidc.None(),
): Promise<oidc.Configuration> {
  const found = await oidc.discovery(new URL(issuer), clientId, undefined, auth, {
    [oidc.customFetch]: http.fetch,
  })
  const skew = http.clockSkew()
  if (skew === 0) return found
  const metadata = { [oidc.clockSkew]: skew }
  const corrected = new oidc.Configuration(found.serverMetadata(), clientId, metadata, auth)
  corrected[oidc.customFetch] = http.fetch
  return corrected
}

async function login(
  gateway: string,
  anchor: string,
  http: PinnedHttp,
  { onPrompt, signal, again = false }: DeviceLoginOptions,
): Promise<Credentials> {
  const issuer = `${gateway}/oidc`
  const resource = `${gateway}/api`
  const client = await discover(issuer, CLIENT_ID, http)
  const key = await makeKey()
  const DPoP = oidc.getDPoPHandle(client, await importKey(key))
  const started = await oidc.initiateDeviceAuthorization(client, {
    scope: SCOPE,
    resource,
    // Not 0, which means `prompt=login`: that is of a browser's request, and a device's does not carry it.
    ...(again ? { max_age: '1' } : {}),
  })
  await onPrompt({
    code: started.user_code,
    url: started.verification_uri,
    completeUrl: started.verification_uri_complete ?? started.verification_uri,
    expiresInSeconds: started.expires_in,
  })
  const polling = signal === undefined ? { DPoP } : { DPoP, signal }
  const tokens = await oidc.pollDeviceAuthorizationGrant(client, started, { resource }, polling)
  const subject = tokens.claims()?.sub
  if (tokens.refresh_token === undefined || subject === undefined)
    throw refused('the gateway gave no refresh token or does not say who you are')
  return {
    v: 1,
    gateway,
    issuer,
    clientId: CLIENT_ID,
    resource,
    anchor,
    accessToken: tokens.access_token,
    refreshToken: tokens.refresh_token,
    expiresAt: Date.now() + (tokens.expires_in ?? 0) * 1000,
    subject,
    clockSkew: http.clockSkew(),
    key,
  }
}

/** A new P-256 key. */
export async function makeKey(): Promise<PrivateKey> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  const { x, y, d } = privateKey.export({ format: 'jwk' })
  if (typeof x !== 'string' || typeof y !== 'string' || typeof d !== 'string')
    throw new TypeError('a P-256 key without coordinates')
  return { kty: 'EC', crv: 'P-256', x, y, d }
}

/** The pair as Web Crypto keys, for openid-client. */
export async function importKey(
  key: PrivateKey,
): Promise<{ privateKey: oidc.CryptoKey; publicKey: oidc.CryptoKey }> {
  const { d: _, ...shown } = key
  const kind = { name: 'ECDSA', namedCurve: 'P-256' }
  const [privateKey, publicKey] = await Promise.all([
    crypto.subtle.importKey('jwk', { ...key }, kind, false, ['sign']),
    crypto.subtle.importKey('jwk', { ...shown }, kind, true, ['verify']),
  ])
  return { privateKey, publicKey }
}

function refused(why: string, cause?: unknown): CliError {
  return new CliError(
    'signing in did not work',
    {
      code: 'login.refused',
      exit: 'unauthenticated',
      why,
      next: 'start again: sallyport login',
    },
    { cause },
  )
}

const ENDINGS: Readonly<Record<string, CliError['code']>> = {
  access_denied: 'login.denied',
  expired_token: 'login.timeout',
}

/** What went wrong, by the OAuth error code where there is one, else by the connection's. */
function failure(gateway: string, error: unknown): unknown {
  if (error instanceof CliError) return error
  if (error instanceof oidc.ResponseBodyError) {
    const code = ENDINGS[error.error]
    const why = error.error_description ?? error.error
    if (code === undefined) return refused(why, error)
    const title =
      code === 'login.denied' ? 'the sign-in was refused' : 'nobody approved the code in time'
    const facts = {
      code,
      exit: 'unauthenticated',
      why,
      next: 'start again: sallyport login',
    } as const
    return new CliError(title, facts, { cause: error })
  }
  // openid-client wraps what fetch threw; a TypeError inside is the connection's.
  const inner = error instanceof oidc.ClientError ? error.cause : error
  if (error instanceof oidc.ClientError && !(inner instanceof TypeError))
    return refused(error.message, error)
  return unreachable(new URL(gateway), inner)
}

function interrupted(cause: unknown): CliError {
  return new CliError(
    'signing in was interrupted',
    { code: 'login.interrupted', exit: 'interrupted', next: 'start again: sallyport login' },
    { cause },
  )
}
