/** docs/tunnel-conformance.md: every MUST of the protocol has a row, and every row names tests that run. */
import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { faultOf, programOf } from '../support/proof.ts'

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), 'utf8')
const plain = (text: string) => text.replaceAll(/\s+/g, ' ')

/** Without the head, which says what the words mean. */
const [, ...sections] = read('docs/protocol.md').split(/^## /m)
const protocol = plain(sections.join(' '))
const page = read('docs/tunnel-conformance.md')
const vectors = JSON.parse(read('test/vectors/frames/sessions.json')) as { name: string }[]

interface Row {
  readonly demand: string
  readonly proofs: readonly { readonly file: string; readonly name: string }[]
}

function proofsIn(text: string): Row['proofs'] {
  return [...text.matchAll(/`([a-z/.-]+\.(?:test\.ts|json))`: ((?:“[^”]+”(?:, )?)+)/g)].flatMap(
    ([, file = '', names = '']) =>
      [...names.matchAll(/“([^”]+)”/g)].map(([, name = '']) => ({ file, name })),
  )
}

const rows: readonly Row[] = [...page.matchAll(/^\| (.+) \| (`.+) \|$/gm)].map(
  ([, demand = '', proof = '']) => ({ demand, proofs: proofsIn(proof) }),
)

/** Why it proves nothing; undefined where it does. */
function fault(file: string, name: string): string | undefined {
  if (file === 'sessions.json')
    return vectors.some((vector) => vector.name === name) ? undefined : 'no such vector'
  const path = file.includes('/') ? file : `test/mux/${file}`
  return existsSync(new URL(path, root)) ? faultOf(programOf(read(path)), name) : 'no such file'
}

test('every MUST is demanded by one row, in the order of the protocol', () => {
  const places = rows.map(({ demand }) => protocol.indexOf(plain(demand)))
  expect(rows.filter((_, at) => places[at] === -1).map(({ demand }) => demand)).toEqual([])
  expect(places).toEqual(places.toSorted((a, b) => a - b))
  const uncovered = [...protocol.matchAll(/\bMUST\b/g)].filter(
    ({ index }) =>
      rows.filter(({ demand }, at) => {
        const from = places[at] ?? -1
        return index >= from && index < from + plain(demand).length
      }).length !== 1,
  )
  expect(uncovered.map(({ index }) => protocol.slice(Math.max(0, index - 60), index + 60))).toEqual(
    [],
  )
})

test.for(rows)('$demand', ({ proofs }) => {
  expect(proofs.length).toBeGreaterThan(0)
  for (const { file, name } of proofs)
    expect([file, name, fault(file, name)]).toEqual([file, name, undefined])
})

test('the end in another language is named and runs', () => {
  const head = page.slice(0, page.indexOf('| demand'))
  const proofs = proofsIn(head)
  expect(proofs.map(({ file, name }) => [file, fault(file, name)])).toEqual(
    proofs.map(({ file }) => [file, undefined]),
  )
  expect(proofs).toHaveLength(3)
})
