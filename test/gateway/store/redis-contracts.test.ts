/** The stores that several gateways share, in Redis, under the contracts that SQLite passes too. */
import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisReviewStore } from '../../../gateway/store/redis/reviews.ts'
import { grantExtensionContract } from './contracts/extensions.ts'
import { grantStoreContract } from './contracts/grants.ts'
import { sealContract } from './contracts/seals.ts'
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
})
