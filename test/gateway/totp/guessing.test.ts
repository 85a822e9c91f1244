/** Guessing codes: who has the password guesses no faster than others guess passwords. Hours pass here. */
import { describe, expect, test } from 'vitest'
import { softKey } from '../../support/authenticator.ts'
import { openBrowser } from '../../support/browser.ts'
import { challengeOf } from '../identity/guest.ts'
import { signIn, SYSTEM } from '../identity/house.ts'
import { readQr, type App } from './app.ts'
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
  subjectOf,
  withApp,
  type Somebody,
} from './people.ts'

aHouse()

describe('guessing', () => {
  const wrong = async (who: Somebody & { readonly app: App }, source: string) =>
    guess(who, who.app.wrong(house.now()), source)
  test('wrong codes close the door for the password too, whatever right passwords come between', async () => {
    const [who, source] = [await withApp(), '192.0.2.7']
    for (let tries = 0; tries < 4; tries++) {
      expect(await password(who, source)).toMatchObject({ ok: true })
      expect(await wrong(who, source)).toMatchObject({ code: 'wrong' })
    }
    // A right one wipes them off.
    expect(await guess(who, fresh(who.app), source)).toMatchObject({ ok: true })
    for (let tries = 0; tries < 5; tries++) {
      expect(await password(who, source)).toMatchObject({ ok: true })
      expect(await wrong(who, source)).toMatchObject({ code: 'wrong' })
    }
    expect(await password(who, source)).toMatchObject({ ok: false, code: 'login.locked' })
    expect(await guess(who, fresh(who.app), source)).toMatchObject({ code: 'locked' })
    expect(await password(who, '192.0.2.8')).toMatchObject({ ok: true })
  })

  test('the passkey wipes wrong codes off as a right one does', async () => {
    const [who, key] = [await withApp(), softKey(house.origin)]
    await (
      await passkeyFor(await subjectOf(await signInWith(who)), key)
    )()
    for (let round = 0; round < 2; round++) {
      await using browser = openBrowser(house.anchor)
      let { page } = await begun(browser, who)
      for (let tries = 0; tries < 4; tries++) {
        page = await browser.submit(page, BUTTON, { code: who.app.wrong(house.now()) })
        expect(page.status).toBe(401)
      }
      await using next = openBrowser(house.anchor)
      const asked = (await begun(next, who)).page
      const credential = JSON.stringify(key.answer(challengeOf(asked)))
      expect(isIn(await next.submit(asked, 'Use my passkey', { credential }))).toBe(true)
    }
  })

  test('from however many addresses: ten wrong codes close an account’s, and the log hears of it once', async () => {
    const who = await withApp()
    for (let at = 0; at < 10; at++)
      expect(await wrong(who, `192.0.2.${at}`)).toMatchObject({ code: 'wrong' })
    house.events.length = 0
    for (let at = 0; at < 3; at++)
      expect(await guess(who, fresh(who.app), '192.0.2.99')).toMatchObject({ code: 'locked' })
    expect(house.events).toMatchObject([{ code: 'auth.stepup', reason: 'code.locked' }])
    // A new app of the same person begins anew.
    await house.identity.totps.reset(who.sub, SYSTEM)
    await using browser = openBrowser(house.anchor)
    const page = await openLink(browser, (await enrol(await signIn(house, who.name))).secret)
    const app = readQr(page)
    await browser.submit(page, BUTTON, { code: app.code(house.now()) })
    expect(await guess(who, fresh(app), '192.0.2.99')).toMatchObject({ ok: true })
  })

  test('a page that was refused is shown with how long to wait', async () => {
    const who = await withApp()
    for (let at = 0; at < 10; at++) await wrong(who, `192.0.2.${at}`)
    await using browser = openBrowser(house.anchor)
    const { page } = await begun(browser, who)
    const answer = await browser.submit(page, BUTTON, { code: fresh(who.app) })
    expect([answer.status, answer.text.includes('too many attempts')]).toEqual([429, true])
    // Whoever types codes knows the password: taking the app away would let them in.
    expect(answer.text).toContain('somebody knows your password')
    expect(answer.text).toContain(`sallyport account renew ${who.email}`)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(3000)
    await nobody(browser)
  })

  test('an hour later it opens again; after a hundred without a right one between it does not', async () => {
    const who = await withApp()
    for (let round = 0; round < 10; round++) {
      for (let at = 0; at < 10; at++)
        expect(await wrong(who, `198.51.100.${round * 10 + at}`)).toMatchObject({ code: 'wrong' })
      house.advance(3_601_000)
    }
    const answer = await guess(who, fresh(who.app), '203.0.113.1')
    expect(answer).toMatchObject({ ok: false, code: 'locked' })
    expect(!answer.ok && answer.retryAfterMs > 86_400_000).toBe(true)
  })
})
