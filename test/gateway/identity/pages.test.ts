/** The provider’s pages as a hostile browser, a hostile site and a careful auditor see them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { escape } from '../../../gateway/identity/pages.ts'
import {
  approveDevice,
  decode,
  openBrowser,
  type Browser,
  type Page,
} from '../../support/browser.ts'
import { addVendor, openHouse, PASSWORD, type House } from './house.ts'
import {
  at,
  clients,
  CONSOLE,
  credentials,
  deviceCode,
  EVIL,
  freshBrowser,
  here,
  start,
} from './pages.ts'

freshBrowser()

describe('every page', () => {
  const rows: [string, number, () => Promise<Page>][] = [
    ['code entry', 200, async () => here.browser.open(at('/device'))],
    [
      'code entry, code filled in',
      200,
      async () => here.browser.open(at('/device?user_code=BCDF-GHJK')),
    ],
    [
      'comparison',
      200,
      async () => {
        const { user_code: code = '' } = await deviceCode()
        return here.browser.submit(await here.browser.open(at('/device')), 'Continue', {
          user_code: code,
        })
      },
    ],
    [
      'unknown code',
      400,
      async () =>
        here.browser.submit(await here.browser.open(at('/device')), 'Continue', {
          user_code: 'BBBB-BBBB',
        }),
    ],
    ['login', 200, async () => here.browser.open(start(CONSOLE).url)],
    [
      'login that failed',
      401,
      async () =>
        here.browser.submit(await here.browser.open(start(CONSOLE).url), 'Sign in', {
          email: 'x@y.z',
          password: 'x',
        }),
    ],
    [
      'consent',
      200,
      async () =>
        here.browser.submit(await here.browser.open(start(CONSOLE).url), 'Sign in', credentials),
    ],
    [
      'device success',
      200,
      async () => {
        const { verification_uri_complete: url = '' } = await deviceCode()
        return approveDevice(here.browser, { url, ...credentials })
      },
    ],
    [
      'sign-out, signed in',
      200,
      async () => {
        await here.browser.submit(
          await here.browser.open(start(CONSOLE).url),
          'Sign in',
          credentials,
        )
        return here.browser.open(at('/sign-out'))
      },
    ],
    ['sign-out, nobody', 200, async () => here.browser.open(at('/sign-out'))],
    ['provider error', 400, async () => here.browser.open(start('nobody').url)],
    ['unknown path', 404, async () => here.browser.open(at('/nothing/here'))],
    ['the root', 404, async () => here.browser.open(at(''))],
    ['a finished interaction', 400, async () => here.browser.open(at('/interaction/abc'))],
    [
      'a request for another host',
      421,
      async () => here.browser.open(at('/device').replace('localhost', '127.0.0.1')),
    ],
  ]
  test.for(rows)('%s: %i, strict headers, whole markup', async ([, status, get]) => {
    const page = await get()
    expect(page.status, page.text).toBe(status)
    const headers = Object.fromEntries(page.headers)
    expect(headers).toMatchObject({
      'content-security-policy':
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'same-origin',
      'cross-origin-opener-policy': 'same-origin',
      'cache-control': 'no-store',
      'content-type': 'text/html; charset=utf-8',
    })
    expect(page.title).toMatch(/ - Sallyport$/)
    expect(page.text).toMatch(/^<!doctype html>\s*<html lang="en">/)
    // What others wrote is escaped, so whatever looks like a tag is one of ours.
    const tags = [...page.text.matchAll(/<[^>]*>/g)].join('')
    expect(tags).not.toMatch(/<script|<img| style="| on[a-z]+=|javascript:|https?:/)
    // Each field a person fills in has a label; each page one heading.
    const fields = [...page.text.matchAll(/<input\s+id="([a-z_]+)"/g)].map(([, id]) => id)
    for (const id of fields) expect(page.text).toContain(`<label for="${id}">`)
    expect(page.text.match(/<h1>/g)).toHaveLength(1)
    for (const form of page.forms) expect(form.action.origin).toBe(here.house.origin)
    expect(here.house.failures).toEqual([])
  })

  test('the style is the only thing loaded, from ourselves', async () => {
    const page = await here.browser.open(at('/device'))
    expect([...page.text.matchAll(/<link[^>]*href="([^"]*)"/g)].map(([, href]) => href)).toEqual([
      '/oidc/style.css',
    ])
    const style = await here.browser.open(at('/style.css'))
    expect(style.headers.get('content-type')).toBe('text/css; charset=utf-8')
    expect(style.text).not.toMatch(/url\(|@import/)
  })
  test('an error for a program is JSON with the same facts', async () => {
    const page = await here.browser.send(at('/nothing'), {
      method: 'GET',
      headers: { accept: 'application/json' },
    })
    expect(JSON.parse(page.text)).toEqual({
      error: 'path.unknown',
      error_description: 'The address is not one of this gateway.',
      next_step: 'Check the address, or go back to the program you came from.',
      id: expect.stringMatching(/^e_[0-9a-f]{16}$/) as string,
    })
  })
})

describe('what others wrote is shown, never obeyed', () => {
  test('markup is escaped and reads as it was', () => {
    expect(escape(EVIL)).toBe('&quot;&gt;&lt;img src=x onerror=alert(1)&gt;&#39;&amp;')
    expect(decode(escape(EVIL))).toBe(EVIL)
  })
  test('in the name of a client', async () => {
    const login = await here.browser.open(start(CONSOLE).url)
    expect(login.text).not.toContain('<img')
    expect(login.text).toContain(escape(EVIL))
    const consent = await here.browser.submit(login, 'Sign in', credentials)
    expect(consent.title).toContain(EVIL)
    expect(consent.text).not.toContain('<img')
  })
  test('in the address that was typed, and in the hint of a client', async () => {
    const hinted = await here.browser.open(start(CONSOLE, { login_hint: EVIL }).url)
    expect(hinted.forms[0]?.fields['email']).toBe(EVIL)
    const again = await here.browser.submit(hinted, 'Sign in', { email: `a${EVIL}`, password: 'x' })
    expect(again.text).not.toContain('<img')
    expect(again.forms[0]?.fields['email']).toBe(`a${EVIL}`)
  })
  test('in the program that asks for a code', async () => {
    const page = await here.browser.send(at('/device/auth'), {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded', 'user-agent': EVIL },
      body: 'client_id=sallyport-cli&scope=api',
    })
    const { user_code: code = '' } = JSON.parse(page.text) as Record<string, string>
    const compare = await here.browser.submit(await here.browser.open(at('/device')), 'Continue', {
      user_code: code,
    })
    expect(compare.text).toContain(escape(EVIL))
    expect(compare.text).not.toContain('<img')
  })
  test('in the code, by link and by form', async () => {
    const linked = await here.browser.open(at(`/device?user_code=${encodeURIComponent(EVIL)}`))
    expect(linked.forms[0]?.fields['user_code']).toBe('')
    const typed = await here.browser.submit(linked, 'Continue', { user_code: EVIL })
    expect(typed.text).not.toContain('<img')
  })
  test('in an error of the provider', async () => {
    const page = await here.browser.open(start(EVIL).url)
    expect(page.text).not.toContain('<img')
    const scope = await here.browser.open(
      at(`/auth?client_id=${CONSOLE}&redirect_uri=${encodeURIComponent(`https://${EVIL}`)}`),
    )
    expect(scope.text).not.toContain('<img')
  })
})

describe('forms', () => {
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  const send = async (
    page: Page,
    headers: Record<string, string>,
    over: Record<string, string> = {},
  ): Promise<Page> => {
    const { action, fields } = page.forms[0]!
    const body = new URLSearchParams({ ...fields, ...credentials, do: 'login', ...over }).toString()
    return here.browser.send(action, { method: 'POST', headers: { ...form, ...headers }, body })
  }

  test('from another site are refused', async () => {
    const page = await here.browser.open(start(CONSOLE).url)
    for (const headers of [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: here.house.origin, 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
    ]) {
      const answer = await send(page, headers)
      expect([answer.status, answer.text.includes('form.cross_site')]).toEqual([403, true])
    }
    for (const path of ['/device', '/DEVICE/', '/sign-out', '/session/end/confirm']) {
      const answer = await here.browser.send(at(path), {
        method: 'POST',
        headers: { ...form, origin: 'https://evil.example' },
        body: '',
      })
      expect(answer.status).toBe(403)
    }
  })
  test("without our token, with another page's token, or twice are refused", async () => {
    const page = await here.browser.open(start(CONSOLE).url)
    const other = await here.browser.open(at('/sign-out'))
    expect(other.status).toBe(200)
    for (const csrf of ['', 'x', page.forms[0]!.fields['csrf']!.slice(1)]) {
      const answer = await send(page, {}, { csrf })
      expect(answer.status).toBe(403)
      expect(answer.text).toContain('form.stale')
    }
    const twice = await here.browser.send(page.forms[0]!.action, {
      method: 'POST',
      headers: form,
      body: `csrf=${page.forms[0]!.fields['csrf']}&do=login&do=abort`,
    })
    expect(twice.status).toBe(403)
  })
  test('of another browser are refused', async () => {
    const page = await here.browser.open(start(CONSOLE).url)
    await using stranger = openBrowser(here.house.anchor)
    const answer = await stranger.submit(page, 'Sign in', credentials)
    expect(answer.status).toBe(400)
    expect(answer.title).toContain('This sign-in has ended')
  })
  test('that answer a question nobody asked are refused', async () => {
    const page = await here.browser.open(start(CONSOLE).url)
    for (const act of ['consent', 'toString', '__proto__', '']) {
      const answer = await send(page, {}, { do: act })
      expect(answer.status).toBe(403)
    }
  })
  test('of 9 KiB, or of another type, are refused', async () => {
    const page = await here.browser.open(start(CONSOLE).url)
    const long = await send(page, {}, { password: 'x'.repeat(9_000) })
    expect(long.status).toBe(403)
    const json = await send(page, { 'content-type': 'application/json' })
    expect(json.status).toBe(403)
  })
  test('a code form without its token is refused', async () => {
    const { user_code: code = '' } = await deviceCode()
    await here.browser.open(at('/device'))
    const answer = await here.browser.send(at('/device'), {
      method: 'POST',
      headers: form,
      body: `user_code=${code}&confirm=yes`,
    })
    expect(answer.status).toBe(400)
    expect(answer.text).toContain('xsrf token invalid')
  })
  test('another person does not slip into an open session', async () => {
    await addVendor(here.house, 'otto')
    await here.browser.submit(await here.browser.open(start(CONSOLE).url), 'Sign in', credentials)
    const again = await here.browser.open(start(CONSOLE, { prompt: 'login' }).url)
    const other = await here.browser.submit(again, 'Sign in', {
      email: 'otto@acme.example',
      password: PASSWORD,
    })
    expect(other.status).toBe(409)
    expect(other.text).toContain('Another person is signed in')
  })
})

describe('locks', () => {
  let own: House
  let browser: Browser
  beforeAll(async () => {
    own = await openHouse({ clients })
    browser = openBrowser(own.anchor)
  })
  afterAll(async () => {
    await browser[Symbol.asyncDispose]()
    await own[Symbol.asyncDispose]()
  })

  test('twenty wrong codes close the form for this source', async () => {
    let page = await browser.open(`${own.origin}/oidc/device`)
    for (let count = 0; count < 20; count++)
      page = await browser.submit(page, 'Continue', { user_code: 'ZZZZ-ZZZZ' })
    expect(page.status).toBe(400)
    const locked = await browser.submit(page, 'Continue', { user_code: 'ZZZZ-ZZZZ' })
    expect(locked.status).toBe(429)
    expect(locked.headers.get('retry-after')).toMatch(/^\d{3}$/)
    own.advance(10 * 60_000)
    const open = await browser.submit(await browser.open(`${own.origin}/oidc/device`), 'Continue', {
      user_code: 'ZZZZ-ZZZZ',
    })
    expect(open.status).toBe(400)
  })
  test('five wrong passwords lock, and the page says for how long', async () => {
    await addVendor(own, 'lena')
    let page = await browser.open(start(CONSOLE, {}, own).url)
    const wrong = { email: 'lena@acme.example', password: 'wrong' }
    for (let count = 0; count < 5; count++) page = await browser.submit(page, 'Sign in', wrong)
    expect(page.status).toBe(401)
    const locked = await browser.submit(page, 'Sign in', { ...wrong, password: PASSWORD })
    expect(locked.status).toBe(429)
    const seconds = Number(locked.headers.get('retry-after'))
    expect([seconds > 14 * 60, seconds <= 15 * 60]).toEqual([true, true])
    expect(locked.text).toContain('Try again in 15 minutes.')
  })
})

describe('cookies', () => {
  test('are bound to this host, to https and to HTTP', async () => {
    const page = await here.browser.send(start(CONSOLE).url, { method: 'GET' })
    const lines = page.headers.getSetCookie().filter((line) => !line.includes('.sig='))
    expect(lines.length).toBeGreaterThan(0)
    for (const line of lines) {
      expect(line).toMatch(/^__(Host|Secure)-sallyport-/)
      expect(line).toMatch(/; secure(;|$)/i)
      expect(line).toMatch(/; httponly(;|$)/i)
      expect(line).toMatch(/; samesite=lax(;|$)/i)
      expect(line).not.toMatch(/domain=/i)
    }
  })
  test('the session gets a new name when somebody signs in', async () => {
    const first = await here.browser.send(at('/device'), { method: 'GET' })
    const session = (page: Page): string | undefined =>
      page.headers
        .getSetCookie()
        .find((line) => line.startsWith('__Host-sallyport-session='))
        ?.split(';')[0]
    const before = session(first)
    const { verification_uri_complete: url = '' } = await deviceCode()
    const last = await approveDevice(here.browser, { url, ...credentials })
    expect(before).toBeDefined()
    expect(session(last)).toBeDefined()
    expect(session(last)).not.toBe(before)
  })
  test('sign-out ends the session and what hangs on it', async () => {
    await here.browser.submit(await here.browser.open(start(CONSOLE).url), 'Sign in', credentials)
    const out = await here.browser.submit(await here.browser.open(at('/sign-out')), 'Sign out')
    expect(out.title).toBe('You are signed out - Sallyport')
    const again = await here.browser.open(start(CONSOLE).url)
    expect(again.title).toBe('Sign in - Sallyport')
  })
})
