/** People with an authenticator app, or about to have one, and what they do in a browser. */
import { afterAll, beforeAll, expect } from 'vitest'
import type { Credentials } from '../../../cli/login/index.ts'
import type { BrowserAnswer, Login, Subject } from '../../../gateway/identity/index.ts'
import { softKey } from '../../support/authenticator.ts'
import { approveDevice, openBrowser, type Browser, type Page } from '../../support/browser.ts'
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
import { readQr, type App } from './app.ts'

export let house: House
/** One house for the rows of a file. */
export function aHouse(): void {
  beforeAll(async () => void (house = await openHouse()))
  afterAll(async () => house[Symbol.asyncDispose]())
}

let people = 0
export const BUTTON = 'Use this code'

export interface Somebody {
  readonly name: string
  readonly email: string
  readonly sub: string
}
export async function somebody(): Promise<Somebody> {
  const name = `v${people++}`
  return { name, email: `${name}@acme.example`, sub: await addVendor(house, name) }
}

/** A new step, and its code: one that was not taken yet, whatever was before. */
export function fresh(app: App): string {
  house.advance(60_000)
  return app.code(house.now())
}

export async function subjectOf(
  credentials: Credentials,
): Promise<{ subject: Subject; login: Login }> {
  const proof = await makeProof(house, credentials)
  const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop: proof }
  const subject = await authenticate(house, headers)
  if ('refused' in subject) throw new Error(subject.code)
  return { subject, login: house.identity.loginOf(subject) }
}

export const enrol = async (credentials: Credentials, name = 'phone') => {
  const { subject, login } = await subjectOf(credentials)
  return house.identity.totps.enrol(subject, login, name)
}
/** The page behind an enrolment's link, as a browser without a script comes to it. */
export async function openLink(browser: Browser, secret: string): Promise<Page> {
  const page = await browser.open(`${house.origin}/oidc/totp`)
  return browser.submit(page, 'Go on', { secret })
}

/** A passkey asked for, and the answer that would add it. */
export async function passkeyFor(
  { subject, login }: { subject: Subject; login: Login },
  key = softKey(house.origin),
) {
  const { passkeys } = house.identity
  const asked = await passkeys.register(subject, login, 'key')
  const { challenge } = asked.options as { challenge: string }
  const answer = key.register(challenge) as BrowserAnswer
  return async () => passkeys.answer(asked.secret, ['register'], answer, null)
}

/** Somebody who has an app. */
export async function withApp(): Promise<Somebody & { readonly app: App }> {
  const who = await somebody()
  await using browser = openBrowser(house.anchor)
  const { secret } = await enrol(await signIn(house, who.name))
  const page = await openLink(browser, secret)
  const app = readQr(page)
  await browser.submit(page, BUTTON, { code: app.code(house.now()) })
  return { ...who, app }
}

/** A sign-in up to the page after the password. */
export async function begun(browser: Browser, { email }: Somebody) {
  const { url, login } = await waitingLogin(house)
  return { page: await approveDevice(browser, { url, email, password: PASSWORD }), login }
}
/** Signs in with a code of a new step; gives what the CLI would keep. */
export async function signInWith(who: Somebody & { readonly app: App }): Promise<Credentials> {
  await using browser = openBrowser(house.anchor)
  const { page, login } = await begun(browser, who)
  const last = await browser.submit(page, BUTTON, { code: fresh(who.app) })
  if (!isIn(last)) throw new Error(last.text)
  return login
}
/** Whoever has the browser is nobody there, whatever its pages said. */
export async function nobody(browser: Browser): Promise<void> {
  const page = await browser.open(`${house.origin}/oidc/sign-out`)
  expect(page.text).toContain('Nobody is signed in')
}
export const isIn = ({ title }: Page): boolean => title.includes('You are signed in')

/** A question for a code, and its answer from a source of its own. */
export async function guess(who: Somebody, code: string, source: string) {
  const { totps } = house.identity
  const secret = await totps.ask(who.sub, 'uid')
  return totps.check({ secret, about: 'uid', code, source, client: null })
}
export const password = async ({ email }: Somebody, source: string) =>
  house.identity.accounts.login({
    email,
    password: PASSWORD,
    source,
    client: null,
    asksMore: async () => ({ passkey: false, code: true }),
  })
