/** The provider’s endpoints as a hostile client finds them: its address, the token endpoint, codes with PKCE. */
import * as oidc from 'openid-client'
import { describe, expect, test } from 'vitest'
import { importKey } from '../../../cli/login/device.ts'
import { openPinnedHttp } from '../../../cli/login/tls.ts'
import { approveDevice } from '../../support/browser.ts'
import { authenticate, makeProof, signIn } from './house.ts'
import {
  at,
  CONSOLE,
  credentials,
  deviceCode,
  freshBrowser,
  here,
  NATIVE,
  post,
  start,
  type Started,
} from './pages.ts'

freshBrowser()

describe('the address of the provider is configuration', () => {
  test('what a header says changes nothing that is written', async () => {
    const page = await here.browser.send(at('/.well-known/openid-configuration'), {
      method: 'GET',
      headers: {
        'x-forwarded-host': 'evil.example',
        'x-forwarded-proto': 'http',
        forwarded: 'host=evil.example',
      },
    })
    const metadata = JSON.parse(page.text) as Record<string, unknown>
    expect(page.text).not.toContain('evil')
    expect(metadata).toMatchObject({
      issuer: at(''),
      token_endpoint: at('/token'),
      device_authorization_endpoint: at('/device/auth'),
      revocation_endpoint: at('/token/revocation'),
      code_challenge_methods_supported: ['S256'],
      token_endpoint_auth_methods_supported: ['none', 'private_key_jwt'],
      id_token_signing_alg_values_supported: ['ES256'],
    })
    expect(metadata['userinfo_endpoint']).toBeUndefined()
    expect(metadata['registration_endpoint']).toBeUndefined()
  })
  test('the published keys hold nothing private', async () => {
    const page = await here.browser.open(at('/jwks'))
    const { keys } = JSON.parse(page.text) as { keys: Record<string, unknown>[] }
    expect(keys).toHaveLength(1)
    expect(keys[0]).not.toHaveProperty('d')
  })
})

describe('the token endpoint', () => {
  const TOKEN = {
    client_id: 'sallyport-cli',
    grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
  }
  test('wants a proof of a key', async () => {
    const { device_code: code = '', verification_uri_complete: url = '' } = await deviceCode()
    await approveDevice(here.browser, { url, ...credentials })
    expect(await post('/token', { ...TOKEN, device_code: code })).toMatchObject({
      error: 'invalid_grant',
    })
  })
  test('says pending, then unknown', async () => {
    const { device_code: code = '' } = await deviceCode()
    const mine = await signIn(here.house)
    const proof = async (): Promise<string> =>
      makeProof(here.house, mine, { claims: { htm: 'POST', htu: at('/token'), ath: undefined } })
    const pending = await post('/token', { ...TOKEN, device_code: code }, { dpop: await proof() })
    expect(pending).toMatchObject({ error: 'authorization_pending' })
    const unknown = await post('/token', { ...TOKEN, device_code: 'x' }, { dpop: await proof() })
    expect(unknown).toMatchObject({ error: 'invalid_grant' })
  })
  test('a proof serves once, even when two requests bring it at the same time', async () => {
    const mine = await signIn(here.house)
    const dpop = await makeProof(here.house, mine, {
      claims: { htm: 'POST', htu: at('/token'), ath: undefined },
    })
    const body = {
      client_id: 'sallyport-cli',
      grant_type: 'refresh_token',
      refresh_token: mine.refreshToken,
    }
    const answers = await Promise.all([
      post('/token', body, { dpop }),
      post('/token', body, { dpop }),
    ])
    expect(answers.filter((answer) => 'access_token' in answer)).toHaveLength(1)
    expect(answers.filter((answer) => answer['error'] === 'invalid_grant')).toHaveLength(1)
  })
  test('a code serves once, even when two requests bring it at the same time', async () => {
    const { device_code: code = '', verification_uri_complete: url = '' } = await deviceCode()
    await approveDevice(here.browser, { url, ...credentials })
    const mine = await signIn(here.house)
    const ask = async (): Promise<Record<string, string>> => {
      const claims = { htm: 'POST', htu: at('/token'), ath: undefined }
      const dpop = await makeProof(here.house, mine, { claims })
      return post('/token', { ...TOKEN, device_code: code }, { dpop })
    }
    const answers = await Promise.all([ask(), ask(), ask()])
    expect(answers.filter((answer) => 'access_token' in answer)).toHaveLength(1)
  })
  test('another resource than ours is refused', async () => {
    expect(await deviceCode({ resource: 'https://evil.example/api' })).toMatchObject({
      error: 'invalid_target',
    })
  })
  test('an unknown client is refused', async () => {
    expect(await deviceCode({ client_id: 'nobody' })).toMatchObject({ error: 'invalid_client' })
  })
})

describe('authorization code with PKCE', () => {
  const walk = async (client: string, started: Started): Promise<URL> => {
    const consent = await here.browser.submit(
      await here.browser.open(started.url),
      'Sign in',
      credentials,
    )
    const back = await here.browser.submit(consent, 'Continue')
    const location = back.headers.get('location')
    if (location === null) throw new Error(`${client} got ${back.status}:\n${back.text}`)
    return new URL(location)
  }

  test.for([[CONSOLE], [NATIVE]])('%s gets tokens bound to its key', async ([client]) => {
    const started = start(client!)
    const callback = await walk(client!, started)
    expect(callback.searchParams.get('iss')).toBe(at(''))
    const mine = await signIn(here.house)
    await using http = openPinnedHttp(here.house.anchor)
    const config = await oidc.discovery(new URL(at('')), client!, undefined, oidc.None(), {
      [oidc.customFetch]: http.fetch,
    })
    const DPoP = oidc.getDPoPHandle(config, await importKey(mine.key))
    const checks = { pkceCodeVerifier: started.verifier, expectedState: 's', idTokenExpected: true }
    const tokens = await oidc.authorizationCodeGrant(config, callback, checks, {}, { DPoP })
    const bound = { ...mine, accessToken: tokens.access_token }
    const headers = {
      authorization: `DPoP ${tokens.access_token}`,
      dpop: await makeProof(here.house, bound),
    }
    expect(await authenticate(here.house, headers)).toMatchObject({ email: 'vera@acme.example' })
    // The code a second time: refused, and what came of the first use is gone (RFC 6749 4.1.2).
    const again = oidc.authorizationCodeGrant(config, callback, checks, {}, { DPoP })
    await expect(again).rejects.toMatchObject({ error: 'invalid_grant' })
    const after = { authorization: headers.authorization, dpop: await makeProof(here.house, bound) }
    expect(await authenticate(here.house, after)).toMatchObject({ code: 'token.revoked' })
  })

  const rows: [string, string, Record<string, string>][] = [
    ['no PKCE', 'invalid_request', { code_challenge: '', code_challenge_method: '' }],
    ['plain PKCE', 'invalid_request', { code_challenge_method: 'plain' }],
    ['an implicit token', 'unsupported_response_type', { response_type: 'id_token', nonce: 'n' }],
    ['another resource', 'invalid_target', { resource: 'https://evil.example' }],
  ]
  test.for(rows)('%s is refused with %s', async ([, error, over]) => {
    const page = await here.browser.open(start(CONSOLE, over).url)
    expect(page.headers.get('location') ?? page.text).toContain(error)
  })
  test('another place to go back to is refused on our own page', async () => {
    const page = await here.browser.open(
      start(CONSOLE, { redirect_uri: 'https://evil.example/' }).url,
    )
    expect(page.status).toBe(400)
    expect(page.headers.get('location')).toBeNull()
    expect(page.text).toContain('invalid_redirect_uri')
  })
  test('cancelling goes back with access_denied', async () => {
    const login = await here.browser.open(start(CONSOLE).url)
    const page = await here.browser.submit(login, 'Cancel')
    expect(page.headers.get('location')).toContain('error=access_denied')
  })
})
