import { expect, test } from 'vitest'
import { CliError } from '../../cli/exit.ts'
import { explain, instant, layOut, plain, remaining } from '../../cli/print.ts'

test('columns are as wide as their widest cell, and the last is not padded', () => {
  const text = layOut({
    head: ['a', 'long'],
    rows: [
      ['wider', 1],
      ['b', null],
    ],
    empty: 'none',
  })
  expect(text).toBe('A      LONG\nwider  1\nb      -')
})

test('an empty table is its sentence', () => {
  expect(layOut({ head: ['a'], rows: [], empty: 'nobody is inside' })).toBe('nobody is inside')
})

test.for([
  ['an escape sequence', '\u001b[2Jgone', '<001b>[2Jgone'],
  ['a C1 control', 'a\u009b31mb', 'a<009b>31mb'],
  ['a line end', 'a\nb', 'a<000a>b'],
  ['a bidirectional override', 'a\u202eb', 'a<202e>b'],
  ['ordinary words in any script', 'Pressé 07 プレス', 'Pressé 07 プレス'],
] as const)('%s cannot move the cursor', ([, given, shown]) => {
  expect(plain(given)).toBe(shown)
  expect(layOut({ head: ['x'], rows: [[given]], empty: '' })).toBe(`X\n${shown}`)
})

test('time is UTC to the second', () => {
  expect(instant(1_795_224_923)).toBe('2026-11-21T01:35:23Z')
  expect(instant(null)).toBe('-')
})

test.for([
  [120_000, '2m'],
  [3_723_000, '1h 2m 3s'],
  [12_900, '12s'],
  [400, '0.4s'],
  [-5, '0.0s'],
] as const)('%i ms left reads %s', ([ms, text]) => expect(remaining(ms)).toBe(text))

test('an error says what, code, why, next step and id', () => {
  const error = new CliError('Policy does not allow this', {
    code: 'grant.none',
    exit: 'denied',
    why: 'no grant lets you use press-07/plc',
    next: 'sallyport request press-07/plc',
    id: 'd_1',
  })
  const lines = explain(error, { json: false }).split('\n')
  expect(lines[0]).toContain('Policy does not allow this')
  expect(lines.slice(1)).toEqual([
    '  code  grant.none',
    '  why   no grant lets you use press-07/plc',
    '  next  sallyport request press-07/plc',
    '  id    d_1',
  ])
  expect(JSON.parse(explain(error, { json: true }))).toEqual({
    error: {
      code: 'grant.none',
      message: 'Policy does not allow this',
      why: 'no grant lets you use press-07/plc',
      next_step: 'sallyport request press-07/plc',
      id: 'd_1',
    },
  })
})
