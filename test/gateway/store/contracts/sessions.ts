/** What every implementation of the store of sessions must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import { newId } from '../../../../gateway/ids.ts'
import type { SessionRecord, SessionStore } from '../../../../gateway/sessions/session.ts'
import { NOW, type Make } from './make.ts'

function session(more: Partial<SessionRecord> = {}): SessionRecord {
  return {
    id: newId('s'),
    grant: newId('g'),
    device: 'press-07',
    process: 'plc',
    kind: 'tcp',
    identity: 'iss|vera',
    email: 'vera@acme.example',
    party: 'vendor',
    opened_at: NOW,
    expires_at: NOW + 600,
    ended_at: null,
    reason: null,
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
    ...more,
  }
}

export function sessionStoreContract(name: string, make: Make<SessionStore>): void {
  describe(`${name} as a store of sessions`, () => {
    const end = (id: string, at = NOW + 60) => ({
      id,
      at,
      reason: 'killed' as const,
      bytes_in: 2 ** 40,
      bytes_out: 7,
      connections: 3,
      time_to_cut_ms: 1.234,
    })
    test('gives back what was put in', async () => {
      const store = await make()
      const one = session({ email: null })
      await store.add(one)
      expect(await store.find(one.id)).toEqual(one)
      expect(await store.find(newId('s'))).toBeUndefined()
    })
    test('ends once', async () => {
      const store = await make()
      const one = session()
      await store.add(one)
      await store.end(end(one.id))
      await store.end({
        ...end(one.id, NOW + 99),
        reason: 'idle',
        bytes_in: 0,
        time_to_cut_ms: null,
      })
      expect(await store.find(one.id)).toEqual({
        ...one,
        ended_at: NOW + 60,
        reason: 'killed',
        bytes_in: 2 ** 40,
        bytes_out: 7,
        connections: 3,
        time_to_cut_ms: 1.234,
      })
    })
    test('an end without a beginning makes nothing', async () => {
      const store = await make()
      await store.end(end(newId('s')))
      expect(await store.list({ limit: 9 })).toEqual([])
    })
    test('lists open ones first, then the newest, of one person or of all', async () => {
      const store = await make()
      const [a, b, c, d] = [3, 2, 1, 0].map((at) =>
        session({ opened_at: NOW + at, identity: at === 0 ? 'iss|otto' : 'iss|vera' }),
      )
      if (a === undefined || b === undefined || c === undefined || d === undefined) return
      for (const one of [d, c, b, a]) await store.add(one)
      await store.end(end(a.id))
      const ids = (some: readonly SessionRecord[]) => some.map(({ id }) => id)
      expect(ids(await store.list({ limit: 9 }))).toEqual(ids([b, c, d, a]))
      expect(ids(await store.list({ limit: 2 }))).toEqual(ids([b, c]))
      expect(ids(await store.list({ identity: 'iss|otto', limit: 9 }))).toEqual([d.id])
    })
    test('knows what was left open', async () => {
      const store = await make()
      const [one, two] = [session(), session()]
      await store.add(one)
      await store.add(two)
      await store.end(end(one.id))
      expect(await store.open()).toEqual([two])
    })
  })
}
