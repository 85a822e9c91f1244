/** What every implementation of the store of inventories must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import { inventoryOf } from '../../../../gateway/devices/inventory.ts'
import type { InventoryStore, KeptInventory } from '../../../../gateway/devices/inventory.ts'
import { NOW, type Make } from './make.ts'

export function inventoryStoreContract(name: string, make: Make<InventoryStore>): void {
  describe(`${name} as a store of inventories`, () => {
    const told = (exe: string): KeptInventory => {
      const listener = { ...UNSEEN, exe, others: [] }
      const target = { process: 'plc', kind: 'tcp', listener, listens: ['127.0.0.1:502'] }
      return { ...inventoryOf([target], 3), at: NOW }
    }
    test('keeps the newest inventory of each device', async () => {
      const store = await make()
      expect(await store.inventory('press-07')).toBeUndefined()
      await store.putInventory('press-08', told('/c'))
      for (const exe of ['/a', '/b']) await store.putInventory('press-07', told(exe))
      expect(await store.inventory('press-07')).toEqual(told('/b'))
      expect(await store.inventory('press-08')).toEqual(told('/c'))
    })
    test('keeps the newest baseline of each device, whatever is exposed since', async () => {
      const store = await make()
      const accepted = ({ hash, processes }: KeptInventory, by: string) => ({
        hash,
        processes,
        at: NOW,
        by,
      })
      const [first, second] = [told('/a'), told('/b')]
      await store.accept('press-07', accepted(first, 'iss|oda'))
      await store.putInventory('press-07', second)
      expect(await store.baseline('press-07')).toEqual(accepted(first, 'iss|oda'))
      expect(await store.baseline('press-08')).toBeUndefined()
      await store.accept('press-07', accepted(second, 'iss|ole'))
      expect(await store.baseline('press-07')).toEqual(accepted(second, 'iss|ole'))
    })
  })
}

const UNSEEN = {
  phase: 'listener',
  exe: null,
  sha256: null,
  script_sha256: null,
  uid: null,
  unit: null,
  image: null,
  started_at: null,
  pid: null,
} as const
