/** What a gateway asks of a Redis, and of its own file, before it keeps anything there. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { describe, expect, onTestFinished, test } from 'vitest'
import { readConfig, type Config } from '../../../gateway/config.ts'
import type { Device } from '../../../gateway/devices/device.ts'
import type { Grant } from '../../../gateway/grants/grant.ts'
import type { Lock } from '../../../gateway/locks/lock.ts'
import type { Auditor } from '../../../gateway/recordings/auditors.ts'
import type { RedisSettings } from '../../../gateway/store-settings.ts'
import { openStores, type Stores } from '../../../gateway/stores.ts'
import { RedisAuditorStore } from '../../../gateway/store/redis/auditors.ts'
import { RedisChanges } from '../../../gateway/store/redis/changes.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisDeviceStore } from '../../../gateway/store/redis/devices.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { SqliteAuditorStore } from '../../../gateway/store/sqlite/auditors.ts'
import { SqliteDeviceStore } from '../../../gateway/store/sqlite/devices.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { makeCertificates } from '../../audit/receiver.ts'
import { TENANT } from '../../support/node.ts'
import { claimOf } from './contracts/answers.ts'
import { auditorCalled } from './contracts/auditors.ts'
import { grant } from './contracts/granted.ts'
import { lockOn } from './contracts/locks.ts'
import { NOW } from './contracts/make.ts'
import { session } from './contracts/sessions.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

/** What docs/several-gateways.md has a user of Redis be allowed. */
const MAY = ['-@all', '+@read', '+@write', '+@scripting', '+config|get', '+wait', '+info', '+time']

interface Kept {
  readonly devices?: readonly Device[]
  readonly auditors?: readonly Auditor[]
  readonly grants?: readonly Grant[]
  readonly locks?: readonly Lock[]
  readonly gateway?: string
  /** The file itself; default one of its own. */
  readonly file?: string
  /** The key of its log. */
  readonly vkey?: string
}

const PLC = { id: 'plc', kind: 'tcp', locality: 'device', port: 502, expect: {} } as const

function deviceCalled(id: string, state: Device['state'] = 'active'): Device {
  return { id, zone: 'hall-a', state, labels: { line: '3' }, created_at: NOW }
}

/** Opens the stores of a gateway that has this in its file; they are closed with the test. */
async function opening(redis: RedisSettings, kept: Kept = {}): Promise<Stores> {
  const undo = new AsyncDisposableStack()
  onTestFinished(async () => await undo[Symbol.asyncDispose]())
  const thread = undo.use(await SqliteThread.open(kept.file ?? ':memory:'))
  for (const one of kept.grants ?? []) await new SqliteGrantStore(thread).add(one)
  for (const one of kept.locks ?? []) await new SqliteLockStore(thread).addLock(one, 99)
  const own = new SqliteDeviceStore(thread)
  for (const one of kept.devices ?? []) {
    await own.add(one)
    await own.putProcess({ ...PLC, device: one.id })
  }
  for (const one of kept.auditors ?? []) await new SqliteAuditorStore(thread).add(one)
  const { gateway = 'gw1', vkey = 'the key of this directory' } = kept
  const config = { ...readConfig({ environment: {} }), gateway, store: { redis } }
  const log = { vkeys: [vkey] }
  return await openStores(config, { thread, log, logger: pino({ level: 'silent' }) }, undo)
}

describe.skipIf(!haveRedis)('a gateway with a redis-server does not start', () => {
  test('on a server that may forget', async () => {
    await using forgetful = await RedisServer.start({ appendfsync: 'everysec' })
    await expect(opening(forgetful.place)).rejects.toMatchObject({ code: 'store.volatile' })
  })

  test('under the name of another; under its own it does, again and again', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    await redis.write('takeName', 'gw1', 'somebody else')
    await expect(opening(own.place)).rejects.toMatchObject({ code: 'store.name' })
    for (const _ of [1, 2])
      expect((await opening(own.place, { gateway: 'gw2' })).changes).toBeInstanceOf(RedisChanges)
  })

  test('under the name of another; after a rotation of its log it is no other', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-rotated-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    await using own = await RedisServer.start()
    const file = join(folder, 'store.sqlite')
    for (const vkey of ['of the first epoch', 'of the second', 'of the third'])
      expect((await opening(own.place, { file, vkey })).changes).toBeInstanceOf(RedisChanges)
    const another = opening(own.place, { vkey: 'of another directory' })
    await expect(another).rejects.toMatchObject({ code: 'store.name' })
  })

  test('without what was locked in its file', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    const locks = new RedisLockStore(redis)
    const opened = async () => await opening(own.place, { locks: [lockOn('l_1'), lockOn('l_2')] })
    await opened()
    await locks.liftLock('l_2', { at: NOW, by: 'iss|oda', reason: 'fine' })
    await opened()
    expect(await locks.standingLocks()).toEqual([lockOn('l_1')])
  })

  test('without the devices in its file, and what is in quarantine there is so for all, once', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    const shared = new RedisDeviceStore(redis)
    for (const id of ['press-08', 'press-09']) await shared.add(deviceCalled(id))
    const states = async () => (await shared.list()).map(({ id, state }) => [id, state])
    const devices = [
      deviceCalled('press-07'),
      deviceCalled('press-08', 'quarantined'),
      deviceCalled('press-09', 'retired'),
    ]
    await opening(own.place, { devices })
    expect(await shared.find('press-07')).toEqual(devices[0])
    expect(await shared.processes('press-07')).toEqual([{ ...PLC, device: 'press-07' }])
    expect(await shared.processes('press-08')).toEqual([])
    expect(await states()).toEqual([
      ['press-07', 'active'],
      ['press-08', 'quarantined'],
      ['press-09', 'active'],
    ])
    // Lifted for all of them, it is not put on again by a file in which it stands.
    await shared.move('press-08', ['quarantined'], 'active')
    await shared.move('press-07', ['active'], 'quarantined')
    await opening(own.place, { devices })
    expect(await states()).toEqual([
      ['press-07', 'quarantined'],
      ['press-08', 'active'],
      ['press-09', 'active'],
    ])
    // Ended in the file, and begun anew there, it is another one.
    await opening(own.place, { devices: [deviceCalled('press-08')] })
    await opening(own.place, { devices: [deviceCalled('press-08', 'quarantined')] })
    expect((await shared.find('press-08'))?.state).toBe('quarantined')
  })

  test('without the auditors in its file, the first time; who was removed since stays so', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    const shared = new RedisAuditorStore(redis)
    await shared.add(auditorCalled('ann', { recipient: 'age1other' }))
    const confirmed = { confirmed_at: NOW, secret_sha256: null }
    const kept = { auditors: [auditorCalled('ann'), auditorCalled('bea', confirmed)] }
    await opening(own.place, kept)
    const names = async () => (await shared.list()).map(({ name }) => name)
    expect(await names()).toEqual(['ann', 'bea'])
    expect((await shared.find('bea'))?.confirmed_at).toBe(NOW)
    await shared.remove('bea')
    await opening(own.place, kept)
    expect(await names()).toEqual(['ann'])
  })

  test('while grants in its file have not ended', async () => {
    await using own = await RedisServer.start()
    const one = grant({}, { state: 'approved' })
    await expect(opening(own.place, { grants: [one] })).rejects.toMatchObject({
      code: 'store.left',
      message: expect.stringContaining(one.statement.id) as string,
    })
  })
})

/** Names under `folder` of files that hold these texts. */
function filed<K extends string>(folder: string, texts: Readonly<Record<K, string>>) {
  const names = Object.entries<string>(texts).map(([name, text]) => {
    const path = join(folder, name)
    writeFileSync(path, text)
    return [name, path]
  })
  return Object.fromEntries(names) as Readonly<Record<K, string>>
}

test.skipIf(!haveRedis)(
  'redis-server over TLS, to both sides proven, as a user who may no more than is said',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-tls-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const { ca, server: own, client } = await makeCertificates()
    const files = filed(folder, {
      ca,
      server: own.cert,
      serverKey: own.key,
      client: client.cert,
      clientKey: client.key,
      password: 'secret\n',
      wrong: 'another\n',
    })
    await using redis = await RedisServer.start({
      'tls-cert-file': files.server,
      'tls-key-file': files.serverKey,
      'tls-ca-cert-file': files.ca,
      'tls-auth-clients': 'yes',
    })
    const place = {
      ...redis.place,
      servername: 'siem.test',
      ca_file: files.ca,
      cert_file: files.client,
      key_file: files.clientKey,
    }
    const tls = { ca, cert: client.cert, key: client.key, servername: place.servername }
    const owner = new Redis({ ...redis.place, tls })
    await owner.call('ACL', 'SETUSER', 'gateways', 'on', '>secret', `~{${TENANT}}:*`, ...MAY)
    owner.disconnect()
    const user = { ...place, username: 'gateways', password_file: files.password }
    const { grants, sessions, reviews, locks, changes, time, ...rest } = await opening(user)
    expect(await time?.()).toBeGreaterThan(1_700_000_000)
    const one = grant({}, { state: 'approved' })
    const { id } = one.statement
    await grants.add(one)
    expect((await grants.apply(id, 'use', NOW, 'iss|vera', ''))?.uses).toBe(1)
    await sessions.add(session({ grant: id }))
    await locks.addLock(lockOn('l_1'), 9)
    expect([(await sessions.open()).length, await reviews.listReviews(9)]).toEqual([1, []])
    await rest.devices.add(deviceCalled('press-07'))
    await rest.auditors.add(auditorCalled('ann'))
    expect([(await rest.devices.list()).length, (await rest.auditors.list()).length]).toEqual([
      1, 1,
    ])
    expect((await rest.answers.claim(claimOf('n'))).outcome).toBe('claimed')
    await grants.apply(id, 'revoke', NOW, 'iss|oda', 'x')
    expect(await changes?.after('0-0')).toMatchObject({
      locked: true,
      lost: false,
      grants: [id, id],
      devices: [],
    })
    for (const [wrong, says] of [
      [{ ...user, password_file: files.wrong }, /WRONGPASS/],
      [{ ...user, servername: 'other.test' }, /altnames/],
      [{ ...user, ca_file: files.client }, /certificate/],
      // Of TLS 1.3 the server says no after the handshake; whether its reason comes through is not ours.
      [{ ...redis.place, servername: 'siem.test', ca_file: files.ca }, /./],
    ] as const)
      await expect(opening(wrong)).rejects.toMatchObject({
        code: 'store.unavailable',
        message: expect.stringMatching(says) as string,
      })
  },
)

describe('where Redis is', () => {
  const PLACES = [
    [{ host: 'redis.plant.example' }, /over TLS alone: name the ca_file/],
    [{ host: '10.0.0.7' }, /over TLS alone/],
    [{ host: '127.0.0.1', cert_file: 'c' }, /come together/],
    [{ host: '127.0.0.1', servername: 'redis' }, /with a ca_file/],
    [{ host: '127.0.0.1', username: 'sallyport' }, /password_file/],
    [{ host: '127.0.0.1', password: 'x' }, /unknown key password/],
    [{ host: '127.0.0.1', port: 0 }, /port|1/],
    [{ host: 'redis.plant.example', ca_file: 'ca.pem' }, undefined],
    [{ host: 'localhost', password_file: 'p', username: 'sallyport', replicas: 1 }, undefined],
  ] as const
  test.for(PLACES)('%o', ([redis, says]) => {
    const store = { redis: { port: 6379, ...redis } } as Config['store']
    const read = () => readConfig({ overrides: { store }, environment: {} })
    if (says === undefined) expect(read().store).toEqual(store)
    else expect(read).toThrow(says)
  })
})
