/** The CA's contract on Redis, and what only a server shows: a power cut, forgetful settings. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { instant } from '#ca'
import { RedisCaStore } from '../../../gateway/store/redis/ca.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisPendingStore } from '../../../gateway/store/redis/enrolments.ts'
import { intention, storeContract, tokenRow, type Stores } from '../../ca/store-contract.ts'
import { NOON, TENANT } from '../../ca/support.ts'
import { freePort } from '../../support/node.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

/** A way to the server on which nothing comes through while it is stalled, nor ever on what was open then. */
class Way implements AsyncDisposable {
  stalled = false
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  private constructor(to: number) {
    this.#server = createServer((near) => {
      const far = connect(to, '127.0.0.1')
      let dead = this.stalled
      for (const [from, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from)
        from.on('error', () => undefined)
        from.on('close', () => other.destroy())
        from.on('data', (chunk) => {
          dead ||= this.stalled
          if (!dead) other.write(chunk)
        })
      }
    })
  }
  static async to(port: number): Promise<Way> {
    const way = new Way(port)
    way.#server.listen(0, '127.0.0.1')
    await once(way.#server, 'listening')
    return way
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
    await Promise.resolve()
  }
}

let server: RedisServer
let count = 0
const open: RedisConnection[] = []

async function stores(prefix: string, place = server.place): Promise<Stores> {
  const redis = await RedisConnection.open(place, prefix)
  open.push(redis)
  return { store: new RedisCaStore(redis), pending: new RedisPendingStore(redis) }
}
const start = async (prefix: string, place = server.place) => (await stores(prefix, place)).store
const newPrefix = () => `test-${++count}`

afterEach(async () => {
  for (const redis of open.splice(0)) await redis[Symbol.asyncDispose]()
})

describe.skipIf(!haveRedis)('redis-server', () => {
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })

  describe('the contract, on Redis', () => {
    storeContract(async () => {
      const prefix = newPrefix()
      const place = ['redis', String(server.port), prefix]
      return { ...(await stores(prefix)), again: async () => await stores(prefix), place }
    })
  })

  test('what it confirmed survives kill -9, and the same connection goes on', async () => {
    await using own = await RedisServer.start()
    const store = await start('cut', own.place)
    const token = tokenRow()
    await store.addToken(token)
    const rows = Array.from({ length: 50 }, () => intention())
    await Promise.all(rows.map((row) => store.record(row)))
    await own.kill()
    await expect(store.findToken(TENANT, token.hash)).rejects.toMatchObject({
      code: 'store.unavailable',
    })
    await own.run()
    await expect
      .poll(async () => await store.findToken(TENANT, token.hash).catch(() => 'away'))
      .toEqual(token)
    expect(await store.openIntentions(TENANT)).toHaveLength(50)
    // The server has forgotten its scripts: they are sent again.
    expect((await store.record(intention())).outcome).toBe('fresh')
  })

  test('dates beyond 2^31 and epochs stay exact through Lua', async () => {
    const store = await start(newPrefix())
    const far = instant(253_402_300_799_000)
    const row = intention({ notAfter: far })
    await store.record(row)
    expect((await store.findCertificate(row.serial))?.notAfter).toBe(far)
    for (let epoch = 1; epoch <= 12; epoch++)
      expect(
        (await store.revoke(TENANT, { device: 'none' }, 'unspecified', instant(NOON))).epoch,
      ).toBe(epoch)
    expect((await store.revocationsSince(TENANT, 9)).map((each) => each.epoch)).toEqual([
      10, 11, 12,
    ])
  })

  test('a write that too few replicas have is an error', async () => {
    const store = await start(newPrefix(), Object.assign({ replicas: 1 }, server.place))
    await expect(store.addToken(tokenRow())).rejects.toMatchObject({ code: 'store.replicas' })
  })

  test('while writes wait for a replica that is away, reads are answered; then each write is told so', async () => {
    const redis = await RedisConnection.open({ ...server.place, replicas: 1 }, newPrefix())
    open.push(redis)
    const settled: string[] = []
    const write = async (name: string) =>
      await redis.write('takeName', name, 'x').then(
        () => settled.push('kept'),
        (error: unknown) => settled.push((error as { code: string }).code),
      )
    const writes = ['a', 'b', 'c'].map(write)
    expect(Number(await redis.read('clock'))).toBeGreaterThan(0)
    settled.push('read')
    await Promise.all(writes)
    expect(settled).toEqual(['read', 'store.replicas', 'store.replicas', 'store.replicas'])
  })

  test('a server that became a replica is read still, and dialled anew for writes', async () => {
    await using own = await RedisServer.start()
    const redis = await RedisConnection.open(own.place, newPrefix())
    open.push(redis)
    const owner = new Redis(own.place)
    const dialled = async () => {
      const list = String(await owner.client('LIST'))
      return [...list.matchAll(/^id=(\d+) .* cmd=(?:evalsha|eval|config\|get|info) /gm)].map(
        (one) => one[1],
      )
    }
    expect(await redis.write('takeName', 'a', 'x')).toBe(1)
    const before = await dialled()
    await owner.replicaof('127.0.0.1', String(await freePort()))
    await expect(redis.write('takeName', 'b', 'x')).rejects.toMatchObject({
      message: expect.stringContaining('READONLY') as string,
    })
    const clock = async () => await redis.read('clock').catch(() => 'away')
    await expect.poll(clock, { timeout: 20_000 }).not.toBe('away')
    await owner.replicaof('NO', 'ONE')
    const write = async () => await redis.write('takeName', 'b', 'x').catch(() => 'away')
    await expect.poll(write, { timeout: 20_000 }).toBe(1)
    expect(await dialled()).not.toEqual(before)
    owner.disconnect()
  })

  const forgetful = [
    [{ appendonly: 'no' }, /"appendonly no" must be "appendonly yes"/],
    [{ appendfsync: 'everysec' }, /"appendfsync everysec" must be "appendfsync always"/],
    [{ 'no-appendfsync-on-rewrite': 'yes' }, /must be "no-appendfsync-on-rewrite no"/],
    [
      { 'maxmemory-policy': 'allkeys-lru' },
      /"maxmemory-policy allkeys-lru" must be "maxmemory-policy noeviction"/,
    ],
  ] as const
  test.for(forgetful)('%o is refused with the line to change', async ([settings, says]) => {
    await using own = await RedisServer.start(settings)
    await expect(RedisConnection.open(own.place, 'x')).rejects.toMatchObject({
      code: 'store.volatile',
      message: expect.stringMatching(says) as string,
    })
  })

  test('a user that may not read the settings: refused with what to allow', async () => {
    await using own = await RedisServer.start()
    const owner = new Redis(own.place)
    await owner.call('ACL', 'SETUSER', 'default', '-config')
    owner.disconnect()
    await expect(RedisConnection.open(own.place, 'x')).rejects.toMatchObject({
      code: 'store.settings',
      message: expect.stringContaining('let this user run CONFIG GET') as string,
    })
  })

  test('a server that comes back with forgetful settings is refused, until they are right', async () => {
    await using own = await RedisServer.start()
    const store = await start('back', own.place)
    await store.addToken(tokenRow())
    const said = async () =>
      await store.listTokens(TENANT).then(
        (rows) => rows.length,
        (error: unknown) => (error as { code: string }).code,
      )
    await own.kill()
    await own.run({ appendfsync: 'everysec' })
    await expect.poll(said).toBe('store.volatile')
    await expect(store.addToken(tokenRow())).rejects.toMatchObject({ code: 'store.volatile' })
    await own.kill()
    await own.run({ appendfsync: 'always' })
    await expect.poll(said).toBe(1)
  })

  const hasty = async (port: number, prefix = newPrefix()) => {
    const redis = await RedisConnection.open({ host: '127.0.0.1', port }, prefix, 100)
    open.push(redis)
    return new RedisCaStore(redis)
  }

  test('a server that accepts and never answers: an error, not a wait', async () => {
    await using way = await Way.to(server.port)
    way.stalled = true
    await expect(hasty(way.port)).rejects.toMatchObject({ code: 'store.unavailable' })
  })

  test('a server that falls silent without closing is given up: the next one at its address is asked', async () => {
    await using way = await Way.to(server.port)
    const store = await hasty(way.port)
    const token = tokenRow()
    await store.addToken(token)
    way.stalled = true
    await expect(store.findToken(TENANT, token.hash)).rejects.toMatchObject({
      code: 'store.unavailable',
    })
    // What was open stays silent for ever; who dials anew is answered.
    way.stalled = false
    await expect
      .poll(async () => await store.findToken(TENANT, token.hash).catch(() => 'away'))
      .toEqual(token)
  })

  test('no server: an error within its patience', async () => {
    const place = { host: '127.0.0.1', port: await freePort() }
    await expect(RedisConnection.open(place, 'x')).rejects.toMatchObject({
      code: 'store.unavailable',
    })
  })
})
