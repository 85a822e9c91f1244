/** The end of a login from outside: back-channel logout, and tokens that end nothing. */
import { describe, expect, test } from 'vitest'
import { authorizedFetch, type Credentials } from '../../../cli/login/index.ts'
import { type Forgery } from './company.ts'
import {
  withCompanies,
  house,
  acme,
  forger,
  browser,
  newBrowser,
  byAddress,
  byLink,
  signIn,
  subjectOf,
  sendToken,
} from './companies.ts'

withCompanies()

describe('back-channel logout', () => {
  test('the company’s own provider ends every login of the person, at once', async () => {
    const { credentials } = await signIn(byAddress('wanda@acme.example'))
    house.changes.length = 0
    house.events.length = 0
    await acme.logout('u-1')
    expect(await subjectOf(credentials)).toMatchObject({ refused: true, code: 'token.revoked' })
    expect(house.changes).toMatchObject([{ kind: 'logged_out', login: null }])
    expect(house.events).toMatchObject([{ code: 'auth.logout', reason: 'backchannel' }])
    if (credentials === undefined) throw new Error('nobody signed in')
    await using api = authorizedFetch({ ...credentials, expiresAt: 0 })
    await expect(api('/api/v1/me')).rejects.toMatchObject({ code: 'login.expired' })
  })
  test('by the name of the session alone', async () => {
    forger.forge = { claims: { sid: 'session-1' } }
    const { credentials } = await signIn(byLink)
    const token = await forger.token({ claims: { sub: undefined, sid: 'session-1' } })
    expect((await sendToken('forger', token)).status).toBe(200)
    expect(await subjectOf(credentials)).toMatchObject({ code: 'token.revoked' })
  })
  test('as often as a provider likes: one event for what ended, none where nobody is signed in', async () => {
    await signIn(byLink, newBrowser())
    house.events.length = 0
    const tokens = await Promise.all(Array.from({ length: 5 }, async () => forger.token({})))
    const answers = await Promise.all(tokens.map(async (token) => sendToken('forger', token)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect((await sendToken('forger', await forger.token({}))).status).toBe(200)
    expect(house.events).toMatchObject([{ code: 'auth.logout', reason: 'backchannel' }])
    expect(house.events).toHaveLength(1)
  })
  test('of somebody we never saw: done, nothing to do', async () => {
    const token = await forger.token({ claims: { sub: 'nobody' } })
    const answer = await sendToken('forger', token)
    expect(answer.status).toBe(200)
    expect(answer.headers.get('cache-control')).toContain('no-store')
  })
  const nowS = (): number => Math.floor(Date.now() / 1000)
  const rows: readonly (readonly [string, () => Forgery, string])[] = [
    ['unsigned', () => ({ sign: 'none' }), 'alg'],
    ['HS256 under the public key', () => ({ sign: 'hs256' }), 'alg'],
    ['by another key', () => ({ sign: 'other' }), 'signature'],
    ['an identity token (nonce)', () => ({ claims: { nonce: 'n' } }), 'nonce'],
    ['an access token', () => ({ header: { typ: 'at+jwt' } }), 'typ'],
    ['without the event', () => ({ claims: { events: {} } }), 'events'],
    [
      'with the event as a word',
      () => ({ claims: { events: 'http://schemas.openid.net/event/backchannel-logout' } }),
      'events',
    ],
    [
      'with the event as true',
      () => ({
        claims: { events: { 'http://schemas.openid.net/event/backchannel-logout': true } },
      }),
      'events',
    ],
    ['without jti', () => ({ claims: { jti: undefined } }), 'jti'],
    ['of nobody', () => ({ claims: { sub: undefined } }), 'sub'],
    ['for another audience', () => ({ claims: { aud: 'another' } }), 'aud'],
    ['of another issuer', () => ({ claims: { iss: 'https://other.example' } }), 'iss'],
    ['expired', () => ({ claims: { iat: nowS() - 100, exp: nowS() - 90 } }), 'exp'],
    ['old', () => ({ claims: { iat: nowS() - 400, exp: nowS() + 4000 } }), 'iat'],
    ['without an end', () => ({ claims: { exp: undefined } }), 'exp'],
  ]
  let standing: Credentials | undefined
  test.for(rows)('a token %s ends nothing', async ([, forge, detail], { expect: expected }) => {
    standing ??= (await signIn(byLink)).credentials
    const credentials = standing
    const answer = await sendToken('forger', await forger.token(forge()))
    expected(answer.status).toBe(400)
    expected(JSON.parse(answer.text)).toEqual({
      error: 'invalid_request',
      error_description: `logout_token: ${detail}`,
    })
    expected(await subjectOf(credentials)).toMatchObject({ email: 'mallory@forger.example' })
  })
  test('the log is gone: the provider’s next try is no replay, and ends the logins', async () => {
    const { credentials } = await signIn(byLink)
    const token = await forger.token({})
    house.breakLog(true)
    expect((await sendToken('forger', token)).status).toBe(500)
    house.breakLog(false)
    expect((await sendToken('forger', token)).status).toBe(200)
    expect(await subjectOf(credentials)).toMatchObject({ code: 'token.revoked' })
    expect((await sendToken('forger', token)).status).toBe(400)
  })
  test('the session of one person and the name of another end nothing', async () => {
    forger.forge = { claims: { sid: 'session-of-mallory' } }
    const mallory = await signIn(byLink)
    forger.forge = { claims: { sub: 'trudy', email: 'trudy@forger.example' } }
    const trudy = await signIn(byLink, newBrowser())
    const token = await forger.token({ claims: { sub: 'trudy', sid: 'session-of-mallory' } })
    const answer = await sendToken('forger', token)
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('sid')
    expect(await subjectOf(mallory.credentials)).toMatchObject({ email: 'mallory@forger.example' })
    expect(await subjectOf(trudy.credentials)).toMatchObject({ email: 'trudy@forger.example' })
  })
  test('a token shown twice', async () => {
    const token = await forger.token({})
    expect((await sendToken('forger', token)).status).toBe(200)
    const again = await signIn(byLink)
    const answer = await sendToken('forger', token)
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('replayed')
    expect(await subjectOf(again.credentials)).toMatchObject({ email: 'mallory@forger.example' })
  })
  test('a token at another provider’s address', async () => {
    expect((await sendToken('acme', await forger.token({}))).status).toBe(400)
  })
  test('no token, too much of one, another method', async () => {
    expect((await sendToken('forger', '')).status).toBe(400)
    expect((await sendToken('forger', 'x'.repeat(20_000))).status).toBe(400)
    const got = await browser.send(`${house.origin}/oidc/idp/forger/logout`, { method: 'GET' })
    expect(got.status).toBe(404)
  })
  test('the log is gone: the login ends all the same', async () => {
    const { credentials } = await signIn(byLink, newBrowser())
    const token = await forger.token({})
    house.breakLog(true)
    const answer = await sendToken('forger', token)
    house.breakLog(false)
    expect(answer.status).toBe(500)
    expect(await subjectOf(credentials)).toMatchObject({ code: 'token.revoked' })
  })
})
