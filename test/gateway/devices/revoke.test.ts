/** Who is reached by a revocation: tunnels by device, serial and issuer, and what fails on the way. */
import { describe, expect, test } from 'vitest'
import { instant, type Peer, type RevocationIntention, type RevocationTarget } from '#ca'
import type { Tunnel } from '#tunnel'
import { Registry, type Presence } from '../../../gateway/devices/presence.ts'
import { revokeAndCut, type RevocationRoom } from '../../../gateway/devices/revoke.ts'
import { Refusal } from '../../../gateway/problem.ts'

interface Here extends Presence {
  readonly cuts: { code: string; withdrawnAt: number }[]
}

function presence(device: string, serial: string, issuer: string): Here {
  const peer: Peer = {
    ok: true,
    device,
    serial,
    issuer,
    notBefore: instant(0),
    notAfter: instant(1),
    spkiSha256: '',
    expiredSeconds: 0,
  }
  const cuts: Here['cuts'] = []
  return {
    device,
    tunnel: {} as Tunnel,
    peer,
    tls: { version: 'TLSv1.3', cipher: '', group: null, pq: false },
    agent: { version: '0', version_int: 0 },
    epoch: 1,
    since: 0,
    listeners: new Map(),
    looks: { ask: async () => {} },
    cut: async (code, _message, withdrawnAt) => void cuts.push({ code, withdrawnAt }),
    withdrawnAt: () => undefined,
    cuts,
  }
}

describe('the index of tunnels', () => {
  const found = (registry: Registry, target: RevocationTarget) =>
    registry.matching(target).map(({ device }) => device)

  test('by device, by serial, by issuer, and by nothing else', () => {
    const registry = new Registry()
    registry.put(presence('a', 's1', 'i1'))
    registry.put(presence('b', 's2', 'i1'))
    registry.put(presence('c', 's3', 'i2'))
    expect(found(registry, { device: 'a' })).toEqual(['a'])
    expect(found(registry, { serial: 's2' })).toEqual(['b'])
    expect(found(registry, { issuer: 'i1' })).toEqual(['a', 'b'])
    for (const target of [{ device: 's1' }, { serial: 'i1' }, { issuer: 'a' }])
      expect(found(registry, target)).toEqual([])
  })

  test('a newer tunnel of the device is found by its own certificate only', () => {
    const registry = new Registry()
    const old = presence('a', 's1', 'i1')
    registry.put(old)
    const next = presence('a', 's2', 'i2')
    registry.put(next)
    expect(found(registry, { serial: 's1' })).toEqual([])
    expect(found(registry, { issuer: 'i1' })).toEqual([])
    expect(registry.matching({ serial: 's2' })).toEqual([next])
    // The older one ends later, and takes nothing of the newer along.
    registry.remove('a', old.tunnel)
    expect(found(registry, { issuer: 'i2' })).toEqual(['a'])
  })

  test('listener facts change nothing about it; the end of the tunnel removes it', () => {
    const registry = new Registry()
    const here = presence('a', 's1', 'i1')
    registry.put(here)
    registry.report('a', here.tunnel, new Map([['plc', null]]))
    expect(registry.matching({ serial: 's1' })[0]?.listeners.size).toBe(1)
    registry.remove('a', here.tunnel)
    for (const target of [{ device: 'a' }, { serial: 's1' }, { issuer: 'i1' }])
      expect(found(registry, target)).toEqual([])
  })
})

interface Scene {
  readonly room: RevocationRoom
  readonly told: string[]
}

function scene(registry: Registry, change: Partial<RevocationRoom['store']> = {}): Scene {
  const told: string[] = []
  let intended: RevocationIntention | undefined
  return {
    told,
    room: {
      tenant: 'main.sallyport.internal',
      store: {
        async intendRevocation(_tenant, intention) {
          intended = intention
          return 1
        },
        async redeemRevocation() {
          if (intended === undefined) throw new Error('none')
          return { epoch: 1, serials: [], ...intended }
        },
        dropRevocation: async () => {},
        openRevocations: async () => [],
        ...change,
      },
      log: async ({ code }) => void told.push(code),
      registry,
      live: new Map(),
      reauthorization: { end: async () => null },
      revoked: () => void told.push('published'),
      now: () => 1_000,
      report: () => {},
    },
  }
}
const reach = { reason: 'cACompromise', by: 'nobody', at: 5, requestId: 'r_1' } as const

describe('revokeAndCut', () => {
  test('an issuer: every tunnel that stands on it, and no other', async () => {
    const registry = new Registry()
    const all = [presence('a', 's1', 'i1'), presence('b', 's2', 'i1'), presence('c', 's3', 'i2')]
    for (const each of all) registry.put(each)
    const { room, told } = scene(registry)
    const { tunnels, row } = await revokeAndCut(room, { issuer: 'i1' }, reach)
    expect([tunnels, row.epoch]).toEqual([2, 1])
    const cut = { code: 'peer.revoked', withdrawnAt: 5 }
    expect(all.map(({ cuts }) => cuts)).toEqual([[cut], [cut], []])
    expect(told).toEqual(['cert.revoke', 'published'])
  })

  test('a compromised key takes the tunnel of another certificate with that key along', async () => {
    const registry = new Registry()
    const all = [presence('a', 's1', 'i1'), presence('b', 's2', 'i1'), presence('c', 's3', 'i1')]
    for (const each of all) registry.put(each)
    const target = { serial: 's1' }
    const row = { epoch: 1, reason: 'keyCompromise', at: instant(0), target } as const
    const { room } = scene(registry, {
      redeemRevocation: async () => ({ ...row, serials: ['s1', 's2'] }),
    })
    const { tunnels } = await revokeAndCut(room, target, { ...reach, reason: 'keyCompromise' })
    expect(tunnels).toBe(2)
    expect(all.map(({ cuts }) => cuts.length)).toEqual([1, 1, 0])
  })

  test('without a log nothing is done and nobody is cut', async () => {
    const registry = new Registry()
    const here = presence('a', 's1', 'i1')
    registry.put(here)
    const { room, told } = scene(registry)
    const mute = { ...room, log: () => Promise.reject(new Error('full')) }
    const attempt = revokeAndCut(mute, { serial: 's1' }, reach)
    await expect(attempt).rejects.toBeInstanceOf(Refusal)
    await expect(attempt).rejects.toMatchObject({ code: 'log.unavailable' })
    expect([here.cuts, told]).toEqual([[], []])
  })

  test('without a store the caller hears that asking again is safe', async () => {
    const registry = new Registry()
    const { room } = scene(registry, {
      redeemRevocation: () => Promise.reject(new Error('busy')),
    })
    await expect(revokeAndCut(room, { device: 'a' }, reach)).rejects.toMatchObject({
      code: 'store.unavailable',
      nextStep: expect.stringContaining('ask again') as string,
    })
  })

  test('a store that does not even keep the intention: nothing was done, nobody says that it will be, and no log has it', async () => {
    const registry = new Registry()
    const here = presence('a', 's1', 'i1')
    registry.put(here)
    const { room, told } = scene(registry, {
      intendRevocation: () => Promise.reject(new Error('full')),
    })
    await expect(revokeAndCut(room, { device: 'a' }, reach)).rejects.toMatchObject({
      code: 'store.unavailable',
      detail: 'the revocation could not be kept, so nothing was done',
      nextStep: expect.not.stringContaining('within the hour') as string,
    })
    expect([here.cuts, told]).toEqual([[], []])
  })

  test('nothing open: nothing took time', async () => {
    const { room } = scene(new Registry())
    expect(await revokeAndCut(room, { device: 'a' }, reach)).toMatchObject({
      tunnels: 0,
      sessions: [],
      timeToCutMs: 0,
    })
  })
})
