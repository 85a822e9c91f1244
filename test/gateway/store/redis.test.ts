/** The CA's contract on Redis, and what only a server shows: two processes, a power cut, forgetful settings. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { once } from 'node:events'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { instant } from '#ca'
import { RedisCaStore } from '../../../gateway/store/redis/ca.ts'
import { intention, storeContract, tokenRow } from '../../ca/store-contract.ts'
import { NOON, TENANT } from '../../ca/support.ts'
import { freePort } from '../../support/node.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

let server: RedisServer
let count = 0
const open: RedisCaStore[] = []

async function start(prefix: string, place = server.place): Promise<RedisCaStore> {
  const store = await RedisCaStore.open(place, prefix)
  open.push(store)
  return store
}
const newPrefix = () => `test-${++count}`

afterEach(async () => {
  for (const store of open.splice(0)) await store[Symbol.asyncDispose]()
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
      return { store: await start(prefix), again: async () => await start(prefix) }
    })
  })

  test('one token raced by two processes: one row', async () => {
    const prefix = newPrefix()
    const store = await start(prefix)
    const token = tokenRow()
    await store.addToken(token)
    const racers = ['a', 'b'].map((side) => {
      const program = new URL('./redis-racer.ts', import.meta.url).pathname
      const args = [program, String(server.port), prefix, token.id, side, '100']
      const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
      return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() }
    })
    for (const { lines } of racers) expect((await lines.next()).value).toBe('ready')
    for (const { child } of racers) child.stdin.write('go\n')
    const outcomes: string[] = []
    for (const { child, lines } of racers) {
      outcomes.push(...(JSON.parse(String((await lines.next()).value)) as string[]))
      if (child.exitCode === null) await once(child, 'exit')
    }
    expect(outcomes.filter((each) => each === 'fresh')).toHaveLength(1)
    expect(outcomes.filter((each) => each === 'token.bound')).toHaveLength(199)
    expect(await store.listCertificates(TENANT)).toHaveLength(1)
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
      .poll(async () => await store.findToken(TENANT, token.hash).catch(() => 'away'), {
        timeout: 10_000,
      })
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
    await expect(RedisCaStore.open(own.place)).rejects.toMatchObject({
      code: 'store.volatile',
      message: expect.stringMatching(says) as string,
    })
  })

  test('no server: an error within its patience', async () => {
    const place = { host: '127.0.0.1', port: await freePort() }
    await expect(RedisCaStore.open(place)).rejects.toMatchObject({ code: 'store.unavailable' })
  })
})
