/** docs/est-conformance.md: every number of the list has a row, and every row of the page names tests that run. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { faultOf, programOf } from '../support/proof.ts'

const root = new URL('../../', import.meta.url)
const page = readFileSync(new URL('docs/est-conformance.md', root), 'utf8')

interface Row {
  /** Of the heading above it. */
  readonly table: string
  /** Its first cell. */
  readonly about: string
  readonly tests: readonly { readonly file: string; readonly name: string }[]
}

/** Every row of every table: what stands behind a test file's name, in quotes. */
function rowsOf(text: string): readonly Row[] {
  let table = ''
  return text.split('\n').flatMap((line) => {
    table = /^##? (.+)$/.exec(line)?.[1] ?? table
    const about = /^\| ([^|]+) \|/.exec(line)?.[1]
    if (about === undefined || HEADS.has(about)) return []
    const named = [...line.matchAll(/`([a-z/-]+\.test\.ts)`: ((?:“[^”]+”(?:, )?)+)/g)]
    const tests = named.flatMap(([, file = '', names = '']) =>
      [...names.matchAll(/“([^”]+)”/g)].map(([, name = '']) => ({ file, name })),
    )
    return [{ table, about, tests }]
  })
}
const HEADS: ReadonlySet<string> = new Set(['no.', 'input', 'client', 'it comes back'])
const rows = rowsOf(page)
const numbered = rows.filter(({ about }) => /^\d+$/.test(about))

/** The numbers that a test's name starts with, as in `2.14, 2.16 a binding …` or `35: version 2`. */
function numbersOf(name: string): readonly number[] {
  const [start = ''] = /^(?:2\.\d+(?:, )?)+|^\d+(?=:)/.exec(name) ?? []
  return [...start.matchAll(/(?:2\.)?(\d+)/g)].map(([, digits]) => Number(digits))
}

const pathOf = (file: string) => (file.includes('/') ? file : `test/ca/${file}`)

const files = [...new Set(rows.flatMap(({ tests }) => tests.map(({ file }) => pathOf(file))))]
const programs = new Map(
  files.map((file) => [file, programOf(readFileSync(new URL(file, root), 'utf8'))]),
)

test('the page has the 36 numbers in order, and its other tables', () => {
  expect(numbered.map(({ about }) => Number(about))).toEqual(
    Array.from({ length: 36 }, (_, n) => n + 1),
  )
  expect([...new Set(rows.map(({ table }) => table))]).toEqual([
    'EST, clause by clause',
    'Bad input',
    'Clients of others',
    'A device that was away',
  ])
})

test.for(rows)('$table, $about: proven by tests that run', ({ tests }) => {
  expect(tests.length).toBeGreaterThan(0)
  for (const { file, name } of tests) {
    const program = programs.get(pathOf(file))
    const fault = program === undefined ? 'no such file' : faultOf(program, name)
    expect([file, name, fault]).toEqual([file, name, undefined])
  }
})

describe('a row is not proven by', () => {
  const vain = [
    ['nothing', "test('2.2 b')"],
    ['the middle of a name', "test('not 2.1 a')"],
    ['a comment', "  // test('2.1 a')"],
    ['a text somewhere', "say('2.1 a'); test('b')"],
    ['a text about it', `expect("test('2.1 a')")`],
    ['a row that no test is run for', "[['2.1 a', 1]]; test('b')"],
    ['a test that is left out', "test.sk\u0069p('2.1 a')"],
    ['a group that is left out', "describe.skipIf(true)('g', () => test('2.1 a'))"],
    ['a test to come', "test.tod\u006f('2.1 a')"],
  ] as const
  test.for(vain)('%s', ([, text]) => {
    expect(faultOf(programOf(text), '2.1 a')).toBeDefined()
  })

  test('but by a test, by a group, and by a row', () => {
    for (const text of [
      "test('2.1 a, and more'",
      "  test.for(rows)(\n  '2.1 a: $0'",
      "describe.skipIf(!haveGo)('2.1 a'",
      "[['2.1 a', 1]]; test.for(rows)('$0: 400'",
      "[{ name: '2.1 a' }]; test.for(rows)('$name'",
    ])
      expect([text, faultOf(programOf(text), '2.1 a')]).toEqual([text, undefined])
  })
})

test.for(numbered)('2.$about carries its number in the name of a test', ({ about, tests }) => {
  expect(tests.flatMap(({ name }) => numbersOf(name))).toContain(Number(about))
})
