/** Signing in where there is an authenticator app: the password is half of it, and each code opens one sign-in. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Subject } from '../../../gateway/identity/index.ts'
import { SqliteTotpStore } from '../../../gateway/store/sqlite/totp.ts'
import { openBrowser } from '../../support/browser.ts'
import { addVendor, authenticate, makeProof, openHouse, signIn, SYSTEM } from '../identity/house.ts'
import { appOf, readQr, typedSecret } from './app.ts'
import {
  aHouse,
  begun,
  BUTTON,
  enrol,
  fresh,
  guess,
  house,
  isIn,
  nobody,
  openLink,
  passkeyFor,
  password,
  signInWith,
  somebody,
  subjectOf,
  withApp,
} from './people.ts'

aHouse()

describe('an enrolment', () => {
  test('what the camera reads, what is typed and what the link opens are one secret, and a first code confirms it', async () => {
    const who = await somebody()
    await using browser = openBrowser(house.anchor)
    const { secret } = await enrol(await signIn(house, who.name), '<b>phone</b>')
    const page = await openLink(browser, secret)
    const app = readQr(page)
    expect(new URL(app.uri).searchParams.get('secret')).toBe(typedSecret(page))
    expect(decodeURIComponent(app.uri)).toContain(`Sallyport localhost:${who.email}?`)
    expect(page.text).toContain('&lt;b&gt;phone')
    expect(page.headers.get('content-security-policy')).not.toContain('script-src')
    const again = await browser.submit(page, BUTTON, { code: app.wrong(house.now()) })
    expect([again.status, readQr(again).uri]).toEqual([400, app.uri])
    expect(await house.identity.totps.find(who.sub)).toBeUndefined()
    house.events.length = 0
    const done = await browser.submit(again, BUTTON, { code: app.code(house.now()) })
    expect(done.title).toContain('The app is yours now')
    const subject = `${house.identity.issuer}|${who.sub}`
    expect(house.events).toMatchObject([
      { code: 'totp.add', by: subject, subject, totp: '<b>phone</b>' },
    ])
    expect(await house.identity.totps.find(who.sub)).toMatchObject({ name: '<b>phone</b>' })
    // Its link is good once.
    const used = await openLink(browser, secret)
    expect([used.status, used.text.includes('ceremony.unknown')]).toEqual([404, true])
  })

  test('the secret stands nowhere in the store as it is', async () => {
    const { app } = await withApp()
    const secret = new URL(app.uri).searchParams.get('secret')!
    for (const file of readdirSync(house.directory, { recursive: true, withFileTypes: true }))
      if (file.isFile())
        expect(readFileSync(join(file.parentPath, file.name)).includes(secret)).toBe(false)
  })

  test('two first codes at once make one app', async () => {
    const who = await somebody()
    await using browser = openBrowser(house.anchor)
    const { secret } = await enrol(await signIn(house, who.name))
    const page = await openLink(browser, secret)
    const code = readQr(page).code(house.now())
    const pages = await Promise.all([0, 1].map(async () => browser.submit(page, BUTTON, { code })))
    expect(pages.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 404])
  })

  test('is begun within 15 minutes of signing in', async () => {
    const who = await somebody()
    const credentials = await signIn(house, who.name)
    house.advance(15 * 60_000 + 1_000)
    await expect(enrol(credentials)).rejects.toMatchObject({ code: 'totp.stale' })
  })

  test('takes the place of an app that is there for who has shown a code of it, and of no other', async () => {
    const who = await somebody()
    const before = await signIn(house, who.name)
    const late = await enrol(before, 'late')
    await using browser = openBrowser(house.anchor)
    const latePage = await openLink(browser, late.secret)
    const page = await openLink(browser, (await enrol(before)).secret)
    const app = readQr(page)
    await browser.submit(page, BUTTON, { code: app.code(house.now()) })
    // Who has the password alone, from before: neither a new link, nor the one that was open then.
    await expect(enrol(before)).rejects.toMatchObject({ code: 'totp.stale' })
    const code = readQr(latePage).code(house.now())
    const refused = await browser.submit(latePage, BUTTON, { code })
    expect([refused.status, refused.text.includes('totp.moved')]).toEqual([409, true])
    const { secret } = await enrol(await signInWith({ ...who, app }), 'new phone')
    const next = await openLink(browser, secret)
    const newer = readQr(next)
    await browser.submit(next, BUTTON, { code: newer.code(house.now()) })
    expect(await house.identity.totps.find(who.sub)).toMatchObject({ name: 'new phone' })
    const old = await begun(browser, who)
    const answer = await browser.submit(old.page, BUTTON, { code: fresh(app) })
    expect(answer.status).toBe(401)
    await signInWith({ ...who, app: newer })
  })

  describe('that a password alone began, while its owner adds a factor', () => {
    /** Of one account: what a thief of its password has begun, and what its owner then adds. */
    const both = async () => {
      const who = await somebody()
      const credentials = await signIn(house, who.name)
      const { totps } = house.identity
      const app = async () => {
        const { secret } = await enrol(credentials)
        const shown = appOf((await totps.show(secret)).uri)
        return async () => totps.confirm(secret, shown.code(house.now()), '192.0.2.1')
      }
      const key = async () => passkeyFor(await subjectOf(credentials))
      return { who, begin: { app, key } }
    }
    test.for([
      ['app', 'key', 'totp.moved', 'totp.add'],
      ['key', 'app', 'passkey.moved', 'passkey.add'],
      ['key', 'key', 'passkey.moved', 'passkey.add'],
    ] as const)('%s, then %s: it lands no more', async ([thief, owner, code, event]) => {
      const { who, begin } = await both()
      const land = await begin[thief]()
      await (
        await begin[owner]()
      )()
      house.events.length = 0
      await expect(land()).rejects.toMatchObject({ code, status: 409 })
      expect(house.events).toMatchObject([{ code: event }, { code: event, failed: code }])
      const there = [
        (await house.identity.totps.find(who.sub)) !== undefined,
        (await house.identity.passkeys.list(who.sub)).length,
      ]
      expect(there).toEqual(owner === 'app' ? [true, 0] : [false, 1])
    })
  })

  test('of who has no password: it would never be asked for', async () => {
    const who = await somebody()
    const credentials = await signIn(house, who.name)
    const { subject, login } = await subjectOf(credentials)
    const elsewhere = { ...subject, id: `${house.identity.issuer}|0123456789abcdefghjkmnpqrs` }
    await expect(house.identity.totps.enrol(elsewhere, login, 'x')).rejects.toMatchObject({
      code: 'totp.password',
    })
  })

  test('with a code shown, when its owner takes the app off: neither another app nor a passkey lands, and a new one waits for no code', async () => {
    const who = await withApp()
    const credentials = await signInWith(who)
    const { secret } = await enrol(credentials, 'late')
    const { totps } = house.identity
    const late = appOf((await totps.show(secret)).uri)
    const key = await passkeyFor(await subjectOf(credentials))
    await totps.remove(who.sub, SYSTEM)
    const confirm = totps.confirm(secret, late.code(house.now()), '192.0.2.1')
    await expect(confirm).rejects.toMatchObject({ code: 'totp.moved' })
    await expect(key()).rejects.toMatchObject({ code: 'passkey.moved' })
    expect([await totps.find(who.sub), await house.identity.passkeys.list(who.sub)]).toEqual([
      undefined,
      [],
    ])
    const again = await passkeyFor(await subjectOf(credentials))
    expect((await again()).kind).toBe('register')
  })

  test('under way when an administrator takes the app away: it lands no more', async () => {
    const who = await withApp()
    const { secret } = await enrol(await signInWith(who), 'late')
    await using browser = openBrowser(house.anchor)
    const page = await openLink(browser, secret)
    house.events.length = 0
    await house.identity.totps.reset(who.sub, SYSTEM)
    expect(house.events).toMatchObject([
      { code: 'totp.remove', by: 'system', totp: 'phone' },
      { code: 'auth.logout', login: null },
    ])
    const late = await browser.submit(page, BUTTON, { code: readQr(page).code(house.now()) })
    expect(late.status).toBe(404)
    expect(await house.identity.totps.find(who.sub)).toBeUndefined()
  })

  test('without a log nothing is added', async () => {
    const who = await somebody()
    await using browser = openBrowser(house.anchor)
    const page = await openLink(browser, (await enrol(await signIn(house, who.name))).secret)
    house.breakLog(true)
    const answer = await browser.submit(page, BUTTON, { code: readQr(page).code(house.now()) })
    house.breakLog(false)
    expect(answer.status).toBe(503)
    expect(await house.identity.totps.find(who.sub)).toBeUndefined()
  })
})

describe('a sign-in', () => {
  let who: Awaited<ReturnType<typeof withApp>>
  beforeAll(async () => void (who = await withApp()))

  test('the password alone signs nobody in, and the log does not say so', async () => {
    await using browser = openBrowser(house.anchor)
    house.events.length = 0
    const { page } = await begun(browser, who)
    expect(house.events).toMatchObject([
      { code: 'auth.login', outcome: 'failure', reason: 'second_factor', methods: ['pwd'] },
    ])
    expect([page.status, page.title]).toEqual([200, 'Confirm with a code - Sallyport'])
    await nobody(browser)
  })

  test('with the code: `otp` and `mfa` are in the token, and the proof is of now', async () => {
    await using browser = openBrowser(house.anchor)
    const { page, login } = await begun(browser, who)
    house.events.length = 0
    expect(isIn(await browser.submit(page, BUTTON, { code: fresh(who.app) }))).toBe(true)
    expect(house.events).toMatchObject([
      { code: 'auth.stepup', outcome: 'success', purpose: 'sign_in', means: 'code' },
      { code: 'auth.login', outcome: 'success', methods: ['pwd', 'otp', 'mfa'], reason: null },
    ])
    const { subject } = await subjectOf(await login)
    expect(subject.authn).toMatchObject({
      methods: ['pwd', 'otp', 'mfa'],
      acr: 'urn:sallyport:acr:totp',
    })
    expect(house.now() / 1000 - subject.authn.at).toBeLessThan(600)
    expect((await house.identity.totps.find(who.sub))?.usedAt).not.toBeNull()
  })

  test('with a wrong code they are asked again, and come in with the right one', async () => {
    await using browser = openBrowser(house.anchor)
    const { page } = await begun(browser, who)
    house.events.length = 0
    const again = await browser.submit(page, BUTTON, { code: who.app.wrong(house.now()) })
    expect([again.status, again.title]).toEqual([401, 'Confirm with a code - Sallyport'])
    expect(house.events).toMatchObject([
      { code: 'auth.stepup', outcome: 'failure', reason: 'code.wrong', means: 'code', methods: [] },
    ])
    await nobody(browser)
    expect(isIn(await browser.submit(again, BUTTON, { code: fresh(who.app) }))).toBe(true)
  })

  test('a code that was taken is refused in the next sign-in, and one older than it too', async () => {
    house.advance(90_000 - (house.now() % 30_000))
    const start = house.now()
    const [older, code] = [who.app.code(start - 30_000), who.app.code(start)]
    await using one = openBrowser(house.anchor)
    const first = await begun(one, who)
    expect(isIn(await one.submit(first.page, BUTTON, { code }))).toBe(true)
    await using two = openBrowser(house.anchor)
    const second = await begun(two, who)
    house.events.length = 0
    for (const again of [code, older]) {
      // Back to where both would still be in time.
      house.advance(start - house.now())
      expect((await two.submit(second.page, BUTTON, { code: again })).status).toBe(401)
    }
    expect(house.events).toMatchObject([{ reason: 'code.replayed' }, { reason: 'code.replayed' }])
    await nobody(two)
  })

  test('one code in two sign-ins at once opens one of them', async () => {
    await using one = openBrowser(house.anchor)
    await using two = openBrowser(house.anchor)
    const browsers = [one, two]
    const pages = await Promise.all(browsers.map(async (browser) => begun(browser, who)))
    const code = fresh(who.app)
    const ends = await Promise.all(
      browsers.map(async (browser, at) => browser.submit(pages[at]!.page, BUTTON, { code })),
    )
    expect(ends.filter(isIn)).toHaveLength(1)
    expect(ends.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 401])
  })

  test('the question of another sign-in of the same person is none here', async () => {
    await using one = openBrowser(house.anchor)
    await using two = openBrowser(house.anchor)
    const [first, second] = [await begun(one, who), await begun(two, who)]
    const form = second.page.forms.find(({ fields }) => 'secret' in fields)
    const secret = form?.fields['secret'] ?? ''
    const next = await one.submit(first.page, BUTTON, { secret, code: fresh(who.app) })
    expect([next.status, next.title]).toEqual([401, 'Sign in - Sallyport'])
    await nobody(one)
  })

  test('without a log nobody gets in by it, and the code is not used up', async () => {
    await using browser = openBrowser(house.anchor)
    const { page } = await begun(browser, who)
    const code = fresh(who.app)
    house.breakLog(true)
    const refused = await browser.submit(page, BUTTON, { code })
    house.breakLog(false)
    expect(refused.status).toBe(503)
    await nobody(browser)
    expect(isIn(await browser.submit(page, BUTTON, { code }))).toBe(true)
  })

  test('a right code that the log does not take is counted on nobody, however often', async () => {
    const source = '192.0.2.20'
    house.breakLog(true)
    for (let tries = 0; tries < 6; tries++) {
      const unrecorded = guess(who, fresh(who.app), source)
      await expect(unrecorded).rejects.toMatchObject({ code: 'log.unavailable' })
      await expect(password(who, source)).rejects.toMatchObject({ code: 'log.unavailable' })
    }
    house.breakLog(false)
    expect(await password(who, source)).toMatchObject({ ok: true })
    expect(await guess(who, fresh(who.app), source)).toMatchObject({ ok: true })
  })

  test('of two right codes to one question one signs in, and the log has the end of the other', async () => {
    const { totps } = house.identity
    const secret = await totps.ask(who.sub, 'uid')
    house.advance(60_000)
    // Of one instant, whatever step it is by the time that they are given.
    const at = house.now()
    const [one, next] = [who.app.code(at), who.app.code(at + 30_000)]
    const give = async (code: string) =>
      totps.check({ secret, about: 'uid', code, source: '192.0.2.21', client: null })
    const spy = vi.spyOn(SqliteTotpStore.prototype, 'useTotp')
    onTestFinished(() => spy.mockRestore())
    let first: unknown
    spy.mockImplementationOnce(async function (this: SqliteTotpStore, ...args) {
      first = await give(one)
      return this.useTotp(...args)
    })
    house.events.length = 0
    expect(await give(next)).toMatchObject({ ok: false, code: 'stale' })
    expect(first).toMatchObject({ ok: true })
    expect(house.events).toMatchObject([
      { outcome: 'success', reason: null },
      { outcome: 'success', reason: null },
      { outcome: 'failure', reason: 'code.stale', methods: [] },
    ])
  })

  test('an account that is disabled between password and code stays shut', async () => {
    const other = await withApp()
    await using browser = openBrowser(house.anchor)
    const { page } = await begun(browser, other)
    await house.identity.accounts.change(other.sub, { disabled: true }, SYSTEM)
    expect((await browser.submit(page, BUTTON, { code: fresh(other.app) })).status).toBe(401)
    await nobody(browser)
  })

  test('who has a passkey too may use either; another passkey takes one or the other', async () => {
    const { subject, login } = await subjectOf(await signInWith(who))
    // A password alone, from before the app, makes no second factor.
    const bare = { ...subject, authn: { ...subject.authn, acr: 'urn:sallyport:acr:password' } }
    const refused = passkeyFor({ subject: bare, login })
    await expect(refused).rejects.toMatchObject({ code: 'passkey.stale' })
    await (
      await passkeyFor({ subject, login })
    )()
    await using browser = openBrowser(house.anchor)
    const { page } = await begun(browser, who)
    expect([page.title, page.text.includes('Or with a code')]).toEqual([
      'Confirm with your passkey - Sallyport',
      true,
    ])
    expect(isIn(await browser.submit(page, BUTTON, { code: fresh(who.app) }))).toBe(true)
    // And the app is replaced by who has shown the passkey, not by a code alone.
    await expect(house.identity.totps.enrol(subject, login, 'x')).rejects.toMatchObject({
      code: 'totp.stale',
    })
  })
})

test('where the gateway’s keys are gone no code is right', async () => {
  const own = await openHouse()
  onTestFinished(async () => own[Symbol.asyncDispose]())
  const sub = await addVendor(own)
  const credentials = await signIn(own)
  const proof = await makeProof(own, credentials)
  const headers = { authorization: `DPoP ${credentials.accessToken}`, dpop: proof }
  const subject = (await authenticate(own, headers)) as Subject
  const { totps } = own.identity
  const { secret } = await totps.enrol(subject, own.identity.loginOf(subject), 'phone')
  const app = appOf((await totps.show(secret)).uri)
  await totps.confirm(secret, app.code(own.now()), '192.0.2.1')
  const path = join(own.directory, 'identity', 'keys.json')
  const keys = JSON.parse(readFileSync(path, 'utf8')) as object
  const cookies = [Buffer.alloc(32, 7).toString('base64url')]
  writeFileSync(path, JSON.stringify({ ...keys, cookies }))
  await own.restart()
  own.advance(60_000)
  own.events.length = 0
  const question = await own.identity.totps.ask(sub, 'uid')
  const attempt = { about: 'uid', code: app.code(own.now()), source: '192.0.2.1', client: null }
  expect(await own.identity.totps.check({ secret: question, ...attempt })).toMatchObject({
    code: 'wrong',
  })
  expect(own.events).toMatchObject([{ reason: 'code.unreadable' }])
})
