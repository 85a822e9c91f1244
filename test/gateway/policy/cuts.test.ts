/** What is said of the times to cut of one change. */
import { expect, test } from 'vitest'
import { cutTimes } from '../../../gateway/policy/cuts.ts'

const took = (...times: number[]) => times.map((time_to_cut_ms) => ({ time_to_cut_ms }))
const change = { revision: 'r', at: 1_999 }

const rows: [string, number[], number[], number | null, number | null][] = [
  ['nothing cut has no time', [], [], null, null],
  ['of two the middle is the faster, a time that was measured', [4, 2], [], 2, 4],
  ['not in the order in which they ended', [9, 1, 5], [], 5, 9],
  ['digits are numbers, not words', [10, 9], [], 9, 10],
  ['a connection of a session that goes on counts', [1], [7, 8], 7, 8],
  ['connections alone count too', [], [3], 3, 3],
]
test.for(rows)('%s', ([, sessions, connections, p50_ms, slowest_ms]) => {
  expect(cutTimes(change, took(...sessions), took(...connections))).toEqual({
    revision: 'r',
    at: 1,
    sessions: sessions.length,
    connections: connections.length,
    p50_ms,
    slowest_ms,
  })
})
