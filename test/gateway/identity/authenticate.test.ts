/** Every way in which a request is nobody's: one row per defect, each with its closed code. */
import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { importJWK, SignJWT, type JWK } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PrivateKey } from '../../../cli/login/credentials.ts'
import type { Credentials } from '../../../cli/login/index.ts'
import { isRefusal } from '../../../gateway/identity/index.ts'
import { addVendor, authenticate, makeProof, openHouse, signIn, type House } from './house.ts'

let house: House
let credentials: Credentials
let ours: JWK
beforeAll(async () => {
  house = await openHouse()
  await addVendor(house)
  credentials = await signIn(house)
  const kept = await readFile(join(house.directory, 'identity', 'keys.json'), 'utf8')
  const { signing } = JSON.parse(kept) as { signing: JWK[] }
  ours = signing[0]!
})
afterAll(async () => house[Symbol.asyncDispose]())

const otherKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
  format: 'jwk',
}) as unknown as PrivateKey

type Answer = Awaited<ReturnType<typeof authenticate>>
const codeOf = (answer: Answer): string => (isRefusal(answer) ? answer.code : 'admitted')

function part(token: string, at: number): Record<string, unknown> {
  const text = Buffer.from(token.split('.')[at]!, 'base64url').toString()
  return JSON.parse(text) as Record<string, unknown>
}
const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** The real token with some claims and header members bent, signed by our own key or another. */
async function forge(
  claims: Record<string, unknown>,
  header: Record<string, unknown> = {},
  key: JWK = ours,
): Promise<string> {
  const old = part(credentials.accessToken, 1)
  const merged = Object.fromEntries(
    Object.entries({ ...old, ...claims }).filter(([, value]) => value !== undefined),
  )
  return new SignJWT(merged)
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: ours.kid!, ...header })
    .sign(await importJWK({ ...key }, 'ES256'))
}

/** Asks with this token and a proof that is right for it. */
async function ask(accessToken: string): Promise<Answer> {
  const dpop = await makeProof(house, { ...credentials, accessToken })
  return authenticate(house, { authorization: `DPoP ${accessToken}`, dpop })
}

test('the untouched token with a fresh proof is admitted', async () => {
  const answer = await ask(credentials.accessToken)
  expect(codeOf(answer)).toBe('admitted')
})

describe('token', () => {
  const rows: [string, string, () => string | Promise<string>][] = [
    ['another audience', 'token.audience', async () => forge({ aud: `${house.origin}/other` })],
    ['no audience', 'token.audience', async () => forge({ aud: undefined })],
    ['another issuer', 'token.issuer', async () => forge({ iss: 'https://localhost:1/oidc' })],
    ['expired', 'token.expired', async () => forge({ exp: Math.floor(Date.now() / 1000) - 60 })],
    ['not valid yet', 'token.expired', async () => forge({ nbf: Date.now() / 1000 + 600 })],
    ['no expiry', 'token.claims', async () => forge({ exp: undefined })],
    ['no login', 'token.claims', async () => forge({ login: undefined })],
    ['bound to no key', 'token.claims', async () => forge({ cnf: undefined })],
    ['bound to a key that is no text', 'token.claims', async () => forge({ cnf: { jkt: 7 } })],
    ['amr is no list', 'token.claims', async () => forge({ amr: 'pwd' })],
    ['amr holds a number', 'token.claims', async () => forge({ amr: [1] })],
    ['an id token', 'token.type', async () => forge({}, { typ: 'JWT' })],
    ['signed by another key', 'token.signature', async () => forge({}, {}, { ...otherKey })],
    ['names a key we never had', 'token.signature', async () => forge({}, { kid: 'nobody' })],
    ['a login that never was', 'token.revoked', async () => forge({ login: 'x'.repeat(43) })],
    ['a person who never was', 'account.disabled', async () => forge({ sub: '0'.repeat(26) })],
    [
      'alg none',
      'token.algorithm',
      () => `${encode({ alg: 'none', typ: 'at+jwt' })}.${credentials.accessToken.split('.')[1]}.`,
    ],
    ['alg HS256 keyed with our public key', 'token.algorithm', () => confuse('pem')],
    ['alg HS256 keyed with our JWK', 'token.algorithm', () => confuse('jwk')],
    ['one bit changed', 'token.signature', () => flip(credentials.accessToken)],
    ['not a JWT', 'token.malformed', () => 'abc'],
    ['4,097 characters', 'token.malformed', () => 'a'.repeat(4097)],
    [
      'header is no JSON',
      'token.malformed',
      () => `e30x.${credentials.accessToken.split('.')[1]}.AA`,
    ],
  ]
  test.for(rows)('%s: %s', async ([, code, make]) => {
    const answer = await ask(await make())
    expect(codeOf(answer)).toBe(code)
    if (!isRefusal(answer)) throw new Error('admitted')
    expect(answer.status).toBe(401)
    expect(answer.wwwAuthenticate).toMatch(
      /^DPoP error="invalid_token", error_description="[^"\\]+", algs="ES256 Ed25519 EdDSA"$/,
    )
  })

  function confuse(form: 'pem' | 'jwk'): string {
    const { d: _, ...shown } = ours
    const pem = createPublicKey({ key: { ...shown }, format: 'jwk' }).export({
      type: 'spki',
      format: 'pem',
    })
    const secret = form === 'pem' ? pem : JSON.stringify(shown)
    const body = `${encode({ alg: 'HS256', typ: 'at+jwt', kid: ours.kid })}.${credentials.accessToken.split('.')[1]}`
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`
  }
  function flip(token: string): string {
    const [header, payload, signature] = token.split('.')
    const bytes = Buffer.from(signature!, 'base64url')
    bytes[3]! ^= 1
    return `${header}.${payload}.${bytes.toString('base64url')}`
  }
})

describe('credentials in the header', () => {
  const rows: [string, string, (token: string, proof: string) => Record<string, string>][] = [
    ['nothing at all', 'token.missing', () => ({})],
    ['bearer without a proof', 'token.scheme', (token) => ({ authorization: `Bearer ${token}` })],
    [
      'bearer with a proof',
      'token.scheme',
      (token, dpop) => ({ authorization: `Bearer ${token}`, dpop }),
    ],
    ['basic', 'token.scheme', () => ({ authorization: 'Basic dTpw' })],
    ['no proof', 'proof.missing', (token) => ({ authorization: `DPoP ${token}` })],
    [
      'two proofs',
      'proof.missing',
      (token, proof) => ({ authorization: `DPoP ${token}`, dpop: `${proof}, ${proof}` }),
    ],
    [
      'two tokens',
      'token.malformed',
      (token, dpop) => ({ authorization: `DPoP ${token} ${token}`, dpop }),
    ],
    ['a scheme alone', 'token.malformed', (_, dpop) => ({ authorization: 'DPoP', dpop })],
  ]
  test.for(rows)('%s: %s', async ([, code, make]) => {
    const proof = await makeProof(house, credentials)
    const answer = await authenticate(house, make(credentials.accessToken, proof))
    expect(codeOf(answer)).toBe(code)
  })
  test('a bare request gets a bare challenge', async () => {
    const answer = await authenticate(house, {})
    expect(isRefusal(answer) && answer.wwwAuthenticate).toBe('DPoP algs="ES256 Ed25519 EdDSA"')
  })
})

describe('proof', () => {
  const seconds = (delta: number): number => Math.floor(house.now() / 1000) + delta
  const rows: [string, string, () => Promise<string>][] = [
    [
      'made for another method',
      'proof.method',
      async () => makeProof(house, credentials, { claims: { htm: 'POST' } }),
    ],
    [
      'method in lower case',
      'proof.method',
      async () => makeProof(house, credentials, { claims: { htm: 'get' } }),
    ],
    [
      'made for another path',
      'proof.url',
      async () => makeProof(house, credentials, { claims: { htu: `${house.origin}/api/v1/you` } }),
    ],
    [
      'made for another host',
      'proof.url',
      async () =>
        makeProof(house, credentials, { claims: { htu: 'https://evil.example/api/v1/me' } }),
    ],
    [
      'made for http',
      'proof.url',
      async () =>
        makeProof(house, credentials, {
          claims: { htu: `${house.origin.replace('https', 'http')}/api/v1/me` },
        }),
    ],
    [
      'htu is no address',
      'proof.url',
      async () => makeProof(house, credentials, { claims: { htu: '/api/v1/me' } }),
    ],
    [
      'htu is a number',
      'proof.url',
      async () => makeProof(house, credentials, { claims: { htu: 1 } }),
    ],
    [
      '61 seconds old',
      'proof.time',
      async () => makeProof(house, credentials, { claims: { iat: seconds(-62) } }),
    ],
    [
      'from the future',
      'proof.time',
      async () => makeProof(house, credentials, { claims: { iat: seconds(10) } }),
    ],
    [
      'no time',
      'proof.malformed',
      async () => makeProof(house, credentials, { claims: { iat: undefined } }),
    ],
    [
      'no jti',
      'proof.malformed',
      async () => makeProof(house, credentials, { claims: { jti: undefined } }),
    ],
    [
      'empty jti',
      'proof.malformed',
      async () => makeProof(house, credentials, { claims: { jti: '' } }),
    ],
    [
      'a jti of 129 characters',
      'proof.malformed',
      async () => makeProof(house, credentials, { claims: { jti: 'j'.repeat(129) } }),
    ],
    [
      'for another token',
      'proof.token',
      async () => makeProof(house, credentials, { claims: { ath: 'x' } }),
    ],
    [
      'for no token',
      'proof.token',
      async () => makeProof(house, credentials, { claims: { ath: undefined } }),
    ],
    ['of another key', 'proof.key', async () => makeProof(house, credentials, { key: otherKey })],
    [
      'shows our key, signed by another',
      'proof.signature',
      async () => makeProof(house, credentials, { key: otherKey, header: { jwk: publicPart() } }),
    ],
    [
      'shows the private key',
      'proof.malformed',
      async () => makeProof(house, credentials, { header: { jwk: credentials.key } }),
    ],
    [
      'shows no key',
      'proof.malformed',
      async () => makeProof(house, credentials, { header: { jwk: undefined } }),
    ],
    [
      'typ JWT',
      'proof.malformed',
      async () => makeProof(house, credentials, { header: { typ: 'JWT' } }),
    ],
    [
      'alg none',
      'proof.signature',
      async () => `${encode({ alg: 'none', typ: 'dpop+jwt', jwk: publicPart() })}.${encode({})}.`,
    ],
    [
      'alg HS256 with a secret key',
      'proof.signature',
      async () =>
        `${encode({ alg: 'HS256', typ: 'dpop+jwt', jwk: { kty: 'oct', k: 'AA' } })}.${encode({})}.AA`,
    ],
    ['2,049 characters', 'proof.malformed', async () => 'a'.repeat(2049)],
    ['not a JWT', 'proof.malformed', async () => 'x.y'],
  ]
  function publicPart(): Record<string, string> {
    const { kty, crv, x, y } = credentials.key
    return { kty, crv, x, y }
  }
  test.for(rows)('%s: %s', async ([, code, make]) => {
    const dpop = await make()
    const answer = await authenticate(house, {
      authorization: `DPoP ${credentials.accessToken}`,
      dpop,
    })
    expect(codeOf(answer)).toBe(code)
  })

  test('shown twice: the second time is refused', async () => {
    const headers = {
      authorization: `DPoP ${credentials.accessToken}`,
      dpop: await makeProof(house, credentials),
    }
    const [first, second] = await Promise.all([
      authenticate(house, headers),
      authenticate(house, headers),
    ])
    expect([codeOf(first), codeOf(second)].toSorted()).toEqual(['admitted', 'proof.replayed'])
  })
  test('a refused request does not use its proof up', async () => {
    const headers = {
      authorization: `DPoP ${credentials.accessToken}`,
      dpop: await makeProof(house, credentials),
    }
    expect(codeOf(await authenticate(house, headers, { method: 'POST' }))).toBe('proof.method')
    expect(codeOf(await authenticate(house, headers))).toBe('admitted')
  })
  test('query and fragment do not count, the absolute form does as its path', async () => {
    const send = async (url: string): Promise<string> => {
      const dpop = await makeProof(house, credentials)
      const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop }
      return codeOf(await authenticate(house, headers, { url }))
    }
    expect(await send('/api/v1/me?x=1#y')).toBe('admitted')
    expect(await send(`${house.origin}/api/v1/me`)).toBe('admitted')
    expect(await send('https://evil.example/api/v1/me')).toBe('proof.url')
    expect(await send('//evil.example/api/v1/me')).toBe('proof.url')
    expect(await send('/api/v1/../v1/me')).toBe('admitted')
  })
})

describe('what is true now counts, not what was true when the token was made', () => {
  const admit = async (who: Credentials): Promise<Answer> => {
    const dpop = await makeProof(house, who)
    return authenticate(house, { authorization: `DPoP ${who.accessToken}`, dpop })
  }
  const by = { id: 'test', source: '127.0.0.1' }

  test('groups and roles are read at each request, and a change is told', async () => {
    const sub = await addVendor(house, 'grace')
    const who = await signIn(house, 'grace')
    house.changes.length = 0
    await house.identity.accounts.change(sub, { groups: ['other'] }, by)
    const answer = await admit(who)
    expect(!isRefusal(answer) && answer.groups).toEqual(['other'])
    const subject = `${house.identity.issuer}|${sub}`
    expect(house.changes).toEqual([{ kind: 'changed', subject, login: null }])
  })

  test('a disabled account stops at once, and so does its refresh token', async () => {
    const sub = await addVendor(house, 'dora')
    const who = await signIn(house, 'dora')
    const before = await admit(who)
    if (isRefusal(before)) throw new Error(before.code)
    const login = house.identity.loginOf(before)
    expect(codeOf(await house.identity.current(login, house.now()))).toBe('admitted')
    house.changes.length = 0
    await house.identity.accounts.change(sub, { disabled: true }, by)
    expect(codeOf(await admit(who))).toBe('account.disabled')
    expect(codeOf(await house.identity.current(login, house.now()))).toBe('account.disabled')
    const subject = `${house.identity.issuer}|${sub}`
    expect(house.changes).toEqual([{ kind: 'disabled', subject, login: null }])
    await house.identity.accounts.change(sub, { disabled: false }, by)
    expect(codeOf(await admit(who))).toBe('token.revoked')
  })

  test('a new password ends every login', async () => {
    const sub = await addVendor(house, 'nina')
    const who = await signIn(house, 'nina')
    await house.identity.accounts.change(sub, { password: 'an entirely different phrase' }, by)
    expect(codeOf(await admit(who))).toBe('token.revoked')
  })

  test('a login given back later is the same person, until its last token ends', async () => {
    const answer = await admit(credentials)
    if (isRefusal(answer)) throw new Error(answer.code)
    const login = structuredClone(house.identity.loginOf(answer))
    const later = await house.identity.current(login, house.now())
    expect(later).toEqual({ ...answer, token_exp: expect.any(Number) as number })
    const ended = await house.identity.current(login, house.now() + 3_700_000)
    expect(codeOf(ended)).toBe('token.expired')
    const foreign = { ...login, subject: 'https://elsewhere|1' }
    expect(codeOf(await house.identity.current(foreign, house.now()))).toBe('token.issuer')
  })

  test('the token ends by our clock', async () => {
    house.advance(3_700_000)
    const answer = await admit(credentials)
    house.advance(-3_700_000)
    expect(codeOf(answer)).toBe('token.expired')
  })
})
