/** What holds where several decisions stand at once: merged by the rules of the library, never looser than any of them. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { strictest, tightened, type Obligations } from '#policy'
import { OBLIGATIONS } from '../../policy/obligations.ts'

const count = fc.nat({ max: 1000 })
const names = fc.subarray(['plc', 'hmi', 'ssh'])
const list = fc.array(fc.record({ unit: fc.nat(2), from: fc.nat(3), to: fc.nat(9) }), {
  maxLength: 2,
})
const anyOf: Record<string, fc.Arbitrary<unknown>> = {
  count,
  flag: fc.boolean(),
  names,
  windows: fc.array(list, { maxLength: 2 }),
}
const obligations = fc.record(
  Object.fromEntries(
    Object.entries(OBLIGATIONS).map(([name, { kind }]) => [name, anyOf[kind]]),
  ) as {
    [K in keyof Obligations]: fc.Arbitrary<Obligations[K]>
  },
)

test('the host merges each obligation as the library does', () => {
  const text = readFileSync(new URL('../../policy/sallyport/lib.rego', import.meta.url), 'utf8')
  const table = /_merge := (\{[^}]*\})/.exec(text)?.[1]?.replace(/,\s*\}/, '}') ?? ''
  const here = Object.entries(OBLIGATIONS).map(([name, { merge }]) => [name, merge])
  expect(Object.fromEntries(here)).toEqual(JSON.parse(table))
})

test('whatever stands, nothing of it leaves less than all together, in any order', () => {
  fc.assert(
    fc.property(obligations, fc.array(obligations, { maxLength: 3 }), (first, others) => {
      const all = strictest(first, ...others)
      for (const one of [first, ...others]) expect(tightened(all, one)).toEqual([])
      // Approvals bind nobody who is in, so `tightened` passes over them.
      expect(all.approvals).toBe(Math.max(...[first, ...others].map((one) => one.approvals)))
      const back = strictest(all, ...[first, ...others].toReversed())
      expect(tightened(all, back)).toEqual([])
      expect(tightened(back, all)).toEqual([])
    }),
  )
})

test('of one it is that; what each states otherwise is taken from whichever is stricter, and nothing else', () => {
  fc.assert(
    fc.property(obligations, (one) => {
      expect(tightened(strictest(one), one)).toEqual([])
    }),
  )
  const base = fc.sample(obligations, 1)[0] as Obligations
  const a = {
    ...base,
    max_bytes: 10,
    max_streams: 8,
    record: false,
    processes: null,
    methods: ['GET', 'PUT'],
  }
  const b = {
    ...base,
    max_bytes: 20,
    max_streams: 2,
    record: true,
    processes: ['plc'],
    methods: ['PUT', 'HEAD'],
  }
  const pairs: [Obligations, Obligations][] = [
    [a, b],
    [b, a],
  ]
  for (const [one, other] of pairs)
    expect(strictest(one, other)).toEqual({
      ...base,
      max_bytes: 10,
      max_streams: 2,
      record: true,
      processes: ['plc'],
      methods: ['PUT'],
      ot_windows: strictest(base, base).ot_windows,
    })
})
