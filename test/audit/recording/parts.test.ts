/** Parts against the log: every way in which they can differ has a name. */
import { expect, test } from 'vitest'
import {
  compare,
  fileOf,
  numbersOf,
  rootOf,
  sha256,
  type Found,
  type Logged,
  type Part,
} from '../../../audit/recording/parts.ts'

const part = (track: number, number: number): Part => ({
  track,
  part: number,
  sha256: sha256(Buffer.from(`${track}/${number}`)),
  bytes: 100 + number,
  t0: number * 1000,
  t1: number * 1000 + 500,
  torn: false,
})
const parts = [part(1, 1), part(2, 1), part(1, 2), part(1, 3)].map((one, at) => ({
  ...one,
  idx: 10 + at,
}))
const logged: Logged = { parts, end: { idx: 20, parts: 4, root: rootOf(parts) } }
const found: Found[] = parts.map((one) => ({
  file: fileOf(one),
  sha256: one.sha256,
  bytes: one.bytes,
}))
const codes = (log: Logged, files: readonly Found[]) =>
  compare(log, files).map(({ code, file }) => `${code} ${file ?? '-'}`)
const without = (at: number) => {
  const rest = parts.toSpliced(at, 1)
  return { parts: rest, end: logged.end }
}

test('what is whole and in order has no fault, however the files are listed', () => {
  expect(codes(logged, found)).toEqual([])
  expect(codes(logged, found.toReversed())).toEqual([])
})

test('a part that was logged twice with the same hash, after a crash, is no fault', () => {
  const again = { ...parts[3], idx: 15 } as (typeof parts)[number]
  expect(codes({ parts: [...parts, again], end: logged.end }, found)).toEqual([])
})

test.for([
  ['a file is gone', logged, found.slice(1), ['part.missing 001-000001.age']],
  ['the last file is gone', logged, found.slice(0, -1), ['part.missing 001-000003.age']],
  [
    'two files have each other’s content',
    logged,
    found.map((one, at) =>
      at === 0 ? { ...one, ...digestOf(2) } : at === 2 ? { ...one, ...digestOf(0) } : one,
    ),
    ['part.changed 001-000001.age', 'part.changed 001-000002.age'],
  ],
  [
    'a file is shorter',
    logged,
    found.map((one, at) => (at === 1 ? { ...one, bytes: 7 } : one)),
    ['part.changed 002-000001.age'],
  ],
  [
    'a file is there that nobody wrote',
    logged,
    [...found, { file: '001-000004.age', sha256: 'x', bytes: 1 }],
    ['part.extra 001-000004.age'],
  ],
  [
    'an event in the middle is gone',
    without(2),
    found.filter(({ file }) => file !== '001-000002.age'),
    ['part.missing 001-000002.age', 'end.root -'],
  ],
  [
    'the last event is gone',
    without(3),
    found.filter(({ file }) => file !== '001-000003.age'),
    ['end.root -'],
  ],
  ['the end is gone', { parts, end: undefined }, found, ['end.missing -']],
  [
    'a part is logged after the end',
    { parts: parts.map((one, at) => (at === 3 ? { ...one, idx: 21 } : one)), end: logged.end },
    found,
    ['part.late 001-000003.age'],
  ],
  [
    'another hash is logged for the same part',
    { parts: [...parts, { ...part(1, 3), sha256: 'f'.repeat(64), idx: 19 }], end: logged.end },
    found,
    ['part.twice 001-000003.age', 'end.root -', 'part.missing 001-000003.age'],
  ],
] as const)('%s', ([, log, files, faults]) => {
  expect(codes(log as Logged, files)).toEqual(faults)
})

function digestOf(at: number): { sha256: string; bytes: number } {
  const { sha256: digest = '', bytes = 0 } = found[at] ?? {}
  return { sha256: digest, bytes }
}

test('only the one name of a part is a part', () => {
  expect(numbersOf('001-000001.age')).toEqual({ track: 1, part: 1 })
  for (const name of [
    '1-1.age',
    '001-000001.age.part',
    '../001-000001.age',
    '0001-000001.age',
    'manifest.ndjson',
  ])
    expect(numbersOf(name)).toBeUndefined()
})
