/** `sallyport approve` by passkey: what it takes for its own approval. */
import { expect, test } from 'vitest'
import { hasNewOf } from '../../cli/commands/grant.ts'

const given = (...approvals: readonly [by: string, id: string][]) => ({
  approvals: approvals.map(([by, decision_id]) => ({ by, decision_id })),
})

test.for([
  ['nobody’s yet', given(), given(), false],
  ['somebody else’s, given meanwhile', given(), given(['olaf', 'd_1']), false],
  ['one’s own', given(), given(['oda', 'd_1']), true],
  [
    'one’s own beside another’s',
    given(['olaf', 'd_1']),
    given(['olaf', 'd_1'], ['oda', 'd_2']),
    true,
  ],
  ['one’s own of before', given(['oda', 'd_1']), given(['oda', 'd_1'], ['olaf', 'd_2']), false],
  ['one’s own, given again', given(['oda', 'd_1']), given(['oda', 'd_2']), true],
] as const)('%s', ([, before, after, own]) => {
  expect(hasNewOf('oda', before, after)).toBe(own)
})
