/** The stores that several gateways share, in Redis, under the contracts that SQLite passes too. */
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { RedisAnswerStore } from '../../../gateway/store/redis/answers.ts'
import { RedisAuditorStore } from '../../../gateway/store/redis/auditors.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisDeviceStore } from '../../../gateway/store/redis/devices.ts'
import { RedisPasskeyStore, RedisTotpStore } from '../../../gateway/store/redis/factors.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisIdpStore } from '../../../gateway/store/redis/idps.ts'
import { RedisInvitationStore } from '../../../gateway/store/redis/invitations.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { RedisOidcStore } from '../../../gateway/store/redis/logins.ts'
import { RedisIdentityStore } from '../../../gateway/store/redis/people.ts'
import { RedisGatewayPolicies } from '../../../gateway/store/redis/policies.ts'
import { RedisReviewStore } from '../../../gateway/store/redis/reviews.ts'
import { RedisServiceStore } from '../../../gateway/store/redis/services.ts'
import { RedisSessionStore } from '../../../gateway/store/redis/sessions.ts'
import { answerStoreContract, claimOf } from './contracts/answers.ts'
import { auditorStoreContract } from './contracts/auditors.ts'
import { companyCalled, companyStoreContract } from './contracts/companies.ts'
import { deviceStoreContract } from './contracts/devices.ts'
import { grantExtensionContract } from './contracts/extensions.ts'
import { factorContract } from './contracts/factors.ts'
import { grantStoreContract } from './contracts/grants.ts'
import { invitationOf, invitationStoreContract } from './contracts/invitations.ts'
import { lockStoreContract } from './contracts/locks.ts'
import { loginStoreContract } from './contracts/logins.ts'
import { accountOf, peopleStoreContract } from './contracts/people.ts'
import { gatewayPolicyContract, policyOfGateway } from './contracts/policies.ts'
import { sealContract } from './contracts/seals.ts'
import { serviceCalled, serviceStoreContract } from './contracts/services.ts'
import { session, sessionStoreContract } from './contracts/sessions.ts'
import { until } from '../../support/patience.ts'
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
  gatewayPolicyContract('Redis', async () => new RedisGatewayPolicies(await connection()))
  lockStoreContract('Redis', async () => new RedisLockStore(await connection()))
  sessionStoreContract('Redis', async () => new RedisSessionStore(await connection(), 'gw1'))

  deviceStoreContract('Redis', async () => new RedisDeviceStore(await connection(), 2))
  auditorStoreContract('Redis', async () => new RedisAuditorStore(await connection()))
  companyStoreContract('Redis', async () => {
    const redis = await connection()
    return { idps: new RedisIdpStore(redis), accounts: new RedisIdentityStore(redis, 'gw1') }
  })
  invitationStoreContract('Redis', async () => {
    const redis = await connection()
    return {
      invitations: new RedisInvitationStore(redis),
      accounts: new RedisIdentityStore(redis, 'gw1'),
      passkeys: new RedisPasskeyStore(redis),
      logins: new RedisOidcStore(redis, [SECRET]),
    }
  })
  serviceStoreContract('Redis', async () => new RedisServiceStore(await connection()))
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

  test('the bodies of answers take no more than they may: the oldest go of whose are the longest, and no key with them', async () => {
    const store = new RedisAnswerStore(await connection(), 'gw1', 100)
    const answer = async (name: string, at: number, octets: number) => {
      const claim = claimOf(name, { owner: name.slice(0, 1), at, until: at + 99 })
      await store.claim(claim)
      await store.finish(name, { status: 200, body: 'x'.repeat(octets) })
      return claim
    }
    // The many short ones of another are not what is in the way.
    const claims = [await answer('o1', 0, 5), await answer('o2', 1, 5), await answer('o3', 2, 5)]
    claims.push(await answer('v1', 3, 40), await answer('v2', 4, 40), await answer('w1', 5, 30))
    // For one that is longer than all may be none has to go.
    claims.push(await answer('w2', 6, 101), await answer('w3', 7, 20))
    const kept: (readonly [string, number | null])[] = []
    for (const one of claims) {
      const said = await store.claim(one)
      const body = said.outcome === 'done' ? said.kept.body : undefined
      kept.push([said.outcome, body?.length ?? null])
    }
    const lengths = [5, 5, 5, null, null, 30, null, 20]
    expect(kept).toEqual(lengths.map((length) => ['done', length]))
    // Over, they leave nothing behind.
    for (let at = 0; at < 8; at++) await store.claim(claimOf('n', { at: 200, until: 201 }))
    await store.release('n')
    expect(await keysOf(`part-${count}`)).toEqual([`{part-${count}}:answersoctets`])
  })

  test('that the certificates of a device have ended stays with it, whatever becomes of its state', async () => {
    const store = new RedisDeviceStore(await connection())
    const device = { id: 'press-07', zone: 'z', labels: {}, created_at: 1 } as const
    expect(await store.end('press-07', 'm0', 'superseded')).toBeUndefined()
    await store.add({ ...device, state: 'quarantined' })
    const before = await store.end('press-07', 'm1', 'keyCompromise')
    expect(before).toEqual({ ...device, state: 'quarantined' })
    await store.end('press-07', 'm2', 'superseded')
    await store.move('press-07', ['quarantined'], 'active')
    const ending = { mark: 'm2', reason: 'superseded', compromised: 'm1' }
    expect(await store.list()).toEqual([{ ...device, state: 'active', ending }])
  })

  test('of the services that are past the newest are kept, and of the others no key', async () => {
    const store = new RedisServiceStore(await connection(), 2)
    for (let at = 0; at < 6; at++)
      await store.addService(serviceCalled(`${at}`, { createdAt: at, expiresAt: at + 1 }), 9, at)
    expect(ids(await store.listServices())).toEqual(['v_5', 'v_4', 'v_3'])
    expect(await store.findService('v_2')).toBeUndefined()
    const left = await keysOf(`part-${count}`)
    expect(left.filter((key) => /v_[012]$/.test(key))).toEqual([])
  })

  test('what people come in by is taken over once for each directory, and what others are in the way of stays behind', async () => {
    const redis = await connection()
    const idps = new RedisIdpStore(redis)
    await idps.addIdp(companyCalled('acme'))
    const off = companyCalled('bolt', { enabled: false })
    expect(await idps.take('d1', [companyCalled('acme'), off])).toEqual(['acme'])
    expect(await idps.findIdp('bolt')).toEqual(off)
    await idps.removeIdp('bolt', 1)
    expect(await idps.take('d1', [off])).toEqual([])
    expect(ids(await idps.listIdps())).toEqual(['acme'])
    const services = new RedisServiceStore(redis)
    await services.addService(serviceCalled('a'), 9, 1)
    const used = serviceCalled('b', { tokenUntil: 50, usedAt: 40 })
    const same = serviceCalled('c', { thumbprint: 'of-a' })
    expect(await services.take('d1', [used, same], 1)).toEqual(['v_c'])
    expect(await services.findService('v_b')).toMatchObject({ tokenUntil: 50, expiresAt: 100 })
    await services.revokeService('v_b', 60)
    expect(await services.take('d1', [used], 61)).toEqual([])
    expect(await services.useService('v_b', 61, 70)).toBe(false)
    // The first has run out by then, though nobody was entered since.
    const next = { ...same, id: 'v_next', name: 'a', expiresAt: 300 }
    expect(await services.take('d2', [next], 100)).toEqual([])
    expect((await services.findService('v_next'))?.expiresAt).toBe(300)
    const invitations = new RedisInvitationStore(redis)
    const link = invitationOf('i', { createdAt: 1, expiresAt: 9 })
    expect(await invitations.take('d1', [link])).toBe(1)
    await invitations.closeInvitation('i', 2)
    expect(await invitations.take('d1', [link])).toBe(0)
    expect((await invitations.findInvitation({ id: 'i' }))?.closed).toEqual({
      at: 2,
      how: 'revoked',
    })
    expect(await invitations.take('d2', [{ ...link, id: 'j' }])).toBe(0)
  })

  test('of invitations that are past the newest are kept, and of the others no key', async () => {
    const store = new RedisInvitationStore(await connection(), 2)
    for (let at = 0; at < 6; at++)
      await store.addInvitation(invitationOf(`i_${at}`, { createdAt: at, expiresAt: at + 1 }), 9)
    expect(ids(await store.listInvitations(9))).toEqual(['i_5', 'i_4', 'i_3'])
    const left = await keysOf(`part-${count}`)
    expect(left.filter((key) => /i_[012]/.test(key))).toEqual([])
    expect(await store.findInvitation({ hash: 'of i_2' })).toBeUndefined()
  })

  test('a link that is opened at two gateways at once makes one account, by one passkey', async () => {
    const nodes = [await connection()]
    nodes.push(await RedisConnection.open(server.place, `part-${count}`))
    open.push(...nodes.slice(1))
    const stores = nodes.map((redis) => new RedisInvitationStore(redis))
    const accounts = new RedisIdentityStore(nodes[0] as RedisConnection, 'gw1')
    for (let round = 0; round < 12; round++) {
      const row = invitationOf(`i_${round}`, { createdAt: 1, expiresAt: 9 })
      await stores[round % 2]?.addInvitation(row, 99)
      const made = accountOf(row.sub, { email: row.email })
      const said = await Promise.all(
        stores.flatMap((store) => [
          store.redeemInvitation(row.hash, made, null, 2),
          store.redeemInvitation(row.hash, made, null, 2),
        ]),
      )
      expect(said.toSorted()).toEqual(['closed', 'closed', 'closed', 'redeemed'])
      expect((await accounts.findAccount(row.sub))?.email).toBe(row.email)
    }
  })

  test('of gateways that say nothing any more no key is left', async () => {
    const store = new RedisGatewayPolicies(await connection())
    for (const gateway of ['gw1', 'gw2']) await store.say(policyOfGateway(gateway), 1, 9)
    await until('all is gone', async () => (await keysOf(`part-${count}`)).length === 0)
    await store.say(policyOfGateway('gw1'), 3_600_000, 9)
    await store.say(policyOfGateway('gw2'), 1, 9)
    await until('its time is over', async () => (await store.list()).length === 1)
    expect(await keysOf(`part-${count}`)).toHaveLength(2)
  })

  test('what a gateway says that cannot be read is not taken for that it says nothing', async () => {
    const redis = await connection()
    const store = new RedisGatewayPolicies(redis)
    await redis.write('sayPolicy', 'gw2', '{"gateway":"gw2"}', '3600000', '9')
    await expect(store.list()).rejects.toThrow('cannot be read')
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
