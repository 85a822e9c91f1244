/** How often a service, and an address, may ask for tokens: who floods waits, and nobody else does. */
import { importJWK, SignJWT } from 'jose'
import { Agent, fetch } from 'undici'
import type { KoaContextWithOIDC } from 'oidc-provider'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeKey } from '../../../cli/login/device.ts'
import { serviceFetch } from '../../../cli/login/service.ts'
import type { PrivateKey } from '../../../cli/login/credentials.ts'
import { checkAssertion } from '../../../gateway/identity/services/limits.ts'
import { eachWithAccounts, now, store, advance } from './accounts-fixture.ts'
import { addVendor, openHouse, signIn, SYSTEM, type House } from './house.ts'

describe('one service', () => {
  eachWithAccounts()
  const headers = new Map<string, string>()
  // What is read of a request: where it comes from.
  const ctx = { req: {}, set: (name: string, value: string) => headers.set(name, value) }
  const ask = async (client: string) =>
    checkAssertion(
      { store, now: () => now },
      ctx as unknown as KoaContextWithOIDC,
      { exp: now / 1000 + 60, jti: 'j' },
      client,
    )

  test('gets 120 tokens a minute, another as many beside it, and more in the next', async () => {
    for (let at = 0; at < 120; at++) await ask('v_busy')
    await expect(ask('v_busy')).rejects.toMatchObject({
      error: 'temporarily_unavailable',
      statusCode: 429,
    })
    expect(Number(headers.get('Retry-After'))).toBe(60 - ((now / 1000) % 60))
    await ask('v_other')
    advance(Number(headers.get('Retry-After')) * 1000)
    await ask('v_busy')
  })
  test('claims an end at most five minutes ahead, and a jti of 200 characters', async () => {
    const room = { store, now: () => now }
    const claim = async (claims: Record<string, unknown>) =>
      checkAssertion(room, ctx as unknown as KoaContextWithOIDC, claims, 'v_x')
    await claim({ exp: now / 1000 + 300, jti: 'x'.repeat(200) })
    const invalid = { error: 'invalid_client' }
    await expect(claim({ exp: now / 1000 + 306, jti: 'x' })).rejects.toMatchObject(invalid)
    await expect(claim({ exp: Infinity, jti: 'x' })).rejects.toMatchObject(invalid)
    await expect(claim({ exp: now / 1000, jti: 'x'.repeat(201) })).rejects.toMatchObject(invalid)
  })
})

describe('one address', () => {
  let house: House
  let agent: Agent
  beforeAll(async () => {
    house = await openHouse()
    agent = new Agent({ connect: { ca: house.anchor } })
  })
  afterAll(async () => {
    await agent.close()
    await house[Symbol.asyncDispose]()
  })

  const sign = async (key: PrivateKey, header: object, claims: object): Promise<string> =>
    new SignJWT({ iat: Math.floor(Date.now() / 1000), jti: crypto.randomUUID(), ...claims })
      .setProtectedHeader({ alg: 'ES256', ...header })
      .sign(await importJWK({ ...key }, 'ES256'))
  const publicOf = ({ kty, crv, x, y }: PrivateKey) => ({ kty, crv, x, y })
  const post = async (service: string, assertion: string): Promise<Response> => {
    const url = `${house.origin}/oidc/token`
    const bound = await makeKey()
    const header = { typ: 'dpop+jwt', jwk: publicOf(bound) }
    const answer = await fetch(url, {
      method: 'POST',
      dispatcher: agent,
      headers: { dpop: await sign(bound, header, { htm: 'POST', htu: url }) },
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        scope: 'api',
        client_id: service,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: assertion,
      }),
    })
    return answer as unknown as Response
  }

  /** A service of that name, and how it asks. */
  const entered = async (name: string) => {
    const key = await makeKey()
    const facts = { vendor: null, roles: ['operator'], groups: [], scopes: ['devices:read'] }
    const entry = { name, ...facts, key: publicOf(key) }
    const { id } = await house.identity.services.add(entry, SYSTEM)
    const claims = (of = id) => ({
      iss: of,
      sub: of,
      aud: house.identity.issuer,
      exp: Math.floor(house.now() / 1000) + 240,
    })
    const assertion = async () => sign(key, {}, claims())
    return { id, key, claims, assertion, right: async () => post(id, await assertion()) }
  }

  test('that fails fifty times waits, with the right key too; its people sign in', async () => {
    const { id, key, claims, right } = await entered('robot')
    const forged = await sign(await makeKey(), {}, claims())
    for (let at = 0; at < 49; at++) expect((await post(id, forged)).status).toBe(401)
    // What succeeds costs the address nothing.
    for (let at = 0; at < 3; at++) expect((await right()).status).toBe(200)
    // One that there is none of counts as well.
    const none = `v_${'0'.repeat(26)}`
    expect((await post(none, await sign(key, {}, claims(none)))).status).toBe(401)
    const refused = await right()
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(600)
    expect(await refused.json()).toMatchObject({ error: 'temporarily_unavailable' })
    // The command says how long, and no shorter time.
    const file = { v: 1, service: id, gateway: house.origin, anchor: house.anchor, key } as const
    await using cli = await serviceFetch(file)
    const next: unknown = expect.stringMatching(/^wait 1\d minutes;/)
    await expect(cli.refresh()).rejects.toMatchObject({ code: 'service.limit', next })
    await addVendor(house)
    await signIn(house)
    house.advance(15 * 60_000)
    expect((await right()).status).toBe(200)
  })

  test('whose programs ask all at once is given what they ask for, close to the limit too', async () => {
    const { id, claims, right } = await entered('crowd')
    const forged = await sign(await makeKey(), {}, claims())
    for (let at = 0; at < 49; at++) await post(id, forged)
    const answers = await Promise.all(Array.from({ length: 60 }, right))
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 60 }, () => 200))
    // And one that fails then is the fiftieth.
    expect((await post(id, forged)).status).toBe(401)
    expect((await right()).status).toBe(429)
    house.advance(15 * 60_000)
  })

  test('that asks again and again while the log takes nothing is not shut out after it', async () => {
    const { right } = await entered('patient')
    house.breakLog(true)
    for (let at = 0; at < 51; at++) expect((await right()).status).toBe(500)
    house.breakLog(false)
    expect((await right()).status).toBe(200)
  })

  test('that sends one assertion again and again is shut out', async () => {
    const { id, assertion, right } = await entered('parrot')
    const one = await assertion()
    expect((await post(id, one)).status).toBe(200)
    for (let at = 0; at < 50; at++) expect((await post(id, one)).status).toBe(401)
    expect((await right()).status).toBe(429)
    house.advance(15 * 60_000)
  })
})
