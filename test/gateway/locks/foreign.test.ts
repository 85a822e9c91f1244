/** Locks on gateways that share them, and each have accounts of their own: who is put under one where, and who lifts it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { EventInput } from '#audit'
import type { Input, Partially } from '#policy'
import { newId } from '../../../gateway/ids.ts'
import type { Subject } from '../../../gateway/identity/index.ts'
import type { Lock, LockStore } from '../../../gateway/locks/lock.ts'
import { Locks, type Owned } from '../../../gateway/locks/locks.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { until } from '../../support/patience.ts'
import { lockOn } from '../store/contracts/locks.ts'

const HERE = 'https://gw2.plant.example/oidc'
const root = `${HERE}|root`
/** Nobody's: a slip of who wrote it, or the only administrator of the other gateway. */
const unknown = 'https://gw1.plant.example/oidc|root'

let thread: SqliteThread
let store: SqliteLockStore
let events: EventInput[]
beforeEach(async () => {
  thread = await SqliteThread.open(':memory:')
  store = new SqliteLockStore(thread)
  events = []
})
afterEach(async () => {
  await thread[Symbol.asyncDispose]()
})

const everybody = [root, `${HERE}|ada`].map((identity) => ({
  identity,
  company: null,
  person: identity,
  administers: true,
}))
const locksOf = async (
  shared: boolean,
  of: LockStore = store,
  people: () => Promise<readonly Owned[]> = async () => await Promise.resolve(everybody),
) =>
  await Locks.open({
    store: of,
    shared,
    log: { append: async (event: EventInput) => void events.push(event) } as never,
    people,
    now: Date.now,
  })
const by = (id: string) => ({
  subject: { id, email: null, vendor: null, authn: { methods: [] } } as unknown as Subject,
  source: { ip: null, tls: null },
  reason: 'x',
})

describe('an identity that has no account on this gateway', () => {
  test('is not locked where gateways share locks: it may be the last administrator of another', async () => {
    const locks = await locksOf(true)
    await expect(locks.add('identity', unknown, by(root))).rejects.toMatchObject({
      code: 'lock.person',
      nextStep: 'lock it at the gateway that has this account',
    })
    expect([events, await store.standingLocks()]).toEqual([[], []])
    expect(await locks.add('identity', `${HERE}|ada`, by(root))).toMatchObject({ lifted: null })
  })

  test('is locked where there is no other gateway', async () => {
    const locks = await locksOf(false)
    expect(await locks.add('identity', unknown, by(root))).toMatchObject({ target: unknown })
  })

  test('is let in again by who locked it, and by nobody else', async () => {
    const slip = lockOn(newId('l'), { scope: 'identity', target: unknown, by: root })
    await store.addLock(slip, 9)
    const locks = await locksOf(true)
    await expect(locks.lift(slip.id, by(`${HERE}|ada`))).rejects.toMatchObject({ code: 'lock.own' })
    expect(events).toEqual([])
    expect(await locks.lift(slip.id, by(root))).toMatchObject({ lifted: { by: root } })
    expect(locks.shutsOut(unknown)).toBe(false)
  })

  test('never lifts the lock on itself, though it put that on', async () => {
    const own = lockOn(newId('l'), { scope: 'identity', target: unknown, by: unknown })
    await store.addLock(own, 9)
    const locks = await locksOf(true)
    await expect(locks.lift(own.id, by(unknown))).rejects.toMatchObject({ code: 'lock.own' })
  })
})

test('who is whose is listed once more for all who ask while it is listed, and what they know of is in it', async () => {
  await store.addLock(lockOn(newId('l'), { scope: 'identity', target: root }), 9)
  const second = `${HERE}|second`
  const listed: PromiseWithResolvers<readonly Owned[]>[] = []
  const people = async () => {
    const one = Promise.withResolvers<readonly Owned[]>()
    listed.push(one)
    return await one.promise
  }
  const opening = locksOf(true, store, people)
  await until('it is listed', () => listed.length === 1)
  listed[0]?.resolve(everybody)
  const locks = await opening
  const first = locks.relink()
  await until('it is listed', () => listed.length === 2)
  const others = [locks.relink(), locks.relink(), locks.relink()]
  listed[1]?.reject(new Error('the connection is gone'))
  await expect(first).rejects.toThrow('gone')
  await until('it is listed', () => listed.length === 3)
  listed[2]?.resolve([
    ...everybody,
    { identity: second, company: null, person: root, administers: false },
  ])
  await Promise.all(others)
  expect([listed.length, locks.shutsOut(second)]).toEqual([3, true])
})

describe('of the last two who may administer', () => {
  const ada = `${HERE}|ada`
  let onRoot: Lock
  beforeEach(() => {
    onRoot = lockOn(newId('l'), { scope: 'identity', target: root, by: ada })
  })

  test('one stays where another gateway locked the other since the last look', async () => {
    const locks = await locksOf(true)
    await store.addLock(onRoot, 9)
    await expect(locks.add('identity', ada, by(root))).rejects.toMatchObject({
      code: 'lock.last_admin',
    })
    expect([events, (await store.standingLocks()).length]).toEqual([[], 1])
  })

  /** The store, in which another gateway locks the other at the same time: before or behind what is locked here. */
  const meanwhile = (when: 'before' | 'behind', more: Partial<LockStore> = {}): LockStore => ({
    addLock: async (lock, most) => {
      if (when === 'before') await store.addLock(onRoot, 9)
      const added = await store.addLock(lock, most)
      if (when === 'behind') await store.addLock(onRoot, 9)
      return added
    },
    liftLock: async (id, lifted) => await store.liftLock(id, lifted),
    findLock: async (id) => await store.findLock(id),
    standingLocks: async () => await store.standingLocks(),
    listLocks: async (limit, after) => await store.listLocks(limit, after),
    ...more,
  })
  const effectOf = (data: object | undefined) =>
    data !== undefined && 'effect' in data ? data.effect : undefined
  const told = () => events.map(({ code, status, data }) => [code, status, effectOf(data)])

  // Whatever the clocks say: who was first may have looked before the other was there.
  test.for([0, Number.MAX_SAFE_INTEGER])(
    'one stays where another gateway locks the other at the same time (%s): the second takes its own back',
    async (at) => {
      onRoot = { ...onRoot, at }
      const locks = await locksOf(true, meanwhile('before'))
      await expect(locks.add('identity', ada, by(root))).rejects.toMatchObject({
        code: 'lock.last_admin',
      })
      expect(await store.standingLocks()).toEqual([onRoot])
      expect([locks.shutsOut(ada), locks.shutsOut(root)]).toEqual([false, true])
      expect(told()).toEqual([
        ['session.lock', 'success', undefined],
        ['session.unlock', 'success', undefined],
      ])
    },
  )

  test('the first keeps its own, though it sees both: the second takes back the other', async () => {
    const locks = await locksOf(true, meanwhile('behind'))
    const kept = await locks.add('identity', ada, by(root))
    expect((await store.standingLocks()).map(({ id }) => id)).toEqual([kept.id, onRoot.id])
    expect(told()).toEqual([['session.lock', 'success', undefined]])
  })

  test('the second that cannot take its own back has said so first, and says that it is not known', async () => {
    const failure = new Error('the connection is gone')
    const liftLock = async () => await Promise.reject(failure)
    const locks = await locksOf(true, meanwhile('before', { liftLock }))
    await expect(locks.add('identity', ada, by(root))).rejects.toBe(failure)
    expect(told()).toEqual([
      ['session.lock', 'success', undefined],
      ['session.unlock', 'success', undefined],
      ['session.unlock', 'failure', 'unknown'],
    ])
    expect(locks.shutsOut(ada)).toBe(true)
  })
})

describe('where the store fails, the log has what it shows then', () => {
  const failure = new Error('the connection is gone')
  /** A store that does as it is told and loses the answer, or loses the question; and may stay away. */
  const failing = (does: boolean, stays: boolean): LockStore => ({
    addLock: async (lock, most) => {
      if (does) await store.addLock(lock, most)
      throw failure
    },
    liftLock: async (id, lifted) => {
      if (does) await store.liftLock(id, lifted)
      throw failure
    },
    findLock: async (id) => {
      // Whoever lifts one looks it up first.
      if (stays && events.length > 0) throw failure
      return await store.findLock(id)
    },
    standingLocks: async () => await store.standingLocks(),
    listLocks: async (limit, after) => await store.listLocks(limit, after),
  })
  const asked = { subject: { id: `${HERE}|vera`, vendor: 'acme' } } as Partially<Input>

  test.for([
    ['done', true, false, 'with effect, though the store failed', 'held'],
    ['not done', false, false, 'without effect as far as the store shows: it failed', 'unknown'],
    [
      'done, and nobody can tell',
      true,
      true,
      'it is not known whether this took effect',
      'unknown',
    ],
  ] as const)('of a lift that was %s', async ([, does, stays, says, effect]) => {
    const lock = lockOn(newId('l'), { scope: 'company', target: 'acme' })
    await store.addLock(lock, 9)
    const locks = await locksOf(true, failing(does, stays))
    await expect(locks.lift(lock.id, by(root))).rejects.toBe(failure)
    expect(events.map(({ status, reason }) => [status, reason])).toEqual([
      ['success', lock.id],
      ['failure', 'store.unavailable'],
    ])
    expect(events[1]?.message).toContain(says)
    expect(events[1]).toMatchObject({ data: { effect } })
    expect(locks.on(asked)).toHaveLength(does && !stays ? 0 : 1)
  })

  test.for([
    ['kept', true, 'with effect, though the store failed'],
    ['not kept', false, 'without effect as far as the store shows: it failed'],
  ] as const)('of a lock that was %s, and it is in force as it stands', async ([, does, says]) => {
    const locks = await locksOf(true, failing(does, false))
    await expect(locks.add('company', 'acme', by(root))).rejects.toBe(failure)
    expect(events[1]).toMatchObject({ status: 'failure', message: expect.stringContaining(says) })
    expect(locks.on(asked)).toHaveLength(does ? 1 : 0)
  })
})
