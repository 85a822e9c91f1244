/**
 * Fail-open mutation on the raw module, without the host's validation in front: delete, null and
 * retype each field of each vector's input and data, and move events into the future. No denial may
 * become an allow; no allow may bind to less. `npm run fuzz -- policy` goes on with several at once.
 */
import { expect, test } from 'vitest'
import { complete } from '../../policy/ceiling.ts'
import type { Obligations } from '../../policy/obligations.ts'
import {
  allowed,
  get,
  groups,
  instanceOf,
  loosened,
  looser,
  MEANINGFUL_NULL,
  mutated,
  mutations,
  paths,
  unelevated,
  vectors,
} from './mutate.ts'

test('input fields', { timeout: 300_000 }, () => {
  const bad: string[] = []
  let tried = 0
  for (const [data, group] of groups()) {
    const instance = instanceOf(JSON.parse(data))
    for (const { topic, name, point, input, effect } of group) {
      const before = allowed(instance, point, input, input)
      expect(before !== undefined, name).toBe(effect === 'allow')
      const lowered = allowed(instance, point, unelevated(input), input)
      for (const [how, path, value] of mutations(input)) {
        tried++
        const after = allowed(instance, point, mutated(input, path, value), input)
        if (after === undefined) continue
        const where = path.join('.')
        if (before === undefined) bad.push(`${topic}: ${name}: ${where} ${how} allows`)
        else if (!MEANINGFUL_NULL.test(where))
          bad.push(
            ...loosened([before, lowered], after).map(
              (key) => `${topic}: ${name}: ${where} ${how} loosens ${key}`,
            ),
          )
      }
    }
  }
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(50_000)
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
  const bad: string[] = []
  let tried = 0
  for (const [text, group] of groups()) {
    const data: unknown = JSON.parse(text)
    const original = instanceOf(data)
    const used =
      /^site\.(?:zones\.default(?:\.|$)|settings|http|roles(?:$|\.(?:operator|auditor)(?:$|\.device:quarantine)))/
    const fields = mutations(data).filter(([, path]) => used.test(path.join('.')))
    const before = group.map(({ point, input }) => [
      allowed(original, point, input, input),
      allowed(original, point, unelevated(input), input),
    ])
    for (const [how, path, value] of fields) {
      const instance = instanceOf(mutated(data, path, value))
      for (const [at, { topic, name, point, input }] of group.entries()) {
        tried++
        const after = allowed(instance, point, input, input)
        const was = before[at] ?? []
        if (after === undefined) continue
        const where = `${topic}: ${name}: ${path.join('.')} ${how}`
        if (was[0] === undefined) bad.push(`${where} allows`)
        else bad.push(...loosened(was, after).map((key) => `${where} loosens ${key}`))
      }
    }
  }
  expect(bad).toEqual([])
  expect(tried).toBeGreaterThan(10_000)
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
