/** Grants to write: what may be asked for, and which count beside the grant that a session stands on. */
import { describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import { addressFault, countFault, writeFault } from '../../../gateway/grants/addresses.ts'
import { coveringGrant, elevationOf, inUse } from '../../../gateway/grants/elevation.ts'
import type { Grant } from '../../../gateway/grants/grant.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

const NOW = 10_000
const WINDOW = { unit: 1, from: 0, to: 9 }

function grant(id: string, change: Partial<Statement> = {}, more: Partial<Grant> = {}): Grant {
  const statement = statementOf(NOW - 100, {
    id,
    not_after: NOW + 1000,
    max_duration_s: 86_400,
    ...change,
  })
  return grantAround(statement, { state: 'active', ...more })
}
const own = grant('g_own')
const write = (id: string, change: Partial<Statement> = {}, more: Partial<Grant> = {}) =>
  grant(
    id,
    { ot_level: 2, ot_windows: [WINDOW], not_after: NOW + 500, ...change },
    { state: 'approved', ...more },
  )
const ids = (grants: readonly Grant[]) => grants.map(({ statement }) => statement.id)

describe('a grant to write', () => {
  test('adds to the grant of the session until it ends', () => {
    const { grants, changesAt } = elevationOf(own, [write('g_w')], NOW)
    expect([ids(grants), changesAt]).toEqual([['g_w'], NOW + 500])
    expect(ids(elevationOf(own, [write('g_w')], NOW + 499).grants)).toEqual(['g_w'])
    expect(elevationOf(own, [write('g_w')], NOW + 500)).toEqual({ grants: [], changesAt: Infinity })
  })
  test('counts from its first use, where that ends it sooner', () => {
    const used = write('g_w', { max_duration_s: 60 }, { first_used_at: NOW - 10 })
    expect(elevationOf(own, [used], NOW).changesAt).toBe(NOW + 50)
    expect(elevationOf(own, [used], NOW + 50).grants).toEqual([])
  })
  test('that begins later is waited for', () => {
    const later = write('g_w', { not_before: NOW + 100 })
    expect(elevationOf(own, [later], NOW)).toEqual({ grants: [], changesAt: NOW + 100 })
    expect(ids(elevationOf(own, [later], NOW + 100).grants)).toEqual(['g_w'])
  })
  test('the first that ends is when it must be looked at again', () => {
    const two = [write('g_a'), write('g_b', { not_after: NOW + 200 })]
    const { grants, changesAt } = elevationOf(own, two, NOW)
    expect([ids(grants), changesAt]).toEqual([['g_a', 'g_b'], NOW + 200])
  })
  test.for([
    { name: 'revoked', own: grant('g_own', {}, { state: 'revoked' }) },
    { name: 'given back', own: grant('g_own', {}, { state: 'spent' }) },
    { name: 'not approved', own: grant('g_own', {}, { state: 'requested' }) },
    { name: 'over', own: grant('g_own', { not_after: NOW }) },
    { name: 'used up', own: grant('g_own', { max_duration_s: 50 }, { first_used_at: NOW - 50 }) },
    { name: 'not begun', own: grant('g_own', { not_before: NOW + 1 }) },
  ])('stands in for no grant that is $name', ({ own: ended }) => {
    expect(elevationOf(ended, [write('g_w')], NOW)).toEqual({ grants: [], changesAt: Infinity })
  })
  test.for([
    { name: 'ends with it', not_after: NOW + 1000 },
    { name: 'outlasts it', not_after: NOW + 1001 },
  ])('that $name adds nothing: the session would stand on it alone', ({ not_after }) => {
    expect(elevationOf(own, [write('g_w', { not_after })], NOW).grants).toEqual([])
  })
  test('adds nothing to itself', () => {
    expect(elevationOf(write('g_w'), [write('g_w')], NOW).grants).toEqual([])
  })
})

test('a write stands on no grant to write that was never used, on the session’s own it does', () => {
  const used = write('g_used', {}, { first_used_at: NOW })
  expect(ids(inUse([own, write('g_new'), used], 'g_own'))).toEqual(['g_own', 'g_used'])
  expect(ids(inUse([write('g_own')], 'g_own'))).toEqual(['g_own'])
})

describe('the grant of a write', () => {
  const used = { first_used_at: NOW - 10 }
  const grants = [
    write('g_new'),
    write('g_over', { max_duration_s: 10 }, used),
    write('g_a', {}, used),
    write(
      'g_b',
      {
        ot_windows: [
          { unit: 2, from: 0, to: 9 },
          { unit: 1, from: 20, to: 29 },
        ],
      },
      used,
    ),
  ]
  test.for([
    { name: 'the first that was used and is not over', unit: 1, span: [0, 10], by: 'g_a' },
    { name: 'another', unit: 1, span: [20, 10], by: 'g_b' },
    { name: 'of another unit', unit: 2, span: [3, 1], by: 'g_b' },
    { name: 'across an end', unit: 1, span: [5, 6], by: undefined },
    { name: 'nobody’s', unit: 3, span: [0, 1], by: undefined },
  ] as const)('$name', ({ unit, span: [address, quantity], by }) => {
    expect(coveringGrant(grants, unit, { address, quantity }, NOW)?.statement.id).toBe(by)
  })
})

describe('asked for', () => {
  test.for([
    { name: 'to write, without addresses', ask: { ot_level: 2 }, fine: false },
    { name: 'to write, with them', ask: { ot_level: 2, ot_windows: [WINDOW] }, fine: true },
    { name: 'to read some', ask: { ot_level: 1, ot_windows: [WINDOW] }, fine: true },
    { name: 'to read all', ask: { ot_level: 1 }, fine: true },
    { name: 'to do nothing to some', ask: { ot_level: 0, ot_windows: [WINDOW] }, fine: false },
    {
      name: 'of every unit',
      ask: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 0 }] },
      fine: false,
    },
    {
      name: 'of unit 248',
      ask: { ot_level: 2, ot_windows: [{ ...WINDOW, unit: 248 }] },
      fine: false,
    },
    { name: 'backwards', ask: { ot_level: 2, ot_windows: [{ ...WINDOW, from: 10 }] }, fine: false },
    {
      name: 'seventeen',
      ask: { ot_level: 2, ot_windows: Array.from({ length: 17 }, () => WINDOW) },
      fine: false,
    },
  ])('$name', ({ ask, fine }) => {
    expect(addressFault(ask)?.code).toBe(fine ? undefined : 'grant.addresses')
  })

  test.for([
    { name: 'to read, once', ask: { ot_level: 1, max_uses: 1 }, fine: true },
    { name: 'to read, a little', ask: { ot_level: 1, max_bytes: 1 }, fine: true },
    { name: 'to write, as often as need be', ask: { ot_level: 2 }, fine: true },
    { name: 'to write, once', ask: { ot_level: 2, max_uses: 1 }, fine: false },
    { name: 'to write, a little', ask: { ot_level: 2, max_bytes: 1 }, fine: false },
  ])('$name', ({ ask, fine }) => {
    expect(countFault(ask)?.code).toBe(fine ? undefined : 'grant.counts')
  })

  const asked = write('g_w').statement
  const fault = (held: readonly Grant[], statement = asked, longest = 3600) =>
    writeFault(statement, held, longest, NOW)?.code
  test('beside one to read that ends later, or that is still to be asked for', () => {
    expect([fault([own]), fault([])]).toEqual([undefined, undefined])
  })
  test('for longer than policy lets anybody write', () => {
    expect(fault([own], asked, 599)).toBe('grant.window')
    expect(fault([own], asked, 600)).toBeUndefined()
  })
  test('until after all there is to add to', () => {
    expect(fault([grant('g_r', { not_after: NOW + 500 })])).toBe('grant.window')
    expect(fault([grant('g_r', { not_after: NOW + 501 })])).toBeUndefined()
    const sealed = grant('g_s', { not_after: NOW + 9000, sealed: { quorum: 2 } })
    expect(fault([grant('g_r', { not_after: NOW + 500 }), sealed])).toBe('grant.window')
    expect(fault([grant('g_r', { processes: ['hmi'], not_after: NOW + 500 })])).toBeUndefined()
  })
  test.for([
    { name: 'unused, which ends its duration after the next session begins', used: null, at: 0 },
    { name: 'used, which ends it from then', used: NOW - 100, at: -100 },
    { name: 'that begins later', used: null, at: 300, more: { not_before: NOW + 300 } },
  ])('until after the duration of one that is $name', ({ used, at, more = {} }) => {
    const held = (s: number) => [
      grant('g_r', { max_duration_s: s, ...more }, { first_used_at: used }),
    ]
    expect(fault(held(500 - at))).toBe('grant.window')
    expect(fault(held(501 - at))).toBeUndefined()
  })
  test.for([
    { name: 'unused', used: null },
    { name: 'used', used: NOW },
  ])('until after the end of one that is $name, and was extended since', ({ used }) => {
    const terms = (end: number, s: number) => ({ not_after: NOW + end, max_duration_s: s })
    const { statement, hash, approvals } = grant('g_x', terms(501, 501))
    const held = grant('g_r', terms(300, 300), { first_used_at: used })
    expect(fault([held])).toBe('grant.window')
    expect(fault([{ ...held, extension: { statement, hash, approvals } }])).toBeUndefined()
  })
  test('a fifth', () => {
    const held = ['a', 'b', 'c', 'd'].map((id) => write(`g_${id}`, {}, { state: 'requested' }))
    expect(fault([own, ...held.slice(1)])).toBeUndefined()
    expect(fault([own, ...held])).toBe('grant.limit')
    const over = held.map((one) => ({ ...one, state: 'spent' as const }))
    expect(fault([own, ...over])).toBeUndefined()
  })
})
