/** The statement of a grant: one text, one hash, one life. */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonical, hashOf, readStatement, windowsInWords, type Statement } from '#approval'
import {
  expiresAt,
  shownState,
  transitions,
  usedUp,
  type Grant,
} from '../../../gateway/grants/grant.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const statement = statementOf(1000, {
  id: 'g_00000000000000000000000001',
  requester: 'https://gw/oidc|a',
  vendor: 'Pumpworks',
  not_after: 2000,
  max_duration_s: 120,
  reason: 'bearing',
})
const grant = (change: Partial<Grant> = {}): Grant => grantAround(statement, change)

describe('canonical', () => {
  test('keys sorted, no blanks: the text that approvers approve', () => {
    expect(canonical(statement)).toBe(
      '{"created_at":1000,"devices":["press-07"],"id":"g_00000000000000000000000001","max_duration_s":120,' +
        '"not_after":2000,"not_before":1000,"ot_level":1,"processes":["plc"],"reason":"bearing",' +
        '"requester":"https://gw/oidc|a","tenant":"main.sallyport.internal","ticket":null,"v":1,"vendor":"Pumpworks"}',
    )
    expect(hashOf(statement)).toBe(createHash('sha256').update(canonical(statement)).digest('hex'))
  })

  test('the order in which a statement was written does not matter', () => {
    const entries = Object.entries(statement)
    fc.assert(
      fc.property(fc.shuffledSubarray(entries, { minLength: entries.length }), (shuffled) => {
        expect(canonical(Object.fromEntries(shuffled) as unknown as Statement)).toBe(
          canonical(statement),
        )
      }),
    )
  })

  test('any change of any field is another hash', () => {
    for (const key of Object.keys(statement) as (keyof Statement)[]) {
      const value = statement[key]
      const changed =
        typeof value === 'number' ? value + 1 : typeof value === 'string' ? `${value}x` : ['other']
      expect(hashOf({ ...statement, [key]: changed })).not.toBe(hashOf(statement))
    }
  })
})

describe('addresses', () => {
  const windows = [
    { unit: 1, from: 0, to: 9 },
    { unit: 255, from: 40, to: 40 },
  ]
  const named: Statement = { ...statement, ot_level: 2, ot_windows: windows }

  test('are signed with the rest, and in words for whoever signs', () => {
    expect(canonical(named)).toContain(
      '"ot_level":2,"ot_windows":[{"from":0,"to":9,"unit":1},{"from":40,"to":40,"unit":255}],"processes"',
    )
    expect(windowsInWords(windows)).toBe(
      'unit 1, registers and coils 0–9; unit 255, register or coil 40',
    )
    expect(readStatement(named)).toEqual(named)
  })

  test('a statement from before there were any keeps its text and its hash', () => {
    expect(hashOf(statement)).toBe(
      createHash('sha256')
        .update(
          '{"created_at":1000,"devices":["press-07"],"id":"g_00000000000000000000000001","max_duration_s":120,' +
            '"not_after":2000,"not_before":1000,"ot_level":1,"processes":["plc"],"reason":"bearing",' +
            '"requester":"https://gw/oidc|a","tenant":"main.sallyport.internal","ticket":null,"v":1,"vendor":"Pumpworks"}',
        )
        .digest('hex'),
    )
    expect(readStatement(statement)).toEqual(statement)
  })

  const window = { unit: 1, from: 0, to: 9 }
  test.for([
    ['an empty list', []],
    ['no list', 'all'],
    ['null', null],
    ['seventeen', Array.from({ length: 17 }, () => window)],
    ['unit 0', [{ ...window, unit: 0 }]],
    ['unit 248', [{ ...window, unit: 248 }]],
    ['unit 256', [{ ...window, unit: 256 }]],
    ['a unit that is text', [{ ...window, unit: '1' }]],
    ['an end before its beginning', [{ ...window, from: 10 }]],
    ['an address over 65535', [{ ...window, to: 65_536 }]],
    ['an address under 0', [{ ...window, from: -1 }]],
    ['a fraction', [{ ...window, from: 0.5 }]],
    ['a member more', [{ ...window, level: 2 }]],
    ['a member less', [{ unit: 1, from: 0 }]],
  ])('%s: no statement', ([, ot_windows]) => {
    expect(readStatement({ ...statement, ot_level: 2, ot_windows })).toBeUndefined()
  })
})

describe('counts', () => {
  test('are signed with the rest; a statement without them keeps its text', () => {
    const counted = { ...statement, max_uses: 1, max_bytes: 2048 }
    expect(canonical(counted)).toContain('"max_bytes":2048,"max_duration_s":120,"max_uses":1,')
    expect(readStatement(counted)).toEqual(counted)
    expect(hashOf(counted)).not.toBe(hashOf(statement))
  })
  test.for([
    ['no session', { max_uses: 0 }],
    ['half a session', { max_uses: 0.5 }],
    ['1,001 sessions', { max_uses: 1001 }],
    ['a number as text', { max_uses: '1' }],
    ['null', { max_uses: null }],
    ['no byte', { max_bytes: 0 }],
    ['more than 64 GiB', { max_bytes: 64 * 1024 ** 3 + 1 }],
    ['fewer than none', { max_bytes: -1 }],
  ] as const)('%s: no statement', ([, change]) => {
    expect(readStatement({ ...statement, ...change })).toBeUndefined()
  })
  const limited = { ...statement, max_uses: 2, max_bytes: 100 }
  test.for([
    { name: 'one session less', uses: 1, bytes: 99, spare: 0, up: false },
    { name: 'as many sessions', uses: 2, bytes: 0, spare: 0, up: true },
    { name: 'as many bytes', uses: 1, bytes: 100, spare: 0, up: true },
    {
      name: 'as many bytes, one set aside and not carried',
      uses: 1,
      bytes: 100,
      spare: 1,
      up: false,
    },
  ])('$name', ({ uses, bytes, spare, up }) => {
    expect(usedUp(grant({ statement: limited, uses, bytes }), spare)).toBe(up)
    expect(usedUp(grant({ uses, bytes }), spare)).toBe(false)
  })
})

describe('time', () => {
  test('before its first use a grant ends with its window', () => {
    expect(expiresAt(grant())).toBe(2000)
  })
  test('after it, with its duration, if that is sooner', () => {
    expect(expiresAt(grant({ first_used_at: 1100 }))).toBe(1220)
    expect(expiresAt(grant({ first_used_at: 1990 }))).toBe(2000)
  })
  test.for([
    { name: 'the second before', now: 1999, shown: 'approved' },
    { name: 'the second itself', now: 2000, shown: 'expired' },
  ])('$name', ({ now, shown }) => {
    expect(shownState(grant(), now)).toBe(shown)
  })
  test('what has ended stays what it was', () => {
    expect(shownState(grant({ state: 'revoked' }), 99_999)).toBe('revoked')
  })
})

test('no state that ended can be left', () => {
  for (const state of ['spent', 'revoked', 'rejected', 'expired'] as const)
    expect(transitions[state]).toEqual({})
})
