/** Gateways that share devices and have a CA each: what one says has ended, the others end before they use the device's row again. */
import { expect, test } from 'vitest'
import type { RevocationReason } from '#ca'
import type { Device } from '../../../gateway/devices/device.ts'
import {
  EndingDevices,
  type EndingRoom,
  type Followed,
  type SharedDevices,
} from '../../../gateway/devices/ending.ts'
import { NOW } from '../store/contracts/make.ts'

/** The shared row of one device, and gateways on it. */
function shared() {
  let row: Device = { id: 'press-07', zone: 'z', state: 'active', labels: {}, created_at: NOW }
  let leaked: string | null = null
  const devices = {
    find: async (id: string) => await Promise.resolve(id === row.id ? row : undefined),
    end: async (id: string, mark: string, reason: RevocationReason) => {
      const before = row
      if (id !== row.id) return await Promise.resolve(undefined)
      if (reason === 'keyCompromise') leaked = mark
      row = { ...row, ending: { mark, reason, compromised: leaked } }
      return await Promise.resolve(before)
    },
  } as unknown as SharedDevices
  /** What was done there, oldest first; `kept` is its file, which a restart finds again. */
  const gateway = (kept = new Map<string, Followed>()) => {
    const did: string[] = []
    const log = { refuses: false }
    const room: EndingRoom = {
      devices,
      own: {
        followed: async (id) => await Promise.resolve(kept.get(id)),
        follow: async (id, ending) => void (await Promise.resolve(kept.set(id, ending))),
      },
      tenant: 't',
      store: {
        intendRevocation: async (_: string, { reason }: { reason: string }) =>
          await Promise.resolve(did.push(reason)),
        redeemRevocation: async () => await Promise.resolve({ serials: [] }),
        dropRevocation: async () => void (await Promise.resolve(did.push('dropped'))),
      } as never,
      log: async () => {
        if (log.refuses) throw new Error('no space')
        await Promise.resolve()
      },
      now: () => NOW,
      certified: async () => await Promise.resolve(new Set(['press-07'])),
      cut: () => did.push('cut'),
    }
    return { devices: new EndingDevices(room), did, kept, log }
  }
  return { gateway }
}

test('a gateway that was down ends what it issued before it gives the row to anybody, and once', async () => {
  const { gateway } = shared()
  const [a, b] = [gateway(), gateway()]
  await a.devices.end('press-07', 'superseded')
  expect([a.did, b.did]).toEqual([[], []])
  const found = await Promise.all([b.devices.find('press-07'), b.devices.find('press-07')])
  expect(found.map((one) => one?.state)).toEqual(['active', 'active'])
  expect(b.did).toEqual(['superseded', 'cut'])
  const again = gateway(b.kept)
  await again.devices.follow()
  await again.devices.find('press-07')
  await a.devices.find('press-07')
  expect([a.did, again.did]).toEqual([[], []])
  await again.devices.end('press-07', 'cessationOfOperation')
  await a.devices.follow(new Set(['press-07', 'nowhere']))
  expect([a.did, again.did]).toEqual([['cessationOfOperation', 'cut'], []])
})

test('a key that was given up as compromised is so everywhere, though the device was replaced since', async () => {
  const { gateway } = shared()
  const [a, b] = [gateway(), gateway()]
  await a.devices.end('press-07', 'keyCompromise')
  await a.devices.end('press-07', 'superseded')
  await b.devices.find('press-07')
  expect(b.did).toEqual(['keyCompromise', 'cut'])
  await a.devices.end('press-07', 'superseded')
  await b.devices.follow()
  expect(b.did.slice(2)).toEqual(['superseded', 'cut'])
})

test('what another said in the same moment is not lost to the one that says it again', async () => {
  const { gateway } = shared()
  const [a, b] = [gateway(), gateway()]
  await a.devices.end('press-07', 'keyCompromise')
  await b.devices.end('press-07', 'superseded')
  expect(b.did).toEqual(['keyCompromise', 'cut'])
  await b.devices.find('press-07')
  expect(b.did).toHaveLength(2)
})

test('who cannot record that it ends them gives the row to nobody, and tries again', async () => {
  const { gateway } = shared()
  const [a, b] = [gateway(), gateway()]
  await a.devices.end('press-07', 'superseded')
  b.log.refuses = true
  await expect(b.devices.find('press-07')).rejects.toMatchObject({ code: 'log.unavailable' })
  await expect(b.devices.find('press-07')).rejects.toMatchObject({ code: 'log.unavailable' })
  b.log.refuses = false
  expect((await b.devices.find('press-07'))?.id).toBe('press-07')
  expect(b.did.slice(-2)).toEqual(['superseded', 'cut'])
})
