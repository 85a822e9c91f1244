/** Invitations: a link that makes one guest, once, as the administrator said; and everybody who wants more of it. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { NewInvitation } from '../../../gateway/identity/invitations/invitation.ts'
import type { InvitationPlace } from '../../../gateway/identity/store.ts'
import { SqliteInvitationStore } from '../../../gateway/store/sqlite/invitations.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { softKey, type Bend } from '../../support/authenticator.ts'
import { openBrowser, type Browser, type Page } from '../../support/browser.ts'
import { challengeOf, guestWithPasskey, inviteGuest, openLink } from './guest.ts'
import { addVendor, openHouse, PASSWORD, signIn, SYSTEM, type House } from './house.ts'

let house: House
let browser: Browser
beforeAll(async () => {
  house = await openHouse()
})
afterAll(async () => house[Symbol.asyncDispose]())
beforeEach(async () => {
  // Links that open nothing are counted: each test begins with none.
  house.advance(11 * 60_000)
  house.events.length = 0
  house.failures.length = 0
  await browser?.[Symbol.asyncDispose]()
  browser = openBrowser(house.anchor)
})

let guests = 0
const freshEmail = (): string => `guest-${++guests}@acme.example`
const passwords = { password: PASSWORD, again: PASSWORD }
const choose = async (at: Browser, page: Page, fields: Readonly<Record<string, string>> = {}) =>
  at.submit(page, 'Set this password', { ...passwords, ...fields })
/** Who is signed in in this browser, by the page that would end it. */
const whoIs = async (at: Browser): Promise<string> =>
  (await at.open(`${house.origin}/oidc/sign-out`)).text
const codes = (): readonly string[] => house.events.map(({ code }) => code)
const accountOf = async (email: string) => house.identity.accounts.findByEmail(email)

describe('a guest comes in', () => {
  test('by a password: as invited, signed in here and in a program, each step in the log first', async () => {
    const email = freshEmail()
    const { secret, sub, id } = await inviteGuest(house, { email })
    const page = await openLink(house, browser, secret)
    expect([page.status, page.title]).toEqual([200, 'Welcome, Gil Guest - Sallyport'])
    for (const shown of [email, 'acme', 'press-service']) expect(page.text).toContain(shown)
    const last = await choose(browser, page)
    expect([last.status, last.title]).toEqual([200, 'You are in - Sallyport'])
    expect(await whoIs(browser)).toContain(email)
    expect(await accountOf(email)).toMatchObject({
      sub,
      party: 'vendor',
      vendor: 'acme',
      roles: ['vendor'],
      groups: ['press-service'],
      outside: null,
      disabled: false,
    })
    expect(house.events).toMatchObject([
      { code: 'invitation.create', by: 'system', email, groups: ['press-service'] },
      { code: 'account.create', by: `invitation:${id}`, email },
      { code: 'auth.login', outcome: 'success', methods: ['pwd'], email },
    ])
    await expect(signIn(house, email.split('@')[0])).resolves.toBeDefined()
  })
  test('by a passkey: the account has no password, and nobody who types one gets in', async () => {
    const email = freshEmail()
    const { sub } = await guestWithPasskey(house, email)
    expect(codes()).toEqual(['invitation.create', 'account.create', 'passkey.add', 'auth.login'])
    expect(house.events.at(-1)).toMatchObject({ methods: ['webauthn'], email })
    expect(await house.identity.passkeys.list(sub)).toMatchObject([{ name: 'from the invitation' }])
    expect(await house.identity.accounts.hasPassword(sub)).toBe(false)
    const typed = { email, password: '', source: '192.0.2.9', client: null }
    expect(await house.identity.accounts.login(typed)).toMatchObject({ code: 'login.failed' })
  })
  test('after a restart of the gateway', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    await house.restart()
    expect((await choose(browser, await openLink(house, browser, secret))).status).toBe(200)
    expect(await accountOf(email)).toBeDefined()
  })
  test('without an address: under one made of the name, which no mail reaches', async () => {
    const made = await inviteGuest(house, { name: 'José Núñez-Ruiz' })
    expect(made.email).toBe('jose.nunez.ruiz@guest.invalid')
    await expect(inviteGuest(house, { name: 'José Núñez-Ruiz' })).rejects.toMatchObject({
      code: 'account.exists',
    })
    const [one, other] = [
      await inviteGuest(house, { name: '张伟' }),
      await inviteGuest(house, { name: '张伟' }),
    ]
    for (const { email } of [one, other])
      expect(email).toMatch(/^guest-[0-9a-f]{6}@guest\.invalid$/)
    expect(one.email).not.toBe(other.email)
  })
  test('two passwords that differ, one that is weak: said on the page, and the link still stands', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    let page = await openLink(house, browser, secret)
    page = await choose(browser, page, { again: 'another' })
    expect([page.status, page.text.includes('differ')]).toEqual([400, true])
    page = await choose(browser, page, { password: 'aaaaaaaaaaaa', again: 'aaaaaaaaaaaa' })
    expect(page.text).toContain('<code>password.weak</code>')
    expect(await accountOf(email)).toBeUndefined()
    expect((await choose(browser, page)).status).toBe(200)
  })
})

describe('a link is good once, and only while it stands', () => {
  const refused = async (secret: string, code: string, status: number): Promise<void> => {
    await using other = openBrowser(house.anchor)
    const page = await openLink(house, other, secret)
    expect([page.status, page.text.includes(`<code>${code}</code>`)]).toEqual([status, true])
    expect(await whoIs(other)).toContain('Nobody is signed in')
  }
  test('used before: refused, and the account stays as the first one made it', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    await using other = openBrowser(house.anchor)
    const late = await openLink(house, other, secret)
    await choose(browser, await openLink(house, browser, secret))
    await refused(secret, 'invitation.used', 410)
    const more = { password: 'the words of a second guest', again: 'the words of a second guest' }
    const page = await choose(other, late, more)
    expect(page.text).toContain('<code>invitation.used</code>')
    expect(await whoIs(other)).toContain('Nobody is signed in')
    await expect(signIn(house, email.split('@')[0])).resolves.toBeDefined()
  })
  test('in many tabs at once: one comes in, and the log tells of one', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    const tabs = Array.from({ length: 5 }, () => openBrowser(house.anchor))
    const pages = await Promise.all(tabs.map(async (tab) => openLink(house, tab, secret)))
    const last = await Promise.all(tabs.map(async (tab, at) => choose(tab, pages[at] ?? pages[0]!)))
    expect(last.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      200, 410, 410, 410, 410,
    ])
    expect(codes().filter((code) => code === 'account.create')).toHaveLength(1)
    expect(await accountOf(email)).toBeDefined()
    await Promise.all(tabs.map(async (tab) => tab[Symbol.asyncDispose]()))
  })
  test('run out: to the second', async () => {
    const { secret, expiresAt } = await inviteGuest(house, {
      email: freshEmail(),
      standsSeconds: 600,
    })
    const page = await openLink(house, browser, secret)
    house.advance(expiresAt - house.now() + 1)
    await refused(secret, 'invitation.expired', 410)
    expect((await choose(browser, page)).text).toContain('<code>invitation.expired</code>')
  })
  test('withdrawn while the guest reads the page', async () => {
    const { secret, id, email } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    const { closed } = await house.identity.invitations.revoke(id, SYSTEM)
    expect(closed).toMatchObject({ how: 'revoked' })
    expect((await choose(browser, page)).text).toContain('<code>invitation.revoked</code>')
    expect(await accountOf(email)).toBeUndefined()
    expect(codes()).toEqual(['invitation.create', 'invitation.revoke'])
    await expect(house.identity.invitations.revoke(id, SYSTEM)).rejects.toMatchObject({
      code: 'invitation.revoked',
    })
  })
  test('used before it is withdrawn: that is said, and the account stays', async () => {
    const { secret, id } = await inviteGuest(house, { email: freshEmail() })
    await choose(browser, await openLink(house, browser, secret))
    await expect(house.identity.invitations.revoke(id, SYSTEM)).rejects.toMatchObject({
      code: 'invitation.used',
    })
  })
})

describe('who wants more than was said', () => {
  test('a guest who sends groups, roles, an address, a party: none of it counts', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    const more = { groups: 'all', roles: 'admin', party: 'staff', email: 'root@plant.example' }
    expect((await choose(browser, page, more)).status).toBe(200)
    expect(await accountOf('root@plant.example')).toBeUndefined()
    expect(await accountOf(email)).toMatchObject({
      party: 'vendor',
      roles: ['vendor'],
      groups: ['press-service'],
    })
  })
  test('an account of that name, made meanwhile, is not taken over', async () => {
    const email = freshEmail()
    const { secret } = await inviteGuest(house, { email })
    const page = await openLink(house, browser, secret)
    await addVendor(house, email.split('@')[0])
    const last = await choose(browser, page, {
      password: 'words of the guest',
      again: 'words of the guest',
    })
    expect([last.status, last.text.includes('<code>account.exists</code>')]).toEqual([409, true])
    expect(codes()).toEqual(['invitation.create', 'account.create'])
    expect(await whoIs(browser)).toContain('Nobody is signed in')
    await expect(signIn(house, email.split('@')[0])).resolves.toBeDefined()
  })
  test('a name that an account has, or another invitation that stands, whatever its letters', async () => {
    const email = freshEmail()
    const { id } = await inviteGuest(house, { email })
    const again = inviteGuest(house, { email: email.toUpperCase() })
    await expect(again).rejects.toMatchObject({ code: 'account.exists' })
    await house.identity.invitations.revoke(id, SYSTEM)
    await expect(inviteGuest(house, { email })).resolves.toBeDefined()
  })
  test('two who invite the same at once: one does', async () => {
    const email = freshEmail()
    const both = await Promise.allSettled([
      inviteGuest(house, { email }),
      inviteGuest(house, { email }),
    ])
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  })
  const rows: readonly (readonly [string, string, Partial<NewInvitation>])[] = [
    ['no name', 'account.name', { name: ' ' }],
    ['a name that turns the line round', 'account.name', { name: 'Gil \u202e lauriN' }],
    ['no company', 'account.vendor', { vendor: '' }],
    ['65 groups', 'account.groups', { groups: Array.from({ length: 65 }, (_, at) => `g${at}`) }],
    ['no address', 'account.email', { email: 'gil' }],
    ['nine minutes', 'invitation.expiry', { standsSeconds: 599 }],
    ['a month and a second', 'invitation.expiry', { standsSeconds: 2_592_001 }],
    ['half a second', 'invitation.expiry', { standsSeconds: 600.5 }],
  ]
  test.for(rows)('%s: %s, and nothing is kept or told', async ([, code, more]) => {
    const before = (await house.identity.invitations.list(500)).length
    const wrong = inviteGuest(house, { email: freshEmail(), ...more })
    await expect(wrong).rejects.toMatchObject({ code })
    expect(await house.identity.invitations.list(500)).toHaveLength(before)
    expect(house.events).toEqual([])
  })
  test('a browser in which somebody is signed in: they stay, and the link stands', async () => {
    const first = await inviteGuest(house, { email: freshEmail() })
    const second = await inviteGuest(house, { email: freshEmail() })
    await choose(browser, await openLink(house, browser, first.secret))
    const page = await openLink(house, browser, second.secret)
    expect([page.status, page.text.includes('<code>login.other</code>')]).toEqual([409, true])
    expect(await whoIs(browser)).toContain(first.email)
    await using other = openBrowser(house.anchor)
    expect((await openLink(house, other, second.secret)).status).toBe(200)
  })
  test('whoever is signed in signs out there, and is back at the invitation', async () => {
    const first = await inviteGuest(house, { email: freshEmail() })
    const second = await inviteGuest(house, { email: freshEmail() })
    await choose(browser, await openLink(house, browser, first.secret))
    const told = await openLink(house, browser, second.secret)
    const leave = 'Sign out and open the invitation'
    const forged = await browser.submit(told, leave, { csrf: 'x' })
    expect([forged.status, await whoIs(browser)]).toEqual([
      409,
      expect.stringContaining(first.email),
    ])
    const page = await browser.submit(told, leave)
    expect([page.status, page.text.includes(second.email)]).toEqual([200, true])
    expect(await whoIs(browser)).toContain('Nobody is signed in')
    await choose(browser, page)
    expect(await whoIs(browser)).toContain(second.email)
  })
  test('what is sent as a secret is text on the page that offers to sign out', async () => {
    const first = await inviteGuest(house, { email: freshEmail() })
    await choose(browser, await openLink(house, browser, first.secret))
    const page = await openLink(house, browser, '"><script>alert(1)</script>')
    expect([page.status, page.text.includes('<script>alert')]).toEqual([409, false])
    expect(page.text).toContain('value="&quot;&gt;&lt;script&gt;alert(1)')
  })
  test('a form of another site', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    const page = await browser.send(`${house.origin}/oidc/invitation`, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-www-form-urlencoded',
        origin: 'https://evil.example',
        'sec-fetch-site': 'cross-site',
      },
      body: new URLSearchParams({ do: 'password', secret, ...passwords }).toString(),
    })
    expect([page.status, page.text.includes('form.cross_site')]).toEqual([403, true])
    expect(await accountOf(email)).toBeUndefined()
  })
  test('a form that is none', async () => {
    for (const body of ['', 'do=steal', 'do=show&do=show', `do=show&secret=${'x'.repeat(9_000)}`]) {
      const page = await browser.send(`${house.origin}/oidc/invitation`, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body,
      })
      expect(page.status).toBe(400)
    }
  })
  test('who tries links is slowed down, and one that opens costs nothing', async () => {
    const { secret } = await inviteGuest(house, { email: freshEmail() })
    const { invitations } = house.identity
    for (let at = 0; at < 19; at++)
      await expect(invitations.show(`wrong-${at}`, '127.0.0.1')).rejects.toMatchObject({
        code: 'invitation.unknown',
      })
    for (let at = 0; at < 3; at++) expect((await openLink(house, browser, secret)).status).toBe(200)
    expect((await openLink(house, browser, 'wrong')).status).toBe(404)
    const page = await openLink(house, browser, secret)
    expect([page.status, page.text.includes('<code>invitation.limit</code>')]).toEqual([429, true])
    house.advance(10 * 60_000)
    expect((await openLink(house, browser, secret)).status).toBe(200)
  })
})

describe('the secret of the link', () => {
  test('is in no event, no file, no address; the page sends it to nobody', async () => {
    const { secret } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    expect(page.url.href).toBe(`${house.origin}/oidc/invitation`)
    expect(page.headers.get('referrer-policy')).toBe('same-origin')
    expect(page.headers.get('cache-control')).toBe('no-store')
    expect(page.headers.get('content-security-policy')).toContain("form-action 'self'")
    const last = await choose(browser, page)
    expect(last.text).not.toContain(secret)
    expect(JSON.stringify([house.events, house.failures])).not.toContain(secret)
    for (const file of ['store.sqlite', 'store.sqlite-wal']) {
      const bytes = await readFile(join(house.directory, file)).catch(() => Buffer.alloc(0))
      expect(bytes.includes(secret)).toBe(false)
      expect(bytes.includes(PASSWORD)).toBe(false)
    }
    expect(JSON.stringify(await house.identity.invitations.list(500))).not.toContain('hash')
  })
})

describe('without a log', () => {
  test('nobody is invited, nobody comes in, nothing is withdrawn', async () => {
    const { secret, id, email } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    house.breakLog(true)
    const code = 'log.unavailable'
    try {
      await expect(inviteGuest(house, { email: freshEmail() })).rejects.toMatchObject({ code })
      await expect(house.identity.invitations.revoke(id, SYSTEM)).rejects.toMatchObject({ code })
      const last = await choose(browser, page)
      expect([last.status, last.text.includes(code)]).toEqual([503, true])
    } finally {
      house.breakLog(false)
    }
    expect(await accountOf(email)).toBeUndefined()
    expect(await whoIs(browser)).toContain('Nobody is signed in')
    expect((await choose(browser, page)).status).toBe(200)
  })
})

describe('a passkey that is not good', () => {
  const give = async (page: Page, credential: object) =>
    browser.submit(page, 'Use a passkey', { credential: JSON.stringify(credential) })
  const bends: readonly (readonly [string, Bend])[] = [
    ['of another site', { origin: 'https://evil.example' }],
    ['for another relying party', { rpId: 'evil.example' }],
    ['to another question', { challenge: 'x'.repeat(43) }],
    ['without verification of the person', { flags: 0x41 }],
    ['that is an assertion', { type: 'webauthn.get' }],
  ]
  test.for(bends)('%s: refused, and the link still stands', async ([, bend]) => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    const next = await give(page, softKey(house.origin).register(challengeOf(page), bend))
    expect([next.status, next.text.includes('registration.invalid')]).toEqual([400, true])
    expect(await accountOf(email)).toBeUndefined()
    const last = await give(next, softKey(house.origin).register(challengeOf(next)))
    expect(last.status).toBe(200)
  })
  test('to the question of another invitation', async () => {
    const mine = await inviteGuest(house, { email: freshEmail() })
    const other = await inviteGuest(house, { email: freshEmail() })
    const [page, theirs] = [
      await openLink(house, browser, mine.secret),
      await openLink(house, browser, other.secret),
    ]
    const question = theirs.forms[0]?.fields['question'] ?? ''
    const credential = JSON.stringify(softKey(house.origin).register(challengeOf(theirs)))
    const next = await browser.submit(page, 'Use a passkey', { question, credential })
    expect(next.text).toContain('ceremony.unknown')
    expect(await accountOf(mine.email)).toBeUndefined()
  })
  test('that another account has', async () => {
    const { secret, email } = await inviteGuest(house, { email: freshEmail() })
    const { key } = await guestWithPasskey(house, freshEmail())
    const page = await openLink(house, browser, secret)
    house.events.length = 0
    const next = await give(page, key.register(challengeOf(page)))
    expect(next.text).toContain('passkey.exists')
    expect(house.events).toEqual([])
    expect(await accountOf(email)).toBeUndefined()
  })
  test.for(['', '{"id":7}', 'null'])('%j in its place', async (credential) => {
    const { secret } = await inviteGuest(house, { email: freshEmail() })
    const page = await openLink(house, browser, secret)
    const next = await browser.submit(page, 'Use a passkey', { credential })
    expect([next.status, next.text.includes('assertion.malformed')]).toEqual([400, true])
  })
})

test('all that stand are in the list, page by page, those of one instant too', async () => {
  const thread = await SqliteThread.open(join(house.directory, 'many.sqlite'))
  onTestFinished(async () => thread[Symbol.asyncDispose]())
  const store = new SqliteInvitationStore(thread)
  for (let at = 0; at < 60; at++) {
    const id = `i_${String(at).padStart(2, '0')}`
    // Ten at a time are of one millisecond.
    const times = { createdAt: Math.floor(at / 10), expiresAt: 10_000_000, closed: null }
    const who = {
      sub: id,
      email: `${id}@acme.example`,
      name: id,
      vendor: 'acme',
      groups: [],
      by: 'a',
    }
    await store.addInvitation({ id, hash: id, renews: false, ...who, ...times }, 1000)
  }
  const found: string[] = []
  for (let after: InvitationPlace | undefined; ;) {
    // Each page ends within an instant.
    const rows = await store.listInvitations(17, after)
    found.push(...rows.map(({ id }) => id))
    after = rows.at(-1)
    if (after === undefined) break
  }
  expect(found).toHaveLength(60)
  expect(found).toEqual(found.toSorted().toReversed())
})
