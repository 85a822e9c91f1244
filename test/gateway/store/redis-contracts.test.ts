/** The stores that several gateways share, in Redis, under the contracts that SQLite passes too. */
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { RedisAnswerStore } from '../../../gateway/store/redis/answers.ts'
import { RedisAuditorStore } from '../../../gateway/store/redis/auditors.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisDeviceStore } from '../../../gateway/store/redis/devices.ts'
import { RedisPasskeyStore, RedisTotpStore } from '../../../gateway/store/redis/factors.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { RedisOidcStore } from '../../../gateway/store/redis/logins.ts'
import { RedisIdentityStore } from '../../../gateway/store/redis/people.ts'
import { RedisReviewStore } from '../../../gateway/store/redis/reviews.ts'
import { RedisSessionStore } from '../../../gateway/store/redis/sessions.ts'
import { answerStoreContract, claimOf } from './contracts/answers.ts'
import { auditorStoreContract } from './contracts/auditors.ts'
import { deviceStoreContract } from './contracts/devices.ts'
import { grantExtensionContract } from './contracts/extensions.ts'
import { factorContract } from './contracts/factors.ts'
import { grantStoreContract } from './contracts/grants.ts'
import { lockStoreContract } from './contracts/locks.ts'
import { loginStoreContract } from './contracts/logins.ts'
import { peopleStoreContract } from './contracts/people.ts'
import { sealContract } from './contracts/seals.ts'
import { session, sessionStoreContract } from './contracts/sessions.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

/** What seals, as identity/keys.json has it. */
const SECRET = Buffer.alloc(32, 7).toString('base64url')

let server: RedisServer
let count = 0
const open: RedisConnection[] = []

/** A connection to a part of the server that is empty. */
async function connection(): Promise<RedisConnection> {
  const redis = await RedisConnection.open(server.place, `part-${++count}`)
  open.push(redis)
  return redis
}

describe.skipIf(!haveRedis)('redis-server', () => {
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterEach(async () => {
    for (const redis of open.splice(0)) await redis[Symbol.asyncDispose]()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })

  grantStoreContract('Redis', async () => new RedisGrantStore(await connection()))
  grantExtensionContract('Redis', async () => new RedisGrantStore(await connection()))
  sealContract('Redis', async () => {
    const redis = await connection()
    return { grants: new RedisGrantStore(redis), reviews: new RedisReviewStore(redis) }
  })
  lockStoreContract('Redis', async () => new RedisLockStore(await connection()))
  sessionStoreContract('Redis', async () => new RedisSessionStore(await connection(), 'gw1'))

  deviceStoreContract('Redis', async () => new RedisDeviceStore(await connection(), 2))
  auditorStoreContract('Redis', async () => new RedisAuditorStore(await connection()))
  answerStoreContract('Redis', async () => new RedisAnswerStore(await connection(), 'gw1'))
  peopleStoreContract('Redis', async () => new RedisIdentityStore(await connection(), 'gw1'))
  loginStoreContract('Redis', async () => new RedisOidcStore(await connection(), [SECRET]))
  factorContract('Redis', async () => {
    const redis = await connection()
    return {
      passkeys: new RedisPasskeyStore(redis),
      totps: new RedisTotpStore(redis),
      logins: new RedisOidcStore(redis, [SECRET]),
    }
  })

  const ended = {
    reason: 'client_done',
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
  } as const
  const ids = (rows: readonly { readonly id: string }[]) => rows.map(({ id }) => id)

  test('what one gateway left open is not taken for the other’s; both are listed', async () => {
    const redis = await connection()
    const [a, b] = [new RedisSessionStore(redis, 'gw1'), new RedisSessionStore(redis, 'gw2')]
    const [of_a, of_b] = [session({ id: 's_a' }), session({ id: 's_b' })]
    await a.add(of_a)
    await b.add(of_b)
    expect([await a.open(), await b.open()]).toEqual([[of_a], [of_b]])
    expect(await a.list({ limit: 9 })).toEqual([of_b, of_a])
    await b.end({ id: 's_a', at: 1, ...ended })
    expect(await a.open()).toEqual([])
  })

  test('of the sessions that have ended the last are kept, and no key of another is left', async () => {
    const redis = await connection()
    const store = new RedisSessionStore(redis, 'gw1', 3)
    for (const [at, id] of ['a', 'b', 'c', 'd', 'e', 'f'].entries())
      await store.add(session({ id, opened_at: at, identity: `iss|${id}` }))
    for (const [at, id] of ['e', 'a', 'b', 'c', 'd'].entries())
      await store.end({ id, at, ...ended })
    expect(ids(await store.list({ limit: 9 }))).toEqual(['f', 'd', 'c', 'b'])
    expect([await store.find('e'), await store.list({ limit: 9, identity: 'iss|e' })]).toEqual([
      undefined,
      [],
    ])
    const left = await keysOf(`part-${count}`)
    expect(left.filter((key) => /:[ae]$|\|[ae]$/.test(key))).toEqual([])
  })

  test('a key that one gateway has begun is at another what may be under way, for two minutes', async () => {
    const redis = await connection()
    const [a, b] = [new RedisAnswerStore(redis, 'gw1'), new RedisAnswerStore(redis, 'gw2')]
    const at = (ms: number) => claimOf('n', { at: ms, until: 999_999 })
    expect((await a.claim(at(0))).outcome).toBe('claimed')
    const said = [await a.claim(at(1)), await b.claim(at(119_999)), await b.claim(at(120_000))]
    expect(said).toEqual([false, true, false].map((elsewhere) => ({ outcome: 'begun', elsewhere })))
  })

  test('the bodies of answers take no more than they may: of whoever has the most the oldest go', async () => {
    const store = new RedisAnswerStore(await connection(), 'gw1', 100)
    const answer = async (name: string, at: number, octets: number) => {
      const claim = claimOf(name, { owner: name.slice(0, 1), at, until: at + 99 })
      await store.claim(claim)
      await store.finish(name, { status: 200, body: 'x'.repeat(octets) })
      return claim
    }
    const claims = [await answer('v1', 1, 40), await answer('v2', 2, 40), await answer('o1', 3, 20)]
    claims.push(await answer('o2', 4, 30), await answer('o3', 5, 101))
    const kept = []
    for (const one of claims) kept.push(await store.claim(one))
    // The first made room for the fourth; for the fifth, which is longer than all may be, none has to.
    expect(kept.map(({ outcome }) => outcome)).toEqual(['claimed', 'done', 'done', 'done', 'done'])
    expect(kept.at(-1)).toMatchObject({ kept: { status: 200, body: null } })
  })

  test('of answers that are over no key is left', async () => {
    const store = new RedisAnswerStore(await connection(), 'gw1')
    for (const name of ['a', 'b', 'c']) await store.claim(claimOf(name, { owner: `of-${name}` }))
    await store.finish('a', { status: 200, body: '{}' })
    await store.finish('b', { status: 200, body: null })
    await store.claim(claimOf('d', { owner: 'of-d', at: 9, until: 99 }))
    await store.release('d')
    expect(await keysOf(`part-${count}`)).toEqual([`{part-${count}}:answersoctets`])
  })
})

/** Every key under a prefix, by a client of its own. */
async function keysOf(prefix: string): Promise<readonly string[]> {
  const client = new Redis(server.place)
  try {
    return await client.keys(`{${prefix}}:*`)
  } finally {
    client.disconnect()
  }
}
