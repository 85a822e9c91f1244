/** People in Redis: what two gateways make of one person at once, and what somebody finds who reads that Redis. */
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { RedisChanges } from '../../../gateway/store/redis/changes.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisPasskeyStore, RedisTotpStore } from '../../../gateway/store/redis/factors.ts'
import { RedisInvitationStore } from '../../../gateway/store/redis/invitations.ts'
import { RedisOidcStore } from '../../../gateway/store/redis/logins.ts'
import { RedisIdentityStore } from '../../../gateway/store/redis/people.ts'
import { RedisProofs } from '../../../gateway/store/redis/proofs.ts'
import { StoreError } from '../../../gateway/store/sqlite/thread.ts'
import { appOf, passkeyOf, signedIn } from './contracts/factors.ts'
import { invitationOf } from './contracts/invitations.ts'
import { NOW } from './contracts/make.ts'
import { accountOf } from './contracts/people.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

const AT = NOW * 1000
const secretOf = (byte: number) => Buffer.alloc(32, byte).toString('base64url')

let server: RedisServer
let count = 0

/** What a gateway has, by a connection of its own. */
async function gateway(name: string, part: string, secrets: [string, ...string[]]) {
  const redis = await RedisConnection.open(server.place, part)
  onTestFinished(async () => await redis[Symbol.asyncDispose]())
  return {
    redis,
    accounts: new RedisIdentityStore(redis, name),
    logins: new RedisOidcStore(redis, secrets),
    passkeys: new RedisPasskeyStore(redis),
    totps: new RedisTotpStore(redis),
    proofs: new RedisProofs(redis),
    changes: new RedisChanges(redis),
  }
}
async function two() {
  const part = `people-${++count}`
  const secrets: [string, ...string[]] = [secretOf(1)]
  const [a, b] = [await gateway('gw1', part, secrets), await gateway('gw2', part, secrets)]
  return { a, b, part }
}

/** Every key under a part, and all that stands behind them. */
async function everything(part: string): Promise<{ keys: string[]; values: string }> {
  const client = new Redis(server.place)
  try {
    const keys = await client.keys(`{${part}}:*`)
    const dumped = await Promise.all(keys.map(async (key) => await client.dumpBuffer(key)))
    return { keys, values: dumped.map((value) => value?.toString('latin1')).join('\n') }
  } finally {
    client.disconnect()
  }
}

describe.skipIf(!haveRedis)('two gateways on one redis-server', () => {
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })

  test('count the attempts on one account together', async () => {
    const { a, b } = await two()
    const counter = { key: 'login:192.0.2.7:ada@plant.example', limit: 5, windowMs: 60_000 }
    const all = await Promise.all(
      [a, b, a, b, a, b, a, b].map(async ({ accounts }) => await accounts.take([counter], AT)),
    )
    expect(all.filter(({ allowed }) => allowed).length).toBe(5)
    for (const { accounts } of [a, b])
      expect(await accounts.take([counter], AT)).toEqual({ allowed: false, retryAfterMs: 60_000 })
  })

  test('let one step of an app, one count of a passkey and one code in once between them', async () => {
    const { a, b } = await two()
    await signedIn(a.logins, 'l')
    const by = { login: 'l', shown: null }
    await b.passkeys.addPasskey(passkeyOf('k', { counter: 3 }), 9, by)
    await a.totps.putTotp(appOf(), null, { login: 'l', shown: 'passkey' })
    await b.logins.upsert({ model: 'AuthorizationCode', id: 'c', payload: {}, expiresAt: AT })
    const both = [a, b]
    const once = [
      await Promise.all(both.map(async ({ totps }) => await totps.useTotp('a', AT, 9, AT))),
      await Promise.all(both.map(async ({ passkeys }) => await passkeys.usePasskey('k', 4, AT))),
      await Promise.all(
        both.map(async ({ logins }) => await logins.consume('AuthorizationCode', 'c', NOW)),
      ),
      await Promise.all(
        both.map(async ({ proofs }) => await proofs.first('key', 'jti', AT + 60_000, AT)),
      ),
    ]
    expect(once.map((some) => some.filter(Boolean).length)).toEqual([1, 1, 1, 1])
    expect(await a.proofs.first('another', 'jti', AT + 60_000, AT)).toBe(true)
  })

  test('are begun by the token of either, once', async () => {
    const { a, b } = await two()
    for (const [{ accounts }, hash] of [
      [a, 'of a'],
      [b, 'of b'],
    ] as const)
      expect(await accounts.openBootstrap(hash)).toBe(true)
    expect(await a.accounts.bootstrapHash()).toBe('of a')
    expect(await a.accounts.bootstrapHash('of b')).toBe('of b')
    const both = await Promise.all([
      a.accounts.redeemBootstrap('of b', accountOf('a')),
      b.accounts.redeemBootstrap('of a', accountOf('b')),
    ])
    expect(both.toSorted()).toEqual(['redeemed', 'spent'])
    expect(await b.accounts.bootstrapHash('of b')).toBeUndefined()
  })

  test('hear whose account, factors and logins changed at the other, and of no more than that', async () => {
    const { a, b } = await two()
    const { place } = await b.changes.after(undefined)
    for (const sub of ['a', 'b', 'c', 'd']) {
      await a.accounts.addAccount(accountOf(sub))
      await signedIn(a.logins, `of ${sub}`, { sub })
    }
    await a.passkeys.addPasskey(passkeyOf('k'), 9, { login: 'of a', shown: null })
    await a.accounts.take([{ key: 'x', limit: 1, windowMs: 1 }], AT)
    const quiet = await b.changes.after(place === '0-0' ? '0-0' : place)
    expect(quiet.people).toEqual([])
    await a.accounts.changeAccount({ sub: 'b', changedAt: AT, disabled: true })
    await a.logins.endLogin('of c')
    await a.logins.endLogin('of c')
    await a.logins.endLoginsOf('d')
    await a.passkeys.removePasskey('a', 'k', 0)
    await a.logins.stepUp('of a', { methods: [], acr: 'x', at: NOW })
    const news = await b.changes.after(quiet.place)
    expect(news).toMatchObject({ people: ['b', 'c', 'd', 'a', 'a'], locked: false, lost: false })
    expect(news.grants).toEqual([])
  })

  test('and whoever reads that Redis finds no token, code or cookie, and in the names of keys nobody’s address', async () => {
    const { a, part } = await two()
    const secrets = ['the-refresh-token', 'the-cookie-of-a-browser', 'BCDF-GHJK', 'the-uid']
    const [token = '', cookie = '', userCode, uid] = secrets
    const payload = { jti: token, accountId: 'a', grantId: 'l' }
    await a.accounts.addAccount(accountOf('a'))
    await signedIn(a.logins, 'l')
    await a.logins.upsert({ model: 'RefreshToken', id: token, payload, expiresAt: AT })
    const session = { jti: cookie, uid, accountId: 'a' }
    await a.logins.upsert({ model: 'Session', id: cookie, payload: session, expiresAt: AT })
    const device = { jti: 'd', userCode, uid }
    await a.logins.upsert({ model: 'DeviceCode', id: 'd', payload: device, expiresAt: AT })
    const key = 'login:192.0.2.7:a@plant.example'
    await a.accounts.take([{ key, limit: 5, windowMs: 9 }], AT)
    await new RedisInvitationStore(a.redis).addInvitation(invitationOf('i'), 9)
    const { keys, values } = await everything(part)
    expect(keys.length).toBeGreaterThan(9)
    expect(secrets.filter((secret) => values.includes(secret))).toEqual([])
    const named = keys.filter((one) => secrets.some((secret) => one.includes(secret)))
    expect([named, keys.filter((one) => /192\.0\.2\.7|@/.test(one))]).toEqual([[], []])
  })

  test('read under any of their keys what the other sealed, and under none it is no answer', async () => {
    const { a, part } = await two()
    await a.logins.upsert({ model: 'Session', id: 's', payload: { uid: 'u' }, expiresAt: null })
    const turned = await gateway('gw2', part, [secretOf(2), secretOf(1)])
    expect(await turned.logins.find('Session', 's')).toEqual({ uid: 'u' })
    const foreign = await gateway('gw3', part, [secretOf(3)])
    await expect(foreign.logins.find('Session', 's')).rejects.toMatchObject({
      code: 'store.sealed',
    })
  })

  test('leave nothing of a login behind that has ended, nor of rows that were swept', async () => {
    const { a, part } = await two()
    await signedIn(a.logins, 'l')
    await a.logins.endLoginsOf('a')
    await signedIn(a.logins, 'm')
    const row = { payload: { uid: 'u', userCode: 'c', grantId: 'm', accountId: 'a' } }
    await a.logins.upsert({ model: 'Interaction', id: 'i', ...row, expiresAt: AT })
    await a.logins.sweep(AT + 9000)
    await a.logins.sweep(AT + 9000)
    const { keys } = await everything(part)
    expect(keys).toEqual([`{${part}}:changes`])
  })

  test('that cannot write take a proof once each, for what is ended must be heard; that cannot read, none', async () => {
    await using own = await RedisServer.start()
    const redis = await RedisConnection.open(own.place, 'full')
    onTestFinished(async () => await redis[Symbol.asyncDispose]())
    const proofs = new RedisProofs(redis)
    const first = async (jti: string) => await proofs.first('key', jti, AT + 60_000, AT)
    expect(await first('before')).toBe(true)
    const owner = new Redis(own.place)
    await owner.config('SET', 'maxmemory', '1')
    owner.disconnect()
    expect([await first('before'), await first('now')]).toEqual([false, true])
    await own.kill()
    await expect(first('then')).rejects.toMatchObject({ code: 'store.unavailable' })
  })

  test('whose proof too few replicas have take it once between them', async () => {
    const part = `people-${++count}`
    const open = async () =>
      await RedisConnection.open({ ...server.place, replicas: 1 }, part, 2000)
    const both = [await open(), await open()]
    onTestFinished(async () => {
      for (const redis of both) await redis[Symbol.asyncDispose]()
    })
    const answers: boolean[] = []
    for (const redis of both)
      answers.push(await new RedisProofs(redis).first('key', 'jti', AT + 60_000, AT))
    expect(answers).toEqual([true, false])
  })

  test('take no proof where nobody answered whether it was kept, though it can be read', async () => {
    const proofs = new RedisProofs({
      write: async () =>
        await Promise.reject(new StoreError('store.unavailable', 'Redis: Command timed out')),
      read: async () => await Promise.resolve(0),
    })
    await expect(proofs.first('key', 'jti', AT + 60_000, AT)).rejects.toMatchObject({
      code: 'store.unavailable',
    })
  })
})
