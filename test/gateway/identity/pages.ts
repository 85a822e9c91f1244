/** A provider with two clients of its own, and a fresh browser for each row: what its pages and endpoints are asked by. */
import { createHash, randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import type { ProviderClient } from '../../../gateway/identity/index.ts'
import { openBrowser, type Browser } from '../../support/browser.ts'
import { addVendor, openHouse, PASSWORD, type House } from './house.ts'

export const CONSOLE = 'test-console'
export const NATIVE = 'test-native'
export const EVIL = '"><img src=x onerror=alert(1)>\'&'
export const clients: readonly ProviderClient[] = [
  {
    id: CONSOLE,
    name: `Console ${EVIL}`,
    kind: 'web',
    redirectUris: ['https://localhost/callback'],
  },
  { id: NATIVE, name: 'Native', kind: 'native', redirectUris: ['http://127.0.0.1/callback'] },
]
/** Of the file that runs; the browser, of the row. */
export const here = {} as { house: House; browser: Browser }

export function freshBrowser(): void {
  beforeAll(async () => {
    here.house = await openHouse({ clients })
    await addVendor(here.house)
  })
  beforeEach(() => {
    here.browser = openBrowser(here.house.anchor)
  })
  afterEach(() => here.browser[Symbol.asyncDispose]())
  afterAll(() => here.house[Symbol.asyncDispose]())
}

export const at = (path: string): string => `${here.house.origin}/oidc${path}`
export const credentials = { email: 'vera@acme.example', password: PASSWORD }

export interface Started {
  readonly verifier: string
  readonly url: string
}
/** An authorization request with PKCE. */
export function start(
  client: string,
  over: Record<string, string> = {},
  { origin } = here.house,
): Started {
  const verifier = randomBytes(32).toString('base64url')
  const query = new URLSearchParams({
    client_id: client,
    response_type: 'code',
    scope: 'openid api',
    resource: `${origin}/api`,
    redirect_uri: client === CONSOLE ? 'https://localhost/callback' : 'http://127.0.0.1/callback',
    state: 's',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...over,
  })
  return { verifier, url: `${origin}/oidc/auth?${query.toString()}` }
}

/** The device endpoint's answer for the CLI, as JSON. */
export async function deviceCode(
  over: Record<string, string> = {},
): Promise<Record<string, string>> {
  const body = { client_id: 'sallyport-cli', scope: 'openid api', ...over }
  return post('/device/auth', body)
}
export async function post(
  path: string,
  body: Record<string, string>,
  headers = {},
): Promise<Record<string, string>> {
  const page = await here.browser.send(at(path), {
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      accept: 'application/json',
      ...headers,
    },
    body: new URLSearchParams(body).toString(),
  })
  return JSON.parse(page.text) as Record<string, string>
}
