/** What every implementation of the store of rollouts must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import { newId } from '../../../../gateway/ids.ts'
import type { DeviceUpdate, Rollout, RolloutStore } from '../../../../gateway/rollouts/rollout.ts'
import type { Make } from './make.ts'

const NOW = 1_800_000_000

function rollout(more: Partial<Rollout> = {}): Rollout {
  return {
    id: newId('o'),
    manifest: 'signed\n',
    version: '0.2.0',
    sha256: 'ab'.repeat(32),
    health: 300,
    not_after: NOW + 86_400,
    zone: null,
    stages: [5, 100],
    stage: 0,
    stage_at: NOW,
    soak_s: 60,
    max_failures: 0,
    state: 'running',
    reason: 'service',
    by: 'iss|oda',
    at: NOW,
    ...more,
  }
}

export function rolloutStoreContract(name: string, make: Make<RolloutStore>): void {
  describe(`rollouts in ${name}`, () => {
    test('one is found as it was added, and changed only from a state it is in', async () => {
      const store = await make()
      const one = rollout()
      expect(await store.addRollout(one)).toBe(true)
      expect(await store.findRollout(one.id)).toEqual(one)
      expect(await store.findRollout(newId('o'))).toBeUndefined()
      expect(await store.changeRollout(one.id, ['paused'], { state: 'done' })).toBeUndefined()
      expect(await store.changeRollout(newId('o'), ['running'], { state: 'done' })).toBeUndefined()
      const change = { stage: 1, stage_at: NOW + 60, reason: 'on' }
      expect(await store.changeRollout(one.id, ['running'], change)).toEqual({ ...one, ...change })
      expect(await store.findRollout(one.id)).toEqual({ ...one, ...change })
    })

    test('of two to the same devices only one is open, running or paused', async () => {
      const store = await make()
      const [one, other] = [rollout({ zone: 'line-3' }), rollout({ zone: 'line-4', at: NOW + 1 })]
      expect(await store.addRollout(one)).toBe(true)
      expect(await store.addRollout(other)).toBe(true)
      expect(await store.addRollout(rollout({ zone: 'line-3' }))).toBe(false)
      expect(await store.addRollout(rollout())).toBe(false)
      await store.changeRollout(one.id, ['running'], { state: 'paused' })
      expect(await store.addRollout(rollout({ zone: 'line-3' }))).toBe(false)
      expect((await store.openRollouts()).map(({ id }) => id)).toEqual([one.id, other.id])
      await store.changeRollout(one.id, ['paused'], { state: 'aborted' })
      await store.changeRollout(other.id, ['running'], { state: 'done' })
      expect(await store.openRollouts()).toEqual([])
      const all = rollout({ at: NOW + 2 })
      expect(await store.addRollout(all)).toBe(true)
      expect(await store.addRollout(rollout({ zone: 'line-3' }))).toBe(false)
      expect((await store.listRollouts(2)).map(({ id }) => id)).toEqual([all.id, other.id])
      expect((await store.listRollouts(2, other)).map(({ id }) => id)).toEqual([one.id])
    })

    test('of a device the last is kept, in each rollout by itself', async () => {
      const store = await make()
      const [one, other] = [newId('o'), newId('o')]
      const update = (more: Partial<DeviceUpdate> = {}): DeviceUpdate => ({
        rollout: one,
        device: 'press-07',
        state: 'offered',
        code: null,
        at: NOW,
        ...more,
      })
      expect(await store.findUpdate(one, 'press-07')).toBeUndefined()
      await store.putUpdate(update())
      await store.putUpdate(update({ rollout: other, state: 'trial' }))
      await store.putUpdate(update({ device: 'press-01' }))
      const last = update({ state: 'failed', code: 'update.hung', at: NOW + 1 })
      await store.putUpdate(last)
      expect(await store.findUpdate(one, 'press-07')).toEqual(last)
      expect(await store.updatesOf(one)).toEqual([update({ device: 'press-01' }), last])
      expect(await store.updatesOf(newId('o'))).toEqual([])
      expect(await store.listUpdates(one, 1)).toEqual([update({ device: 'press-01' })])
      expect(await store.listUpdates(one, 5, 'press-01')).toEqual([last])
    })
  })
}
