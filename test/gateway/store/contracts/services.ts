/** What every implementation of the store of service accounts must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { ServiceRow, ServiceStore } from '../../../../gateway/identity/services/store.ts'
import type { Make } from './make.ts'

export function serviceCalled(name: string, more: Partial<ServiceRow> = {}): ServiceRow {
  return {
    id: `v_${name}`,
    name,
    email: `${name}@service.invalid`,
    party: 'vendor',
    vendor: 'acme',
    roles: ['vendor'],
    groups: [],
    scopes: ['grants:read'],
    key: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' },
    thumbprint: `of-${name}`,
    by: 'iss|ada',
    createdAt: 1,
    expiresAt: 100,
    revokedAt: null,
    usedAt: null,
    tokenUntil: 0,
    ...more,
  }
}

export function serviceStoreContract(name: string, make: Make<ServiceStore>): void {
  describe(`${name} as a store of services`, () => {
    test('gives back what was put in, the newest first', async () => {
      const store = await make()
      const odd = serviceCalled('odd', { by: 'ü\0☃ "x"', vendor: null, party: 'staff', roles: [] })
      const [a, b] = [serviceCalled('a', { createdAt: 2 }), serviceCalled('b', { createdAt: 2 })]
      for (const one of [b, odd, a]) expect(await store.addService(one, 9, 1)).toBe('added')
      expect(await store.listServices()).toEqual([b, a, odd])
      expect([await store.findService('v_odd'), await store.findService('v_x')]).toEqual([
        odd,
        undefined,
      ])
      await expect(store.addService({ ...a, name: 'x', thumbprint: 'x' }, 9, 1)).rejects.toThrow()
    })
    test('a name and a key are one service’s while it stands, also where many come at once', async () => {
      const store = await make()
      const one = serviceCalled('a')
      const all = await Promise.all(
        Array.from(
          { length: 9 },
          async (_, at) => await store.addService({ ...one, id: `v_${at}` }, 9, 1),
        ),
      )
      expect(all.toSorted()).toEqual(['added', ...Array<string>(8).fill('exists')])
      const same = serviceCalled('b', { thumbprint: one.thumbprint, expiresAt: 200 })
      expect(await store.addService(same, 9, 99)).toBe('exists')
      expect(await store.addService(same, 9, 100)).toBe('added')
      const id = (await store.listServices()).find((row) => row.name === 'b')?.id ?? ''
      expect(await store.revokeService(id, 150)).toBe(true)
      expect(await store.addService({ ...same, id: 'v_new' }, 9, 160)).toBe('added')
    })
    test('as many stand as may; those that are past make room', async () => {
      const store = await make()
      const add = async (id: string, now: number) =>
        await store.addService(serviceCalled(id, { createdAt: now, expiresAt: now + 10 }), 2, now)
      expect([await add('a', 1), await add('b', 5), await add('c', 5)]).toEqual([
        'added',
        'added',
        'full',
      ])
      expect([await add('c', 11), await add('d', 11)]).toEqual(['added', 'full'])
      expect(await store.revokeService('v_b', 12)).toBe(true)
      expect(await add('d', 12)).toBe('added')
      const names = (await store.listServices()).map((row) => row.name)
      expect(names).toEqual(['d', 'c', 'b', 'a'])
    })
    test('is revoked once, also when it has run out, and gets no token after that', async () => {
      const store = await make()
      for (const id of ['a', 'b']) await store.addService(serviceCalled(id), 9, 1)
      expect(await store.useService('v_a', 10, 20)).toBe(true)
      expect(await store.useService('v_a', 11, 15)).toBe(true)
      expect(await store.findService('v_a')).toMatchObject({ usedAt: 11, tokenUntil: 20 })
      const both = [store.revokeService('v_a', 12), store.revokeService('v_a', 13)]
      expect((await Promise.all(both)).filter(Boolean)).toEqual([true])
      expect(await store.useService('v_a', 13, 30)).toBe(false)
      expect((await store.findService('v_a'))?.tokenUntil).toBe(20)
      expect([
        await store.useService('v_b', 100, 110),
        await store.useService('v_x', 1, 2),
      ]).toEqual([false, false])
      expect([await store.revokeService('v_b', 101), await store.revokeService('v_x', 1)]).toEqual([
        true,
        false,
      ])
    })
  })
}
