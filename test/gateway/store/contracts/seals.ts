/** What every store of grants must do with a sealed one, and with the review that a broken seal leaves behind. */
import { describe, expect, test } from 'vitest'
import type { Grant } from '../../../../gateway/grants/grant.ts'
import { placeOf, REVIEW_S, type ReviewStore } from '../../../../gateway/grants/review.ts'
import type { GrantStore } from '../../../../gateway/grants/store.ts'
import { newId } from '../../../../gateway/ids.ts'
import { approval, grant } from './granted.ts'
import { NOW, type Make } from './make.ts'

interface Stores {
  readonly grants: GrantStore
  readonly reviews: ReviewStore
}

export function sealContract(name: string, make: Make<Stores>): void {
  describe(`a seal in ${name}`, () => {
    const breaking = (sealed: Grant, sha256 = sealed.hash) =>
      grant({ unseals: { grant: sealed.statement.id, sha256 } }, { approvals_needed: 2 })
    async function sealed(more: Parameters<typeof grant>[0] = {}) {
      const stores = await make()
      const kept = grant({ sealed: { quorum: 2 }, ...more }, { state: 'approved' })
      await stores.grants.add(kept)
      return { ...stores, kept }
    }
    const opens = async ({ grants }: Stores, one: Grant, by: string, at = NOW + 1) =>
      await grants.approve(one.statement.id, { ...approval(by, one.hash), at }, 2)

    test('keeps a grant from being used, and is broken by a quorum: the grant is gone, its review due', async () => {
      const stores = await sealed()
      const { grants, reviews, kept } = stores
      expect(await grants.apply(kept.statement.id, 'use', NOW, 'iss|vera', '')).toBeUndefined()
      const glass = breaking(kept)
      await grants.add(glass)
      await opens(stores, glass, 'oda')
      expect([(await grants.find(kept.statement.id))?.state, await reviews.listReviews(9)]).toEqual(
        ['approved', []],
      )
      expect((await opens(stores, glass, 'olaf', NOW + 5))?.state).toBe('approved')
      expect(await grants.find(kept.statement.id)).toMatchObject({
        state: 'spent',
        ended: { at: NOW + 5, by: 'olaf', reason: `unsealed by ${glass.statement.id}` },
      })
      expect(await reviews.findReview(glass.statement.id)).toEqual({
        grant: glass.statement.id,
        opened_at: NOW + 5,
        due_at: NOW + 5 + REVIEW_S,
        reminded: false,
        closed: null,
      })
    })
    test('that is not there, is another, or is not whole any more is not broken', async () => {
      const stores = await sealed({ not_before: NOW + 2, not_after: NOW + 100 })
      const { grants, kept } = stores
      const [forged, nowhere, early, second] = [
        breaking(kept, '0'.repeat(64)),
        breaking({ ...kept, statement: { ...kept.statement, id: newId('g') } }),
        breaking(kept),
        breaking(kept),
      ] as const
      for (const one of [forged, nowhere, early, second]) await grants.add(one)
      expect(await opens(stores, forged, 'oda', NOW + 2)).toBeUndefined()
      expect(await opens(stores, nowhere, 'oda', NOW + 2)).toBeUndefined()
      expect(await opens(stores, early, 'oda', NOW + 1)).toBeUndefined()
      expect(await opens(stores, early, 'oda', NOW + 100)).toBeUndefined()
      for (const by of ['oda', 'olaf']) await opens(stores, early, by, NOW + 2)
      expect(await opens(stores, second, 'oda', NOW + 3)).toBeUndefined()
      expect(await stores.reviews.listReviews(9)).toHaveLength(1)
    })
    test('has its review closed once, by whoever is first, and listed behind those that are open', async () => {
      const { grants, reviews } = await make()
      const broken: string[] = []
      for (const at of [0, 1, 2, 3]) {
        const kept = grant({ sealed: { quorum: 2 } }, { state: 'approved' })
        const glass = grant(
          {
            unseals: { grant: kept.statement.id, sha256: kept.hash },
            not_before: NOW - 9,
            created_at: NOW + at,
          },
          { state: 'approved' },
        )
        await grants.add(kept)
        await grants.add(glass)
        broken.push(glass.statement.id)
      }
      const [a = '', b = '', c = '', d = ''] = broken
      const closed = (at: number, by = 'oda') => ({ at, by, note: 'ü\0☃ "said"' })
      const both = await Promise.all([
        reviews.closeReview(b, closed(NOW + 9)),
        reviews.closeReview(b, closed(NOW + 9, 'olaf')),
      ])
      expect(both.map((one) => one?.closed?.by)).toEqual(['oda', undefined])
      expect((await reviews.closeReview(a, closed(NOW + 10)))?.closed).toEqual(closed(NOW + 10))
      expect(await reviews.closeReview(newId('g'), closed(NOW))).toBeUndefined()
      await reviews.markReminded(d)
      await reviews.markReminded(newId('g'))
      const listed = async (limit: number) =>
        (await reviews.listReviews(limit)).map((one) => [one.grant, one.reminded])
      const [first, second] = [
        [c, false],
        [d, true],
      ]
      expect(await listed(9)).toEqual([first, second, [a, false], [b, false]])
      expect(await listed(1)).toEqual([first])
      expect(await listed(3)).toEqual([first, second, [a, false]])
      // Behind each of them is the rest, also where two are due at one instant.
      const whole = await reviews.listReviews(9)
      for (const [at, one] of whole.entries()) {
        expect(await reviews.listReviews(9, placeOf(one))).toEqual(whole.slice(at + 1))
        expect(await reviews.listReviews(1, placeOf(one))).toEqual(whole.slice(at + 1, at + 2))
      }
    })
  })
}
