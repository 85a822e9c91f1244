/** A gateway whose grants are in Redis, beside another that is played by the stores alone. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Device, Grant as Granted, Session } from '#api'
import type { Input, Partially } from '#policy'
import { newId } from '../../../gateway/ids.ts'
import type { News } from '../../../gateway/sessions/changes.ts'
import { Locks } from '../../../gateway/locks/locks.ts'
import { RedisAuditorStore } from '../../../gateway/store/redis/auditors.ts'
import { RedisChanges } from '../../../gateway/store/redis/changes.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisDeviceStore } from '../../../gateway/store/redis/devices.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { RedisSessionStore } from '../../../gateway/store/redis/sessions.ts'
import { startNode, TENANT, until } from '../../support/node.ts'
import { carried, endsSince, here, isCut, twoDevices } from '../sessions/carried.ts'
import { auditorCalled } from './contracts/auditors.ts'
import { grant } from './contracts/granted.ts'
import { lockOn } from './contracts/locks.ts'
import { NOW } from './contracts/make.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

const open: RedisConnection[] = []

/** What another gateway would hold: its own connection to what both share. */
async function other() {
  const redis = await RedisConnection.open(server.place, TENANT)
  open.push(redis)
  return {
    grants: new RedisGrantStore(redis),
    sessions: new RedisSessionStore(redis, 'gw2'),
    locks: new RedisLockStore(redis),
    devices: new RedisDeviceStore(redis),
    auditors: new RedisAuditorStore(redis),
  }
}

let server: RedisServer
const seconds = () => Math.floor(Date.now() / 1000)
const settings = (port: number) => `store: { redis: { host: 127.0.0.1, port: ${port} } }\n`

describe.skipIf(!haveRedis)('a gateway on redis-server', () => {
  twoDevices(async () => {
    server = await RedisServer.start()
    return { config: settings(server.port) }
  })
  afterEach(async () => {
    for (const redis of open.splice(0)) await redis[Symbol.asyncDispose]()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })

  test('keeps grants, approvals and sessions there, and none of them in its file', async () => {
    const one = await carried()
    const { grants, sessions } = await other()
    const kept = await grants.find(one.grant.id)
    expect([kept?.state, kept?.uses, kept?.approvals.length]).toEqual(['active', 1, 1])
    expect((await sessions.find(one.session.id))?.grant).toBe(one.grant.id)
    expect(await sessions.open()).toEqual([])
    const kinds = ['access_grant', 'session', 'device', 'answer', 'auditor']
    const rows = kinds.map((kind) => here.node.rows(`SELECT 1 FROM ${kind}`))
    expect(rows).toEqual(kinds.map(() => []))
  })

  test('cuts what runs under a grant that another gateway revokes', async () => {
    const one = await carried()
    const { grants } = await other()
    await grants.apply(one.grant.id, 'revoke', seconds(), 'iss|somebody', 'enough')
    const record = await isCut(one, /^grant\.revoked$/, 'policy_recheck')
    expect(record.time_to_cut_ms).toBeGreaterThan(0)
    const again = await here.vendor.call('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
      grant: one.grant.id,
    })
    expect([again.status, again.body.code]).toEqual([403, 'grant.revoked'])
  })

  test('cuts what runs on a device that another gateway quarantines, and lets nobody on it until it is back', async () => {
    const one = await carried()
    const { devices } = await other()
    await devices.move('press-07', ['active'], 'quarantined')
    const asked = { device: 'press-07', process: 'plc', grant: one.grant.id }
    const open = async () => await here.vendor.call('POST', '/sessions', asked)
    const refused = await open()
    expect([refused.status, refused.body.code]).toEqual([403, 'device.quarantined'])
    await isCut(one, /^device\.quarantined$/, 'policy_recheck')
    expect((await here.node.admin.ask<Device>('GET', '/devices/press-07')).state).toBe(
      'quarantined',
    )
    const resumed = await here.node.admin.call('POST', '/devices/press-07/resume', { reason: 'x' })
    expect([resumed.status, (await devices.find('press-07'))?.state]).toEqual([200, 'active'])
    expect((await open()).status).toBe(201)
  })

  test('knows the devices and the auditors that another gateway was told of', async () => {
    const { devices, auditors } = await other()
    const elsewhere = { id: 'press-99', zone: 'default', labels: {}, created_at: NOW } as const
    expect(await devices.add({ ...elsewhere, state: 'active' })).toBe(true)
    await auditors.add(auditorCalled('ann'))
    const listed = await here.node.admin.ask<{ items: Device[] }>('GET', '/devices')
    expect(listed.items.map(({ id, connected }) => [id, connected])).toEqual([
      ['press-07', true],
      ['press-08', false],
      ['press-99', false],
    ])
    const again = await here.node.admin.call('POST', '/devices', { id: 'press-99' })
    expect([again.status, again.body.code]).toEqual([409, 'device.exists'])
    expect((await here.node.admin.call('GET', '/auditors')).text).toContain('age1ann')
    await auditors.remove('ann')
  })

  test('lets nobody in by the use that another gateway had', async () => {
    const asked = { device: 'press-07', process: 'plc' }
    const { id, hash } = await here.vendor.ask<Granted>('POST', '/grants', {
      device: 'press-07',
      processes: ['plc'],
      duration_s: 60,
      reason: 'x',
      max_uses: 1,
    })
    await here.operator.ask('POST', `/grants/${id}/approve`, { hash })
    const { grants } = await other()
    expect((await grants.apply(id, 'use', seconds(), 'iss|vera', ''))?.uses).toBe(1)
    const refused = await here.vendor.call('POST', '/sessions', { ...asked, grant: id })
    expect([refused.status, refused.body.code]).toEqual([403, 'grant.used_up'])
  })

  test('has nobody approve or review what somebody asked for who may have another account elsewhere', async () => {
    const { grants } = await other()
    // Not over by the clock of the node, which would end them.
    const not_after = seconds() + 600
    const foreign = { requester: 'https://gw2.plant.example/oidc|u1', tenant: TENANT, not_after }
    const [asked, sealed] = [
      grant(foreign),
      grant({ ...foreign, sealed: { quorum: 2 } }, { state: 'approved' }),
    ]
    const unseals = { grant: sealed.statement.id, sha256: sealed.hash }
    const broken = grant({ ...foreign, unseals, not_before: NOW }, { state: 'approved' })
    for (const one of [asked, sealed, broken]) expect(await grants.add(one)).toBe(true)
    const refused = [
      await here.operator.call('POST', `/grants/${asked.statement.id}/approve`, {
        hash: asked.hash,
      }),
      await here.operator.call('POST', `/grants/${broken.statement.id}/review`, {
        note: 'well',
      }),
    ]
    expect(refused.map(({ status, body }) => [status, body.code])).toEqual([
      [409, 'grant.person'],
      [409, 'grant.person'],
    ])
    expect((await grants.find(asked.statement.id))?.approvals).toEqual([])
  })

  test('shuts out what another gateway locks, until it is lifted, and lets nobody lift what may be their own', async () => {
    const one = await carried()
    const { locks } = await other()
    const id = newId('l')
    await locks.addLock(lockOn(id), 99)
    await isCut(one, /./, 'policy_recheck')
    const asked = { device: 'press-07', process: 'plc', grant: one.grant.id }
    const again = async () => await here.vendor.call('POST', '/sessions', asked)
    expect((await again()).status).toBe(403)
    expect((await here.node.admin.call('GET', '/locks')).text).toContain(id)
    await locks.liftLock(id, { at: seconds(), by: 'iss|oda', reason: 'fine' })
    await until('it is open again', async () => (await again()).status === 201)
    const foreign = newId('l')
    const target = 'https://gw2.plant.example/oidc|u1'
    await locks.addLock(lockOn(foreign, { scope: 'identity', target }), 99)
    const lift = await here.node.admin.call('POST', `/locks/${foreign}/lift`, { reason: 'x' })
    expect([lift.status, lift.body.code]).toEqual([403, 'lock.own'])
    await locks.liftLock(foreign, { at: seconds(), by: 'iss|oda', reason: 'fine' })
  })

  test('whose Redis is full lets nobody in, and cuts here what somebody revokes though it cannot be kept', async () => {
    const one = await carried()
    const owner = new Redis(server.place)
    onTestFinished(async () => {
      await owner.config('SET', 'maxmemory', '0')
      owner.disconnect()
    })
    await owner.config('SET', 'maxmemory', '1')
    const { id } = one.grant
    const revoke = async () =>
      await here.operator.call('POST', `/grants/${id}/revoke`, { reason: 'enough' })
    const [refused, gone] = await Promise.all([revoke(), one.line.gone()])
    expect([refused.status, refused.body.code, gone.code]).toEqual([
      503,
      'store.unavailable',
      'grant.revoked',
    ])
    const said = here.node.events(one.from).filter(({ code }) => code === 'grant.revoke')
    expect(said.map(({ text }) => text.includes('"store.unavailable"'))).toEqual([false, true])
    const shared = async () => (await here.node.health()).parts['shared_store']
    await until('it is not ready', async () => (await shared()) === false)
    const asked = { device: 'press-07', process: 'plc', grant: id }
    const kept = await here.vendor.call('POST', '/sessions', asked)
    expect([kept.status, kept.body.code]).toEqual([503, 'store.unavailable'])
    expect(refused.text + kept.text).not.toMatch(/disk|half done|recorded/)
    await owner.config('SET', 'maxmemory', '0')
    await until('it is ready', async () => (await shared()) === true)
    expect((await revoke()).status).toBe(200)
    expect((await here.vendor.call('POST', '/sessions', asked)).body.code).toBe('grant.revoked')
  })

  test('whose Redis is full cuts here what runs on a device that somebody quarantines, and says that it is not known to be so', async () => {
    const one = await carried()
    const owner = new Redis(server.place)
    onTestFinished(async () => {
      await owner.config('SET', 'maxmemory', '0')
      owner.disconnect()
    })
    await owner.config('SET', 'maxmemory', '1')
    const quarantine = async () =>
      await here.node.admin.call('POST', '/devices/press-07/quarantine', { reason: 'odd' })
    const [refused, gone] = await Promise.all([quarantine(), one.line.gone()])
    expect([refused.status, refused.body.code, gone.code]).toEqual([
      503,
      'store.unavailable',
      'device.quarantined',
    ])
    const said = here.node.events(one.from).filter(({ code }) => code === 'device.quarantine')
    expect(said.map(({ text }) => /"effect":"(\w+)"/.exec(text)?.[1])).toEqual([
      undefined,
      'unknown',
    ])
    await owner.config('SET', 'maxmemory', '0')
    const shared = async () => (await here.node.health()).parts['shared_store']
    await until('it is ready', async () => (await shared()) === true)
    expect((await quarantine()).status).toBe(200)
    await here.node.admin.ask('POST', '/devices/press-07/resume', { reason: 'fine' })
  })

  test('shuts out, from its start on, what is locked elsewhere while it reads the locks for the first time', async () => {
    const { locks } = await other()
    const id = newId('l')
    const company = 'locked-meanwhile'
    using after = vi.spyOn(RedisChanges.prototype, 'after')
    /** Whether the one that begins has looked, found a lock, and gone on behind it. */
    const heard = async () => {
      const { calls, contexts, results } = after.mock
      const own = contexts[calls.findIndex(([place]) => place === undefined)]
      const said: readonly News[] = await Promise.all(
        results.filter((_, i) => contexts[i] === own).map(async ({ value }) => await value),
      )
      return said.slice(0, -1).some(({ locked }) => locked)
    }
    const opens = Locks.open.bind(Locks)
    using opening = vi.spyOn(Locks, 'open').mockImplementationOnce(async (room) => {
      const before = await room.store.standingLocks()
      vi.spyOn(room.store, 'standingLocks').mockImplementationOnce(async () => {
        await locks.addLock(lockOn(id, { scope: 'company', target: company, reason: 'x' }), 99)
        await until('the lock was heard of', heard)
        return before
      })
      return await opens(room)
    })
    const data = mkdtempSync(join(tmpdir(), 'sallyport-third-'))
    onTestFinished(() => rmSync(data, { recursive: true }))
    // One issuer, whichever of them is asked: its address, and its keys.
    cpSync(join(here.node.data, 'identity'), join(data, 'identity'), { recursive: true })
    await using _ = await startNode({
      bare: true,
      data,
      config: `gateway: gw3\npublic_port: ${here.node.port}\n${settings(server.port)}`,
    })
    const [opened] = opening.mock.results
    const held: Locks = await opened?.value
    const facts = { subject: { vendor: company } } as Partially<Input>
    expect(held.on(facts)).toEqual([{ id, scope: 'vendor', reason: 'x' }])
    await locks.liftLock(id, { at: seconds(), by: 'iss|oda', reason: 'fine' })
  })

  test('without its Redis lets nobody in and cuts what it cannot decide again; with it, goes on', async () => {
    const one = await carried()
    await server.kill()
    const ask = async () =>
      await here.vendor.call('POST', '/sessions', {
        device: 'press-07',
        process: 'plc',
        grant: one.grant.id,
      })
    expect((await ask()).status).toBe(503)
    expect((await here.vendor.call('POST', `/grants/${one.grant.id}/done`)).status).toBe(503)
    // Whichever of what it is decided on could not be looked up: who it is of, or the grant.
    expect((await one.line.gone()).code).toMatch(/^(?:store\.unavailable|policy\.error)$/)
    await until('its end is in the log', () => endsSince(one.from).length === 1)
    const parts = await here.node.health()
    expect(parts.parts).toMatchObject({ store: true, shared_store: false })
    await server.run()
    await until('it sees again', async () => (await here.node.health()).parts['shared_store'])
    const found = await here.node.admin.ask<Session>('GET', `/sessions/${one.session.id}`)
    expect([found.state, found.reason]).toEqual(['ended', 'policy_recheck'])
    expect((await ask()).status).toBe(201)
  })
})
