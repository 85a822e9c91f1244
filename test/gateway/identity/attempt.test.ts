/** Attempts to sign in by a password: counted, logged, and slow for everybody alike. */
import { beforeEach, describe, expect, test } from 'vitest'
import { openAccounts, type Accounts, type LoginAnswer } from '../../../gateway/identity/index.ts'
import { createPasswords } from '../../../gateway/identity/password.ts'
import { SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import {
  eachWithAccounts,
  passwords,
  issuer,
  by,
  staff,
  thread,
  store,
  accounts,
  now,
  events,
  advance,
  logWith,
} from './accounts-fixture.ts'

const MINUTE = 60_000
eachWithAccounts()

const login = async (over: Partial<Parameters<Accounts['login']>[0]> = {}): Promise<LoginAnswer> =>
  accounts.login({
    email: 'olga@plant.example',
    password: staff.password,
    source: '192.0.2.7',
    client: 'sallyport-cli',
    ...over,
  })

describe('login', () => {
  beforeEach(async () => {
    await accounts.create(staff, by)
    events.length = 0
  })

  test('the right password, and the same letters composed differently', async () => {
    expect(await login()).toMatchObject({ ok: true, account: { email: 'olga@plant.example' } })
    await accounts.create({ ...staff, email: 'e@x.example', password: 'caf\u00e9 und kuchen' }, by)
    const composed = await login({ email: 'e@x.example', password: 'cafe\u0301 und kuchen' })
    expect(composed.ok).toBe(true)
  })

  const failures: [string, string, Partial<Parameters<Accounts['login']>[0]>][] = [
    ['a wrong password', 'password', { password: 'wrong' }],
    ['an empty password', 'password', { password: '' }],
    ['an unknown address', 'unknown', { email: 'nobody@plant.example' }],
    ['no address at all', 'unknown', { email: '' }],
  ]
  test.for(failures)('%s is login.failed outside and %s in the log', async ([, reason, bent]) => {
    expect(await login(bent)).toEqual({ ok: false, code: 'login.failed', retryAfterMs: 0 })
    expect(events).toMatchObject([{ code: 'auth.login', outcome: 'failure', reason }])
  })
  test('something typed into the wrong field does not get into the log', async () => {
    await login({ email: 'correct horse battery staple' })
    expect(events).toMatchObject([{ email: null }])
  })
  test('an unknown address costs the same work as a known one', async () => {
    let hashes = 0
    const counting = {
      ...passwords,
      matches: async (password: string, stored: string | null) => {
        hashes++
        return passwords.matches(password, stored)
      },
    }
    const options = { issuer, store, oidcStore: new SqliteOidcStore(thread), passwords: counting }
    const counted = openAccounts({
      ...options,
      log: async () => undefined,
      changed: () => undefined,
      now: () => now,
    })
    const attempt = { password: 'x', source: 's', client: null }
    await counted.login({ ...attempt, email: 'olga@plant.example' })
    await counted.login({ ...attempt, email: 'nobody@plant.example' })
    expect(hashes).toBe(2)
  })

  test('five wrong guesses lock this account for this source, even for the right password', async () => {
    for (let at = 0; at < 5; at++)
      expect(await login({ password: 'wrong' })).toMatchObject({ code: 'login.failed' })
    expect(await login()).toEqual({ ok: false, code: 'login.locked', retryAfterMs: 15 * MINUTE })
    expect(await login({ source: '192.0.2.8' })).toMatchObject({ ok: true })
    advance(15 * MINUTE - 1)
    expect(await login()).toMatchObject({ code: 'login.locked', retryAfterMs: 1 })
    advance(1)
    expect(await login()).toMatchObject({ ok: true })
  })
  test('an address that does not exist locks in the same way', async () => {
    const email = 'nobody@plant.example'
    const answers: LoginAnswer[] = []
    for (let at = 0; at < 6; at++) answers.push(await login({ email, password: 'wrong' }))
    expect(answers.map((answer) => (answer.ok ? 'ok' : answer.code))).toEqual([
      ...Array.from({ length: 5 }, () => 'login.failed'),
      'login.locked',
    ])
  })
  test('guesses sent all at once are counted all the same', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, async () => login({ password: 'wrong' })),
    )
    const failed = answers.filter((answer) => !answer.ok && answer.code === 'login.failed')
    expect(failed).toHaveLength(5)
  })
  test('hammering a locked door is one line in the log', async () => {
    for (let at = 0; at < 30; at++) await login({ password: 'wrong' })
    expect(
      events.filter((event) => event.code === 'auth.login' && event.reason === 'locked'),
    ).toHaveLength(1)
    expect(events).toHaveLength(6)
  })
  test('a success forgets the wrong guesses before it', async () => {
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < 4; at++) await login({ password: 'wrong' })
      expect(await login()).toMatchObject({ ok: true })
    }
  })
  test('one source that tries many accounts is locked, one account tried from many sources too', async () => {
    for (let at = 0; at < 50; at++) await login({ email: `p${at}@x.example`, password: 'wrong' })
    expect(await login()).toMatchObject({ code: 'login.locked' })
    for (let at = 0; at < 100; at++) await login({ source: `10.0.0.${at}`, password: 'wrong' })
    expect(await login({ source: '10.1.0.1' })).toMatchObject({ code: 'login.locked' })
    advance(15 * MINUTE)
    expect(await login()).toMatchObject({ ok: true })
  })

  test('no log, no login', async () => {
    logWith(async () => Promise.reject(new Error('disk full')))
    await expect(login()).rejects.toMatchObject({ code: 'log.unavailable', status: 503 })
  })
  test('a hash of older parameters is renewed at the next login', async () => {
    const account = await accounts.findByEmail('olga@plant.example')
    const row = await store.findAccount(account?.sub ?? '')
    const old = createPasswords({ memory: 32, passes: 1, parallelism: 1 })
    if (row === undefined) throw new Error('no account')
    await store.changeAccount({ ...row, password: await old.hash(staff.password) })
    expect(await login()).toMatchObject({ ok: true })
    expect((await store.findAccount(row.sub))?.password).toContain('m=64,')
    expect(await login()).toMatchObject({ ok: true })
  })
  test('a damaged hash opens to nobody', async () => {
    const account = await accounts.findByEmail('olga@plant.example')
    const row = await store.findAccount(account?.sub ?? '')
    if (row === undefined) throw new Error('no account')
    for (const password of [
      null,
      '',
      'plain',
      '$argon2id$v=19$m=9999999,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AA',
    ]) {
      await store.changeAccount({ ...row, password })
      expect(await login({ source: `s${password}` })).toMatchObject({ code: 'login.failed' })
    }
  })
})
