/** Deadlines against a model: a sorted list. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Deadlines } from '../../../gateway/sessions/deadlines.ts'

test('agrees with a sorted list, whatever is set, moved, cleared and due', () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), id: fc.nat(20), at: fc.nat(1000) }),
    fc.record({ kind: fc.constant('clear' as const), id: fc.nat(20), at: fc.constant(0) }),
    fc.record({ kind: fc.constant('due' as const), id: fc.constant(0), at: fc.nat(1000) }),
  )
  fc.assert(
    fc.property(fc.array(action, { maxLength: 300 }), (actions) => {
      const heap = new Deadlines()
      const model = new Map<string, number>()
      for (const { kind, id, at } of actions) {
        const name = String(id)
        if (kind === 'set') {
          heap.set(name, at)
          model.set(name, at)
        } else if (kind === 'clear') {
          heap.clear(name)
          model.delete(name)
        } else {
          const expected = [...model].filter(([, when]) => when <= at).map(([one]) => one)
          expect(heap.due(at).toSorted()).toEqual(expected.toSorted())
          for (const one of expected) model.delete(one)
        }
        expect(heap.next()).toBe(model.size === 0 ? undefined : Math.min(...model.values()))
        expect(heap.size).toBe(model.size)
      }
    }),
    { numRuns: 500 },
  )
})

test('due gives ids in the order of their instants', () => {
  const heap = new Deadlines()
  for (const at of [5, 3, 9, 1, 7]) heap.set(String(at), at)
  expect(heap.due(7)).toEqual(['1', '3', '5', '7'])
  expect(heap.next()).toBe(9)
})

test('an id that is set again ten thousand times costs what one costs', () => {
  const heap = new Deadlines()
  for (let at = 0; at < 10_000; at++) heap.set('one', at)
  expect(heap.due(9_998)).toEqual([])
  expect(heap.due(9_999)).toEqual(['one'])
})
