/**
 * Fail-open mutation on the raw module, without the host's validation in front: delete, null and
 * retype each field of each vector's input and data, and move events into the future. No denial may
 * become an allow; no allow may bind to less. Here every fourth, another fourth for each vector;
 * `npm run fuzz -- policy` does all, and goes on with several at once.
 */
import { expect, test } from 'vitest'
import { complete } from '../../policy/ceiling.ts'
import type { Obligations } from '../../policy/obligations.ts'
import {
  allowed,
  dataFindings,
  get,
  groups,
  inputFindings,
  instanceOf,
  looser,
  mutated,
  paths,
  vectors,
} from './mutate.ts'

const STRIDE = 4

test('input fields', { timeout: 300_000 }, () => {
  const { bad, tried } = inputFindings(STRIDE)
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(50_000 / STRIDE)
})

test('pairs of input fields, nulled', { timeout: 300_000 }, () => {
  const bad: string[] = []
  for (const [data, group] of groups()) {
    const instance = instanceOf(JSON.parse(data))
    for (const { topic, name, point, input, effect } of group) {
      if (effect === 'allow') continue
      // Pairs of the parts a rule compares with each other: top-level parts and their own fields.
      const shallow = paths(input).filter((path) => path.length === 2 && get(input, path) !== null)
      for (let at = 0; at + 1 < shallow.length; at++) {
        const [first, second] = [shallow[at] ?? [], shallow[(at * 7 + 3) % shallow.length] ?? []]
        const twice = mutated(mutated(input, first, null), second, null)
        if (allowed(instance, point, twice, input) !== undefined)
          bad.push(`${topic}: ${name}: ${first.join('.')} and ${second.join('.')} nulled allows`)
      }
    }
  }
  expect(bad).toEqual([])
})

test('data fields', { timeout: 300_000 }, () => {
  const { bad, tried } = dataFindings(STRIDE)
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(10_000 / STRIDE)
})

test('a looser obligation is found', () => {
  const input = vectors.find(({ name }) => name === 'a vendor with a live grant')?.input
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
