/** Signing in from a terminal, from the first request to a call of the API: real HTTPS, real provider. */
import { X509Certificate } from 'node:crypto'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  authorizedFetch,
  credentialsDirectory,
  deviceLogin,
  listCredentials,
  loadCredentials,
  logout,
  removeCredentials,
  saveCredentials,
} from '../../../cli/login/index.ts'
import { VERSION } from '../../../cli/version.ts'
import { approveDevice, openBrowser, type Browser, type Page } from '../../support/browser.ts'
import {
  addVendor,
  authenticate,
  makeCertificates,
  makeProof,
  openHouse,
  PASSWORD,
  signIn,
  SYSTEM,
  type House,
} from './house.ts'

let house: House
let scratch: string
beforeAll(async () => {
  house = await openHouse()
  await addVendor(house)
  scratch = await mkdtemp(join(tmpdir(), 'sallyport-login-'))
})
afterAll(async () => {
  await house[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true })
})

/**
 * Starts a login whose prompt is handed to `act`; gives how both ended. `hopeless`: what is done there neither lets
 * the program in nor tells it so; it would wait for ten minutes.
 */
async function attempt(
  act: (url: string, browser: Browser, code: string) => Promise<Page>,
  { browser = openBrowser(house.anchor), hopeless = false } = {},
): Promise<{ login: PromiseSettledResult<unknown>; page: Page }> {
  let page: Promise<Page> | undefined
  const abort = new AbortController()
  const login = deviceLogin({
    gateway: house.origin,
    trust: { anchor: house.anchor },
    signal: abort.signal,
    onPrompt({ completeUrl, code }) {
      page = act(completeUrl, browser, code).finally(() => {
        // Long enough for the next question of the program.
        if (hopeless) setTimeout(() => abort.abort(), 800)
      })
    },
  })
  const [settled] = await Promise.allSettled([login])
  if (page === undefined) throw new Error('no prompt')
  return { login: settled, page: await page }
}

const email = 'vera@acme.example'
const approve = async (url: string, browser: Browser): Promise<Page> =>
  approveDevice(browser, { url, email, password: PASSWORD })

describe('device flow', () => {
  test('a vendor signs in and the API knows who they are', async () => {
    house.events.length = 0
    const credentials = await signIn(house)
    await using api = authorizedFetch(credentials)
    const response = await api('/api/v1/me?verbose=1')
    expect(await response.json()).toEqual({
      id: `${house.origin}/oidc|${credentials.subject}`,
      issuer: `${house.origin}/oidc`,
      kind: 'human',
      party: 'vendor',
      vendor: 'acme',
      email,
      groups: ['press-service'],
      roles: ['vendor'],
      token_exp: expect.any(Number) as number,
      authn: {
        methods: ['pwd'],
        acr: 'urn:sallyport:acr:password',
        at: expect.any(Number) as number,
      },
      claims: {},
      break_glass: null,
    })
    expect(house.events).toMatchObject([
      {
        code: 'auth.login',
        outcome: 'success',
        email,
        party: 'vendor',
        client: 'sallyport-cli',
        source: '127.0.0.1',
      },
    ])
    expect(house.failures).toEqual([])
  })

  test('the page that shows the code names the program that the person started, not a library of it', async () => {
    let shown = ''
    await attempt(async (url, browser) => {
      const code = await browser.open(url)
      const asked = await browser.submit(code, 'Continue')
      shown = asked.text
      return browser.submit(asked, 'No, refuse it')
    })
    expect(shown).toContain(`<dd>sallyport/${VERSION}</dd>`)
  })

  test('wrong password: no login, the page says so, the log says why', async () => {
    house.events.length = 0
    const { login, page } = await attempt(
      async (url, browser) =>
        approveDevice(browser, { url, email, password: 'not the password at all' }),
      { hopeless: true },
    )
    expect(page.status).toBe(401)
    expect(page.text).toContain('do not belong together')
    expect(login.status).toBe('rejected')
    expect(house.events).toMatchObject([{ outcome: 'failure', reason: 'password', email }])
    expect(JSON.stringify(house.events)).not.toContain('not the password')
  })

  test('an unknown and a disabled account get the same page as a wrong password', async () => {
    const sub = await addVendor(house, 'ida')
    await house.identity.accounts.change(sub, { disabled: true }, SYSTEM)
    const pages = await Promise.all(
      ['nobody', 'ida', 'vera'].map(async (name) => {
        const { page } = await attempt(
          async (url, browser) =>
            approveDevice(browser, {
              url,
              email: `${name}@acme.example`,
              password: name === 'ida' ? PASSWORD : 'wrong wrong wrong',
            }),
          { hopeless: true },
        )
        return page
      }),
    )
    const bare = pages.map(({ status, text }) => [
      status,
      text.replace(/value="[^"]*"|interaction\/[^"]*/g, ''),
    ])
    expect(bare[1]).toEqual(bare[0])
    expect(bare[2]).toEqual(bare[0])
  })

  test('the person refuses: the program is told', async () => {
    const { login, page } = await attempt(async (url, browser) =>
      browser.submit(await browser.submit(await browser.open(url), 'Continue'), 'No, refuse it'),
    )
    expect(page.text).toContain('The request was refused')
    expect(login).toMatchObject({ status: 'rejected', reason: { code: 'login.denied' } })
  })

  test('the person cancels at the password: the program is told', async () => {
    const { login } = await attempt(async (url, browser) => {
      const compare = await browser.submit(await browser.open(url), 'Continue')
      return browser.submit(await browser.submit(compare, 'Yes, the code matches'), 'Cancel')
    })
    expect(login).toMatchObject({ status: 'rejected', reason: { code: 'login.denied' } })
  })

  test('an unknown code is refused, a used one too', async () => {
    await using browser = openBrowser(house.anchor)
    const { page } = await attempt(
      async (url, own) => {
        const empty = await own.open(`${house.origin}/oidc/device`)
        const unknown = await own.submit(empty, 'Continue', { user_code: 'BBBB-BBBB' })
        expect(unknown.status).toBe(400)
        expect(unknown.text).toContain('There is no such code.')
        const none = await own.submit(unknown, 'Continue', { user_code: '' })
        expect(none.text).toContain('No code was given.')
        await approve(url, own)
        const again = await own.submit(await own.open(url), 'Continue')
        return again
      },
      { browser },
    )
    expect(page.text).toContain('This code was used already.')
  })

  test('a browser that is signed in asks whether to continue, and that is a login of its own', async () => {
    await using browser = openBrowser(house.anchor)
    const first = await attempt(approve, { browser })
    expect(first.page.title).toContain('You are signed in')
    house.events.length = 0
    const second = await attempt(
      async (url, own) => {
        const compare = await own.submit(await own.open(url), 'Continue')
        const consent = await own.submit(compare, 'Yes, the code matches')
        expect(consent.title).toBe('Let Sallyport CLI act as you? - Sallyport')
        expect(consent.text).toContain(email)
        return own.submit(consent, 'Continue')
      },
      { browser },
    )
    expect(second.page.title).toContain('You are signed in')
    expect(house.events).toMatchObject([
      { code: 'auth.login', outcome: 'success', methods: ['pwd'] },
    ])
    const logins = [first.login, second.login].map((login) => {
      if (login.status === 'rejected') throw login.reason
      const { accessToken } = login.value as { accessToken: string }
      const claims = Buffer.from(accessToken.split('.')[1]!, 'base64url').toString()
      return (JSON.parse(claims) as { login: string }).login
    })
    expect(new Set(logins).size).toBe(2)
  })

  test('no log, no login', async () => {
    house.breakLog(true)
    const { login, page } = await attempt(approve, { hopeless: true })
    house.breakLog(false)
    expect(page.status).toBe(503)
    expect(page.text).toContain('log.unavailable')
    expect(page.text).toMatch(/Id: <code>e_[0-9a-f]{16}<\/code>/)
    expect(login.status).toBe('rejected')
    expect(house.failures.splice(0)).toHaveLength(1)
  })
})

describe('trust', () => {
  test('a gateway with another root is not spoken to', async () => {
    const { anchor } = await makeCertificates()
    const login = deviceLogin({
      gateway: house.origin,
      trust: { anchor },
      onPrompt: () => undefined,
    })
    await expect(login).rejects.toMatchObject({ code: 'gateway.untrusted' })
  })
  test('the root may come from a file', async () => {
    const caFile = join(scratch, 'root.pem')
    await writeFile(caFile, house.anchor)
    const abort = new AbortController()
    const login = deviceLogin({
      gateway: house.origin,
      trust: { caFile },
      signal: abort.signal,
      onPrompt: () => abort.abort(),
    })
    await expect(login).rejects.toMatchObject({ code: 'login.interrupted' })
  })
  test('the root may be fetched once, if its SHA-256 is the pin', async () => {
    await using browser = openBrowser(house.anchor)
    const credentials = await deviceLogin({
      gateway: house.origin,
      trust: { pin: house.pin },
      onPrompt: ({ completeUrl: url }) =>
        void approveDevice(browser, { url, email, password: PASSWORD }),
    })
    expect(
      new X509Certificate(credentials.anchor).fingerprint256.replaceAll(':', '').toLowerCase(),
    ).toBe(house.pin)
    const wrong = deviceLogin({
      gateway: house.origin,
      trust: { pin: house.pin.replace(/^./, (digit) => (digit === '0' ? '1' : '0')) },
      onPrompt: () => undefined,
    })
    await expect(wrong).rejects.toMatchObject({ code: 'gateway.untrusted' })
  })
  test('a gateway that is not there', async () => {
    const trust = { anchor: house.anchor }
    const login = deviceLogin({ gateway: 'https://localhost:1', trust, onPrompt: () => undefined })
    await expect(login).rejects.toMatchObject({ code: 'gateway.unreachable' })
  })
  test('a login is never sent to another origin', async () => {
    await using api = authorizedFetch(await signIn(house))
    await expect(api('https://localhost:1/api/v1/me')).rejects.toMatchObject({
      code: 'login.elsewhere',
    })
    await expect(api('//localhost:1/x')).rejects.toMatchObject({ code: 'login.elsewhere' })
  })
})

describe('the first administrator', () => {
  test('the file is made 0600 at first start and is gone once it was used', async () => {
    await using fresh = await openHouse()
    const file = fresh.identity.bootstrapFile
    if (file === null) throw new Error('no bootstrap file')
    const token = await readFile(file, 'utf8')
    const account = { email: 'ada@plant.example', name: 'Ada', password: PASSWORD }
    await fresh.identity.accounts.redeemBootstrap(token, account, '127.0.0.1')
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' })
    await fresh.restart()
    expect(fresh.identity.bootstrapFile).toBeNull()
  })
})

describe('after the login', () => {
  test('the token is refreshed before it ends, and kept', async () => {
    const first = await signIn(house)
    const directory = join(scratch, 'refresh')
    await using api = authorizedFetch(
      { ...first, expiresAt: Date.now() + 1_000 },
      { onRefresh: async (fresh) => saveCredentials(directory, fresh) },
    )
    const [one, two] = await Promise.all([api('/api/v1/me'), api('/api/v1/me')])
    expect([one.status, two.status]).toEqual([200, 200])
    const kept = await loadCredentials(directory)
    expect(kept?.accessToken).not.toBe(first.accessToken)
    expect(kept).toEqual(api.credentials())
    const old = { authorization: `DPoP ${first.accessToken}`, dpop: await makeProof(house, first) }
    expect('refused' in (await authenticate(house, old))).toBe(false)
  })

  test('a refresh token is nothing without its key', async () => {
    const mine = await signIn(house)
    const other = await signIn(house)
    await using thief = authorizedFetch({ ...mine, key: other.key })
    await expect(thief.refresh()).rejects.toMatchObject({ code: 'login.expired' })
  })

  test('a clock that is wrong by minutes is noticed and made up for', async () => {
    const credentials = await signIn(house)
    await using api = authorizedFetch({ ...credentials, clockSkew: -400 })
    const response = await api('/api/v1/me')
    expect(response.status).toBe(200)
    expect(api.credentials().clockSkew).toBe(0)
  })

  test('logout ends the login at the gateway, and whoever holds its sessions is told', async () => {
    const credentials = await signIn(house)
    const directory = join(scratch, 'logout')
    await saveCredentials(directory, credentials)
    house.changes.length = 0
    house.events.length = 0
    await logout(directory, credentials)
    const headers = {
      authorization: `DPoP ${credentials.accessToken}`,
      dpop: await makeProof(house, credentials),
    }
    expect(await authenticate(house, headers)).toMatchObject({ code: 'token.revoked' })
    const subject = `${house.identity.issuer}|${credentials.subject}`
    expect(house.changes).toMatchObject([{ kind: 'logged_out', subject }])
    expect(house.events).toMatchObject([
      { code: 'auth.logout', reason: 'revoked', subject, party: 'vendor' },
    ])
    expect(await loadCredentials(directory)).toBeUndefined()
    await using api = authorizedFetch(credentials)
    await expect(api('/api/v1/me')).rejects.toMatchObject({ code: 'login.expired' })
  })

  test('a login that is revoked several times at once ends once', async () => {
    const credentials = await signIn(house)
    house.events.length = 0
    const times = Array.from({ length: 5 }, (_, n) => join(scratch, `at-once-${n}`))
    await Promise.allSettled(times.map(async (directory) => logout(directory, credentials)))
    expect(house.events.map(({ code }) => code)).toEqual(['auth.logout'])
  })

  test('signing out is possible while the log is gone; the failure is reported', async () => {
    const credentials = await signIn(house)
    house.breakLog(true)
    await logout(join(scratch, 'none'), credentials)
    house.breakLog(false)
    expect(house.failures.splice(0)).toHaveLength(1)
    const headers = {
      authorization: `DPoP ${credentials.accessToken}`,
      dpop: await makeProof(house, credentials),
    }
    expect(await authenticate(house, headers)).toMatchObject({ code: 'token.revoked' })
  })

  test('everything survives a restart: login, refresh, browser session', async () => {
    const credentials = await signIn(house)
    await using browser = openBrowser(house.anchor)
    await attempt(approve, { browser })
    await house.restart()
    await using api = authorizedFetch(credentials)
    expect((await api('/api/v1/me')).status).toBe(200)
    await api.refresh()
    expect((await api('/api/v1/me')).status).toBe(200)
    const page = await browser.open(`${house.origin}/oidc/sign-out`)
    expect(page.text).toContain(email)
  })

  test('a proof from before the restart is not taken again', async () => {
    const credentials = await signIn(house)
    const iat = Math.floor(house.now() / 1000) - 2
    const dpop = await makeProof(house, credentials, { claims: { iat } })
    await house.restart()
    const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop }
    expect(await authenticate(house, headers)).toMatchObject({ code: 'proof.time' })
  })
})

describe('credentials on disk', () => {
  test('0600 in a directory 0700, one file per gateway, the last one is the default', async () => {
    const directory = join(scratch, 'disk', 'credentials')
    const mine = await signIn(house)
    const other = { ...mine, gateway: 'https://gate.example' }
    await saveCredentials(directory, mine)
    await saveCredentials(directory, other)
    expect((await stat(directory)).mode & 0o777).toBe(0o700)
    expect((await stat(join(directory, 'gate.example_443.json'))).mode & 0o777).toBe(0o600)
    expect(await loadCredentials(directory)).toEqual(other)
    expect(await loadCredentials(directory, house.origin)).toEqual(mine)
    expect(await listCredentials(directory)).toEqual(['https://gate.example', house.origin])
    await removeCredentials(directory, 'https://gate.example')
    expect(await loadCredentials(directory)).toBeUndefined()
    expect(await loadCredentials(directory, house.origin)).toEqual(mine)
  })
  test('a file that others may read is refused, a damaged one too', async () => {
    const directory = join(scratch, 'bad')
    await saveCredentials(directory, await signIn(house))
    const name = (await readFile(join(directory, 'last'), 'utf8')).trim()
    await chmod(join(directory, name), 0o644)
    await expect(loadCredentials(directory)).rejects.toMatchObject({
      code: 'credentials.permissions',
    })
    await chmod(join(directory, name), 0o600)
    await writeFile(join(directory, name), '{"v":1}')
    await expect(loadCredentials(directory)).rejects.toMatchObject({
      code: 'credentials.malformed',
    })
  })
  test('where they are kept', () => {
    expect(credentialsDirectory({ SALLYPORT_HOME: '/x' })).toBe('/x/credentials')
    expect(credentialsDirectory({ XDG_CONFIG_HOME: '/y' })).toBe('/y/sallyport/credentials')
    expect(credentialsDirectory({ XDG_CONFIG_HOME: 'relative' })).toMatch(
      /\/\.config\/sallyport\/credentials$/,
    )
  })
})
