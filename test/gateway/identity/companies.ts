/** A gateway with two companies: a provider of another make, and one that forges whatever a test wants. */
import { afterAll, beforeAll, beforeEach } from 'vitest'
import { deviceLogin, type Credentials } from '../../../cli/login/index.ts'
import type { NewIdp } from '../../../gateway/identity/index.ts'
import { openBrowser, type Browser, type Page } from '../../support/browser.ts'
import { CLIENT, openCompany, openForger, type Company, type Forger } from './company.ts'
import { authenticate, makeProof, openHouse, SYSTEM, type House } from './house.ts'

export let house: House
export let acme: Company
export let forger: Forger
export let browser: Browser

export function entry(company: Company, more: Partial<NewIdp> = {}): NewIdp {
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
export function forgerEntry(more: Partial<NewIdp> = {}): NewIdp {
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

export function newBrowser(): Browser {
  return openBrowser([house.anchor, acme.anchor, forger.anchor].join('\n'))
}

/** Follows a page that leads to another site, and back. */
export async function follow(at: Browser, page: Page): Promise<Page> {
  let here = page
  for (let hops = 0; hops < 8 && here.headers.has('location'); hops++)
    here = await at.open(new URL(here.headers.get('location') ?? '', here.url))
  return here
}

export const hrefOf = ({ text, url }: Page, part: string): URL => {
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

export type Walk = (at: Browser, page: Page) => Promise<Page>

export const byAddress =
  (email: string): Walk =>
  async (at, page) => {
    const company = await at.submit(page, 'Use my company’s sign-in', { email })
    return follow(at, await at.open(hrefOf(company, '/via/')))
  }
export const byLink: Walk = async (at, page) =>
  follow(at, await at.open(hrefOf(page, '/via/forger')))

/** One device flow with `walk` on the pages; how it ended for the program, and the last page. */
export async function signIn(
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
export async function visit(walk: Walk, at: Browser = browser): Promise<Page> {
  const asked = await at.send(`${house.origin}/oidc/device/auth`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
    body: new URLSearchParams({ client_id: 'sallyport-cli', scope: 'openid' }).toString(),
  })
  const { verification_uri_complete: url } = JSON.parse(asked.text) as Record<string, string>
  return walk(at, await toSignIn(at, url ?? ''))
}

export async function subjectOf(credentials: Credentials | undefined) {
  if (credentials === undefined) throw new Error('nobody signed in')
  const proof = await makeProof(house, credentials)
  return authenticate(house, { authorization: `DPoP ${credentials.accessToken}`, dpop: proof })
}

export async function sendToken(id: string, token: string): Promise<Page> {
  return browser.send(`${house.origin}/oidc/idp/${id}/logout`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
    body: new URLSearchParams({ logout_token: token }).toString(),
  })
}

/** The subject of credentials as of the time they were made, whatever the clock says now. */
export async function subjectAt(credentials: Credentials) {
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

/** Opens all of them for a file, and gives each test a new browser, the same staff, and a forger that is honest. */
export function withCompanies(): void {
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
  beforeEach(async () => {
    await browser?.[Symbol.asyncDispose]()
    browser = newBrowser()
  })
}
