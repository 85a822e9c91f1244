/** The small parts by themselves: the memory of proofs, the hash, the form reader, the sweep. */
import { mkdtemp, rm } from 'node:fs/promises'
import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { skewOf } from '../../../cli/login/tls.ts'
import { readForm } from '../../../gateway/identity/form.ts'
import { escape } from '../../../gateway/identity/pages.ts'
import { COST, createPasswords } from '../../../gateway/identity/password.ts'
import { createReplayMemory } from '../../../gateway/identity/replay.ts'
import { SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { decode } from '../../support/browser.ts'

describe('memory of proofs', () => {
  test('one key, one jti: once, until it could not be shown again', () => {
    const memory = createReplayMemory()
    expect(memory.remember('k', 'j', 1_000, 0)).toBe('fresh')
    expect(memory.remember('k', 'j', 1_000, 999)).toBe('replayed')
    expect(memory.remember('l', 'j', 1_000, 999)).toBe('fresh')
    expect(memory.remember('k', 'j', 2_000, 1_000)).toBe('fresh')
  })
  test('one key cannot take the room of others', () => {
    const memory = createReplayMemory({ all: 100, perKey: 10 })
    for (let at = 0; at < 10; at++)
      expect(memory.remember('greedy', `${at}`, 1_000, 0)).toBe('fresh')
    expect(memory.remember('greedy', 'more', 1_000, 0)).toBe('busy')
    expect(memory.remember('modest', '0', 1_000, 0)).toBe('fresh')
  })
  test('full is no, never forgetting', () => {
    const memory = createReplayMemory({ all: 10, perKey: 10 })
    for (let at = 0; at < 10; at++) memory.remember(`k${at}`, 'j', 60_000, 0)
    expect(memory.remember('k10', 'j', 60_000, 0)).toBe('busy')
    expect(memory.remember('k0', 'j', 60_000, 1)).toBe('replayed')
    expect(memory.remember('k10', 'j', 120_000, 60_000)).toBe('fresh')
  })
  test('it never says fresh twice within the life of a proof', () => {
    const step = fc.record({
      key: fc.constantFrom('a', 'b', 'c'),
      jti: fc.constantFrom('1', '2', '3', '4'),
      wait: fc.integer({ min: 0, max: 700 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const memory = createReplayMemory({ all: 6, perKey: 3 })
        const until = new Map<string, number>()
        let now = 0
        for (const { key, jti, wait } of steps) {
          now += wait
          const name = `${key} ${jti}`
          const answer = memory.remember(key, jti, now + 1_000, now)
          if (answer === 'fresh') {
            expect(until.get(name) ?? 0).toBeLessThanOrEqual(now)
            until.set(name, now + 1_000)
          }
        }
      }),
    )
  })
})

describe('argon2id', () => {
  test('the parameters in use, and that they tell right from wrong', async () => {
    const passwords = createPasswords()
    const hash = await passwords.hash('correct horse battery staple')
    expect(hash.startsWith(`$argon2id$v=19$m=${COST.memory},t=1,p=1$`)).toBe(true)
    expect(await passwords.matches('correct horse battery staple', hash)).toBe(true)
    expect(await passwords.matches('correct horse battery stapl', hash)).toBe(false)
    expect(await passwords.matches('x', null)).toBe(false)
  })
  test('a flood waits in a queue of 32, the rest is refused, and then it goes on', async () => {
    const passwords = createPasswords({ memory: 1_024, passes: 1, parallelism: 1 })
    const flood = await Promise.allSettled(
      Array.from({ length: 40 }, async () => passwords.matches('x', null)),
    )
    const refused = flood.filter(({ status }) => status === 'rejected')
    expect(refused).toHaveLength(6)
    expect(refused[0]).toMatchObject({ reason: { code: 'busy', status: 503 } })
    await expect(passwords.matches('x', null)).resolves.toBe(false)
  })
})

describe('markup', () => {
  test('whatever is escaped reads as it was and opens no tag', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const escaped = escape(text)
        expect(escaped).not.toMatch(/[<>"']/)
        expect(decode(escaped)).toBe(text.toWellFormed())
      }),
    )
  })
})

describe('form', () => {
  const read = async (type: string | undefined, body: string): Promise<unknown> => {
    const request = new IncomingMessage(new Socket())
    if (type !== undefined) request.headers['content-type'] = type
    request.push(Buffer.from(body))
    request.push(null)
    return readForm(request)
  }
  const form = 'application/x-www-form-urlencoded'
  test('fields, decoded', async () => {
    expect(await read(`${form}; charset=utf-8`, 'a=1+2&b=%C3%A9')).toEqual(
      new Map([
        ['a', '1 2'],
        ['b', 'é'],
      ]),
    )
  })
  const rows: [string, string | undefined, string][] = [
    ['no type', undefined, 'a=1'],
    ['JSON', 'application/json', '{}'],
    ['a field twice', form, 'a=1&a=2'],
    ['8,193 bytes', form, `a=${'x'.repeat(8_191)}`],
  ]
  test.for(rows)('%s: none', async ([, type, body]) => {
    expect(await read(type, body)).toBeUndefined()
  })
})

test('the clock of the gateway by its Date header', () => {
  const date = (ms: number): string => new Date(Date.now() + ms).toUTCString()
  expect(skewOf(date(0))).toBe(0)
  expect(skewOf(date(400_000))).toBeGreaterThan(395)
  expect(skewOf(date(-400_000))).toBeLessThan(-395)
  expect(skewOf(null)).toBeUndefined()
  expect(skewOf('soon')).toBeUndefined()
})

describe('provider store', () => {
  test('sweep removes what has ended, and the login with its grant', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-oidc-'))
    const thread = await SqliteThread.open(join(directory, 'store.sqlite'))
    const store = new SqliteOidcStore(thread)
    const row = { payload: { accountId: 'p', grantId: 'g' }, expiresAt: 1_000 }
    await store.upsert({ model: 'Grant', id: 'g', ...row, expiresAt: 2_000 })
    await store.upsert({ model: 'RefreshToken', id: 'r', ...row })
    await store.extendLogin({ login: 'g', sub: 'p', client: 'c', startedAt: 0, tokenUntil: 500 })
    await store.extendLogin({ login: 'g', sub: 'p', client: 'c', startedAt: 1, tokenUntil: 400 })
    expect(await store.findLogin('g', 1_999)).toEqual({
      login: 'g',
      sub: 'p',
      client: 'c',
      startedAt: 0,
      tokenUntil: 500,
      stepped: null,
    })
    expect(await store.findLogin('g', 2_000)).toBeUndefined()
    expect(await store.sweep(999)).toBe(0)
    expect(await store.sweep(1_000)).toBe(1)
    expect(await store.find('RefreshToken', 'r')).toBeUndefined()
    expect(await store.endLogin('g')).toBe(true)
    expect(await store.endLogin('g')).toBe(false)
    expect(await store.insert({ model: 'ReplayDetection', id: 'x', ...row })).toBe(true)
    expect(await store.insert({ model: 'ReplayDetection', id: 'x', ...row })).toBe(false)
    await store.upsert({
      model: 'DeviceCode',
      id: 'd',
      payload: { userCode: 'ABC' },
      expiresAt: null,
    })
    expect(await store.consume('DeviceCode', 'd', 7)).toBe(true)
    expect(await store.consume('DeviceCode', 'd', 8)).toBe(false)
    expect(await store.findByUserCode('DeviceCode', 'ABC')).toEqual({
      userCode: 'ABC',
      consumed: 7,
    })
    await thread[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })
})
