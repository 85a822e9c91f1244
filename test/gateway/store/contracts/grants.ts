/** What every implementation of the store of grants must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import type { Grant, GrantEvent } from '../../../../gateway/grants/grant.ts'
import type { GrantStore } from '../../../../gateway/grants/store.ts'
import { newId } from '../../../../gateway/ids.ts'
import { approval, grant } from './granted.ts'
import { NOW, type Make } from './make.ts'

export function grantStoreContract(name: string, make: Make<GrantStore>): void {
  describe(`${name} as a store of grants`, () => {
    test('gives back what was put in', async () => {
      const store = await make()
      const kept = grant({ processes: ['a', 'b'], ticket: 'T-1', reason: 'ü\0☃' })
      await store.add(kept)
      expect(await store.find(kept.statement.id)).toEqual(kept)
      expect(await store.find(newId('g'))).toBeUndefined()
    })
    test('adds an id once', async () => {
      const store = await make()
      const first = grant()
      await store.add(first)
      await expect(store.add(grant({ id: first.statement.id, reason: 'other' }))).rejects.toThrow()
      expect(await store.find(first.statement.id)).toEqual(first)
    })
    test('lists newest first, of one person or of all, and no more than asked', async () => {
      const store = await make()
      const all = [0, 1, 2, 3].map((at) =>
        grant({ created_at: NOW + at, requester: at % 2 === 0 ? 'iss|vera' : 'iss|otto' }),
      )
      for (const one of all) await store.add(one)
      const ids = (some: readonly Grant[]) => some.map(({ statement }) => statement.id)
      expect(ids(await store.list({ limit: 3 }))).toEqual(ids(all.toReversed().slice(0, 3)))
      const own = await store.list({ requester: 'iss|vera', limit: 9 })
      expect(own.map(({ statement }) => statement.created_at)).toEqual([NOW + 2, NOW])
    })
    test('gives the grants that apply: of this person, for this device, ended ones last', async () => {
      const store = await make()
      const old = grant({ created_at: NOW - 10 })
      const newer = grant({ created_at: NOW + 10 })
      for (const one of [
        old,
        newer,
        grant({ requester: 'iss|otto' }),
        grant({ devices: ['press-08'] }),
      ])
        await store.add(one)
      await store.apply(newer.statement.id, 'revoke', NOW, 'iss|oda', 'x')
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found.map(({ statement }) => statement.id)).toEqual([
        old.statement.id,
        newer.statement.id,
      ])
    })
    test('lets in as many sessions as it may, also when more come at once', async () => {
      const store = await make()
      const kept = grant({ max_uses: 3 }, { state: 'approved' })
      await store.add(kept)
      const { id } = kept.statement
      const all = await Promise.all(
        Array.from({ length: 10 }, (_, at) => store.apply(id, 'use', NOW + at, 'iss|vera', '')),
      )
      expect(all.map((used) => used?.uses)).toEqual([1, 2, 3, ...Array(7).fill(undefined)])
      const after = await store.find(id)
      expect([after?.uses, after?.state, after?.first_used_at]).toEqual([3, 'active', NOW])
      expect((await store.apply(id, 'revoke', NOW + 9, 'iss|oda', 'x'))?.state).toBe('revoked')
    })
    test('sets aside what a grant may carry, also when many ask at once, and takes back the rest', async () => {
      const store = await make()
      const kept = grant({ max_bytes: 100 })
      await store.add(kept)
      const { id } = kept.statement
      const all = await Promise.all([30, 30, 30, 30, 30].map((some) => store.takeBytes(id, some)))
      expect(all).toEqual([30, 30, 30, 10, 0])
      await store.returnBytes(id, 25)
      expect((await store.find(id))?.bytes).toBe(75)
      expect(await store.takeBytes(id, 1000)).toBe(25)
      expect(await store.takeBytes(id, 1)).toBe(0)
    })
    test('sets nothing aside where there is no limit, or no grant', async () => {
      const store = await make()
      const kept = grant()
      await store.add(kept)
      expect(await store.takeBytes(kept.statement.id, 10)).toBe(0)
      expect(await store.takeBytes(newId('g'), 10)).toBe(0)
      await store.returnBytes(kept.statement.id, 10)
      expect((await store.find(kept.statement.id))?.bytes).toBe(0)
    })
    test('what a grant supersedes ends when it is approved, with its extensions, and not before', async () => {
      const store = await make()
      const old = grant({}, { state: 'approved' })
      const next = grant({
        processes: ['plc', 'hmi'],
        supersedes: { grant: old.statement.id, sha256: old.hash },
      })
      await store.add(old)
      await store.add(next)
      const two = { ...approval('iss|oda', next.hash), at: NOW + 5 }
      await store.approve(next.statement.id, two, 2)
      expect((await store.find(old.statement.id))?.state).toBe('approved')
      await store.approve(next.statement.id, { ...two, by: 'iss|olaf' }, 2)
      expect(await store.find(old.statement.id)).toMatchObject({
        state: 'revoked',
        ended: { at: NOW + 5, by: 'iss|olaf', reason: `superseded by ${next.statement.id}` },
      })
      expect((await store.find(next.statement.id))?.state).toBe('approved')
      const again = grant(
        { supersedes: { grant: next.statement.id, sha256: next.hash } },
        { state: 'approved' },
      )
      expect(await store.add(again)).toBe(true)
      expect((await store.find(next.statement.id))?.state).toBe('revoked')
    })
    test('forty ended grants do not crowd out the live one', async () => {
      const store = await make()
      const live = grant({ created_at: NOW - 1000 })
      await store.add(live)
      for (let at = 0; at < 40; at++) {
        const ended = grant({ created_at: NOW + at })
        await store.add(ended)
        await store.apply(ended.statement.id, 'revoke', NOW, 'x', 'x')
      }
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found).toHaveLength(32)
      expect(found[0]).toEqual(live)
    })
    test('forty grants that ran out do not crowd out the live one, nor do forty that begin later', async () => {
      const store = await make()
      const approved = { state: 'approved' as const }
      const live = grant({ created_at: NOW - 1000 }, approved)
      await store.add(live)
      for (let at = 0; at < 40; at++) {
        const made = { created_at: NOW - 500 + at }
        await store.add(grant({ ...made, not_after: NOW }, at % 2 === 0 ? approved : {}))
        await store.add(grant({ ...made, not_before: NOW + 1 }, approved))
        const used = grant({ ...made, max_duration_s: 60 }, approved)
        await store.add(used)
        await store.apply(used.statement.id, 'use', NOW - 60, 'x', 'x')
      }
      const found = await store.applicable('iss|vera', 'press-07', NOW)
      expect(found).toHaveLength(32)
      expect(found[0]).toEqual(live)
    })
    test('gives the grants to write that count: of this person, there, approved, and not over', async () => {
      const store = await make()
      const windows = [{ unit: 1, from: 0, to: 9 }]
      const writing = (change: Partial<Statement> = {}, more: Partial<Grant> = {}) =>
        grant({ ot_level: 2, ot_windows: windows, not_after: NOW + 500, ...change }, more)
      const put = async (one: Grant) => {
        await store.add(one)
        return one.statement.id
      }
      const of = { requester: 'iss|vera', device: 'press-07', process: 'plc', now: NOW }
      const approved = { state: 'approved' as const }
      const counted = writing({ processes: ['hmi', 'plc'] }, approved)
      const begins = writing({ not_before: NOW + 100, not_after: NOW + 400 }, approved)
      await put(counted)
      await put(begins)
      for (const [change, more] of [
        [{}, {}],
        [{ ot_level: 1 }, approved],
        [{ requester: 'iss|otto' }, approved],
        [{ devices: ['press-08'] }, approved],
        [{ processes: ['hmi'] }, approved],
        [{ not_after: NOW }, approved],
      ] as const)
        await put(writing(change, more))
      await store.apply(await put(writing({}, approved)), 'revoke', NOW, 'x', 'x')
      const used = await put(writing({ max_duration_s: 60 }, approved))
      await store.apply(used, 'use', NOW - 60, 'x', 'x')
      expect(await store.writes(of)).toEqual([counted, begins])
      expect(await store.writes({ ...of, now: NOW + 400 })).toEqual([counted])
      expect(await store.writes({ ...of, now: NOW - 1 })).toHaveLength(4)
      for (let at = 0; at < 9; at++) await put(writing({ not_after: NOW + 600 + at }, approved))
      const most = await store.writes(of)
      expect(most.map(({ statement }) => statement.not_after - NOW)).toEqual([608, 607, 606, 605])
    })
    test('an approval counts once per person, for this hash, while it waits', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 2 })
      const { id } = asked.statement
      await store.add(asked)
      expect(await store.approve(id, approval('oda', '0'.repeat(64)), 1)).toBeUndefined()
      expect(await store.approve(newId('g'), approval('oda', asked.hash), 1)).toBeUndefined()
      const first = await store.approve(id, approval('oda', asked.hash), 1)
      expect([first?.state, first?.approvals.length]).toEqual(['requested', 1])
      expect(await store.approve(id, approval('oda', asked.hash), 1)).toBeUndefined()
      const second = await store.approve(id, approval('olaf', asked.hash), 1)
      expect([second?.state, second?.approvals.map(({ by }) => by)]).toEqual([
        'approved',
        ['oda', 'olaf'],
      ])
      expect(await store.approve(id, approval('otto', asked.hash), 1)).toBeUndefined()
    })
    test('an approval that policy gives nothing for is made up for by another', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 1 })
      const { id } = asked.statement
      await store.add(asked)
      const first = await store.approve(id, approval('oda', asked.hash), 2)
      expect([first?.state, first?.approvals_needed]).toEqual(['requested', 2])
      const second = await store.approve(id, approval('olaf', asked.hash), 2)
      expect([second?.state, second?.approvals_needed]).toEqual(['approved', 2])
    })
    test('what a policy wanted meanwhile binds no longer than it; what was asked at the request does', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 2 })
      const { id } = asked.statement
      await store.add(asked)
      const first = await store.approve(id, approval('oda', asked.hash), 3)
      expect([first?.state, first?.approvals_needed]).toEqual(['requested', 3])
      expect((await store.find(id))?.approvals_asked).toBe(2)
      const second = await store.approve(id, approval('olaf', asked.hash), 1)
      expect([second?.state, second?.approvals_needed]).toEqual(['approved', 2])
    })
    test('twenty approve at once: exactly as many count as were needed', async () => {
      const store = await make()
      const asked = grant({}, { approvals_needed: 3 })
      await store.add(asked)
      const all = await Promise.all(
        Array.from({ length: 20 }, (_, at) =>
          store.approve(asked.statement.id, approval(`p${at}`, asked.hash), 1),
        ),
      )
      expect(all.filter((one) => one !== undefined)).toHaveLength(3)
      expect(all.filter((one) => one?.state === 'approved')).toHaveLength(1)
      expect((await store.find(asked.statement.id))?.approvals).toHaveLength(3)
    })

    const never: readonly (readonly [string, readonly Exclude<GrantEvent, 'approve'>[]])[] = [
      ['requested', ['use']],
      ['approved', ['reject']],
      ['active', ['reject']],
      ['spent', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['revoked', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['rejected', ['use', 'burn', 'revoke', 'reject', 'expire']],
      ['expired', ['use', 'burn', 'revoke', 'reject', 'expire']],
    ]
    test.for(never)('a grant that is %s', async ([state, events]) => {
      const store = await make()
      const one = grant()
      const { id } = one.statement
      await store.add(one)
      if (state === 'approved' || state === 'active')
        await store.approve(id, approval('oda', one.hash), 1)
      const way = {
        active: 'use',
        spent: 'burn',
        revoked: 'revoke',
        rejected: 'reject',
        expired: 'expire',
      } as const
      const at = state === 'expired' ? one.statement.not_after : NOW + 2
      if (state in way) await store.apply(id, way[state as keyof typeof way], at, 'oda', 'why')
      const before = await store.find(id)
      expect(before?.state).toBe(state)
      for (const event of events)
        expect([event, await store.apply(id, event, NOW + 9, 'x', 'x')]).toEqual([event, undefined])
      expect(await store.find(id)).toEqual(before)
    })
    test('knows what has not ended, first what ends first', async () => {
      const store = await make()
      const [late, used, soon, over] = [
        grant({ not_after: NOW + 900 }),
        grant({ not_after: NOW + 800, max_duration_s: 60 }),
        grant({ not_after: NOW + 100 }),
        grant({ not_after: NOW + 10 }),
      ] as [Grant, Grant, Grant, Grant]
      for (const one of [late, used, soon, over]) await store.add(one)
      await store.approve(used.statement.id, approval('oda', used.hash), 1)
      await store.apply(used.statement.id, 'use', NOW, 'vera', '')
      await store.apply(over.statement.id, 'expire', NOW + 10, 'time', 'over')
      const ids = async (limit: number) =>
        (await store.running(limit)).map(({ statement }) => statement.id)
      expect(await ids(9)).toEqual([used, soon, late].map(({ statement }) => statement.id))
      expect(await ids(1)).toEqual([used.statement.id])
      expect((await store.find(over.statement.id))?.ended).toEqual({
        at: NOW + 10,
        by: 'time',
        reason: 'over',
      })
    })
    test('the first use is the first, however often it is used', async () => {
      const store = await make()
      const one = grant()
      const { id } = one.statement
      await store.add(one)
      await store.approve(id, approval('oda', one.hash), 1)
      await store.apply(id, 'use', NOW + 5, 'vera', '')
      const again = await store.apply(id, 'use', NOW + 50, 'vera', '')
      expect([again?.state, again?.first_used_at, again?.ended]).toEqual(['active', NOW + 5, null])
      const ended = await store.apply(id, 'burn', NOW + 60, 'vera', 'done')
      expect(ended?.ended).toEqual({ at: NOW + 60, by: 'vera', reason: 'done' })
    })
    test('revoked and used at once: whichever is later, it ends revoked', async () => {
      const store = await make()
      for (let round = 0; round < 20; round++) {
        const one = grant()
        const { id } = one.statement
        await store.add(one)
        await store.approve(id, approval('oda', one.hash), 1)
        await Promise.all([
          store.apply(id, 'use', NOW, 'vera', ''),
          store.apply(id, 'revoke', NOW, 'oda', 'x'),
          store.apply(id, 'use', NOW, 'vera', ''),
        ])
        expect((await store.find(id))?.state).toBe('revoked')
      }
    })
  })
}
