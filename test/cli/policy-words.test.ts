/** What a person reads of what a bundle would do, where not everything could be looked at. */
import { expect, test } from 'vitest'
import { impactLines } from '../../cli/policy-words.ts'

const one = { session: 's_1', device: 'press-07', process: 'plc', person: 'vera', vendor: null }
const found = {
  revision: 'r',
  seq: 7,
  digest: 'd',
  in_force: false,
  live: { sessions: 2, cut: [], narrowed: [], unseen: [] },
  past: null,
  past_unread: null,
}

test('nothing is said of what was looked at in full', () => {
  expect(impactLines(found)).toEqual(['revision r, seq 7, will cut 0 of 2 live sessions'])
})

test('whom it could not look at is named, and what becomes of them; that the past was not read is said', () => {
  const lines = impactLines({
    ...found,
    live: { ...found.live, unseen: [one] },
    past_unread: 'the decision log could not be read',
  })
  expect(lines.slice(0, 2)).toEqual([
    'revision r, seq 7, will cut 0 of 2 live sessions',
    '1 could not be looked at, because the store of the gateway failed; an activation that finds it so cuts them',
  ])
  expect(lines[2]).toMatch(/s_1 +press-07 +plc +vera/)
  expect(lines[3]).toBe('the past was not looked at: the decision log could not be read')
})
