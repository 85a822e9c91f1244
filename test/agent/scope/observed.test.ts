/** What several owners of one socket are together, and when they are the same as before. */
import { describe, expect, test } from 'vitest'
import {
  MAX_OTHERS,
  combine,
  sameFacts,
  unseen,
} from '../../../agent-tunnel/agent/scope/observed.ts'
import type { ProcessFacts } from '../../../agent-tunnel/agent/scope/observed.ts'

const PIN = 'ab'.repeat(32)

describe('several owners', () => {
  const facts = (change: Partial<ProcessFacts> = {}): ProcessFacts => {
    const { others: _others, ...blank } = unseen('accepted')
    return { ...blank, exe: '/plc', sha256: PIN, uid: 1, pid: 10, started_at: 100, ...change }
  }

  test('oldest first; alike ones once; differing ones beside it', () => {
    const seen = combine([
      facts({ pid: 12, started_at: 102 }),
      facts({ pid: 11 }),
      facts({ pid: 13, exe: '/sh', started_at: 101 }),
    ])
    expect(seen).toEqual({
      ...facts({ pid: 11 }),
      others: [facts({ pid: 13, exe: '/sh', started_at: 101 })],
    })
  })

  test('none, or too many to tell, is nothing: never a shortened list', () => {
    expect(combine([])).toBeUndefined()
    const many = Array.from({ length: MAX_OTHERS + 2 }, (_, at) => facts({ exe: `/x${at}` }))
    expect(combine(many)).toBeUndefined()
    expect(combine(many.slice(1))?.others).toHaveLength(MAX_OTHERS)
  })

  test.for([
    ['another process of the same program', { pid: 99 }, true],
    ['another path', { exe: '/other' }, false],
    ['another hash', { sha256: 'cd'.repeat(32) }, false],
    ['another user', { uid: 2 }, false],
    ['a user no longer seen', { uid: null }, false],
    ['another unit', { unit: 'x.service' }, false],
    ['a hash no longer seen', { sha256: null }, false],
  ] as const)('%s: the same? %s', ([, change, same]) => {
    const before = { ...facts(), others: [] }
    expect(sameFacts(before, { ...facts(change), others: [] })).toBe(same)
  })

  test('unseen is never the same as unseen; an owner who joins must be one known before', () => {
    expect(sameFacts(unseen('accepted'), unseen('accepted'))).toBe(false)
    const before = { ...facts(), others: [] }
    expect(sameFacts(before, { ...facts(), others: [facts({ exe: '/sh' })] })).toBe(false)
    expect(sameFacts({ ...facts(), others: [facts({ exe: '/sh' })] }, before)).toBe(true)
  })
})
