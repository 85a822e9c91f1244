/** Signing in where there is a passkey: the password is half of it, and the other half is this sign-in's own. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Credentials } from '../../../cli/login/index.ts'
import type { BrowserAnswer } from '../../../gateway/identity/index.ts'
import { softKey, type SoftKey } from '../../support/authenticator.ts'
import {
  approveDevice,
  decode,
  openBrowser,
  type Browser,
  type Page,
} from '../../support/browser.ts'
import { waitingLogin } from '../../support/login.ts'
import {
  addVendor,
  authenticate,
  makeProof,
  openHouse,
  PASSWORD,
  signIn,
  type House,
} from '../identity/house.ts'

let house: House
let key: SoftKey
let email: string

beforeAll(async () => {
  house = await openHouse()
  await addVendor(house)
  email = 'vera@acme.example'
  const { identity } = house
  const credentials = await signIn(house)
  const subject = await authenticate(house, await headersOf(credentials))
  if ('code' in subject) throw new Error(subject.code)
  const asked = await identity.passkeys.register(subject, identity.loginOf(subject), 'key')
  key = softKey(house.origin)
  const { challenge } = asked.options as { challenge: string }
  const registered = key.register(challenge) as BrowserAnswer
  await identity.passkeys.answer(asked.secret, ['register'], registered, null)
})
afterAll(async () => house[Symbol.asyncDispose]())

const headersOf = async (credentials: Credentials) => ({
  authorization: `DPoP ${credentials.accessToken}`,
  dpop: await makeProof(house, credentials),
})

/** A sign-in up to the question for the passkey. */
async function begun(browser: Browser) {
  const { url, login } = await waitingLogin(house)
  return { page: await approveDevice(browser, { url, email, password: PASSWORD }), login }
}
/** Whoever has the browser is nobody there, whatever its pages said. */
async function nobody(browser: Browser): Promise<void> {
  const page = await browser.open(`${house.origin}/oidc/sign-out`)
  expect(page.text).toContain('Nobody is signed in')
}
function challengeOf({ text }: Page): string {
  const options = JSON.parse(decode(/data-options="([^"]*)"/.exec(text)?.[1] ?? '')) as {
    challenge: string
  }
  return options.challenge
}
const give = async (browser: Browser, page: Page, fields: Readonly<Record<string, string>>) =>
  browser.submit(page, 'Use my passkey', fields)

test('the password alone signs nobody in', async () => {
  await using browser = openBrowser(house.anchor)
  house.events.length = 0
  const { page } = await begun(browser)
  // Nor does the log say so.
  expect(house.events).toMatchObject([
    { code: 'auth.login', outcome: 'failure', reason: 'second_factor', methods: ['pwd'] },
  ])
  expect([page.status, page.title]).toEqual([200, 'Confirm with your passkey - Sallyport'])
  expect(page.headers.get('content-security-policy')).toContain("script-src 'self'")
  await nobody(browser)
})

test('with the passkey: both methods are in the token, and the proof is of now', async () => {
  await using browser = openBrowser(house.anchor)
  const { page, login } = await begun(browser)
  const credential = JSON.stringify(key.answer(challengeOf(page)))
  house.events.length = 0
  expect((await give(browser, page, { credential })).title).toContain('You are signed in')
  expect(house.events).toMatchObject([
    { code: 'auth.stepup', outcome: 'success', purpose: 'sign_in' },
    { code: 'auth.login', outcome: 'success', methods: ['pwd', 'webauthn'], reason: null },
  ])
  const credentials: Credentials = await login
  expect(await authenticate(house, await headersOf(credentials))).toMatchObject({
    authn: { methods: ['pwd', 'webauthn'], acr: 'urn:sallyport:acr:passkey' },
  })
})

test.for([
  ['nothing', () => ''],
  ['what is no credential', () => '{"id":7}'],
  [
    'another’s passkey',
    (challenge: string) => JSON.stringify(softKey(house.origin).answer(challenge)),
  ],
  [
    'without verification',
    (challenge: string) => JSON.stringify(key.answer(challenge, { flags: 1 })),
  ],
  [
    'of another site',
    (challenge: string) =>
      JSON.stringify(key.answer(challenge, { origin: 'https://evil.example' })),
  ],
] as const)('with %s: asked again from the start', async ([, make]) => {
  await using browser = openBrowser(house.anchor)
  const { page } = await begun(browser)
  const next = await give(browser, page, { credential: make(challengeOf(page)) })
  expect([next.status, next.title]).toEqual([401, 'Sign in - Sallyport'])
  await nobody(browser)
})

test('with the answer to another sign-in’s question of the same person', async () => {
  await using one = openBrowser(house.anchor)
  await using two = openBrowser(house.anchor)
  const [first, second] = [await begun(one), await begun(two)]
  const secret = second.page.forms[0]?.fields['secret'] ?? ''
  const credential = JSON.stringify(key.answer(challengeOf(second.page)))
  const next = await give(one, first.page, { secret, credential })
  expect([next.status, next.title]).toEqual([403, 'This form is out of date - Sallyport'])
  await nobody(one)
})

test('without a log nobody gets in by it', async () => {
  await using browser = openBrowser(house.anchor)
  const { page } = await begun(browser)
  const credential = JSON.stringify(key.answer(challengeOf(page)))
  house.breakLog(true)
  const next = await give(browser, page, { credential })
  house.breakLog(false)
  expect(next.status).toBe(503)
  await nobody(browser)
})
