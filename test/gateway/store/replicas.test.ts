/** A gateway that counts a write when a replica has it, and whose replica goes away: nothing is let in, and who ends something is heard. */
import { Redis } from 'ioredis'
import { afterAll, describe, expect, test } from 'vitest'
import { until } from '../../support/node.ts'
import { carried, here, twoDevices } from '../sessions/carried.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

let server: RedisServer
let replica: RedisServer

/** Makes `replica` one, and resolves when it has what the server has. */
async function follow(): Promise<void> {
  const [owner, other] = [new Redis(server.place), new Redis(replica.place)]
  try {
    await other.replicaof('127.0.0.1', server.port)
    await until('the replica follows', async () =>
      (await owner.info('replication')).includes('state=online'),
    )
  } finally {
    for (const one of [owner, other]) one.disconnect()
  }
}

describe.skipIf(!haveRedis)('a gateway whose writes one replica must have', () => {
  twoDevices(async () => {
    server = await RedisServer.start({ 'repl-diskless-sync-delay': '0' })
    replica = await RedisServer.start()
    await follow()
    const place = `host: 127.0.0.1, port: ${server.port}`
    return { config: `store: { redis: { ${place}, replicas: 1 } }\n` }
  })
  afterAll(async () => {
    for (const one of [replica, server]) await one[Symbol.asyncDispose]()
  })

  test('hears who revokes while the replica is away, cuts here, and says that it is not confirmed', async () => {
    const one = await carried()
    await replica.kill()
    const { id } = one.grant
    const [refused, gone] = await Promise.all([
      here.operator.call('POST', `/grants/${id}/revoke`, { reason: 'enough' }),
      one.line.gone(),
    ])
    expect([refused.status, refused.body.code, gone.code]).toEqual([
      503,
      'store.unavailable',
      'grant.revoked',
    ])
    const said = here.node.events(one.from).filter(({ code }) => code === 'grant.revoke')
    expect(said.map(({ text }) => text.includes('"store.unavailable"'))).toEqual([false, true])
    await replica.run()
    await follow()
  })
})
