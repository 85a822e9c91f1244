/** What every implementation of the store of sessions must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import { newId } from '../../../../gateway/ids.ts'
import type { SessionRecord, SessionStore } from '../../../../gateway/sessions/session.ts'
import { NOW, type Make } from './make.ts'

export function session(more: Partial<SessionRecord> = {}): SessionRecord {
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
    test('an id is added once', async () => {
      const store = await make()
      const one = session()
      await store.add(one)
      await expect(store.add({ ...one, grant: newId('g') })).rejects.toThrow()
      await store.end(end(one.id))
      await expect(store.add(one)).rejects.toThrow()
      expect((await store.find(one.id))?.ended_at).toBe(NOW + 60)
    })
    test('goes on behind a session, whatever ended meanwhile', async () => {
      const store = await make()
      const put = async (id: string, at: number, more: Partial<SessionRecord> = {}) =>
        await store.add(session({ id, opened_at: at, ...more }))
      const ids = async (filter: Parameters<SessionStore['list']>[0]) =>
        (await store.list(filter)).map(({ id }) => id)
      for (const [id, at] of [
        ['a', 1],
        ['b', 2],
        ['c', 2],
        ['d', 4],
        ['e', 5],
      ] as const)
        await put(id, at)
      await put('x', 3, { identity: 'iss|otto' })
      await store.end(end('b'))
      const own = { identity: 'iss|vera', limit: 9 }
      expect(await ids({ ...own, limit: 2 })).toEqual(['e', 'd'])
      await put('f', 6)
      for (const id of ['e', 'c']) await store.end(end(id))
      const after = { ended: false, opened_at: 4, id: 'd' }
      expect(await ids({ ...own, after })).toEqual(['a', 'e', 'c', 'b'])
      expect(await ids({ limit: 9, after })).toEqual(['x', 'a', 'e', 'c', 'b'])
      const ended = { ended: true, opened_at: 2, id: 'c' }
      expect(await ids({ limit: 9, after: ended })).toEqual(['b'])
      expect(await ids({ limit: 9, after: { ...ended, id: 'b' } })).toEqual([])
    })
    test('pages through more than fit into one look, each once', async () => {
      const store = await make()
      const all = Array.from({ length: 300 }, (_, at) => session({ opened_at: NOW + (at % 2) }))
      await Promise.all(all.map(async (one) => await store.add(one)))
      const shown: string[] = []
      for (let after: { ended: boolean; opened_at: number; id: string } | undefined; ;) {
        const page = await store.list({ limit: 70, ...(after === undefined ? {} : { after }) })
        shown.push(...page.map(({ id }) => id))
        const last = page.at(-1)
        if (last === undefined) break
        after = { ended: false, opened_at: last.opened_at, id: last.id }
      }
      const byTime = all.toSorted(
        (a, b) => b.opened_at - a.opened_at || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0),
      )
      expect(shown).toEqual(byTime.map(({ id }) => id))
    })
  })
}
