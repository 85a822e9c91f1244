/** Companies' own providers: there and back, what a bad answer brings, and the end of a login from outside. */
import { generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { authorizedFetch, deviceLogin, type Credentials } from '../../../cli/login/index.ts'
import type { NewIdp } from '../../../gateway/identity/index.ts'
import { openBrowser, type Browser, type Page } from '../../support/browser.ts'
import {
  CLIENT,
  openCompany,
  openForger,
  type Company,
  type Forger,
  type Forgery,
} from './company.ts'
import { authenticate, makeProof, openHouse, PASSWORD, SYSTEM, type House } from './house.ts'

let house: House
let acme: Company
let forger: Forger
let browser: Browser

beforeAll(async () => {
  house = await openHouse()
  acme = await openCompany(house, 'acme')
  forger = await openForger()
  await house.identity.idps.add(entry(acme), SYSTEM)
  await house.identity.idps.add(forgerEntry(), SYSTEM)
})
afterAll(async () => {
  await house[Symbol.asyncDispose]()
  await acme[Symbol.asyncDispose]()
  await forger[Symbol.asyncDispose]()
})
beforeEach(() => {
  house.events.length = 0
  house.failures.length = 0
  acme.staff.clear()
  acme.staff.set('u-1', {
    email: 'Wanda@acme.example',
    name: 'Wanda W',
    groups: ['press', 'board'],
  })
  acme.who = 'u-1'
  forger.forge = {}
  forger.bend = () => undefined
  forger.userinfo = null
})

function entry(company: Company, more: Partial<NewIdp> = {}): NewIdp {
  return {
    id: 'acme',
    name: 'Acme Robotics',
    issuer: company.issuer,
    clientId: CLIENT,
    secret: 'a secret of thirty-two characters',
    ca: company.anchor,
    vendor: 'acme',
    domains: ['acme.example'],
    groups: { press: 'press-service' },
    ...more,
  }
}
function forgerEntry(more: Partial<NewIdp> = {}): NewIdp {
  return {
    id: 'forger',
    name: 'Forger & Sons',
    issuer: forger.issuer,
    clientId: CLIENT,
    ca: forger.anchor,
    vendor: 'forger',
    domains: ['forger.example'],
    methods: { hwk: 'webauthn' },
    listed: true,
    ...more,
  }
}

function newBrowser(): Browser {
  return openBrowser([house.anchor, acme.anchor, forger.anchor].join('\n'))
}

/** Follows a page that leads to another site, and back. */
async function follow(at: Browser, page: Page): Promise<Page> {
  let here = page
  for (let hops = 0; hops < 8 && here.headers.has('location'); hops++)
    here = await at.open(new URL(here.headers.get('location') ?? '', here.url))
  return here
}

const hrefOf = ({ text, url }: Page, part: string): URL => {
  const [, href] = new RegExp(`href="([^"]*${part}[^"]*)"`).exec(text) ?? []
  if (href === undefined) throw new Error(`no link to ${part} on\n${text}`)
  return new URL(href.replaceAll('&amp;', '&'), url)
}

/** From the printed address to the page where one signs in. */
async function toSignIn(at: Browser, url: string): Promise<Page> {
  const code = await at.open(url)
  const compare = await at.submit(code, 'Continue')
  return at.submit(compare, 'Yes, the code matches')
}

type Walk = (at: Browser, page: Page) => Promise<Page>

const byAddress =
  (email: string): Walk =>
  async (at, page) => {
    const company = await at.submit(page, 'Use my company’s sign-in', { email })
    return follow(at, await at.open(hrefOf(company, '/via/')))
  }
const byLink: Walk = async (at, page) => follow(at, await at.open(hrefOf(page, '/via/forger')))

/** One device flow with `walk` on the pages; how it ended for the program, and the last page. */
async function signIn(
  walk: Walk,
  at: Browser = browser,
  again = false,
): Promise<{ page: Page; credentials: Credentials | undefined }> {
  let page: Promise<Page> | undefined
  const abort = new AbortController()
  const login = deviceLogin({
    gateway: house.origin,
    trust: { anchor: house.anchor },
    signal: abort.signal,
    again,
    onPrompt({ completeUrl }) {
      page = toSignIn(at, completeUrl)
        .then(async (first) => walk(at, first))
        .then((last) => {
          // The program would go on asking for ten minutes.
          if (!last.title.includes('You are signed in')) abort.abort()
          return last
        })
      page.catch(() => abort.abort())
    },
  })
  const [outcome] = await Promise.allSettled([login])
  if (page === undefined) throw new Error('no prompt', { cause: outcome })
  return {
    page: await page,
    credentials: outcome.status === 'fulfilled' ? outcome.value : undefined,
  }
}

/** The same without a program that waits: for what ends on a page. */
async function visit(walk: Walk, at: Browser = browser): Promise<Page> {
  const asked = await at.send(`${house.origin}/oidc/device/auth`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
    body: new URLSearchParams({ client_id: 'sallyport-cli', scope: 'openid' }).toString(),
  })
  const { verification_uri_complete: url } = JSON.parse(asked.text) as Record<string, string>
  return walk(at, await toSignIn(at, url ?? ''))
}

async function subjectOf(credentials: Credentials | undefined) {
  if (credentials === undefined) throw new Error('nobody signed in')
  const proof = await makeProof(house, credentials)
  return authenticate(house, { authorization: `DPoP ${credentials.accessToken}`, dpop: proof })
}

beforeEach(async () => {
  await browser?.[Symbol.asyncDispose]()
  browser = newBrowser()
})

async function sendToken(id: string, token: string): Promise<Page> {
  return browser.send(`${house.origin}/oidc/idp/${id}/logout`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
    body: new URLSearchParams({ logout_token: token }).toString(),
  })
}

describe('a vendor signs in with their company', () => {
  test('found by the address; company and groups as the owner entered them', async () => {
    const { page, credentials } = await signIn(byAddress('wanda@acme.example'))
    expect(page.title).toContain('You are signed in')
    expect(await subjectOf(credentials)).toMatchObject({
      issuer: house.identity.issuer,
      party: 'vendor',
      vendor: 'acme',
      email: 'wanda@acme.example',
      groups: ['press-service'],
      roles: ['vendor'],
      authn: { methods: ['federated'], acr: 'urn:sallyport:acr:federated' },
      claims: { idp: 'acme' },
    })
    expect(house.events).toMatchObject([
      { code: 'account.create', by: 'idp:acme', party: 'vendor', vendor: 'acme' },
      {
        code: 'auth.login',
        outcome: 'success',
        idp: 'acme',
        client: 'sallyport-cli',
        party: 'vendor',
      },
    ])
    expect(house.failures).toEqual([])
  })
  test('again: the same account, nothing written but the login', async () => {
    const first = await signIn(byAddress('wanda@acme.example'))
    house.events.length = 0
    const second = await signIn(byAddress('wanda@acme.example'), newBrowser())
    expect(second.credentials?.subject).toBe(first.credentials?.subject)
    expect(house.events.map(({ code }) => code)).toEqual(['auth.login'])
  })
  test('the same browser is sent to the company for each login', async () => {
    await visit(byAddress('wanda@acme.example'))
    acme.staff.set('u-2', { email: 'otto@acme.example' })
    const page = await visit(async (at, first) => {
      expect(first.title).toContain('Sign in')
      return byAddress('wanda@acme.example')(at, first)
    })
    expect(page.title).toContain('You are signed in')
  })
  test('claims cannot make a vendor staff, an administrator, or another company’s', async () => {
    forger.forge = {
      claims: {
        party: 'staff',
        vendor: 'acme',
        roles: ['admin'],
        groups: ['admin', 'press', '__proto__'],
      },
    }
    const { credentials } = await signIn(byLink)
    expect(await subjectOf(credentials)).toMatchObject({
      party: 'vendor',
      vendor: 'forger',
      roles: ['vendor'],
      groups: [],
    })
  })
  test('groups that the company takes away are gone with the next login, and whoever waits is told', async () => {
    await visit(byAddress('wanda@acme.example'))
    acme.staff.set('u-1', { email: 'wanda@acme.example', groups: [] })
    house.changes.length = 0
    const { credentials } = await signIn(byAddress('wanda@acme.example'), newBrowser())
    expect(await subjectOf(credentials)).toMatchObject({ groups: [] })
    expect(house.changes).toMatchObject([{ kind: 'changed', login: null }])
  })
  test('the page names no company that is not to be seen, and tells strangers only yes or no', async () => {
    const page = await visit(async (at, first) => {
      expect(first.text).toContain('Forger &amp; Sons')
      expect(first.text).not.toContain('Acme')
      return at.submit(first, 'Use my company’s sign-in', { email: 'x@nobody.example' })
    })
    expect(page.status).toBe(404)
    expect(page.text).toContain('No company signs in addresses like this one')
  })
})

interface JwkSet {
  readonly keys: readonly Readonly<Record<string, unknown>>[]
}

describe('the gateway proves who it is', () => {
  test('by its own signature (private_key_jwt), which the company checks against /oidc/jwks', async () => {
    const client = {
      client_secret: undefined,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks_uri: `${house.origin}/oidc/jwks`,
    } as const
    await using signs = await openCompany(house, 'signs', { client })
    signs.staff.set('u-9', { email: 'sigrid@signs.example' })
    signs.who = 'u-9'
    const more = { id: 'signs', secret: null, signs: true, domains: ['signs.example'] }
    await house.identity.idps.add(entry(signs, more), SYSTEM)
    await using at = openBrowser([house.anchor, signs.anchor].join('\n'))
    const { credentials } = await signIn(byAddress('sigrid@signs.example'), at)
    expect(await subjectOf(credentials)).toMatchObject({ email: 'sigrid@signs.example' })
    const [ours] = (JSON.parse((await at.open(`${house.origin}/oidc/jwks`)).text) as JwkSet).keys
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const another = { ...ours, ...publicKey.export({ format: 'jwk' }) }
    signs.enter({ jwks_uri: undefined, jwks: { keys: [another as never] } })
    const page = await visit(byAddress('sigrid@signs.example'), at)
    expect(page.text).toContain('<code>idp.exchange</code>')
    await house.identity.idps.remove('signs', SYSTEM)
  })
})

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

describe('one address, one person', () => {
  test('an address that an account of the gateway has is not taken over', async () => {
    await house.identity.accounts.create(
      {
        email: 'root@forger.example',
        name: 'Root',
        party: 'staff',
        roles: ['admin'],
        password: PASSWORD,
      },
      SYSTEM,
    )
    forger.forge = { claims: { sub: 'new', email: 'ROOT@forger.example' } }
    const page = await visit(byLink)
    expect(page.text).toContain('<code>idp.address</code>')
  })
  test('another person under the address of the first is not the first', async () => {
    forger.forge = { claims: { sub: 'first', email: 'shared@forger.example' } }
    await visit(byLink)
    forger.forge = { claims: { sub: 'second', email: 'shared@forger.example' } }
    expect((await visit(byLink, newBrowser())).text).toContain('<code>idp.address</code>')
  })
  test('no two providers share a domain, or are one client of one issuer', async () => {
    const more = { id: 'acme-2', clientId: 'other' }
    await expect(house.identity.idps.add(entry(acme, more), SYSTEM)).rejects.toMatchObject({
      code: 'idp.taken',
    })
    await expect(
      house.identity.idps.add(entry(acme, { id: 'acme-2', domains: ['other.example'] }), SYSTEM),
    ).rejects.toMatchObject({ code: 'idp.taken' })
  })
  test('who comes from a company cannot sign in by a password', async () => {
    await visit(byAddress('wanda@acme.example'))
    const page = await visit(
      async (at, first) =>
        at.submit(first, 'Sign in', { email: 'wanda@acme.example', password: '' }),
      newBrowser(),
    )
    expect(page.status).toBe(401)
  })
})

describe('keys and outages', () => {
  test('a company that changes its key goes on', async () => {
    await visit(byAddress('wanda@acme.example'))
    acme.rotate()
    house.advance(31_000)
    const page = await visit(byAddress('wanda@acme.example'), newBrowser())
    house.advance(-31_000)
    expect(page.title).toContain('You are signed in')
  })
  test('down: who is in stays in, who comes is told, and nobody is let in', async () => {
    const before = await signIn(byAddress('wanda@acme.example'))
    await acme.down(true)
    house.advance(11 * 60_000)
    expect(await subjectOf(before.credentials)).toMatchObject({ email: 'wanda@acme.example' })
    const page = await visit(async (at, first) => {
      const company = await at.submit(first, 'Use my company’s sign-in', {
        email: 'w@acme.example',
      })
      return at.open(hrefOf(company, '/via/'))
    }, newBrowser())
    await acme.down(false)
    house.advance(-11 * 60_000)
    expect(page.status).toBe(503)
    expect(page.text).toContain('<code>idp.unreachable</code>')
    expect((await signIn(byAddress('wanda@acme.example'), newBrowser())).credentials).toBeDefined()
  })
  test('a login from outside ends when its company lets it last no longer, in a program too', async () => {
    const { credentials } = await signIn(byAddress('wanda@acme.example'))
    if (credentials === undefined) throw new Error('nobody signed in')
    house.advance(8 * 3_600_000 + 1_000)
    const expired = await house.identity.current(
      house.identity.loginOf(await subjectAt(credentials)),
      house.now(),
    )
    house.advance(-8 * 3_600_000 - 1_000)
    expect(expired).toMatchObject({ refused: true })
  })
})

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

describe('what the owner does', () => {
  test('switched off: its people are cut and cannot come back; switched on: they can', async () => {
    const { credentials } = await signIn(byAddress('wanda@acme.example'))
    await house.identity.idps.enable('acme', false, SYSTEM)
    expect(await subjectOf(credentials)).toMatchObject({ code: 'account.disabled' })
    const refused = await visit(
      async (at, first) =>
        at.submit(first, 'Use my company’s sign-in', { email: 'w@acme.example' }),
      newBrowser(),
    )
    expect(refused.status).toBe(404)
    await house.identity.idps.enable('acme', true, SYSTEM)
    expect((await signIn(byAddress('wanda@acme.example'), newBrowser())).credentials).toBeDefined()
  })
  test('switched off while somebody is on the way: they do not arrive', async () => {
    const page = await visit(async (at, first) => {
      const company = await at.submit(first, 'Use my company’s sign-in', {
        email: 'w@acme.example',
      })
      const left = await at.open(hrefOf(company, '/via/'))
      await house.identity.idps.enable('acme', false, SYSTEM)
      return follow(at, left)
    })
    await house.identity.idps.enable('acme', true, SYSTEM)
    expect(page.text).toContain('<code>idp.unknown</code>')
  })
  test('removed: people are disabled for good, and their addresses are free', async () => {
    const first = await signIn(byAddress('wanda@acme.example'))
    expect(await house.identity.idps.remove('acme', SYSTEM)).toBe(1)
    expect(await subjectOf(first.credentials)).toMatchObject({ code: 'account.disabled' })
    await house.identity.idps.add(entry(acme), SYSTEM)
    const second = await signIn(byAddress('wanda@acme.example'), newBrowser())
    expect(second.credentials?.subject).not.toBe(first.credentials?.subject)
  })
  test('the secret is in no file, in no event, in no answer', async () => {
    const secret = 'a secret of thirty-two characters'
    const { readFile, readdir } = await import('node:fs/promises')
    for (const name of await readdir(house.directory)) {
      if (!name.startsWith('store.')) continue
      expect((await readFile(`${house.directory}/${name}`)).includes(secret)).toBe(false)
    }
    expect(JSON.stringify(await house.identity.idps.list())).not.toContain(secret)
  })
  const bad: readonly (readonly [string, Partial<NewIdp>])[] = [
    ['an http issuer', { issuer: 'http://127.0.0.1:1' }],
    ['an issuer with a query', { issuer: 'https://idp.example/?a=b' }],
    ['an id with a slash', { id: 'a/b' }],
    ['no domain', { domains: [] }],
    ['a wildcard for a domain', { domains: ['*'] }],
    ['a top domain', { domains: ['example'] }],
    ['roles for a vendor', { roles: { boss: 'admin' } }],
    ['a role that is none', { vendor: null, roles: { boss: 'root' } }],
    ['a method that is none', { methods: { hwk: 'magic' } }],
    ['a root that is none', { ca: 'x' }],
    ['a secret and a signature', { signs: true }],
    ['a login of a year', { loginSeconds: 31_536_000 }],
  ]
  test.for(bad)('%s cannot be entered', async ([, more]) => {
    await expect(
      house.identity.idps.add(
        entry(acme, { id: 'bad', domains: ['bad.example'], ...more }),
        SYSTEM,
      ),
    ).rejects.toMatchObject({ code: 'idp.entry' })
  })
  test('one that does not answer, or is another, cannot be entered', async () => {
    const more = { id: 'bad', domains: ['bad.example'] }
    const idps = house.identity.idps
    await expect(
      idps.add(entry(acme, { ...more, issuer: 'https://127.0.0.1:1' }), SYSTEM),
    ).rejects.toMatchObject({ code: 'idp.unreachable' })
    await expect(
      idps.add(entry(acme, { ...more, ca: forger.anchor }), SYSTEM),
    ).rejects.toMatchObject({ code: 'idp.unreachable' })
    forger.metadata = { issuer: 'https://another.example' }
    await expect(idps.add(forgerEntry(more), SYSTEM)).rejects.toMatchObject({
      code: 'idp.discovery',
    })
    forger.metadata = { jwks_uri: 'http://plain.example/keys' }
    await expect(idps.add(forgerEntry(more), SYSTEM)).rejects.toMatchObject({
      code: 'idp.discovery',
    })
    forger.metadata = {}
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

/** The subject of credentials as of the time they were made, whatever the clock says now. */
async function subjectAt(credentials: Credentials) {
  const made = credentials.expiresAt - 3_600_000
  const proof = await makeProof(house, credentials, { claims: { iat: Math.floor(made / 1000) } })
  const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop: proof }
  const answer = await house.identity.authenticate(
    { method: 'GET', url: '/api/v1/me', headers },
    made,
  )
  if ('refused' in answer) throw new Error(answer.code)
  return answer
}
