/** docs/est-conformance.md: every number of the list has a row, and every row of the page names tests that exist. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

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

function textOf(file: string): string {
  return readFileSync(new URL(file.includes('/') ? file : `test/ca/${file}`, root), 'utf8')
}

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

test.for(rows)('$table, $about: proven by tests that exist', ({ tests }) => {
  expect(tests.length).toBeGreaterThan(0)
  for (const { file, name } of tests) {
    // The name of a test, or of one row of its table: a text of the program, in whole or its start.
    const quoted = new RegExp(`['"\`][^'"\`\n]*${RegExp.escape(name.split("'")[0] ?? '')}`)
    const text = textOf(file)
    expect([file, name, text.includes(name) && quoted.test(text)]).toEqual([file, name, true])
  }
})

test.for(numbered)('2.$about carries its number in the name of a test', ({ about, tests }) => {
  expect(tests.flatMap(({ name }) => numbersOf(name))).toContain(Number(about))
})
