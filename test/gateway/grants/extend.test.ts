/** More time for a grant: what may be asked for, and what the grant is from then on. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { canonical, hashOf, readStatement } from '#approval'
import { standingFacts } from '../../../gateway/facts.ts'
import { extensionFault, extensionOf } from '../../../gateway/grants/extend.ts'
import {
  expiresAt,
  shownState,
  termsOf,
  type Extension,
  type Grant,
} from '../../../gateway/grants/grant.ts'
import type { Subject } from '../../../gateway/identity/index.ts'
import { statementOf } from '../../support/statement.ts'
import { grantAround } from './around.ts'

const NOW = 10_000
const statement = statementOf(NOW, {
  id: 'g_00000000000000000000000001',
  max_uses: 3,
  ticket: 'T-1',
})
const grantOf = (change: Partial<Grant> = {}): Grant =>
  grantAround(statement, { state: 'active', first_used_at: NOW, uses: 1, ...change })
const vera = { id: 'iss|vera' } as Subject
const ask = { grant: grantOf(), longer_s: 300, reason: 'the pump is stuck' }
const ID = 'g_00000000000000000000000002'

describe('asking', () => {
  const code = (change: Partial<typeof ask & { subject: Subject }>, now = NOW + 1) =>
    extensionFault({ subject: vera, ...ask, ...change }, now)?.code
  test('by its holder, while it holds', () => {
    expect(code({})).toBeUndefined()
    expect(code({ grant: grantOf({ state: 'approved', first_used_at: null }) })).toBeUndefined()
    expect(code({}, NOW + 599)).toBeUndefined()
  })
  test.for([
    { name: 'by somebody else', change: { subject: { id: 'iss|otto' } as Subject } },
    { name: 'in the second it is over', change: {}, now: NOW + 600 },
    { name: 'before it is approved', change: { grant: grantOf({ state: 'requested' }) } },
    { name: 'revoked', change: { grant: grantOf({ state: 'revoked' }) } },
    {
      name: 'of an extension',
      change: { grant: grantOf({ statement: extensionOf(ask, ID, NOW) }) },
    },
  ])('$name: no', ({ change, now }) => {
    expect(code(change, now)).toBe('grant.state')
  })
  test('for more than 366 days in all: no', () => {
    expect(code({ longer_s: 366 * 86_400 - 600 })).toBeUndefined()
    expect(code({ longer_s: 366 * 86_400 - 599 })).toBe('grant.window')
  })
})

describe('the statement', () => {
  test('is the grant’s but for its end, reason and ticket, and names the grant’s hash', () => {
    const { extends: extended, ...rest } = extensionOf({ ...ask, ticket: 'T-2' }, ID, NOW + 9)
    expect(extended).toEqual({ grant: statement.id, sha256: hashOf(statement) })
    expect(rest).toEqual({
      ...statement,
      id: ID,
      max_duration_s: 900,
      reason: 'the pump is stuck',
      ticket: 'T-2',
      created_at: NOW + 9,
    })
  })
  test('of a grant that superseded another does not end that once more', () => {
    const old = { grant: 'g_0', sha256: '0'.repeat(64) }
    const edited = grantOf({ statement: { ...statement, supersedes: old } })
    expect(extensionOf({ ...ask, grant: edited }, ID, NOW)).not.toHaveProperty('supersedes')
  })
  test('is one that an agent reads, and a hash of another form is none', () => {
    const made = extensionOf(ask, ID, NOW)
    expect(readStatement(JSON.parse(canonical(made)))).toEqual(made)
    const ref = { grant: statement.id, sha256: hashOf(statement) }
    for (const bad of [
      null,
      'g_1',
      {},
      { ...ref, sha256: ref.sha256.toUpperCase() },
      { ...ref, sha256: ref.sha256.slice(1) },
      { ...ref, more: 1 },
      { sha256: ref.sha256 },
    ])
      for (const member of ['extends', 'supersedes'])
        expect(readStatement({ ...statement, [member]: bad })).toBeUndefined()
  })
})

/** The grant as the store gives it once these extensions were approved, one after the other. */
function extended(grant: Grant, spans: readonly number[]): Grant {
  let now = grant
  for (const longer_s of spans) {
    const made = extensionOf({ grant: now, longer_s, reason: 'r' }, ID, NOW)
    const extension: Extension = { statement: made, hash: hashOf(made), approvals: [] }
    now = { ...now, extension }
  }
  return now
}

test('however often it is extended, used or not: it ends by so much later, and its hash stays', () => {
  const spans = fc.array(fc.integer({ min: 1, max: 10_000 }), { maxLength: 6 })
  const uses = fc.option(fc.integer({ min: NOW, max: NOW + 3599 }))
  fc.assert(
    fc.property(spans, uses, fc.integer({ min: 1, max: 5000 }), (each, used, duration) => {
      const own = { ...statement, max_duration_s: duration }
      const before = grantOf({ statement: own, hash: hashOf(own), first_used_at: used })
      const after = extended(before, each)
      const more = each.reduce((sum, one) => sum + one, 0)
      expect(expiresAt(after)).toBe(expiresAt(before) + more)
      expect(termsOf(after).max_duration_s).toBe(duration + more)
      expect([after.hash, hashOf(after.statement)]).toEqual([before.hash, before.hash])
      expect(shownState(after, expiresAt(after) - 1)).toBe('active')
      expect(shownState(after, expiresAt(after))).toBe('expired')
    }),
  )
})

test('policy is shown both as one grant, each with its own approvals, counted from one first use', () => {
  const made = extensionOf(ask, ID, NOW)
  const approval = (by: string, hash: string) => ({
    by,
    email: null,
    at: NOW,
    hash,
    decision_id: 'd_1',
    signature: null,
  })
  const grant = grantOf({
    approvals: [approval('iss|oda', hashOf(statement))],
    extension: {
      statement: made,
      hash: hashOf(made),
      approvals: [approval('iss|olaf', hashOf(made))],
    },
  })
  expect(standingFacts(grant)).toMatchObject([
    { id: statement.id, approvers: ['iss|oda'], expires_at: NOW + 600, first_used_at: NOW },
    // Under the same id: one to write is no second grant beside itself.
    {
      id: statement.id,
      approvers: ['iss|olaf'],
      expires_at: NOW + 900,
      first_used_at: NOW,
      state: 'active',
    },
  ])
  // Approvals of one are none of the other, wherever they are kept.
  const mixed = { ...grant, extension: { ...grant.extension!, approvals: grant.approvals } }
  expect(standingFacts(mixed)[1]?.approvers).toEqual([])
})

test.for<readonly [boolean | undefined, boolean | undefined]>([
  [true, undefined],
  [undefined, true],
  [true, false],
  [false, true],
])(
  'a ticket found valid: %s, that of the extension: %s; each is told as it was',
  ([own, longer]) => {
    const made = extensionOf({ ...ask, ticket: 'T-2' }, ID, NOW)
    const found = (valid: boolean | undefined) =>
      valid === undefined ? {} : { ticket_valid: valid }
    const extension = { statement: made, hash: hashOf(made), approvals: [], ...found(longer) }
    expect(
      standingFacts(grantOf({ ...found(own), extension })).map(({ ticket }) => ticket),
    ).toEqual([
      { ref: 'T-1', valid: own ?? null },
      { ref: 'T-2', valid: longer ?? null },
    ])
  },
)
