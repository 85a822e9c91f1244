/** Signing in by a passkey and nothing else: for who has no password, and for nobody else. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { BrowserAnswer } from '../../../gateway/identity/index.ts'
import { softKey, type Bend, type SoftKey } from '../../support/authenticator.ts'
import { openBrowser, type Browser, type Page } from '../../support/browser.ts'
import { waitingLogin } from '../../support/login.ts'
import { challengeOf, guestWithPasskey } from '../identity/guest.ts'
import {
  addVendor,
  authenticate,
  makeProof,
  openHouse,
  signIn,
  SYSTEM,
  type House,
} from '../identity/house.ts'

let house: House
let browser: Browser
let gil: { readonly key: SoftKey; readonly sub: string; readonly email: string }
beforeAll(async () => {
  house = await openHouse()
  gil = await guestWithPasskey(house, 'gil@acme.example')
})
afterAll(async () => house[Symbol.asyncDispose]())
beforeEach(async () => {
  await browser?.[Symbol.asyncDispose]()
  browser = openBrowser(house.anchor)
  house.events.length = 0
})

/** A sign-in up to the question that is put to nobody in particular. */
async function asked(at: Browser = browser) {
  const { url, login } = await waitingLogin(house)
  const compare = await at.submit(await at.open(url), 'Continue')
  const first = await at.submit(compare, 'Yes, the code matches')
  return { page: await at.submit(first, 'Use a passkey alone'), login }
}
const give = async (page: Page, credential: object, at: Browser = browser) =>
  at.submit(page, 'Use my passkey', { credential: JSON.stringify(credential) })
const answerOf = (page: Page, bend: Bend = {}, { key, sub } = gil) =>
  key.answer(challengeOf(page), { userHandle: sub, ...bend })
async function nobody(at: Browser = browser): Promise<void> {
  expect((await at.open(`${house.origin}/oidc/sign-out`)).text).toContain('Nobody is signed in')
}

test('it is asked of whoever is there: the page names nobody, and no key', async () => {
  const { page } = await asked()
  expect([page.status, page.title]).toEqual([200, 'Sign in with your passkey - Sallyport'])
  expect(page.text).not.toContain('acme')
  expect(page.text).not.toContain('allowCredentials')
  expect(page.text).toContain('&quot;userVerification&quot;:&quot;required&quot;')
})

test('signed in: the passkey is the method, its time the proof’s, and policy counts it as a second factor', async () => {
  const { page, login } = await asked()
  house.events.length = 0
  expect((await give(page, answerOf(page))).title).toContain('You are signed in')
  expect(house.events).toMatchObject([
    { code: 'auth.login', outcome: 'success', methods: ['webauthn'], email: gil.email },
  ])
  const credentials = await login
  const dpop = await makeProof(house, credentials)
  const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop }
  const subject = await authenticate(house, headers)
  if ('refused' in subject) throw new Error(subject.code)
  expect(subject.authn).toMatchObject({
    methods: ['webauthn'],
    acr: 'urn:sallyport:acr:passkey',
  })
  expect(Math.abs(subject.authn.at - house.now() / 1000)).toBeLessThan(120)
})

const bends: readonly (readonly [string, Bend, string])[] = [
  ['without verification of the person', { flags: 1 }, 'assertion.verification'],
  ['of another site', { origin: 'https://evil.example' }, 'assertion.origin'],
  ['for another relying party', { rpId: 'evil.example' }, 'assertion.rp'],
  ['to another question', { challenge: 'x'.repeat(43) }, 'assertion.challenge'],
  ['with a counter that went back', { counter: 0 }, 'passkey.counter'],
  [
    'signed by another key',
    { key: softKey('https://a.example').privateKey },
    'assertion.signature',
  ],
  ['in the name of another', { userHandle: 'somebody' }, 'passkey.handle'],
]
test.for(bends)('%s: nobody is signed in, and the log says why', async ([, bend, detail]) => {
  const { page } = await asked()
  const next = await give(page, answerOf(page, bend))
  expect([next.status, next.title]).toEqual([401, 'Sign in - Sallyport'])
  expect(house.events).toMatchObject([
    { code: 'auth.login', outcome: 'failure', reason: 'passkey', detail, methods: [] },
  ])
  await nobody()
})
test('that names nobody: an authenticator which cannot say whose it is', async () => {
  const { page } = await asked()
  const next = await give(page, gil.key.answer(challengeOf(page)))
  expect(next.text).toContain('<code>passkey.handle</code>')
  await nobody()
})
test('of somebody who was never here', async () => {
  const { page } = await asked()
  const stranger = softKey(house.origin).answer(challengeOf(page), { userHandle: gil.sub })
  expect((await give(page, stranger)).text).toContain('<code>passkey.foreign</code>')
  expect(house.events).toMatchObject([{ subject: null, detail: 'passkey.foreign' }])
  await nobody()
})
test('an answer used twice, and one taken to another sign-in', async () => {
  await using other = openBrowser(house.anchor)
  const [{ page }, theirs] = [await asked(), await asked(other)]
  const credential = answerOf(theirs.page)
  const secret = theirs.page.forms[0]?.fields['secret'] ?? ''
  const moved = await browser.submit(page, 'Use my passkey', {
    secret,
    credential: JSON.stringify(credential),
  })
  expect(moved.text).toContain('<code>ceremony.unknown</code>')
  // The question is used up by it, whoever brought the answer.
  expect((await give(theirs.page, credential, other)).text).toContain('ceremony.unknown')
  await nobody()
  await nobody(other)
})

test('who has a password shows both: the passkey alone opens nothing', async () => {
  const sub = await addVendor(house)
  const credentials = await signIn(house)
  const headers = {
    authorization: `DPoP ${credentials.accessToken}`,
    dpop: await makeProof(house, credentials),
  }
  const subject = await authenticate(house, headers)
  if ('refused' in subject) throw new Error(subject.code)
  const { passkeys } = house.identity
  const question = await passkeys.register(subject, house.identity.loginOf(subject), 'key')
  const key = softKey(house.origin)
  const { challenge } = question.options as { challenge: string }
  const registered = key.register(challenge) as BrowserAnswer
  await passkeys.answer(question.secret, ['register'], registered, null)
  const { page } = await asked()
  const next = await give(page, answerOf(page, {}, { key, sub, email: '' }))
  expect(next.text).toContain('<code>passkey.second</code>')
  await nobody()
  // With a password there is another way in: the last passkey may go.
  const [held] = await passkeys.list(sub)
  await passkeys.remove(sub, held?.id ?? '', SYSTEM)
  expect(await passkeys.list(sub)).toEqual([])
})
test('a disabled account', async () => {
  const dora = await guestWithPasskey(house, 'dora@acme.example')
  await house.identity.accounts.change(dora.sub, { disabled: true }, SYSTEM)
  const { page } = await asked()
  const next = await give(page, answerOf(page, {}, dora))
  expect(next.text).toContain('<code>account.disabled</code>')
  await nobody()
})
test('without a log nobody gets in by it', async () => {
  const { page } = await asked()
  house.breakLog(true)
  const next = await give(page, answerOf(page))
  house.breakLog(false)
  expect(next.status).toBe(503)
  await nobody()
})
test('the last passkey of such an account is not removed by its owner; an administrator takes it', async () => {
  const { passkeys } = house.identity
  const [only] = await passkeys.list(gil.sub)
  const gone = passkeys.remove(gil.sub, only?.id ?? '', SYSTEM)
  await expect(gone).rejects.toMatchObject({ code: 'passkey.last', status: 409 })
  expect(house.events).toEqual([])
  await passkeys.reset(gil.sub, SYSTEM)
  expect(await passkeys.list(gil.sub)).toEqual([])
})
test('who asks without end is slowed down', async () => {
  const { page } = await asked()
  const attempt = { about: 'x', source: '127.0.0.1' }
  for (let at = 0; at < 60; at++)
    await house.identity.passkeys.askAnybody(attempt).catch(() => undefined)
  const back = await browser.open(page.forms[0]?.action ?? '')
  expect((await browser.submit(back, 'Use a passkey alone')).status).toBe(429)
  await expect(
    house.identity.passkeys.askAnybody({ ...attempt, source: '192.0.2.7' }),
  ).resolves.toBeDefined()
})
