/**
 * Fail-open mutation on the raw module, without the host's validation in front: delete, null and
 * retype each field of each vector's input and data, and move events into the future. No denial may
 * become an allow; no allow may bind to less. Here every fourth, another fourth for each vector;
 * `sallyport policy test` does all, and `npm run fuzz -- policy` goes on
 * with several at once.
 */
import { expect, test } from 'vitest'
import { complete } from '../../policy/ceiling.ts'
import type { Obligations } from '../../policy/obligations.ts'
import { dataFindings, inputFindings, looser } from '../../policy/toolchain/fail-open.ts'
import { trial } from './trial.ts'

const stride = 4

test('input fields, one at a time and nulled in pairs', { timeout: 300_000 }, () => {
  const { bad, tried } = inputFindings({ ...trial, stride })
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(30_000 / stride)
})

test('data fields', { timeout: 300_000 }, () => {
  const { bad, tried } = dataFindings({ ...trial, stride })
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(10_000 / stride)
})

test('a looser obligation is found', () => {
  const input = trial.vectors.find(({ name }) => name === 'a vendor with a live grant')?.input
  const strict = complete('session.open', input, {})
  const rows: [keyof Obligations, unknown][] = [
    ['max_duration_s', strict.max_duration_s + 1],
    ['record', false],
    ['approvals', 0],
    ['processes', ['plc', 'hmi']],
    ['processes', null],
    ['methods', ['GET', 'POST']],
  ]
  for (const [key, value] of rows)
    expect(looser(strict, { ...strict, [key]: value })).toEqual([key])
  const windowed = { ...strict, ot_windows: [[{ unit: 1, from: 0, to: 1 }]] }
  expect(looser(windowed, strict)).toEqual(['ot_windows'])
  expect(looser(strict, windowed)).toEqual([])
})
