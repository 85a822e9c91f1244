/** The order in which sessions are decided again: what may do most harm goes first, and nobody is left out. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { byDanger } from '../../../gateway/sessions/slices.ts'

interface One {
  readonly id: string
  readonly obligations: { readonly ot_level: number }
  readonly subject: { readonly party: 'staff' | 'vendor' }
}

const one = (id: string, ot_level: number, party: 'staff' | 'vendor'): One => ({
  id,
  obligations: { ot_level },
  subject: { party },
})

test('whom a preview named, then who may write, then vendors', () => {
  const sessions = [
    one('staff reads', 1, 'staff'),
    one('vendor reads', 1, 'vendor'),
    one('staff writes', 2, 'staff'),
    one('vendor writes', 2, 'vendor'),
    one('named staff reads', 0, 'staff'),
    one('named vendor writes', 2, 'vendor'),
  ]
  const first = new Set(['named staff reads', 'named vendor writes', 'somebody long gone'])
  expect(byDanger(sessions, first).map(({ id }) => id)).toEqual([
    'named vendor writes',
    'named staff reads',
    'vendor writes',
    'staff writes',
    'vendor reads',
    'staff reads',
  ])
})

test('nobody is left out or asked twice', () => {
  const session = fc.record({
    id: fc.uuid(),
    obligations: fc.record({ ot_level: fc.integer({ min: 0, max: 2 }) }),
    subject: fc.record({ party: fc.constantFrom('staff' as const, 'vendor' as const) }),
  })
  fc.assert(
    fc.property(fc.array(session, { maxLength: 40 }), fc.array(fc.nat(39)), (sessions, picked) => {
      const first = new Set(picked.flatMap((at) => sessions[at]?.id ?? []))
      const ordered = byDanger(sessions, first)
      expect(ordered).toHaveLength(sessions.length)
      expect(new Set(ordered)).toEqual(new Set(sessions))
      const named = ordered.map(({ id }) => first.has(id))
      expect(named).toEqual(named.toSorted((a, b) => Number(b) - Number(a)))
    }),
  )
})
