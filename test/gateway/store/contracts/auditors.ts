/** What every implementation of the store of auditors must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { Auditor, AuditorStore } from '../../../../gateway/recordings/auditors.ts'
import { NOW, type Make } from './make.ts'

export function auditorCalled(name: string, more: Partial<Auditor> = {}): Auditor {
  return {
    name,
    recipient: `age1${name}`,
    confirmed_at: null,
    added_at: NOW,
    by: 'iss|ada',
    secret_sha256: '0'.repeat(64),
    ...more,
  }
}

export function auditorStoreContract(name: string, make: Make<AuditorStore>): void {
  describe(`${name} as a store of auditors`, () => {
    test('gives back what was put in, the first to come first', async () => {
      const store = await make()
      const all = [
        auditorCalled('zoe', { added_at: NOW - 1, by: 'ü\0☃' }),
        auditorCalled('ann', { confirmed_at: NOW, secret_sha256: null }),
        auditorCalled('bea'),
      ]
      for (const one of [all[2], all[0], all[1]]) if (one !== undefined) await store.add(one)
      expect(await store.list()).toEqual(all)
      expect(await store.find('ann')).toEqual(all[1])
      expect(await store.find('nobody')).toBeUndefined()
    })
    test('a name and a key are one auditor’s, also where many come at once', async () => {
      const store = await make()
      const ann = auditorCalled('ann')
      const all = await Promise.all(
        Array.from({ length: 9 }, async (_, at) => await store.add({ ...ann, added_at: NOW + at })),
      )
      expect(all.filter(Boolean)).toHaveLength(1)
      expect(await store.add(auditorCalled('bea', { recipient: ann.recipient }))).toBe(false)
      expect(await store.list()).toHaveLength(1)
    })
    test('is confirmed, and what was in its test is forgotten', async () => {
      const store = await make()
      await store.add(auditorCalled('ann'))
      await store.confirm('ann', NOW + 9)
      await store.confirm('nobody', NOW)
      const confirmed = { confirmed_at: NOW + 9, secret_sha256: null }
      expect(await store.list()).toEqual([auditorCalled('ann', confirmed)])
    })
    test('that is removed gives its name and its key back', async () => {
      const store = await make()
      const ann = auditorCalled('ann')
      await store.add(ann)
      await store.remove('ann')
      await store.remove('ann')
      expect([await store.find('ann'), await store.list()]).toEqual([undefined, []])
      expect(await store.add({ ...ann, name: 'bea' })).toBe(true)
    })
  })
}
