/** What every implementation of the store of locks must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { Lock, LockStore } from '../../../../gateway/locks/lock.ts'
import { newId } from '../../../../gateway/ids.ts'
import { NOW, type Make } from './make.ts'

export function lockOn(id: string, more: Partial<Lock> = {}): Lock {
  return {
    id,
    scope: 'device',
    target: 'press-07',
    reason: 'ü\0☃ "odd"',
    by: 'iss|oda',
    by_email: 'oda@plant.example',
    at: NOW,
    lifted: null,
    ...more,
  }
}

export function lockStoreContract(name: string, make: Make<LockStore>): void {
  describe(`${name} as a store of locks`, () => {
    const lifted = { at: NOW + 9, by: 'iss|ole', reason: 'fine ☃' }
    const ids = (some: readonly Lock[]) => some.map(({ id }) => id)

    test('gives back what was put in, and how it was lifted', async () => {
      const store = await make()
      const [one, all] = [lockOn('l_1', { by_email: null }), lockOn('l_2', { scope: 'everything' })]
      for (const lock of [one, all]) expect(await store.addLock(lock, 9)).toBe(true)
      await expect(store.addLock({ ...one, target: 'press-08' }, 9)).rejects.toThrow()
      expect([await store.findLock('l_1'), await store.findLock(newId('l'))]).toEqual([
        one,
        undefined,
      ])
      expect(await store.standingLocks()).toEqual([one, all])
      expect(await store.liftLock('l_1', lifted)).toEqual({ ...one, lifted })
      expect(await store.findLock('l_1')).toEqual({ ...one, lifted })
      expect(await store.standingLocks()).toEqual([all])
      await expect(store.addLock(one, 9)).rejects.toThrow()
    })
    test('is lifted once, by whoever is first', async () => {
      const store = await make()
      await store.addLock(lockOn('l_1'), 9)
      const both = await Promise.all([
        store.liftLock('l_1', lifted),
        store.liftLock('l_1', { ...lifted, by: 'iss|otto' }),
      ])
      expect(both.map((one) => one?.lifted?.by)).toEqual(['iss|ole', undefined])
      expect(await store.liftLock(newId('l'), lifted)).toBeUndefined()
    })
    test('holds no more that stand than may, also when many come at once', async () => {
      const store = await make()
      const all = await Promise.all(
        ['a', 'b', 'c', 'd', 'e'].map(async (id) => await store.addLock(lockOn(id), 3)),
      )
      expect(all).toEqual([true, true, true, false, false])
      await store.liftLock('b', lifted)
      expect(await store.addLock(lockOn('f'), 3)).toBe(true)
    })
    test('has those that stand in the order in which they came, whatever the clocks said', async () => {
      const store = await make()
      for (const [id, at] of [
        ['b', 3],
        ['c', 1],
        ['a', 3],
      ] as const)
        await store.addLock(lockOn(id, { at }), 9)
      expect(ids(await store.standingLocks())).toEqual(['b', 'c', 'a'])
    })
    test('lists what stands, then what was lifted, and goes on behind one that is lifted meanwhile', async () => {
      const store = await make()
      for (const [id, at] of [
        ['a', 1],
        ['b', 2],
        ['c', 3],
        ['d', 3],
      ] as const)
        await store.addLock(lockOn(id, { at }), 9)
      expect(ids(await store.standingLocks())).toEqual(['a', 'b', 'c', 'd'])
      expect(ids(await store.listLocks(2))).toEqual(['d', 'c'])
      await store.liftLock('c', lifted)
      await store.liftLock('a', lifted)
      const behind = async (isLifted: boolean, at: number, id: string) =>
        ids(await store.listLocks(9, { lifted: isLifted, at, id }))
      expect(await behind(false, 3, 'c')).toEqual(['b', 'c', 'a'])
      expect(await behind(true, 3, 'c')).toEqual(['a'])
      expect(await behind(true, 1, 'a')).toEqual([])
    })
  })
}
