/** What a bad answer of a company’s provider brings: nobody in, and a page that says why. */
import { describe, expect, test } from 'vitest'
import { type Browser, type Page } from '../../support/browser.ts'
import { CLIENT, type Forgery } from './company.ts'
import {
  withCompanies,
  house,
  acme,
  forger,
  browser,
  newBrowser,
  hrefOf,
  byAddress,
  byLink,
  signIn,
  visit,
  subjectOf,
  sendToken,
} from './companies.ts'

withCompanies()

describe('an answer that is not good brings nobody in', () => {
  const now = (): number => Math.floor(Date.now() / 1000)
  const rows: readonly (readonly [string, () => Forgery, string, string])[] = [
    ['unsigned (alg none)', () => ({ sign: 'none' }), 'idp.token', ''],
    ['HS256 under the public key', () => ({ sign: 'hs256' }), 'idp.token', ''],
    ['signed by a key nobody published', () => ({ sign: 'other' }), 'idp.token', 'signature'],
    ['a kid that is not known', () => ({ header: { kid: 'k9' } }), 'idp.token', 'kid'],
    ['an access token in its place', () => ({ header: { typ: 'at+jwt' } }), 'idp.token', ''],
    ['a logout token in its place', () => ({ header: { typ: 'logout+jwt' } }), 'idp.token', ''],
    ['for another audience', () => ({ claims: { aud: 'another' } }), 'idp.token', ''],
    ['for many, we among them', () => ({ claims: { aud: [CLIENT, 'b'] } }), 'idp.token', ''],
    [
      'for many, made for another',
      () => ({ claims: { aud: [CLIENT, 'b'], azp: 'b' } }),
      'idp.token',
      '',
    ],
    ['of another issuer', () => ({ claims: { iss: acme.issuer } }), 'idp.token', ''],
    ['expired', () => ({ claims: { iat: now() - 400, exp: now() - 100 } }), 'idp.token', ''],
    ['without an end', () => ({ claims: { exp: undefined } }), 'idp.token', ''],
    [
      'made an hour ago, good for a year',
      () => ({ claims: { iat: now() - 3600, exp: now() + 3e7 } }),
      'idp.token',
      'iat',
    ],
    [
      'made in ten minutes',
      () => ({ claims: { iat: now() + 600, exp: now() + 900 } }),
      'idp.token',
      '',
    ],
    ['good from ten minutes on', () => ({ claims: { nbf: now() + 600 } }), 'idp.token', ''],
    [
      'proven in ten minutes',
      () => ({ claims: { auth_time: now() + 600 } }),
      'idp.token',
      'auth_time',
    ],
    [
      'proven longer ago than was asked for',
      () => ({ claims: { auth_time: now() - 8 * 3600 - 120 } }),
      'idp.token',
      'auth_time',
    ],
    ['proven at a word', () => ({ claims: { auth_time: 'now' } }), 'idp.token', ''],
    ['with another nonce', () => ({ claims: { nonce: 'another' } }), 'idp.token', ''],
    ['without a nonce', () => ({ claims: { nonce: undefined } }), 'idp.token', ''],
    ['a sub that is a number', () => ({ claims: { sub: 7 } }), 'idp.token', ''],
    ['an empty sub', () => ({ claims: { sub: '' } }), 'idp.claims', 'sub'],
    ['a sub of a kilobyte', () => ({ claims: { sub: 's'.repeat(1024) } }), 'idp.claims', 'sub'],
    [
      'an address that is a list',
      () => ({ claims: { email: ['mallory@forger.example'] } }),
      'idp.claims',
      'email',
    ],
    [
      'two addresses in one',
      () => ({ claims: { email: 'root@plant.example@forger.example' } }),
      'idp.claims',
      'email',
    ],
    [
      'another company’s address',
      () => ({ claims: { email: 'wanda@acme.example' } }),
      'idp.domain',
      'acme.example',
    ],
    [
      'a domain that ends like its own',
      () => ({ claims: { email: 'm@not-forger.example' } }),
      'idp.domain',
      'not-forger.example',
    ],
    [
      'a domain below its own',
      () => ({ claims: { email: 'm@sub.forger.example' } }),
      'idp.domain',
      'sub.forger.example',
    ],
    [
      'an address not verified',
      () => ({ claims: { email_verified: false } }),
      'idp.unverified',
      '',
    ],
    ['verified as a word', () => ({ claims: { email_verified: 'true' } }), 'idp.unverified', ''],
    ['verified not said', () => ({ claims: { email_verified: undefined } }), 'idp.unverified', ''],
    [
      'groups without end',
      () => ({ claims: { groups: Array.from({ length: 5000 }, (_, at) => `g${at}`) } }),
      'idp.claims',
      'too many groups',
    ],
  ]
  test.for(rows)('%s', async ([, forge, code, detail]) => {
    forger.forge = forge()
    const page = await visit(byLink)
    expect(page.text).toContain(`<code>${code}</code>`)
    expect(page.status).toBeGreaterThanOrEqual(400)
    const failed = house.events.find((event) => event.code === 'auth.login')
    expect(failed).toMatchObject({ outcome: 'failure', reason: code, idp: 'forger', subject: null })
    if (detail !== '') expect(failed).toMatchObject({ detail })
    expect(house.events.some((event) => event.code === 'account.create')).toBe(false)
  })
  test('keys that are no keys', async () => {
    house.advance(11 * 60_000)
    forger.publishes = 'rubbish'
    const page = await visit(byLink)
    forger.publishes = 'keys'
    house.advance(-11 * 60_000)
    expect(page.text).toContain('idp.token')
  })
  test('an address only in userinfo counts, one of another person does not', async () => {
    forger.forge = { claims: { email: undefined, email_verified: undefined } }
    forger.userinfo = {
      sub: 'somebody else',
      email: 'mallory@forger.example',
      email_verified: true,
    }
    expect((await visit(byLink)).text).toContain('idp.token')
    forger.userinfo = { sub: 'mallory', email: 'mallory@forger.example', email_verified: true }
    expect((await visit(byLink)).title).toContain('You are signed in')
  })
  test('rubbish under a kid nobody knows does not make us ask for the keys each time', async () => {
    await visit(byLink)
    const asked = forger.keysAsked
    forger.forge = { header: { kid: 'k9' } }
    await visit(byLink)
    await visit(byLink)
    expect(forger.keysAsked - asked).toBeLessThanOrEqual(1)
  })
})

describe('a second factor of the company is as fresh as the company says', () => {
  const second = (): number => Math.floor(Date.now() / 1000)
  test('it is asked when: max_age, as long as a login may last', async () => {
    await visit(byLink)
    expect(forger.asked.get('max_age')).toBe('28800')
    expect(forger.asked.get('prompt')).toBeNull()
  })
  test('a silent redirect (no auth_time) is a second factor of nobody knows when, not of now', async () => {
    forger.forge = { claims: { amr: ['hwk'] } }
    const { credentials } = await signIn(byLink)
    expect(await subjectOf(credentials)).toMatchObject({ authn: { methods: ['federated'], at: 0 } })
  })
  test('with auth_time: of then, not of now', async () => {
    const at = second() - 1800
    forger.forge = { claims: { amr: ['hwk'], auth_time: at } }
    const { credentials } = await signIn(byLink)
    expect(await subjectOf(credentials)).toMatchObject({
      authn: { methods: ['federated', 'webauthn'], at },
    })
  })
  test('methods and times that are only fetched (userinfo) are not signed, and do not count', async () => {
    forger.forge = { claims: { email: undefined, email_verified: undefined } }
    forger.userinfo = {
      sub: 'mallory',
      email: 'mallory@forger.example',
      email_verified: true,
      amr: ['hwk'],
      auth_time: second(),
    }
    const { credentials } = await signIn(byLink)
    expect(await subjectOf(credentials)).toMatchObject({ authn: { methods: ['federated'], at: 0 } })
  })
  test('`login --again` asks the person now, and an answer of before is refused', async () => {
    forger.forge = { claims: { amr: ['hwk'], auth_time: second() - 300 } }
    const before = await signIn(byLink, browser, true)
    expect(forger.asked.get('max_age')).toBe('0')
    expect(forger.asked.get('prompt')).toBe('login')
    expect(before.page.text).toContain('<code>idp.token</code>')
    expect(house.events.at(-1)).toMatchObject({ reason: 'idp.token', detail: 'auth_time' })
    forger.forge = { claims: { amr: ['hwk'], auth_time: second() } }
    const { credentials } = await signIn(byLink, newBrowser(), true)
    expect(await subjectOf(credentials)).toMatchObject({
      authn: { methods: ['federated', 'webauthn'] },
    })
  })
  test('an OpenID provider of another make says when, and asks again where it must', async () => {
    const { credentials } = await signIn(byAddress('wanda@acme.example'), browser, true)
    const subject = await subjectOf(credentials)
    if ('refused' in subject) throw new Error(subject.code)
    expect(subject.authn.at).toBeGreaterThan(second() - 120)
  })
})

describe('the way there and back', () => {
  const bends: readonly (readonly [string, (answer: URLSearchParams) => void, string])[] = [
    ['names another issuer (RFC 9207)', (answer) => answer.set('iss', acme.issuer), 'idp.mixup'],
    ['names no issuer, where it says it would', (answer) => answer.delete('iss'), 'idp.mixup'],
    ['with a state nobody gave', (answer) => answer.set('state', 'x'.repeat(43)), 'idp.state'],
    ['without a state', (answer) => answer.delete('state'), 'idp.state'],
    ['with two codes', (answer) => answer.append('code', 'b'), 'idp.state'],
    [
      'that says no',
      (answer) => (answer.delete('code'), answer.set('error', 'access_denied')),
      'idp.refused',
    ],
    [
      'that says no in the name of another',
      (answer) => (
        answer.delete('code'),
        answer.set('error', 'access_denied'),
        answer.set('iss', acme.issuer)
      ),
      'idp.mixup',
    ],
    [
      'that shouts',
      (answer) => (answer.delete('code'), answer.set('error', '<script>')),
      'idp.refused',
    ],
    ['with nothing', (answer) => answer.delete('code'), 'idp.token'],
  ]
  test.for(bends)('an answer %s', async ([, bend, code]) => {
    forger.bend = bend
    const page = await visit(byLink)
    expect(page.text).toContain(`<code>${code}</code>`)
    expect(page.text).not.toContain('<script>')
  })
  /** The answer of the forger as an address, not yet opened. */
  async function answerOf(at: Browser, page: Page): Promise<URL> {
    const left = await at.open(hrefOf(page, '/via/forger'))
    const back = await at.send(new URL(left.headers.get('location') ?? ''), { method: 'GET' })
    return new URL(back.headers.get('location') ?? '')
  }
  test('an answer taken to the address of another provider', async () => {
    const page = await visit(async (at, first) => {
      const answer = await answerOf(at, first)
      answer.pathname = answer.pathname.replace('/forger/', '/acme/')
      return at.open(answer)
    })
    expect(page.text).toContain('<code>idp.mixup</code>')
  })
  test('an answer opened in another browser: somebody sent a link', async () => {
    const page = await visit(async (at, first) => newBrowser().open(await answerOf(at, first)))
    expect(page.text).toContain('<code>idp.state</code>')
    expect(house.events.at(-1)).toMatchObject({ reason: 'idp.state', detail: 'browser' })
  })
  test('an answer used twice', async () => {
    const page = await visit(async (at, first) => {
      const answer = await answerOf(at, first)
      await at.open(answer)
      return at.open(answer)
    })
    expect(page.text).toContain('<code>idp.state</code>')
    expect(house.events.at(-1)).toMatchObject({ reason: 'idp.state', detail: 'used' })
  })
  test('an answer after ten minutes', async () => {
    const page = await visit(async (at, first) => {
      const answer = await answerOf(at, first)
      house.advance(10 * 60_000 + 1)
      return at.open(answer)
    })
    house.advance(-10 * 60_000 - 1)
    expect(page.text).toContain('<code>idp.state</code>')
  })
  test('a ticket of one sign-in does not end another', async () => {
    const other = newBrowser()
    let ticket: URL | undefined
    await visit(async (at, first) => {
      const answer = await answerOf(at, first)
      ticket = new URL(
        (await at.send(answer, { method: 'GET' })).headers.get('location') ?? '',
        answer,
      )
      return first
    })
    const page = await visit(async (at, first) => {
      const mine = new URL(first.forms[0]?.action ?? '')
      mine.pathname += '/returned'
      mine.search = ticket?.search ?? ''
      return at.open(mine)
    }, other)
    expect(page.text).toContain('<code>idp.state</code>')
  })
  test('a company that is not there', async () => {
    const page = await visit(async (at, first) => {
      const link = hrefOf(first, '/via/forger')
      link.pathname = link.pathname.replace('forger', 'nobody')
      return at.open(link)
    })
    expect(page.status).toBe(404)
    expect(page.text).toContain('<code>idp.unknown</code>')
  })
})

describe('who tries too often', () => {
  test('answers that nobody waits for fill no log, and lock nobody out', async () => {
    const stray = `${house.origin}/oidc/idp/forger/callback?state=x&code=y`
    for (let at = 0; at < 40; at++)
      expect((await browser.send(stray, { method: 'GET' })).status).toBe(403)
    const strays = house.events.length
    expect(strays).toBeGreaterThan(0)
    expect(strays).toBeLessThanOrEqual(30)
    expect((await visit(byLink)).title).toContain('You are signed in')
  })
  test('who tries addresses is slowed down', async () => {
    const page = await visit(async (at, first) => {
      let last = first
      for (let tried = 0; tried < 35 && last.status !== 429; tried++)
        last = await at.submit(first, 'Use my company’s sign-in', { email: `x@d${tried}.example` })
      return last
    })
    expect(page.status).toBe(429)
    expect(page.headers.get('retry-after')).not.toBeNull()
  })
  test('whoever sends rubbish without end is slowed down', async () => {
    let last = 0
    for (let at = 0; at < 80 && last !== 429; at++)
      last = (await sendToken('forger', 'a.b.c')).status
    expect(last).toBe(429)
  })
})
