/** docs/est-conformance.md: every number of the list has a row, and every row names tests that exist. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const page = readFileSync(new URL('../../docs/est-conformance.md', import.meta.url), 'utf8')
const folder = new URL('./', import.meta.url)
const files = new Map(
  readdirSync(folder)
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => [name, readFileSync(new URL(name, folder), 'utf8')] as const),
)

interface Row {
  readonly number: number
  readonly tests: readonly { readonly file: string; readonly name: string }[]
}
const rows: readonly Row[] = page.split('\n').flatMap((line) => {
  const number = /^\| (\d+) \|/.exec(line)?.[1]
  if (number === undefined) return []
  const named = [...line.matchAll(/`([a-z-]+\.test\.ts)`: ((?:“[^”]+”(?:, )?)+)/g)]
  const tests = named.flatMap(([, file = '', names = '']) =>
    [...names.matchAll(/“([^”]+)”/g)].map(([, name = '']) => ({ file, name })),
  )
  return [{ number: Number(number), tests }]
})

/** The numbers that a test's name starts with, as in `2.14, 2.16 a binding …` or `35: version 2`. */
function numbersOf(name: string): readonly number[] {
  const [start = ''] = /^(?:2\.\d+(?:, )?)+|^\d+(?=:)/.exec(name) ?? []
  return [...start.matchAll(/(?:2\.)?(\d+)/g)].map(([, digits]) => Number(digits))
}

test('the page has the 36 numbers, in order', () => {
  expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: 36 }, (_, n) => n + 1))
})

/** Lists and OCSP are proven where they are built; without those files their rows cannot be checked. */
const [here, away] = [
  rows.filter(({ tests }) => tests.every(({ file }) => files.has(file))),
  rows.filter(({ tests }) => tests.some(({ file }) => !files.has(file))),
]
for (const { number } of away)
  test.skipIf(number >= 35)(`2.${number} is proven in a file that is not here`, () => {
    expect(number).toBeGreaterThanOrEqual(35)
  })

test.for(here)('2.$number is proven by a test that carries the number', ({ number, tests }) => {
  expect(tests.length).toBeGreaterThan(0)
  for (const { file, name } of tests) {
    const text = files.get(file)
    expect(text?.includes(name), `${file}: ${name}`).toBe(true)
  }
  expect(tests.flatMap(({ name }) => numbersOf(name))).toContain(number)
})
