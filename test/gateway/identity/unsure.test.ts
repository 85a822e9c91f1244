/** What is told of accounts before it is sure, and does not come to be: it is told again, with why. */
import { expect, test } from 'vitest'
import { identityEvent } from '../../../gateway/events/identity.ts'
import type { IdentityEvent } from '../../../gateway/identity/index.ts'
import { openIdps } from '../../../gateway/identity/idp/idps.ts'
import { openPasskeys } from '../../../gateway/identity/passkeys/passkeys.ts'
import { accounts, admin, by, eachWithAccounts, events, staff, store } from './accounts-fixture.ts'

eachWithAccounts()

/** Of each event of this code: what it says it failed with. */
const told = (code: IdentityEvent['code'], from: readonly IdentityEvent[] = events) =>
  from
    .filter((event) => event.code === code)
    .map((event) => ('failed' in event ? event.failed : null))

/** How many of an act the log must count as done: those that are told, but for those taken back. */
const net = (code: IdentityEvent['code']) => {
  const all = told(code)
  return (
    all.filter((failed) => failed === null).length - all.filter((failed) => failed !== null).length
  )
}

test('ten accounts of one address at once: one is there, and the log counts one', async () => {
  const made = await Promise.allSettled(
    Array.from({ length: 10 }, async () => accounts.create(staff, by)),
  )
  expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(net('account.create')).toBe(1)
  const failed = events.filter((event) => 'failed' in event).map(identityEvent)
  for (const event of failed)
    expect(event).toMatchObject({ status: 'failure', reason: 'account.exists' })
})

test('two first administrators at once: one is there, and the log counts one', async () => {
  const { hashBootstrapToken } = await import('../../../gateway/identity/bootstrap.ts')
  await store.openBootstrap(hashBootstrapToken('one-time'))
  const { email, name, password } = admin
  const first = { email, name, password }
  const made = await Promise.allSettled([
    accounts.redeemBootstrap('one-time', first, null),
    accounts.redeemBootstrap('one-time', { ...first, email: 'eve@plant.example' }, null),
  ])
  expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(net('account.create')).toBe(1)
})

test('two changes of the facts of one account at once: one holds, and the log counts one', async () => {
  const { sub } = await accounts.create(staff, by)
  const done = await Promise.allSettled([
    accounts.change(sub, { groups: ['a'] }, by),
    accounts.change(sub, { groups: ['b'] }, by),
  ])
  expect(done.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(told('account.change')).toEqual([null, null, 'account.moved'])
})

test('the last administrator stays, and the log says so', async () => {
  const { sub } = await accounts.create(admin, by)
  const code = 'account.last_admin'
  await expect(accounts.change(sub, { disabled: true }, by)).rejects.toMatchObject({ code })
  expect(told('account.change')).toEqual([null, code])
  expect(told('auth.logout')).toEqual([])
})

test('a link that the store does not take is told as none', async () => {
  const { sub } = await accounts.create(admin, by)
  const { sub: other } = await accounts.create(staff, by)
  store.changeAccount = async () => 'last_admin'
  const code = 'account.last_admin'
  await expect(accounts.link(sub, other, by)).rejects.toMatchObject({ code })
  expect(told('account.change')).toEqual([null, code])
})

test('a store that fails: told, and the failure goes on', async () => {
  const failure = new Error('the disk is gone')
  store.addAccount = async () => Promise.reject(failure)
  await expect(accounts.create(staff, by)).rejects.toBe(failure)
  expect(told('account.create')).toEqual([null, 'store.unavailable'])
})

test('a passkey that is removed twice at once is removed once in the log', async () => {
  const heard: IdentityEvent[] = []
  const held = { id: 'k1', name: 'key', sub: 's' }
  const outcomes = ['removed', 'unknown'] as const
  let removed = 0
  const passkeys = openPasskeys({
    issuer: 'iss',
    now: () => 0,
    changed: () => undefined,
    accounts: { find: async () => ({ outside: null }), hasPassword: async () => true },
    log: async (event: IdentityEvent) => void heard.push(event),
    passkeyStore: {
      passkeysOf: async () => [held, { ...held, id: 'k2' }],
      removePasskey: async () => outcomes[removed++],
    },
    oidcStore: { upsert: async () => undefined },
  } as never)
  await Promise.allSettled([passkeys.remove('s', 'k1', by), passkeys.remove('s', 'k1', by)])
  expect(told('passkey.remove', heard)).toEqual([null, null, 'passkey.unknown'])
})

test.for([
  ['add', 'idp.create', 'idp.taken'],
  ['enable', 'idp.change', 'idp.unknown'],
] as const)(
  'a company’s provider that the store does not %s is told as none',
  async ([, code, why]) => {
    const heard: IdentityEvent[] = []
    const idps = openIdps({
      issuer: 'iss',
      now: () => 0,
      keys: { cookies: ['secret'] },
      relying: { check: async () => undefined },
      log: async (event: IdentityEvent) => void heard.push(event),
      store: {
        addIdp: async () => 'taken',
        findIdp: async () => ({}),
        setIdpEnabled: async () => false,
      },
    } as never)
    const entry = {
    id: 'acme', name: 'Acme', issuer: 'https://login.acme.example', clientId: 'c', domains: ['acme.example'], vendor: 'acme',
  } // prettier-ignore
    const act = code === 'idp.create' ? idps.add(entry, by) : idps.enable('acme', true, by)
    await expect(act).rejects.toMatchObject({ code: why })
    expect(told(code, heard)).toEqual([null, why])
    const [first, second] = heard.map((event) => identityEvent(event).status)
    expect([first, second]).toEqual(['success', 'failure'])
  },
)
