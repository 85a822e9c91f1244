/** What every implementation of the store of devices must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { Device, DeviceStore, Process } from '../../../../gateway/devices/device.ts'
import { NOW, type Make } from './make.ts'

function device(id: string, more: Partial<Device> = {}): Device {
  return { id, zone: 'default', state: 'pending', labels: {}, created_at: NOW, ...more }
}
function process(device: string, id: string, more: Partial<Process> = {}): Process {
  return { device, id, kind: 'tcp', locality: 'device', port: 502, expect: {}, ...more }
}

export function deviceStoreContract(name: string, make: Make<DeviceStore>): void {
  describe(`${name} as a store of devices`, () => {
    test('gives back what was put in, whatever its text', async () => {
      const store = await make()
      const odd = device('press-07', {
        zone: 'hall-a',
        labels: { 'ключ"\\': '☃\n\0’; DROP TABLE device' },
      })
      expect(await store.add(odd)).toBe(true)
      expect(await store.find('press-07')).toEqual(odd)
      expect(await store.find('press-08')).toBeUndefined()
    })
    test('adds an id once, also when many do', async () => {
      const store = await make()
      const all = await Promise.all(
        Array.from({ length: 20 }, (_, at) =>
          store.add(device('press-07', { created_at: NOW + at })),
        ),
      )
      expect(all.filter(Boolean)).toHaveLength(1)
      expect(await store.list()).toHaveLength(1)
    })
    test('lists by id', async () => {
      const store = await make()
      for (const id of ['b', 'a', 'c']) await store.add(device(id))
      expect((await store.list()).map(({ id }) => id)).toEqual(['a', 'b', 'c'])
    })
    test('moves only from where it may, and once where many do', async () => {
      const store = await make()
      await store.add(device('press-07'))
      expect(await store.move('press-07', ['active'], 'retired')).toBeUndefined()
      expect(await store.move('nowhere', ['pending'], 'active')).toBeUndefined()
      expect(await store.move('press-07', [], 'active')).toBeUndefined()
      expect((await store.find('press-07'))?.state).toBe('pending')
      const all = await Promise.all(
        Array.from({ length: 10 }, () => store.move('press-07', ['pending'], 'active')),
      )
      expect(all.filter((moved) => moved !== undefined)).toEqual([
        device('press-07', { state: 'active' }),
      ])
    })
    test('keeps one process of a name, the newest', async () => {
      const store = await make()
      for (const id of ['press-07', 'press-08']) await store.add(device(id))
      await store.putProcess(process('press-07', 'plc'))
      await store.putProcess(process('press-08', 'plc', { port: 7 }))
      const newer = process('press-07', 'plc', {
        kind: 'modbus',
        locality: 'lan',
        port: null,
        expect: { exe: ['/a'], sha256: ['0'.repeat(64)], uid: [0], unit: ['x'] },
      })
      await store.putProcess(newer)
      expect(await store.findProcess('press-07', 'plc')).toEqual(newer)
      expect(await store.processes('press-07')).toEqual([newer])
      expect((await store.findProcess('press-08', 'plc'))?.port).toBe(7)
      expect(await store.findProcess('press-07', 'hmi')).toBeUndefined()
      expect(await store.processes('nowhere')).toEqual([])
    })
    test('no process on a device that is not there', async () => {
      const store = await make()
      await expect(store.putProcess(process('nowhere', 'plc'))).rejects.toThrow()
      expect(await store.processes('nowhere')).toEqual([])
    })
  })
}
