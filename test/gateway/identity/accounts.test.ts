/** Accounts as they are made and changed, also by two at once. */
import { describe, expect, test } from 'vitest'
import { type NewAccount } from '../../../gateway/identity/index.ts'
import { admit } from '../../../gateway/identity/idp/admit.ts'
import { SqliteIdpStore } from '../../../gateway/store/sqlite/idps.ts'
import {
  eachWithAccounts,
  issuer,
  by,
  staff,
  admin,
  thread,
  store,
  accounts,
  now,
  events,
  changes,
  logging,
  logWith,
} from './accounts-fixture.ts'

eachWithAccounts()

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
    logWith(async () => Promise.reject(new Error('disk full')))
    await expect(accounts.create(staff, by)).rejects.toMatchObject({ code: 'log.unavailable' })
    expect(await accounts.list('', 10)).toEqual([])
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
    logWith(async () => (++calls > 1 ? Promise.reject(new Error('disk full')) : undefined))
    const disabling = accounts.change(sub, { disabled: true }, by)
    await expect(disabling).rejects.toMatchObject({ code: 'log.incomplete' })
    expect(changes).toMatchObject([{ kind: 'disabled' }])
    expect(await accounts.find(sub)).toMatchObject({ disabled: true })
  })
})

describe('two changes of one account at once', () => {
  /** Does `meanwhile` after the first change from now on was read and recorded, and before it is written. */
  function between(meanwhile: () => Promise<unknown>): void {
    logWith(async () => {
      logWith(async () => undefined)
      await meanwhile()
    })
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
