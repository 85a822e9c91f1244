/** Companies’ own providers: who comes in by them, as whom, and what the owner does. */
import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { type NewIdp } from '../../../gateway/identity/index.ts'
import { openBrowser } from '../../support/browser.ts'
import { openCompany } from './company.ts'
import { PASSWORD, SYSTEM } from './house.ts'
import {
  withCompanies,
  house,
  acme,
  forger,
  entry,
  forgerEntry,
  newBrowser,
  follow,
  hrefOf,
  byAddress,
  byLink,
  signIn,
  visit,
  subjectOf,
  subjectAt,
} from './companies.ts'

withCompanies()

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
  test('where another person is signed in: told, with the link that signs them out', async () => {
    await visit(byAddress('wanda@acme.example'))
    const page = await visit(byLink)
    expect([page.status, page.text.includes('login.other')]).toEqual([409, true])
    expect(hrefOf(page, '/sign-out').href).toBe(`${house.origin}/oidc/sign-out`)
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
