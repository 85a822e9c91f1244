/** Accounts and passwords against the real store, with a virtual clock. */
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  openAccounts,
  openBootstrap,
  openIdentityKeys,
  type Accounts,
  type IdentityChange,
  type IdentityEvent,
  type LoginAnswer,
  type NewAccount,
} from '../../../gateway/identity/index.ts'
import { admit } from '../../../gateway/identity/idp/admit.ts'
import { createPasswords } from '../../../gateway/identity/password.ts'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteIdpStore } from '../../../gateway/store/sqlite/idps.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'

// Cheap on purpose: what is tested here is what happens around the hash.
const passwords = createPasswords({ memory: 64, passes: 1, parallelism: 1 })
const MINUTE = 60_000
const issuer = 'https://gate.example/oidc'
const by = { id: 'test', source: '192.0.2.1' }
const staff: NewAccount = {
  email: 'Olga@Plant.Example',
  name: 'Olga Operator',
  party: 'staff',
  roles: ['operator'],
  password: 'correct horse battery staple',
}
const admin: NewAccount = { ...staff, email: 'ada@plant.example', name: 'Ada', roles: ['admin'] }

let directory: string
let thread: SqliteThread
let store: SqliteIdentityStore
let accounts: Accounts
let now: number
let events: IdentityEvent[]
let changes: IdentityChange[]
let logging: () => Promise<void>

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sallyport-accounts-'))
  thread = await SqliteThread.open(join(directory, 'store.sqlite'))
  store = new SqliteIdentityStore(thread)
  now = 1_800_000_000_000
  events = []
  changes = []
  logging = async () => undefined
  accounts = openAccounts({
    issuer,
    store,
    oidcStore: new SqliteOidcStore(thread),
    async log(event) {
      await logging()
      events.push(event)
    },
    changed: (change) => changes.push(change),
    now: () => now,
    passwords,
  })
})
afterEach(async () => {
  await thread[Symbol.asyncDispose]()
  await rm(directory, { recursive: true })
})

const login = async (over: Partial<Parameters<Accounts['login']>[0]> = {}): Promise<LoginAnswer> =>
  accounts.login({
    email: 'olga@plant.example',
    password: staff.password,
    source: '192.0.2.7',
    client: 'sallyport-cli',
    ...over,
  })

describe('create', () => {
  test('what is stored, logged and given back', async () => {
    const made = await accounts.create({ ...staff, groups: ['shift-a', 'shift-a'] }, by)
    expect(made).toEqual({
      sub: expect.stringMatching(/^[0-9a-hjkmnp-tv-z]{26}$/) as string,
      email: 'olga@plant.example',
      name: 'Olga Operator',
      party: 'staff',
      vendor: null,
      groups: ['shift-a'],
      roles: ['operator'],
      disabled: false,
      outside: null,
      person: expect.any(String) as string,
      createdAt: now,
      changedAt: now,
    })
    expect(events).toEqual([
      {
        code: 'account.create',
        at: now,
        source: '192.0.2.1',
        by: 'test',
        subject: `${issuer}|${made.sub}`,
        email: 'olga@plant.example',
        party: 'staff',
        vendor: null,
        roles: ['operator'],
        groups: ['shift-a'],
      },
    ])
    expect(await accounts.find(made.sub)).toEqual(made)
    expect(await accounts.findByEmail(' OLGA@plant.example ')).toEqual(made)
    expect(await accounts.list('', 10)).toEqual([made])
    const kept = (await store.findAccount(made.sub))?.password
    expect(kept).toMatch(/^\$argon2id\$v=19\$m=64,t=1,p=1\$[\w+/]{22}\$[\w+/]{43}$/)
  })

  const rows: [string, string, Partial<NewAccount>][] = [
    ['no @', 'account.email', { email: 'olga' }],
    ['a line break in the address', 'account.email', { email: 'a@b\r\nc' }],
    ['markup in the address', 'account.email', { email: '<b>@c.d' }],
    [
      '321 characters of address',
      'account.email',
      { email: `${'a'.repeat(65)}@${'b'.repeat(255)}` },
    ],
    ['empty name', 'account.name', { name: '  ' }],
    ['control character in the name', 'account.name', { name: 'a\u0007b' }],
    ['a name that turns the text around', 'account.name', { name: 'a\u202eb' }],
    ['half a surrogate pair in the name', 'account.name', { name: 'a\ud800' }],
    ['a vendor without a company', 'account.vendor', { party: 'vendor', roles: ['vendor'] }],
    ['staff with a company', 'account.vendor', { vendor: 'acme' }],
    ['an unknown role', 'account.roles', { roles: ['root'] }],
    [
      'a vendor who is admin',
      'account.roles',
      { party: 'vendor', vendor: 'acme', roles: ['admin'] },
    ],
    ['65 groups', 'account.groups', { groups: Array.from({ length: 65 }, (_, at) => `g${at}`) }],
    ['an empty group', 'account.groups', { groups: [''] }],
    ['11 characters of password', 'password.length', { password: 'abcdefghijk' }],
    ['257 characters of password', 'password.length', { password: 'abcdefghijk'.repeat(24) }],
    ['a repetition', 'password.weak', { password: 'aaaaaaaaaaaa' }],
    ['a common one with digits', 'password.weak', { password: 'Password1234!' }],
    ['the address', 'password.weak', { password: 'olga@plant.example' }],
  ]
  test.for(rows)('%s: %s, and nothing is left behind', async ([, code, bent]) => {
    await expect(accounts.create({ ...staff, ...bent }, by)).rejects.toMatchObject({ code })
    expect(await accounts.list('', 10)).toEqual([])
    expect(events).toEqual([])
  })

  test('one account per address, whatever its letters', async () => {
    await accounts.create(staff, by)
    const twin = accounts.create({ ...staff, email: 'OLGA@plant.example' }, by)
    await expect(twin).rejects.toMatchObject({ code: 'account.exists', status: 409 })
  })
  test('two at once: one is made', async () => {
    const both = await Promise.allSettled([accounts.create(staff, by), accounts.create(staff, by)])
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  })
  test('no log, no account', async () => {
    logging = async () => Promise.reject(new Error('disk full'))
    await expect(accounts.create(staff, by)).rejects.toMatchObject({ code: 'log.unavailable' })
    expect(await accounts.list('', 10)).toEqual([])
  })
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
    now += 15 * MINUTE - 1
    expect(await login()).toMatchObject({ code: 'login.locked', retryAfterMs: 1 })
    now += 1
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
    now += 15 * MINUTE
    expect(await login()).toMatchObject({ ok: true })
  })

  test('no log, no login', async () => {
    logging = async () => Promise.reject(new Error('disk full'))
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

describe('change', () => {
  test('the log has the new values, of the password only that it changed', async () => {
    const { sub } = await accounts.create(staff, by)
    const password = 'some other long phrase'
    await accounts.change(sub, { roles: ['auditor'], name: 'Olga', password }, by)
    expect(events.at(-2)).toMatchObject({
      code: 'account.change',
      changes: { roles: ['auditor'], name: 'Olga', password: 'changed' },
    })
    expect(events.at(-1)).toMatchObject({ code: 'auth.logout', reason: 'password_changed' })
    expect(JSON.stringify(events)).not.toContain('phrase')
    expect(changes).toEqual([{ kind: 'logged_out', subject: `${issuer}|${sub}`, login: null }])
  })
  test('the last administrator stays one', async () => {
    const { sub } = await accounts.create(admin, by)
    for (const change of [{ disabled: true }, { roles: ['operator'] }, { roles: [] }])
      await expect(accounts.change(sub, change, by)).rejects.toMatchObject({
        code: 'account.last_admin',
      })
    await accounts.create({ ...admin, email: 'second@plant.example' }, by)
    await expect(accounts.change(sub, { disabled: true }, by)).resolves.toMatchObject({
      disabled: true,
    })
  })
  test('two administrators who disable each other at once: one remains', async () => {
    const one = await accounts.create(admin, by)
    const two = await accounts.create({ ...admin, email: 'second@plant.example' }, by)
    const both = await Promise.allSettled(
      [one, two].map(async ({ sub }) => accounts.change(sub, { disabled: true }, by)),
    )
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
  })
  test('an unknown account, a taken address', async () => {
    await expect(accounts.change('x', {}, by)).rejects.toMatchObject({ code: 'account.unknown' })
    const { sub } = await accounts.create(staff, by)
    await accounts.create(admin, by)
    const taken = accounts.change(sub, { email: 'ADA@plant.example' }, by)
    await expect(taken).rejects.toMatchObject({ code: 'account.exists' })
  })
  test('disabling cuts even when the log is gone, and says that it is', async () => {
    const { sub } = await accounts.create(staff, by)
    let calls = 0
    logging = async () => (++calls > 1 ? Promise.reject(new Error('disk full')) : undefined)
    const disabling = accounts.change(sub, { disabled: true }, by)
    await expect(disabling).rejects.toMatchObject({ code: 'log.incomplete' })
    expect(changes).toMatchObject([{ kind: 'disabled' }])
    expect(await accounts.find(sub)).toMatchObject({ disabled: true })
  })
})

describe('two changes of one account at once', () => {
  /** Does `meanwhile` after the first change from now on was read and recorded, and before it is written. */
  function between(meanwhile: () => Promise<unknown>): void {
    logging = async () => {
      logging = async () => undefined
      await meanwhile()
    }
  }
  const acme = {
    id: 'acme',
    name: 'Acme',
    issuer: 'https://idp.acme.example',
    clientId: 'c',
    auth: 'none',
    sealedSecret: null,
    ca: null,
    party: 'vendor',
    vendor: 'acme',
    domains: ['acme.example'],
    trustEmail: false,
    groupsClaim: 'groups',
    groups: {},
    roles: {},
    methods: {},
    loginSeconds: 3600,
    listed: false,
    enabled: true,
    createdAt: 1,
    changedAt: 1,
  } as const
  const wanda = {
    subject: 'w',
    email: 'wanda@acme.example',
    name: 'Wanda',
    groups: [],
    roles: ['vendor'],
    methods: ['federated'],
    at: 1,
    sid: null,
  }
  const comesIn = async (name: string) =>
    admit(
      {
        issuer,
        store,
        log: async (event) => {
          await logging()
          events.push(event)
        },
        changed: (change) => changes.push(change),
        now: () => now,
      },
      acme,
      { ...wanda, name },
      '192.0.2.9',
    )

  test('a sign-in from outside does not undo that the account was disabled meanwhile', async () => {
    const { sub } = await comesIn('Wanda')
    between(async () => accounts.change(sub, { disabled: true }, by))
    await expect(comesIn('Wanda W')).rejects.toMatchObject({ code: 'idp.disabled' })
    expect(await accounts.find(sub)).toMatchObject({ disabled: true, name: 'Wanda' })
  })
  test('a sign-in from outside does not undo a link that was made meanwhile', async () => {
    const { sub } = await comesIn('Wanda')
    const own = await accounts.create(staff, by)
    between(async () => accounts.link(sub, own.sub, by))
    await comesIn('Wanda W')
    expect(await accounts.find(sub)).toMatchObject({ person: own.sub, name: 'Wanda W' })
  })
  test('a sign-in from outside does not take back the address of an account that was removed meanwhile', async () => {
    const idps = new SqliteIdpStore(thread)
    await idps.addIdp(acme)
    await comesIn('Wanda')
    between(async () => idps.removeIdp('acme', now))
    await expect(comesIn('Wanda W')).rejects.toMatchObject({ code: 'idp.disabled' })
    const again = accounts.create({ ...staff, email: 'wanda@acme.example' }, by)
    await expect(again).resolves.toMatchObject({ disabled: false })
  })
  test('linking does not enable an account that was disabled meanwhile, and says what is', async () => {
    const { sub } = await accounts.create(staff, by)
    const other = await accounts.create(admin, by)
    between(async () => accounts.change(sub, { disabled: true }, by))
    expect(await accounts.link(sub, other.sub, by)).toMatchObject({
      disabled: true,
      person: other.sub,
    })
  })
  test('disabling waits for nobody: what changed meanwhile stays changed, and it is disabled', async () => {
    const { sub } = await accounts.create(staff, by)
    between(async () => accounts.change(sub, { name: 'Olga O' }, by))
    await accounts.change(sub, { disabled: true }, by)
    expect(await accounts.find(sub)).toMatchObject({ disabled: true, name: 'Olga O' })
  })
  test('two who change facts: the second is told, whatever the clock says', async () => {
    const { sub } = await accounts.create(staff, by)
    between(async () => accounts.change(sub, { roles: ['engineer'] }, by))
    const late = accounts.change(sub, { party: 'vendor', vendor: 'acme', roles: ['vendor'] }, by)
    await expect(late).rejects.toMatchObject({ code: 'account.moved', status: 409 })
    expect(await accounts.find(sub)).toMatchObject({ party: 'staff', roles: ['engineer'] })
  })
})

describe('bootstrap', () => {
  const first = { email: 'ada@plant.example', name: 'Ada', password: staff.password }
  const open = async (): Promise<string> => {
    const file = await openBootstrap(store, directory)
    if (file === null) throw new Error('no bootstrap')
    return (await readFile(file, 'utf8')).trim()
  }

  test('256 bits in a file 0600, the hash alone in the store, good for one administrator', async () => {
    const token = await open()
    expect(token).toMatch(/^sbt_[\w-]{43}$/)
    expect((await stat(join(directory, 'bootstrap-token'))).mode & 0o777).toBe(0o600)
    expect(await store.bootstrapHash()).not.toContain(token)
    const made = await accounts.redeemBootstrap(token, first, '192.0.2.1')
    expect(made).toMatchObject({ party: 'staff', roles: ['admin'] })
    expect(events).toMatchObject([{ code: 'account.create', by: 'bootstrap', source: '192.0.2.1' }])
  })
  test('the second use is refused, and so is another token', async () => {
    const token = await open()
    const other = accounts.redeemBootstrap('sbt_x', first, null)
    await expect(other).rejects.toMatchObject({ code: 'bootstrap.invalid' })
    await accounts.redeemBootstrap(token, first, null)
    const again = accounts.redeemBootstrap(token, { ...first, email: 'b@x.example' }, null)
    await expect(again).rejects.toMatchObject({ code: 'bootstrap.spent', status: 410 })
    expect(await accounts.list('', 10)).toHaveLength(1)
    expect(await openBootstrap(store, directory)).toBeNull()
  })
  test('used twice at once: one account', async () => {
    const token = await open()
    const both = await Promise.allSettled(
      ['a@x.example', 'b@x.example'].map(async (email) =>
        accounts.redeemBootstrap(token, { ...first, email }, null),
      ),
    )
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(await accounts.list('', 10)).toHaveLength(1)
  })
  test('a bad password does not use it up', async () => {
    const token = await open()
    const weak = accounts.redeemBootstrap(token, { ...first, password: 'short' }, null)
    await expect(weak).rejects.toMatchObject({ code: 'password.length' })
    await expect(accounts.redeemBootstrap(token, first, null)).resolves.toBeDefined()
  })
  test('a restart keeps the token, a lost or changed file makes a new one and kills the old', async () => {
    const token = await open()
    expect(await open()).toBe(token)
    await writeFile(join(directory, 'bootstrap-token'), 'sbt_mine\n')
    const fresh = await open()
    expect(fresh).not.toBe(token)
    const dead = accounts.redeemBootstrap(token, first, null)
    await expect(dead).rejects.toMatchObject({ code: 'bootstrap.invalid' })
  })
  test('no token once there is an account, however it came', async () => {
    const token = await open()
    await accounts.create(staff, by)
    const late = accounts.redeemBootstrap(token, first, null)
    await expect(late).rejects.toMatchObject({ code: 'bootstrap.spent' })
  })
})

describe('keys', () => {
  const path = (): string => join(directory, 'identity', 'keys.json')
  test('made once, 0600, the same ever after', async () => {
    const keys = await openIdentityKeys(path())
    expect((await stat(path())).mode & 0o777).toBe(0o600)
    expect(keys.signing[0]).toMatchObject({ alg: 'ES256', crv: 'P-256' })
    expect(await openIdentityKeys(path())).toEqual(keys)
  })
  test('readable by others, or damaged: refused', async () => {
    await openIdentityKeys(path())
    for (const text of [
      '',
      '{}',
      '{"signing":[],"cookies":["a"]}',
      '{"signing":[{"kty":"RSA"}],"cookies":[]}',
    ]) {
      await writeFile(path(), text)
      await expect(openIdentityKeys(path())).rejects.toMatchObject({ code: 'keys.malformed' })
    }
    await chmod(path(), 0o640)
    await expect(openIdentityKeys(path())).rejects.toMatchObject({ code: 'keys.permissions' })
  })
})
