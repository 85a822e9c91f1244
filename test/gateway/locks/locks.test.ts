/** Locks: whom and what each shuts out, what it cuts, and who lifts it. */
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Account, Grant, Lock, Locked } from '#api'
import type { AuditLog, EventInput } from '#audit'
import type { Input, Partially } from '#policy'
import { Locks } from '../../../gateway/locks/locks.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import type { Subject } from '../../../gateway/identity/index.ts'
import {
  touches,
  type LockScope,
  type LockStore,
  type Touched,
} from '../../../gateway/locks/lock.ts'
import {
  grantFor,
  openSession,
  startNode,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { holds } from '../../support/patience.ts'
import { attach, dialDevice, expecting, PLC, seen, type FakeAgent } from '../../support/tunnels.ts'

const of: Touched = {
  subject: 'iss|vera',
  company: 'acme',
  device: 'press-07',
  process: 'plc',
  zone: 'default',
}
const rows: readonly (readonly [LockScope, string, boolean])[] = [
  ['identity', 'iss|vera', true],
  ['identity', 'iss|ver', false],
  ['company', 'acme', true],
  ['company', 'Acme', false],
  ['device', 'press-07', true],
  ['device', 'press-0', false],
  ['process', 'press-07/plc', true],
  ['process', 'press-07/hmi', false],
  ['process', 'press-07/', false],
  ['zone', 'default', true],
  ['zone', 'critical', false],
  ['everything', '*', true],
]
test.for(rows)('%s %s touches: %s', ([scope, target, expected]) => {
  expect(touches({ scope, target }, of)).toBe(expected)
})
test.for(rows)('%s %s touches nothing where nothing is known', ([scope, target]) => {
  const nothing = { subject: null, company: null, device: null, process: null, zone: null }
  expect(touches({ scope, target }, nothing)).toBe(scope === 'everything')
})

describe('on a running gateway', () => {
  let node: TestNode
  let identity: DeviceIdentity
  let agent: FakeAgent
  let vera: Person
  let oda: Person
  let second: Person

  beforeAll(async () => {
    node = await startNode()
    identity = await node.device('press-07', { plc: expecting(), hmi: expecting() })
    ;[vera, oda, second] = await Promise.all([
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      node.person('oda', { party: 'staff', roles: ['operator'] }),
      node.person('ada', { party: 'staff', roles: ['admin'] }),
    ])
    agent = await attach(node, identity, { listeners: { plc: seen(PLC, 'listener') } })
    await grantFor(vera, oda, { device: 'press-07', process: 'plc' })
  })
  afterAll(async () => {
    await agent[Symbol.asyncDispose]()
    await node[Symbol.asyncDispose]()
  })

  const add = async (scope: string, target?: string) =>
    await oda.ask<Locked>('POST', '/locks', {
      scope,
      reason: 'incident 7',
      ...(target === undefined ? {} : { target }),
    })
  const lift = async ({ id }: Lock, who: Person = node.admin) =>
    await who.call<Lock>('POST', `/locks/${id}/lift`, { reason: 'over' })
  afterEach(async () => {
    for (const lock of (await node.admin.ask<{ items: Lock[] }>('GET', '/locks')).items)
      if (lock.lifted === null) await lift(lock)
  })

  test.for([
    ['identity', 'vera@acme.example'],
    ['company', 'acme'],
    ['device', 'press-07'],
    ['process', 'press-07/plc'],
    ['zone', 'default'],
    ['everything', undefined],
  ] as const)(
    '%s: its session is cut, none begins, and after the lift one does',
    async ([scope, target]) => {
      const session = await openSession(vera, 'press-07', 'plc')
      const from = node.size()
      const { lock, cut } = await add(scope, target)
      expect(cut.sessions.map(({ id }) => id)).toEqual([session.id])
      const codes = node.events(from).map(({ code }) => code)
      expect(codes.indexOf('session.lock')).toBeLessThan(codes.indexOf('session.end'))
      const again = await vera.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
      expect([again.status, again.body.code]).toEqual([403, 'lock.active'])
      expect((await lift(lock)).status).toBe(200)
      await vera.ask('POST', `/sessions/${(await openSession(vera, 'press-07', 'plc')).id}/end`)
    },
  )

  test.for([
    ['company', 'other'],
    ['device', 'press-08'],
    ['process', 'press-07/hmi'],
    ['zone', 'critical'],
    ['identity', 'ada@plant.example'],
  ] as const)('%s %s: somebody else’s session goes on', async ([scope, target]) => {
    const session = await openSession(vera, 'press-07', 'plc')
    expect((await add(scope, target)).cut.sessions).toEqual([])
    await vera.ask('POST', `/sessions/${session.id}/end`)
  })

  test('a locked device does not come back', async () => {
    const { lock } = await add('device', 'press-07')
    await expect(
      dialDevice(node, identity).then((tunnel) => tunnel.open('control', Buffer.from('{}'))),
    ).rejects.toThrow()
    await lift(lock)
  })

  test('a request and an approval wait for the lift too', async () => {
    await add('everything')
    const wanted = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' }
    const reply = await vera.call('POST', '/grants', wanted)
    expect([reply.status, reply.body.code]).toEqual([403, 'lock.active'])
  })

  test.for([
    ['identity', 'vera@acme.example'],
    ['company', 'acme'],
    ['process', 'press-07/hmi'],
  ] as const)('%s %s: nobody approves what would go round it', async ([scope, target]) => {
    const wanted = { device: 'press-07', processes: ['plc', 'hmi'], duration_s: 60, reason: 'x' }
    const grant = await vera.ask<Grant>('POST', '/grants', wanted)
    const { lock } = await add(scope, target)
    const approve = async () =>
      await oda.call('POST', `/grants/${grant.id}/approve`, { hash: grant.hash })
    const [reply, asked] = [await approve(), await vera.call('POST', '/grants', wanted)]
    expect([reply.body.code, asked.body.code]).toEqual(['lock.active', 'lock.active'])
    await lift(lock)
    expect((await approve()).status).toBe(200)
  })

  test('two locks: lifting one is not enough', async () => {
    const [one, two] = [(await add('company', 'acme')).lock, (await add('zone', 'default')).lock]
    await lift(one)
    const reply = await vera.call('POST', '/sessions', { device: 'press-07', process: 'plc' })
    expect(reply.body.code).toBe('lock.active')
    expect((await lift(one)).body).toMatchObject({ code: 'lock.unknown' })
    await lift(two)
  })

  test('who may: an operator locks, an administrator lifts, a vendor neither', async () => {
    const { lock } = await add('company', 'other')
    expect((await lift(lock, oda)).status).toBe(403)
    expect((await lift(lock, vera)).status).toBe(403)
    const vendor = await vera.call('POST', '/locks', { scope: 'everything', reason: 'x' })
    expect([vendor.status, vendor.body.code]).toEqual([403, 'admin.role_missing'])
    expect((await lift(lock)).body).toMatchObject({ lifted: { reason: 'over' } })
  })

  test('an administrator who is shut out administers nothing, least of all the lift', async () => {
    const { lock } = await add('identity', second.email)
    const calls = await Promise.all([
      lift(lock, second),
      second.call('GET', '/locks'),
      second.call('POST', '/locks', { scope: 'device', target: 'press-08', reason: 'x' }),
      second.call('POST', '/accounts', {
        email: 'new@plant.example',
        name: 'New',
        party: 'staff',
        roles: ['admin'],
        password: 'a password that is long enough',
      }),
    ])
    expect(
      calls.map(({ status, body }) => [status, (body as unknown as { code: string }).code]),
    ).toEqual(calls.map(() => [403, 'lock.active']))
  })

  describe('the last who may administer', () => {
    const put = async (email: string) =>
      await oda.call<Locked & { code: string }>('POST', '/locks', {
        scope: 'identity',
        target: email,
        reason: 'incident 8',
      })
    test('is locked by nobody: who would lift it?', async () => {
      expect((await put(second.email)).status).toBe(201)
      const from = node.size()
      const refused = await put('root@plant.example')
      expect([refused.status, refused.body.code]).toEqual([409, 'lock.last_admin'])
      expect(node.events(from).some(({ code }) => code === 'session.lock')).toBe(false)
      expect((await node.admin.call('GET', '/locks')).status).toBe(200)
    })
    test('of two who are locked at once, one remains', async () => {
      // Asked before: whichever of the two comes first may be the one who could be asked.
      const sub = await subOf(second.email)
      const both = await Promise.all([put('root@plant.example'), put(second.email)])
      expect(both.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 409])
      const made = both.find(({ status }) => status === 201)?.body.lock
      if (made !== undefined) await lift(made, made.target.endsWith(sub) ? node.admin : second)
    })
    test('is not disabled either, where the others are locked', async () => {
      await put(second.email)
      const sub = await subOf('root@plant.example')
      const refused = await node.admin.call('POST', `/accounts/${sub}/disable`, {})
      expect([refused.status, refused.text.includes('account.last_admin')]).toEqual([409, true])
    })
    test('a vendor is locked all the same, and so is an operator', async () => {
      expect((await put(vera.email)).status).toBe(201)
      expect((await put(oda.email)).status).toBe(201)
    })
  })
  const subOf = async (email: string) => {
    const { items } = await node.admin.ask<{ items: Account[] }>('GET', '/accounts')
    return items.find((account) => account.email === email)?.sub ?? ''
  }

  test('a lock on a person is on every account of theirs', async () => {
    const [ida, other] = await Promise.all([
      node.person('ida', { party: 'staff', roles: ['admin'] }),
      node.person('ida-2', { party: 'staff', roles: ['admin'] }),
    ])
    const { lock } = await add('identity', ida.email)
    expect((await other.call('GET', '/locks')).status).toBe(200)
    const [one, two] = await Promise.all([subOf(ida.email), subOf(other.email)])
    await node.admin.ask('POST', `/accounts/${two}/link`, { to: one })
    const list = async () => await other.call('GET', '/locks')
    await holds(async () => expect((await list()).status).toBe(403))
    expect((await lift(lock, other)).status).toBe(403)
    await lift(lock)
    expect((await list()).status).toBe(200)
    await add('identity', other.email)
    expect((await ida.call('GET', '/locks')).status).toBe(403)
  })

  test('the list holds every lock that stands, whatever was lifted since', async () => {
    await using thread = await SqliteThread.open(':memory:')
    const store = new SqliteLockStore(thread)
    const lock = (id: string, at: number): Lock => ({
      id,
      at,
      scope: 'company',
      target: 'acme',
      reason: 'x',
      by: 'oda',
      by_email: null,
      lifted: null,
    })
    for (const [at, id] of ['old', 'a', 'b', 'c'].entries()) await store.addLock(lock(id, at), 9)
    for (const id of ['a', 'b', 'c']) await store.liftLock(id, { at: 9, by: 'ada', reason: 'x' })
    expect((await store.listLocks(3)).map(({ id }) => id)).toEqual(['old', 'c', 'b'])
  })

  test('a lock that the store does not take is recorded as without effect', async () => {
    const append = vi.fn(async (_: EventInput) => undefined)
    const refusing = vi.fn(async () => false)
    const store = { addLock: refusing, standingLocks: async () => [] } as unknown as LockStore
    const log = { append } as unknown as AuditLog
    const locks = await Locks.open({ store, log, people: async () => [], now: Date.now })
    const authn = { methods: [] }
    const subject = { id: 'oda', email: null, vendor: null, authn } as unknown as Subject
    const by = { subject, source: { ip: null, tls: null }, reason: 'x' }
    const statuses = () => append.mock.calls.map(([{ status }]) => status)
    await expect(locks.add('company', 'acme', by)).rejects.toMatchObject({ code: 'lock.full' })
    refusing.mockRejectedValueOnce(new Error('disk'))
    await expect(locks.add('company', 'acme', by)).rejects.toThrow('disk')
    expect(statuses()).toEqual(['success', 'failure', 'success', 'failure'])
    expect(locks.on({ subject: { vendor: 'acme' } } as Partially<Input>)).toEqual([])
  })

  test('a lock on everything leaves administration alone', async () => {
    const { lock } = await add('everything')
    expect((await second.call('GET', '/locks')).status).toBe(200)
    expect((await lift(lock, second)).status).toBe(200)
  })

  test.for([
    ['identity', 'vera@acme.example', true],
    ['identity', 'https://elsewhere.example|vera', false],
    ['company', 'acme', true],
    ['company', 'acmee', false],
    ['device', 'press-07', true],
    ['device', 'press-70', false],
    ['process', 'press-07/plc', true],
    ['process', 'press-07/plcc', false],
    ['zone', 'default', true],
    ['zone', 'defaultt', false],
  ] as const)('%s %s is in force, and said to be known: %s', async ([scope, target, known]) => {
    expect(await add(scope, target)).toMatchObject({ known, lock: { lifted: null } })
  })

  test.for([
    { scope: 'everything', target: 'x' },
    { scope: 'device' },
    { scope: 'process', target: 'plc' },
    { scope: 'device', target: 'press-07/plc' },
    { scope: 'identity', target: 'nobody@plant.example' },
    { scope: 'planet', target: 'x' },
  ])('no lock: %o', async (body) => {
    const reply = await oda.call('POST', '/locks', { ...body, reason: 'x' })
    expect([reply.status, reply.body.code]).toEqual([400, 'body.invalid'])
  })

  test('is in force again after a restart', async () => {
    const { lock } = await add('company', 'acme')
    await using thread = await SqliteThread.open(join(node.data, 'store.sqlite'))
    const store = new SqliteLockStore(thread)
    const people = async () => []
    const again = await Locks.open({ store, log: { append: vi.fn() }, people, now: Date.now })
    const facts = { subject: { vendor: 'acme' } } as Partially<Input>
    expect(again.on(facts)).toEqual([{ id: lock.id, scope: 'vendor', reason: 'incident 7' }])
    expect(again.on({ subject: { vendor: 'other' } } as Partially<Input>)).toEqual([])
  })
})
