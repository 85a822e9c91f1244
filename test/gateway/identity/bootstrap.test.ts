/** How the first administrator comes in, and the keys of the provider. */
import { chmod, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openBootstrap, openIdentityKeys } from '../../../gateway/identity/index.ts'
import {
  eachWithAccounts,
  by,
  staff,
  directory,
  store,
  accounts,
  events,
} from './accounts-fixture.ts'

eachWithAccounts()

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
