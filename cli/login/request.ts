/** Requests in a person's name: each with a proof of the key for this very request (RFC 9449 4, 7). */
import { createHash, randomUUID } from 'node:crypto'
import { importJWK, SignJWT, type CryptoKey as JoseKey } from 'jose'
import { refreshTokenGrant, getDPoPHandle, ResponseBodyError } from 'openid-client'
import { fetch, type RequestInit, type Response } from 'undici'
import { unreachable } from '../anchor.ts'
import { CliError } from '../exit.ts'
import type { Credentials, PrivateKey } from './credentials.ts'
import { discover, importKey } from './device.ts'
import { openPinnedHttp, skewOf, type PinnedHttp } from './tls.ts'

export interface AuthorizedFetchOptions {
  /** Told of refreshed tokens, so that they can be kept: `(c) => saveCredentials(directory, c)`. */
  readonly onRefresh?: (credentials: Credentials) => void | Promise<void>
  /** How a new access token is come by; by the refresh token where absent. */
  readonly renew?: (current: Credentials, http: PinnedHttp) => Promise<Credentials>
}

export interface AuthorizedFetch extends AsyncDisposable {
  /**
   * As fetch, for paths or addresses of the credentials' gateway only; never follows a redirect. Throws CliError:
   * login.expired (sign in again), login.elsewhere, gateway.unreachable, gateway.untrusted.
   */
  (target: string | URL, init?: RequestInit): Promise<Response>
  /** The credentials as they stand, after whatever refreshing there was. */
  readonly credentials: () => Credentials
  /** A new access token now: keeps a login good while a long session runs. Throws as the call. */
  readonly refresh: () => Promise<Credentials>
}

const REFRESH_BEFORE_MS = 60_000

/** Opens connections lazily; leaving the block closes them. */
export function authorizedFetch(
  credentials: Credentials,
  { onRefresh, renew = refreshed }: AuthorizedFetchOptions = {},
): AuthorizedFetch {
  const http = openPinnedHttp(credentials.anchor)
  let current = credentials
  let refreshing: Promise<Credentials> | undefined

  const refresh = async (): Promise<Credentials> => {
    refreshing ??= renew(current, http)
      .then(async (fresh) => {
        current = fresh
        await onRefresh?.(fresh)
        return fresh
      })
      .finally(() => {
        refreshing = undefined
      })
    return refreshing
  }
  const call = async (target: string | URL, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(target, current.gateway)
    if (url.origin !== current.gateway) throw elsewhere(url, current)
    if (current.expiresAt - Date.now() < REFRESH_BEFORE_MS) await refresh()
    const used = current.accessToken
    const response = await send(http, current, url, init)
    if (response.status !== 401 || !isRepeatable(init)) return response
    const mended = mend(response, current)
    if (mended === undefined) return response
    if (mended === 'refresh') {
      if (used === current.accessToken) await refresh()
    } else current = mended
    await response.body?.cancel()
    return send(http, current, url, init)
  }
  return Object.assign(call, {
    credentials: () => current,
    refresh,
    [Symbol.asyncDispose]: async () => http[Symbol.asyncDispose](),
  })
}

async function send(
  http: PinnedHttp,
  credentials: Credentials,
  url: URL,
  init: RequestInit,
): Promise<Response> {
  const headers = new Headers(init.headers as Record<string, string>)
  headers.set('authorization', `DPoP ${credentials.accessToken}`)
  headers.set('dpop', await proofFor(credentials, (init.method ?? 'GET').toUpperCase(), url))
  const sent = Object.fromEntries(headers)
  try {
    return await fetch(url, { ...init, headers: sent, redirect: 'error', dispatcher: http.agent })
  } catch (cause) {
    throw unreachable(url, cause)
  }
}

/** What would make the next try better: another clock, another token, or nothing. */
function mend(response: Response, credentials: Credentials): Credentials | 'refresh' | undefined {
  const challenge = response.headers.get('www-authenticate') ?? ''
  if (challenge.includes('invalid_token')) return 'refresh'
  if (!challenge.includes('invalid_dpop_proof')) return undefined
  const clockSkew = skewOf(response.headers.get('date')) ?? credentials.clockSkew
  return clockSkew === credentials.clockSkew ? undefined : { ...credentials, clockSkew }
}

/** A stream is gone after the first try. */
function isRepeatable({ body }: RequestInit): boolean {
  return (
    body === undefined || body === null || typeof body === 'string' || body instanceof Uint8Array
  )
}

function elsewhere(url: URL, { gateway }: Credentials): CliError {
  return new CliError(`the login for ${gateway} is not sent to ${url.origin}`, {
    code: 'login.elsewhere',
    exit: 'usage',
    next: `sign in there: sallyport login --gateway ${url.origin}`,
  })
}

const keys = new WeakMap<PrivateKey, Promise<JoseKey | Uint8Array>>()

async function proofFor(
  { key, accessToken, clockSkew }: Credentials,
  method: string,
  url: URL,
): Promise<string> {
  const { kty, crv, x, y } = key
  const imported = keys.get(key) ?? importJWK({ ...key }, 'ES256')
  keys.set(key, imported)
  return new SignJWT({
    jti: randomUUID(),
    htm: method,
    htu: url.origin + url.pathname,
    ath: createHash('sha256').update(accessToken).digest('base64url'),
  })
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: { kty, crv, x, y } })
    .setIssuedAt(Math.floor(Date.now() / 1000) + clockSkew)
    .sign(await imported)
}

async function refreshed(credentials: Credentials, http: PinnedHttp): Promise<Credentials> {
  const { issuer, clientId, refreshToken, resource, gateway, key } = credentials
  try {
    const client = await discover(issuer, clientId, http)
    const DPoP = getDPoPHandle(client, await importKey(key))
    const tokens = await refreshTokenGrant(client, refreshToken, { resource }, { DPoP })
    return {
      ...credentials,
      accessToken: tokens.access_token,
      refreshToken: tokens.refresh_token ?? refreshToken,
      expiresAt: Date.now() + (tokens.expires_in ?? 0) * 1000,
      clockSkew: http.clockSkew(),
    }
  } catch (cause) {
    if (!(cause instanceof ResponseBodyError)) throw unreachable(new URL(gateway), cause)
    throw new CliError(
      'the login has ended',
      {
        code: 'login.expired',
        exit: 'unauthenticated',
        why: cause.error_description ?? cause.error,
        next: `sign in again: sallyport login --gateway ${gateway}`,
      },
      { cause },
    )
  }
}
