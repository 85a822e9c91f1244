/** What every implementation of the store of answers must do, whatever keeps its rows. */
import { describe, expect, test } from 'vitest'
import type { AnswerStore, Claim, Claimed } from '../../../../gateway/answers.ts'
import type { Make } from './make.ts'

const MOST = { own: 9, all: 99 }

export function claimOf(name: string, more: Partial<Claim> = {}): Claim {
  return { name, print: 'p', owner: 'o', at: 0, until: 9, most: MOST, ...more }
}

export function answerStoreContract(name: string, make: Make<AnswerStore>): void {
  const begun: Claimed = { outcome: 'begun', elsewhere: false }
  const outcomes = async (store: AnswerStore, claims: readonly Claim[]) => {
    const said: string[] = []
    for (const one of claims) said.push((await store.claim(one)).outcome)
    return said
  }

  describe(`${name} as a store of answers`, () => {
    test('of fifty claims of one name, one is the first', async () => {
      const store = await make()
      const all = await Promise.all(
        Array.from({ length: 50 }, async () => await store.claim(claimOf('n'))),
      )
      expect(all.filter(({ outcome }) => outcome === 'claimed')).toHaveLength(1)
      expect(all.filter(({ outcome }) => outcome === 'begun')).toHaveLength(49)
    })
    test('gives the answer that was kept, whatever its text, and none where none was', async () => {
      const store = await make()
      const body = '{"ü":"\\u0000☃ \'; DROP TABLE answer"}\0'
      for (const id of ['a', 'b']) await store.claim(claimOf(id))
      await store.finish('a', { status: 201, body })
      await store.finish('b', { status: 200, body: null })
      expect(await store.claim(claimOf('a'))).toEqual({
        outcome: 'done',
        kept: { status: 201, body },
      })
      expect(await store.claim(claimOf('b'))).toEqual({
        outcome: 'done',
        kept: { status: 200, body: null },
      })
    })
    test('knows another call by its print, begun or done', async () => {
      const store = await make()
      await store.claim(claimOf('n'))
      expect(await store.claim(claimOf('n'))).toEqual(begun)
      expect(await store.claim(claimOf('n', { print: 'q' }))).toEqual({ outcome: 'other' })
      await store.finish('n', { status: 200, body: '{}' })
      expect(await store.claim(claimOf('n', { print: 'q' }))).toEqual({ outcome: 'other' })
    })
    test('is answered once, and an answer is not given back like a claim', async () => {
      const store = await make()
      await store.finish('n', { status: 200, body: 'of nothing that was begun' })
      expect((await store.claim(claimOf('n'))).outcome).toBe('claimed')
      await store.finish('n', { status: 201, body: '{}' })
      await store.finish('n', { status: 500, body: null })
      await store.release('n')
      const kept = { status: 201, body: '{}' }
      expect(await store.claim(claimOf('n'))).toEqual({ outcome: 'done', kept })
    })
    test('what is given back is free, also for another call', async () => {
      const store = await make()
      await store.claim(claimOf('n'))
      await store.release('n')
      await store.release('nothing')
      expect(await store.claim(claimOf('n', { print: 'q' }))).toEqual({ outcome: 'claimed' })
    })
    test('is over at its instant, and not before', async () => {
      const store = await make()
      await store.claim(claimOf('n'))
      await store.finish('n', { status: 200, body: '{}' })
      const later = (at: number) => claimOf('n', { at, until: at + 9, print: 'q' })
      expect(await outcomes(store, [later(8), later(9)])).toEqual(['other', 'claimed'])
    })
    test('so many of one, and so many of all; those that are over make room', async () => {
      const store = await make()
      const most = { own: 2, all: 3 }
      const of = (id: string, owner: string, at = 0) =>
        claimOf(id, { owner, at, until: at + 5, most })
      expect(await outcomes(store, [of('a', 'v'), of('b', 'v'), of('c', 'v')])).toEqual([
        'claimed',
        'claimed',
        'full',
      ])
      expect(await outcomes(store, [of('d', 'w'), of('e', 'w'), of('c', 'v', 5)])).toEqual([
        'claimed',
        'full',
        'claimed',
      ])
    })
    test('of one that has many the oldest answer makes room, and what has none stays', async () => {
      const store = await make()
      const of = (id: string, at: number) =>
        claimOf(id, { at, until: at + 9, most: { own: 2, all: 9 } })
      await outcomes(store, [of('a', 0), of('b', 1)])
      await store.finish('b', { status: 200, body: '{}' })
      expect(await outcomes(store, [of('c', 2), of('a', 3), of('d', 3)])).toEqual([
        'claimed',
        'begun',
        'full',
      ])
      await store.finish('c', { status: 200, body: '{}' })
      expect(await outcomes(store, [of('b', 3), of('a', 3)])).toEqual(['claimed', 'begun'])
    })
    test('of so many of all the oldest answer of whoever has the most makes room for another', async () => {
      const store = await make()
      const of = (id: string, at: number) =>
        claimOf(id, { owner: id.slice(0, 1), at, until: at + 99, most: { own: 9, all: 4 } })
      for (const [id, at, answered] of [
        ['o1', 0, true],
        ['v0', 1, false],
        ['v1', 2, true],
        ['v2', 3, true],
      ] as const) {
        await store.claim(of(id, at))
        if (answered) await store.finish(id, { status: 200, body: '{}' })
      }
      expect(await outcomes(store, [of('x1', 4)])).toEqual(['claimed'])
      expect(await outcomes(store, [of('o1', 5), of('v0', 5), of('v2', 5)])).toEqual([
        'done',
        'begun',
        'done',
      ])
      expect(await outcomes(store, [of('v1', 6)])).toEqual(['claimed'])
    })
  })
}
