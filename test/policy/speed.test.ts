/** The gate `speed`, by a clock that moves only while a vector is evaluated. */
import { expect, test, vi } from 'vitest'
import type { PolicyInstance } from '../../policy/module.ts'
import { speed } from '../../policy/toolchain/speed.ts'
import { readVectors } from '../../policy/toolchain/vectors.ts'

const [vector] = await readVectors()
if (vector === undefined) throw new Error('no vectors')

/** The gate over one vector that takes so many milliseconds at each call. */
function gate(took: (call: number) => number, yardstick?: number) {
  let clock = 0
  let call = 0
  const now = vi.spyOn(performance, 'now').mockImplementation(() => clock)
  const evaluate = () => void (clock += took(call++))
  try {
    return speed([vector!], () => ({ evaluate }) as unknown as PolicyInstance, yardstick)
  } finally {
    now.mockRestore()
  }
}

test.for([
  ['within the bar', () => 0.9, undefined, true],
  ['beyond the bar', () => 1.1, undefined, false],
  ['beyond it where the built-in rules are as fast as ever', () => 1.1, 0.05, false],
  ['on a machine where those are slow too', () => 11, 1, true],
  ['and slower than that', () => 12.1, 1, false],
  [
    'while something else went on, and then not',
    (call: number) => (call < 600 ? 9 : 0.5),
    undefined,
    true,
  ],
  [
    'one call in fifty, every time',
    (call: number) => (call % 50 === 0 ? 9 : 0.5),
    undefined,
    false,
  ],
  ['one call in a thousand', (call: number) => (call % 1000 === 0 ? 9 : 0.5), undefined, true],
] as const)('%s', ([, took, yardstick, ok]) => {
  const found = gate(took, yardstick)
  expect(found.ok).toBe(ok)
  expect(found.detail).toMatch(/^slowest vector .+: [\d.]+ ms, at most [\d.]+/)
  expect(found.detail.includes('the built-in rules')).toBe(yardstick === 1)
})
