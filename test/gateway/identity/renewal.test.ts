/** A new way into an account that is there: by a link, once; what opened it before opens nothing any more. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteInvitationStore } from '../../../gateway/store/sqlite/invitations.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { softKey } from '../../support/authenticator.ts'
import { openBrowser, type Browser, type Page } from '../../support/browser.ts'
import { challengeOf, guestWithPasskey, openLink } from './guest.ts'
import {
  addVendor,
  authenticate,
  makeProof,
  openHouse,
  PASSWORD,
  signIn,
  SYSTEM,
  type House,
} from './house.ts'

let house: House
let browser: Browser
beforeAll(async () => {
  house = await openHouse()
})
afterAll(async () => house[Symbol.asyncDispose]())
beforeEach(async () => {
  await browser?.[Symbol.asyncDispose]()
  browser = openBrowser(house.anchor)
  house.events.length = 0
})

let people = 0
const NEW = 'other words than before'
const freshName = (): string => `owner-${++people}`
const renew = async (sub: string, seconds?: number) =>
  house.identity.invitations.renew(sub, seconds, SYSTEM)
const choose = async (page: Page, at: Browser = browser) =>
  at.submit(page, 'Set this password', { password: NEW, again: NEW })
const opens = async (name: string, password: string) =>
  house.identity.accounts.login({
    email: `${name}@acme.example`,
    password,
    source: '192.0.2.9',
    client: null,
  })
const codes = (): readonly string[] => house.events.map(({ code }) => code)

test('by a password: the old one and every login end, each step in the log first, and the account is as it was', async () => {
  const name = freshName()
  const sub = await addVendor(house, name)
  const before = await signIn(house, name)
  house.events.length = 0
  const { secret, invitation } = await renew(sub)
  expect(invitation).toMatchObject({ renews: true, sub, vendor: 'acme' })
  const page = await openLink(house, browser, secret)
  expect(page.title).toBe('A new way in for Vera Vendor - Sallyport')
  expect((await choose(page)).title).toBe('You are in - Sallyport')
  expect(codes()).toEqual(['invitation.create', 'account.change', 'auth.logout', 'auth.login'])
  expect(house.events[1]).toMatchObject({
    by: `invitation:${invitation.id}`,
    changes: { password: 'changed' },
  })
  expect(await opens(name, PASSWORD)).toMatchObject({ code: 'login.failed' })
  expect(await opens(name, NEW)).toMatchObject({ ok: true })
  const headers = {
    authorization: `DPoP ${before.accessToken}`,
    dpop: await makeProof(house, before),
  }
  expect(await authenticate(house, headers)).toMatchObject({ code: 'token.revoked' })
  expect(await house.identity.accounts.find(sub)).toMatchObject({
    roles: ['vendor'],
    groups: ['press-service'],
    person: sub,
  })
})

test('by a passkey: the password opens nothing, and the passkeys before it are gone', async () => {
  const name = freshName()
  const lost = await guestWithPasskey(house, `${name}@acme.example`)
  const { secret } = await renew(lost.sub)
  const page = await openLink(house, browser, secret)
  const key = softKey(house.origin)
  const credential = JSON.stringify(key.register(challengeOf(page)))
  expect((await browser.submit(page, 'Use a passkey', { credential })).status).toBe(200)
  expect((await house.identity.passkeys.list(lost.sub)).map(({ id }) => id)).toEqual([key.id])
  expect(await house.identity.accounts.hasPassword(lost.sub)).toBe(false)
})

test('from a passkey to a password: the lost passkey opens nothing and asks for nothing', async () => {
  const name = freshName()
  const { sub } = await guestWithPasskey(house, `${name}@acme.example`)
  const { secret } = await renew(sub)
  await choose(await openLink(house, browser, secret))
  expect(await house.identity.passkeys.list(sub)).toEqual([])
  await expect(signInWith(name)).resolves.toMatchObject({
    ok: true,
    more: { passkey: false, code: false },
  })
})
const signInWith = async (name: string) =>
  house.identity.accounts.login({
    email: `${name}@acme.example`,
    password: NEW,
    source: '192.0.2.8',
    client: null,
    asksMore: async ({ sub }) => ({
      passkey: (await house.identity.passkeys.list(sub)).length > 0,
      code: false,
    }),
  })

test('staff too: roles stay, and no link makes any', async () => {
  const facts = { name: 'Olga', party: 'staff', roles: ['operator'], password: PASSWORD } as const
  const made = await house.identity.accounts.create(
    { ...facts, email: 'olga@plant.example' },
    SYSTEM,
  )
  const { secret } = await renew(made.sub)
  const page = await openLink(house, browser, secret)
  expect(page.text).toContain('none: staff')
  await choose(page)
  const after = await house.identity.accounts.find(made.sub)
  expect(after).toEqual({ ...made, changedAt: after?.changedAt })
})

const ends: readonly (readonly [string, (sub: string) => Promise<unknown>])[] = [
  [
    'a new way in',
    async (sub) => choose(await openLink(house, browser, (await renew(sub)).secret)),
  ],
  ['a new password', async (sub) => house.identity.accounts.change(sub, { password: NEW }, SYSTEM)],
  ['the end of every login', async (sub) => house.identity.accounts.endLogins(sub, SYSTEM)],
]
test.for(ends)('whoever held back the last step of a sign-in is out too: %s', async ([, end]) => {
  const name = freshName()
  const sub = await addVendor(house, name)
  await using thief = openBrowser(house.anchor)
  const back = await heldBack(thief, name)
  await end(sub)
  const page = await thief.open(back)
  expect(page.status).toBe(400)
  expect(page.title).not.toContain('You are')
  expect((await thief.open(`${house.origin}/oidc/sign-out`)).text).toContain('Nobody is signed in')
})
/** Gives the old password; what comes back is the address that the gateway sends the browser on to, unopened. */
async function heldBack(thief: Browser, name: string): Promise<URL> {
  const headers = { 'content-type': 'application/x-www-form-urlencoded' }
  const asked = await thief.send(`${house.origin}/oidc/device/auth`, {
    method: 'POST',
    headers,
    body: new URLSearchParams({ client_id: 'sallyport-cli', scope: 'openid api' }).toString(),
  })
  const { verification_uri_complete: url } = JSON.parse(asked.text) as Record<string, string>
  const code = await thief.submit(await thief.open(url ?? ''), 'Continue')
  const page = await thief.submit(code, 'Yes, the code matches')
  const form = page.forms.find(({ fields }) => 'password' in fields)
  const fields = { ...form?.fields, email: `${name}@acme.example`, password: PASSWORD, do: 'login' }
  const answered = await thief.send(form?.action ?? page.url, {
    method: 'POST',
    headers: { ...headers, origin: house.origin, 'sec-fetch-site': 'same-origin' },
    body: new URLSearchParams(fields).toString(),
  })
  expect(answered.status).toBe(303)
  return new URL(answered.headers.get('location') ?? '', answered.url)
}

test('what the store keeps of it in one write: no login outlives the password it came by', async () => {
  await using thread = await SqliteThread.open(':memory:')
  const [store, oidc] = [new SqliteIdentityStore(thread), new SqliteOidcStore(thread)]
  const invitations = new SqliteInvitationStore(thread)
  const who = { sub: 's', email: 'v@acme.example', name: 'V', vendor: 'acme', groups: [] }
  const times = { createdAt: 1, changedAt: 1 }
  const more = { party: 'vendor', roles: ['vendor'], outside: null, person: 's' } as const
  await store.addAccount({ ...who, ...more, disabled: false, password: 'old', ...times })
  const payload = { accountId: 's' }
  await oidc.upsert({ model: 'Grant', id: 'g', payload, expiresAt: 99 })
  await oidc.extendLogin({ login: 'g', sub: 's', client: 'c', startedAt: 1, tokenUntil: 99 })
  const link = { id: 'i', hash: 'h', renews: true, by: 'x', createdAt: 2, expiresAt: 9 }
  await invitations.addInvitation({ ...who, ...link, closed: null }, 10)
  expect(await invitations.renewAccount('h', 'new', null, 9)).toBe('closed')
  expect(await oidc.findLogin('g', 3)).toBeDefined()
  expect(await invitations.renewAccount('h', 'new', null, 3)).toBe('renewed')
  expect([await oidc.findLogin('g', 3), await oidc.hasLogins('s')]).toEqual([undefined, false])
})

test('a newer link ends the older one', async () => {
  const sub = await addVendor(house, freshName())
  const [older, newer] = [await renew(sub), await renew(sub)]
  const page = await openLink(house, browser, older.secret)
  expect(page.text).toContain('<code>invitation.revoked</code>')
  expect((await choose(await openLink(house, browser, newer.secret))).status).toBe(200)
})

test('in two tabs at once: one way in', async () => {
  const name = freshName()
  const sub = await addVendor(house, name)
  const { secret } = await renew(sub)
  await using other = openBrowser(house.anchor)
  const pages = [await openLink(house, browser, secret), await openLink(house, other, secret)]
  const last = await Promise.all([
    choose(pages[0] ?? pages[1]!, browser),
    choose(pages[1] ?? pages[0]!, other),
  ])
  expect(last.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 410])
  expect(codes().filter((code) => code === 'account.change')).toHaveLength(1)
})

test('an account that is disabled meanwhile stays shut', async () => {
  const name = freshName()
  const sub = await addVendor(house, name)
  const { secret } = await renew(sub)
  const page = await openLink(house, browser, secret)
  await house.identity.accounts.change(sub, { disabled: true }, SYSTEM)
  const last = await choose(page)
  expect([last.status, last.text.includes('<code>account.disabled</code>')]).toEqual([403, true])
  await expect(renew(sub)).rejects.toMatchObject({ code: 'account.disabled' })
  await house.identity.accounts.change(sub, { disabled: false }, SYSTEM)
  expect(await opens(name, PASSWORD)).toMatchObject({ ok: true })
})

test('nobody’s account, and a time that is none', async () => {
  await expect(renew('0'.repeat(26))).rejects.toMatchObject({ code: 'account.unknown' })
  const sub = await addVendor(house, freshName())
  await expect(renew(sub, 1)).rejects.toMatchObject({ code: 'invitation.expiry' })
})

test('without a log nothing is renewed', async () => {
  const name = freshName()
  const sub = await addVendor(house, name)
  const { secret } = await renew(sub)
  const page = await openLink(house, browser, secret)
  house.breakLog(true)
  const last = await choose(page)
  house.breakLog(false)
  expect(last.status).toBe(503)
  expect(await opens(name, PASSWORD)).toMatchObject({ ok: true })
})
