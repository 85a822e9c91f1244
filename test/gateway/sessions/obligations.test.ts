/** Which addresses can pass a connection's gate at all: the grants that name them are used by it, and no others. */
import { expect, test } from 'vitest'
import { reaches } from '../../../gateway/sessions/obligations.ts'

const list = (...spans: readonly (readonly [unit: number, from: number, to: number])[]) =>
  spans.map(([unit, from, to]) => ({ unit, from, to }))

test.for([
  { name: 'all of them', windows: [], fine: true },
  { name: 'the same', windows: [list([1, 10, 19])], fine: true },
  { name: 'one of them', windows: [list([1, 0, 10])], fine: true },
  { name: 'the next', windows: [list([1, 0, 9])], fine: false },
  { name: 'those of another unit', windows: [list([2, 10, 19])], fine: false },
  { name: 'no list at all', windows: [[]], fine: false },
  { name: 'one, in each list', windows: [list([1, 0, 12]), list([1, 12, 30])], fine: true },
  { name: 'none in both lists', windows: [list([1, 0, 12]), list([1, 13, 30])], fine: false },
  { name: 'one of a second window', windows: [list([3, 0, 9], [1, 19, 30])], fine: true },
])('a gate that has $name lets 10 to 19 of unit 1 write: $fine', ({ windows, fine }) => {
  expect(reaches({ level: 2, windows }, list([1, 10, 19]))).toBe(fine)
})
