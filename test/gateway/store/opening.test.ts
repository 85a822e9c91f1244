/** What a gateway asks of a Redis, and of its own file, before it keeps anything there. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { AuditLog } from '#audit'
import { readConfig, type Config } from '../../../gateway/config.ts'
import type { Device } from '../../../gateway/devices/device.ts'
import type { Grant } from '../../../gateway/grants/grant.ts'
import type { ServiceRow } from '../../../gateway/identity/services/store.ts'
import type { AccountRow, IdpRow, InvitationRow } from '../../../gateway/identity/store.ts'
import type { Lock } from '../../../gateway/locks/lock.ts'
import type { Auditor } from '../../../gateway/recordings/auditors.ts'
import type { RedisSettings } from '../../../gateway/store-settings.ts'
import { openStores, type Stores } from '../../../gateway/stores.ts'
import { RedisAuditorStore } from '../../../gateway/store/redis/auditors.ts'
import { RedisChanges } from '../../../gateway/store/redis/changes.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisDeviceStore } from '../../../gateway/store/redis/devices.ts'
import { RedisLockStore } from '../../../gateway/store/redis/locks.ts'
import { RedisIdentityStore } from '../../../gateway/store/redis/people.ts'
import { SqliteAuditorStore } from '../../../gateway/store/sqlite/auditors.ts'
import { SqliteDeviceStore } from '../../../gateway/store/sqlite/devices.ts'
import { SqliteIdentityStore, SqliteOidcStore } from '../../../gateway/store/sqlite/identity.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteIdpStore } from '../../../gateway/store/sqlite/idps.ts'
import { SqliteInvitationStore } from '../../../gateway/store/sqlite/invitations.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqlitePasskeyStore } from '../../../gateway/store/sqlite/passkeys.ts'
import { SqliteServiceStore } from '../../../gateway/store/sqlite/services.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { SqliteTotpStore } from '../../../gateway/store/sqlite/totp.ts'
import { makeCertificates } from '../../audit/receiver.ts'
import { TENANT } from '../../support/node.ts'
import { claimOf } from './contracts/answers.ts'
import { auditorCalled } from './contracts/auditors.ts'
import { companyCalled } from './contracts/companies.ts'
import { grant } from './contracts/granted.ts'
import { appOf, passkeyOf, signedIn } from './contracts/factors.ts'
import { invitationOf } from './contracts/invitations.ts'
import { lockOn } from './contracts/locks.ts'
import { NOW } from './contracts/make.ts'
import { accountOf, guestOf } from './contracts/people.ts'
import { serviceCalled } from './contracts/services.ts'
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
  readonly accounts?: readonly AccountRow[]
  readonly companies?: readonly IdpRow[]
  readonly invitations?: readonly InvitationRow[]
  readonly services?: readonly ServiceRow[]
  /** Where its identity/keys.json is; default one that all of them have. */
  readonly data?: string
  readonly public_host?: string
  /** Given each line of the start. */
  readonly line?: (line: string) => void
}

const PLC = { id: 'plc', kind: 'tcp', locality: 'device', port: 502, expect: {} } as const

function deviceCalled(id: string, state: Device['state'] = 'active'): Device {
  return { id, zone: 'hall-a', state, labels: { line: '3' }, created_at: NOW }
}
const home = mkdtempSync(join(tmpdir(), 'sallyport-opening-'))
afterAll(() => rmSync(home, { recursive: true }))

/** Opens the stores of a gateway that has this in its file; they are closed with the test. */
/** What the log was told, of all that opened. */
const said: string[] = []

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
  await move(thread, kept.accounts ?? [])
  for (const one of kept.companies ?? []) await new SqliteIdpStore(thread).addIdp(one)
  const links = new SqliteInvitationStore(thread)
  for (const one of kept.invitations ?? []) {
    await links.addInvitation({ ...one, closed: null }, 99)
    if (one.closed !== null) await links.closeInvitation(one.id, one.closed.at)
  }
  for (const one of kept.services ?? [])
    await new SqliteServiceStore(thread).addService(one, 99, one.createdAt)
  const { gateway = 'gw1', vkey = 'the key of this directory', data = home } = kept
  const { public_host = 'gate.plant.example' } = kept
  const place = { gateway, data, public_host }
  const config = { ...readConfig({ environment: {} }), ...place, store: { redis } }
  const append: AuditLog['append'] = async ({ message }) => {
    said.push(message)
    return await Promise.resolve(0 as never)
  }
  const log = { vkeys: [vkey], append }
  const { line } = kept
  const logger = line === undefined ? pino({ level: 'silent' }) : pino({}, { write: line })
  return await openStores(config, { thread, log, logger }, undo)
}

/** Puts people into a file; the first of them has a passkey, an app, a login and a counter. */
async function move(thread: SqliteThread, accounts: readonly AccountRow[]): Promise<void> {
  const store = new SqliteIdentityStore(thread)
  for (const row of accounts) await store.addAccount(row)
  const [first] = accounts
  if (first === undefined) return
  await signedIn(new SqliteOidcStore(thread), 'l', { sub: first.sub })
  const by = { login: 'l', shown: null }
  await new SqliteTotpStore(thread).putTotp(appOf({ sub: first.sub }), null, by)
  const passkey = passkeyOf('k', { sub: first.sub, counter: 4 })
  await new SqlitePasskeyStore(thread).addPasskey(passkey, 9, { ...by, shown: 'code' })
  await store.take([COUNTER], NOW * 1000)
}
const COUNTER = { key: 'login:192.0.2.7:a@plant.example', limit: 1, windowMs: 60_000 }

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

  test('without what people come in by that stands in its file, the first time; what was ended since stays so', async () => {
    await using own = await RedisServer.start()
    const expiresAt = Date.now() + 3_600_000
    const closed = { at: 2, how: 'revoked' } as const
    const kept = {
      companies: [companyCalled('acme')],
      invitations: [
        invitationOf('open', { createdAt: 1, expiresAt }),
        invitationOf('closed', { createdAt: 1, expiresAt, closed }),
        invitationOf('over', { createdAt: 1, expiresAt: 2 }),
      ],
      services: [serviceCalled('robot', { expiresAt }), serviceCalled('past')],
    }
    const { idpStore, invitationStore, serviceStore } = (await opening(own.place, kept)).people
    expect(await idpStore.listIdps()).toEqual(kept.companies)
    expect(await invitationStore.listInvitations(9)).toEqual([kept.invitations[0]])
    expect(await serviceStore.listServices()).toEqual([kept.services[0]])
    await idpStore.removeIdp('acme', 1)
    await invitationStore.closeInvitation('open', 3)
    await serviceStore.revokeService('v_robot', 3)
    const { people } = await opening(own.place, kept)
    expect([
      await people.idpStore.listIdps(),
      await people.serviceStore.findService('v_robot'),
    ]).toEqual([[], { ...kept.services[0], revokedAt: 3 }])
    expect((await people.invitationStore.findInvitation({ id: 'open' }))?.closed?.at).toBe(3)
  })

  test('without the auditors in its file, the first time; who was removed since stays so', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    const shared = new RedisAuditorStore(redis)
    await shared.add(auditorCalled('ann', { recipient: 'age1other' }))
    said.splice(0)
    const confirmed = { confirmed_at: NOW, secret_sha256: null }
    const kept = { auditors: [auditorCalled('ann'), auditorCalled('bea', confirmed)] }
    await opening(own.place, kept)
    const names = async () => (await shared.list()).map(({ name }) => name)
    expect(await names()).toEqual(['ann', 'bea'])
    expect((await shared.find('bea'))?.confirmed_at).toBe(NOW)
    expect(said.splice(0)).toEqual([
      'auditor bea is taken over from store.sqlite: recordings of all gateways are sealed to this key too',
    ])
    await shared.remove('bea')
    await opening(own.place, kept)
    expect([await names(), said]).toEqual([['ann'], []])
    const many = Array.from({ length: 20 }, (_, at) => auditorCalled(`n${at}`))
    expect(await shared.take('another', many, 16)).toEqual({
      taken: many.slice(0, 15),
      left: ['n15', 'n16', 'n17', 'n18', 'n19'],
    })
    expect(await shared.take('a third', many.slice(0, 1), 16)).toEqual({ taken: [], left: [] })
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

describe.skipIf(!haveRedis)('people of a file', () => {
  const people = [
    accountOf('a', { groups: [] }),
    guestOf('g', 'one'),
    accountOf('off', { disabled: true, password: null }),
  ]

  test('go over once, all of them with what they sign in by, signed in to nothing; then nothing of the file counts', async () => {
    await using own = await RedisServer.start()
    const { store, passkeyStore, totpStore, oidcStore } = (
      await opening(own.place, { accounts: people })
    ).people
    expect(await store.listAccounts('', 9)).toEqual(people)
    expect(people[1]?.outside && (await store.findAccountByOutside(people[1].outside))).toEqual(
      people[1],
    )
    expect(await passkeyStore.passkeysOf('a')).toEqual([passkeyOf('k', { counter: 4 })])
    expect(await totpStore.findTotp('a')).toEqual(appOf())
    expect(await oidcStore.hasLogins('a')).toBe(false)
    expect((await store.take([COUNTER], NOW * 1000)).allowed).toBe(false)
    expect(await store.openBootstrap('another')).toBe(false)
    const change = { sub: 'a', changedAt: NOW, disabled: true }
    expect(await store.changeAccount(change)).toBe('last_admin')
    expect(await store.changeAccount({ ...change, sub: 'g' })).toBe('changed')
    const again = (await opening(own.place, { accounts: people })).people
    expect((await again.store.findAccount('g'))?.disabled).toBe(true)
  })

  test('of a provider that was removed stay retired, and hold up nobody’s address', async () => {
    await using own = await RedisServer.start()
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-retired-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'store.sqlite')
    const { email } = guestOf('g', 'one')
    await using thread = await SqliteThread.open(file)
    await new SqliteIdentityStore(thread).addAccount(guestOf('g', 'one', { roles: ['admin'] }))
    await thread.call('identity', 'removeIdp', { id: 'acme', now: NOW })
    await new SqliteIdentityStore(thread).addAccount(accountOf('h', { email }))
    const { people: there } = await opening(own.place, { file })
    expect((await there.store.findAccountByEmail(email))?.sub).toBe('h')
    expect(await there.store.findAccount('g')).toMatchObject({ email, disabled: true })
    expect(await there.idpStore.accountsOfIdp('acme')).toEqual([])
    expect(await there.store.addAccount(guestOf('i', 'one'))).toBe(true)
    expect(await there.idpStore.accountsOfIdp('acme')).toEqual(['i'])
    expect(await there.idpStore.removeIdp('acme', NOW)).toEqual(['i'])
    expect(await there.store.findAccount('i')).toMatchObject({ disabled: true })
    expect(await there.store.addAccount(guestOf('j', 'one'))).toBe(true)
  })

  test('are not left behind where others are there already: it says how many, and does not start', async () => {
    await using own = await RedisServer.start()
    await opening(own.place, { accounts: [accountOf('a')] })
    const second = { gateway: 'gw2', vkey: 'of another directory' }
    await expect(
      opening(own.place, { ...second, accounts: [accountOf('b')] }),
    ).rejects.toMatchObject({
      code: 'store.people',
      message: expect.stringMatching(/^1 of 1 accounts .*the first is b/) as string,
    })
    // The same people, as a copy of that file has them, are none that would be lost.
    const { people: there } = await opening(own.place, { ...second, accounts: [accountOf('a')] })
    expect((await there.store.listAccounts('', 9)).map(({ sub }) => sub)).toEqual(['a'])
  })

  test('that were made or disabled in the file since, by a gateway that went back to it, are named at the start', async () => {
    await using own = await RedisServer.start()
    const lines: object[] = []
    const line = (text: string) => void lines.push(JSON.parse(text) as object)
    const accounts = (...some: AccountRow[]) => opening(own.place, { accounts: some, line })
    const told = () => lines.splice(0).filter((one) => 'count' in one)
    await accounts(accountOf('a'), accountOf('b'), accountOf('c', { disabled: true }))
    expect(told()).toEqual([])
    await accounts(accountOf('a'), accountOf('b', { disabled: true }), accountOf('d'))
    expect(told()).toMatchObject([
      { count: 1, accounts: ['d'], msg: expect.stringContaining('not on Redis') as string },
      { count: 1, accounts: ['b'], msg: expect.stringContaining('disable them again') as string },
    ])
  })

  test('are heard of where a gateway runs already, which then reads anew who is locked', async () => {
    await using own = await RedisServer.start()
    const running = await opening(own.place, { gateway: 'gw2', vkey: 'of another directory' })
    const before = await running.changes?.after(undefined)
    await opening(own.place, { accounts: [accountOf('a')] })
    const news = await running.changes?.after(before?.place)
    expect(news).toMatchObject({ lost: true, people: [] })
    expect(await running.changes?.after(news?.place)).toMatchObject({ lost: false })
  })

  test('come after what locks them: a start that ends between the two has brought nobody', async () => {
    await using own = await RedisServer.start()
    await using redis = await RedisConnection.open(own.place, TENANT)
    const [accounts, locks] = [new RedisIdentityStore(redis, 'gw9'), new RedisLockStore(redis)]
    const kept = { accounts: [accountOf('a')], locks: [lockOn('l_1')] }
    using failing = vi.spyOn(RedisLockStore.prototype, 'addLock')
    failing.mockRejectedValueOnce(new Error('as a crash'))
    await expect(opening(own.place, kept)).rejects.toThrow('as a crash')
    expect(await accounts.listAccounts('', 9)).toEqual([])
    await opening(own.place, kept)
    expect((await accounts.listAccounts('', 9)).map(({ sub }) => sub)).toEqual(['a'])
    // Nor does a start that is refused for its people lock anybody out.
    const others = { accounts: [accountOf('b')], locks: [lockOn('l_2')] }
    const second = { gateway: 'gw2', vkey: 'of another directory' }
    await expect(opening(own.place, { ...second, ...others })).rejects.toMatchObject({
      code: 'store.people',
    })
    expect((await locks.standingLocks()).map(({ id }) => id)).toEqual(['l_1'])
  })

  test('are signed in by one issuer with one set of keys, or the second gateway does not start', async () => {
    await using own = await RedisServer.start()
    await opening(own.place)
    const second = { gateway: 'gw2', vkey: 'of another directory' }
    await expect(
      opening(own.place, { ...second, public_host: 'other.plant.example' }),
    ).rejects.toMatchObject({
      code: 'store.issuer',
      message: expect.stringContaining('https://gate.plant.example') as string,
    })
    // Nor does one that is refused say which keys are the ones, where they are being changed.
    const owner = new Redis(own.place)
    onTestFinished(() => owner.disconnect())
    const keys = async (act: 'HGET' | 'HDEL') => await owner.call(act, `{${TENANT}}:people`, 'keys')
    expect(await keys('HDEL')).toBe(1)
    await expect(
      opening(own.place, { ...second, public_host: 'other.plant.example' }),
    ).rejects.toMatchObject({ code: 'store.issuer' })
    expect(await keys('HGET')).toBeNull()
    await opening(own.place)
    const data = mkdtempSync(join(tmpdir(), 'sallyport-second-'))
    onTestFinished(() => rmSync(data, { recursive: true }))
    await expect(opening(own.place, { ...second, data })).rejects.toMatchObject({
      code: 'store.keys',
      message: expect.stringContaining('identity/keys.json') as string,
    })
    mkdirSync(join(data, 'identity'), { recursive: true })
    copyFileSync(join(home, 'identity', 'keys.json'), join(data, 'identity', 'keys.json'))
    expect((await opening(own.place, { ...second, data })).changes).toBeInstanceOf(RedisChanges)
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
