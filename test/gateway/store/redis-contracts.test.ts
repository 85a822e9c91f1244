/** The stores that several gateways share, in Redis, under the contracts that SQLite passes too. */
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { RedisReviewStore } from '../../../gateway/store/redis/reviews.ts'
import { RedisSessionStore } from '../../../gateway/store/redis/sessions.ts'
import { grantExtensionContract } from './contracts/extensions.ts'
import { grantStoreContract } from './contracts/grants.ts'
import { lockStoreContract } from './contracts/locks.ts'
import { sealContract } from './contracts/seals.ts'
import { session, sessionStoreContract } from './contracts/sessions.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

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
