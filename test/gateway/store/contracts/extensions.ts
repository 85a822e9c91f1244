/** What every store of grants must do with what makes a grant last longer, or takes its place. */
import { describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import { termsOf, type Grant } from '../../../../gateway/grants/grant.ts'
import type { GrantStore } from '../../../../gateway/grants/store.ts'
import { newId } from '../../../../gateway/ids.ts'
import { approval, grant } from './granted.ts'
import { NOW, type Make } from './make.ts'

export function grantExtensionContract(name: string, make: Make<GrantStore>): void {
  describe(`an extension in ${name}`, () => {
    const longer = (of: Grant, more: Partial<Statement> = {}, rest: Partial<Grant> = {}) =>
      grant(
        {
          ...of.statement,
          id: newId('g'),
          not_after: NOW + 7200,
          max_duration_s: 1200,
          extends: { grant: of.statement.id, sha256: of.hash },
          ...more,
        },
        rest,
      )
    const lasts = async (store: GrantStore, of: Grant) => {
      const { extension, ...kept } = (await store.find(of.statement.id)) ?? of
      return [extension?.statement.id, termsOf({ ...kept, extension: extension ?? null }).not_after]
    }
    async function started(more: Partial<Statement> = {}) {
      const store = await make()
      const kept = grant(more, { state: 'approved' })
      await store.add(kept)
      await store.apply(kept.statement.id, 'use', NOW, 'iss|vera', '')
      return { store, kept }
    }
    const agree = async (store: GrantStore, { statement: { id }, hash }: Grant, at = NOW + 1) =>
      await store.approve(id, { ...approval('iss|oda', hash), at }, 1)

    test('holds once it is approved: the grant is the same, and lasts longer', async () => {
      const { store, kept } = await started()
      const more = longer(kept, {}, { ticket_valid: true })
      expect(await store.add(more)).toBe(true)
      expect(await lasts(store, kept)).toEqual([undefined, NOW + 3600])
      expect((await agree(store, more))?.state).toBe('approved')
      expect(await lasts(store, kept)).toEqual([more.statement.id, NOW + 7200])
      const found = await store.find(kept.statement.id)
      expect([found?.hash, found?.statement]).toEqual([kept.hash, kept.statement])
      expect(found?.extension?.approvals.map(({ hash }) => hash)).toEqual([more.hash])
      expect([found?.ticket_valid, found?.extension?.ticket_valid]).toEqual([undefined, true])
      // It is never used by itself, and stands in no list of what may be.
      expect(await store.apply(more.statement.id, 'use', NOW, 'iss|vera', '')).toBeUndefined()
      const applicable = await store.applicable('iss|vera', 'press-07', NOW)
      expect(applicable.map(({ statement }) => statement.id)).toEqual([kept.statement.id])
    })
    test('has the grant found when its own time would be over', async () => {
      const write = { ot_level: 2, ot_windows: [{ unit: 1, from: 0, to: 9 }] }
      const { store, kept } = await started(write)
      const more = longer(kept)
      await store.add(more)
      const writes = async (now: number) =>
        (
          await store.writes({ requester: 'iss|vera', device: 'press-07', process: 'plc', now })
        ).map(({ statement }) => statement.id)
      expect(await writes(NOW + 600)).toEqual([])
      await agree(store, more)
      expect(await writes(NOW + 1199)).toEqual([kept.statement.id])
      expect(await writes(NOW + 1200)).toEqual([])
    })
    test('takes no effect once the grant is over, by a second or by somebody', async () => {
      const { store, kept } = await started()
      const more = longer(kept)
      await store.add(more)
      expect(await agree(store, more, NOW + 600)).toBeUndefined()
      expect((await agree(store, more, NOW + 599))?.state).toBe('approved')
      const { store: other, kept: gone } = await started()
      const late = longer(gone)
      await other.add(late)
      await other.apply(gone.statement.id, 'burn', NOW + 1, 'iss|vera', 'done')
      expect(await agree(other, late)).toBeUndefined()
      expect((await other.find(late.statement.id))?.state).toBe('spent')
      expect(await other.add(longer(gone, {}, { state: 'approved' }))).toBe(false)
    })
    test('of another statement than the grant’s takes none', async () => {
      const { store, kept } = await started()
      const forged = longer(kept, {
        extends: { grant: kept.statement.id, sha256: '0'.repeat(64) },
      })
      await store.add(forged)
      expect(await agree(store, forged)).toBeUndefined()
      const nowhere = longer(kept, { extends: { grant: newId('g'), sha256: kept.hash } })
      await store.add(nowhere)
      expect(await agree(store, nowhere)).toBeUndefined()
    })
    test('of two the longer holds, and the shorter is none beside it; when it ends, what is left does', async () => {
      const { store, kept } = await started()
      const [short, long, less] = [
        longer(kept),
        longer(kept, { not_after: NOW + 9000, max_duration_s: 1800 }),
        longer(kept, { not_after: NOW + 9000, max_duration_s: 1799 }),
      ]
      for (const one of [short, long, less]) await store.add(one)
      await agree(store, short)
      await agree(store, long)
      expect(await agree(store, less)).toBeUndefined()
      expect(await lasts(store, kept)).toEqual([long.statement.id, NOW + 9000])
      await store.apply(long.statement.id, 'revoke', NOW + 2, 'iss|oda', 'x')
      expect(await lasts(store, kept)).toEqual([short.statement.id, NOW + 7200])
      await store.apply(short.statement.id, 'revoke', NOW + 2, 'iss|oda', 'x')
      expect(await lasts(store, kept)).toEqual([undefined, NOW + 3600])
    })
    test('that came in time keeps it from being over', async () => {
      const { store, kept } = await started()
      const more = longer(kept)
      await store.add(more)
      await agree(store, more)
      const over = async (at: number) =>
        (await store.apply(kept.statement.id, 'expire', at, 'time', 'over'))?.state
      expect([await over(NOW + 600), await over(NOW + 1199)]).toEqual([undefined, undefined])
      expect(await over(NOW + 1200)).toBe('expired')
    })
    test('has the grant run on, and is no end of its own', async () => {
      const { store, kept } = await started()
      const more = longer(kept)
      await store.add(more)
      await agree(store, more)
      const soon = grant({ not_after: NOW + 1000 })
      await store.add(soon)
      const running = await store.running(9)
      expect(running.map(({ statement }) => statement.id)).toEqual([
        soon.statement.id,
        kept.statement.id,
      ])
      await store.apply(kept.statement.id, 'expire', NOW + 1200, 'time', 'over')
      expect((await store.find(more.statement.id))?.state).toBe('expired')
    })
    test('ends with the grant', async () => {
      const { store, kept } = await started()
      const [more, waiting] = [longer(kept), longer(kept, { not_after: NOW + 9000 })]
      for (const one of [more, waiting]) await store.add(one)
      await agree(store, more)
      await store.apply(kept.statement.id, 'revoke', NOW + 2, 'iss|oda', 'enough')
      for (const { statement } of [more, waiting])
        expect(await store.find(statement.id)).toMatchObject({
          state: 'revoked',
          ended: { at: NOW + 2, by: 'iss|oda', reason: 'enough' },
        })
    })
  })
}
