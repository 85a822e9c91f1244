/** asciicast v3, held to its specification by a reader that is not ours. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CastWriter, readCast } from '../../../audit/recording/asciicast.ts'

const T0 = 1_750_000_000_123

/** Every rule of the specification that a file can break; gives the events. */
function strict(file: string): [number, string, string][] {
  expect(file.endsWith('\n')).toBe(true)
  const [first = '', ...rest] = file.slice(0, -1).split('\n')
  const header = JSON.parse(first) as Record<string, unknown>
  expect(header['version']).toBe(3)
  const term = header['term'] as Record<string, unknown>
  for (const key of ['cols', 'rows']) expect(Number.isInteger(term[key])).toBe(true)
  expect(
    Object.keys(term).filter((key) => !['cols', 'rows', 'type', 'version', 'theme'].includes(key)),
  ).toEqual([])
  const known = [
    'version',
    'term',
    'timestamp',
    'idle_time_limit',
    'command',
    'title',
    'env',
    'tags',
  ]
  expect(Object.keys(header).filter((key) => !known.includes(key))).toEqual([])
  if ('timestamp' in header) expect(Number.isInteger(header['timestamp'])).toBe(true)
  return rest
    .filter((line) => !line.startsWith('#'))
    .map((line) => {
      const event = JSON.parse(line) as [number, string, string]
      expect(event).toHaveLength(3)
      const [interval, code, data] = event
      expect(interval).toBeGreaterThanOrEqual(0)
      expect('oimrx').toContain(code)
      expect(typeof data).toBe('string')
      if (code === 'r') expect(data).toMatch(/^[1-9]\d*x[1-9]\d*$/)
      if (code === 'x') expect(data).toMatch(/^-?\d+$/)
      return event
    })
}

function record(act: (cast: CastWriter) => Uint8Array[]): string {
  const cast = new CastWriter(T0)
  const header = cast.header({
    cols: 80,
    rows: 24,
    at: T0,
    term: 'xterm',
    command: '/bin/sh',
    title: 'a "b"',
  })
  return Buffer.concat([header, ...act(cast)]).toString()
}

test('a short session is a file of the specification', () => {
  const file = record((cast) => [
    cast.output(Buffer.from('$ '), T0 + 250),
    cast.input(Buffer.from('ls\r'), T0 + 1000),
    cast.resize(100, 30, T0 + 1500),
    cast.mark('approved', T0 + 1500),
    cast.output(Buffer.from('a\u001b[1m\u0007"\\'), T0 + 2001),
    cast.exit(0, T0 + 3000),
  ])
  expect(strict(file)).toEqual([
    [0.25, 'o', '$ '],
    [0.75, 'i', 'ls\r'],
    [0.5, 'r', '100x30'],
    [0, 'm', 'approved'],
    [0.501, 'o', 'a\u001b[1m\u0007"\\'],
    [0.999, 'x', '0'],
  ])
})

test('a character that comes in pieces is one character', () => {
  const bytes = Buffer.from('é🙂e')
  const file = record((cast) =>
    [...bytes].map((byte, at) => cast.output(Uint8Array.of(byte), T0 + at)),
  )
  const events = strict(file)
  expect(events.map(([, , text]) => text)).toEqual(['é', '🙂', 'e'])
})

test('what is not UTF-8 becomes a sign for it, and half a character at the end is not lost', () => {
  const file = record((cast) => [
    cast.output(Uint8Array.of(0x61, 0xff, 0x62), T0),
    cast.output(Uint8Array.of(0xe2, 0x82), T0 + 5),
    cast.rest(T0 + 9),
  ])
  expect(strict(file).map(([, , text]) => text)).toEqual(['a\ufffdb', '\ufffd'])
})

test('a clock that is put back makes no negative interval, and time goes on from there', () => {
  const file = record((cast) => [
    cast.output(Buffer.from('a'), T0 + 1000),
    cast.output(Buffer.from('b'), T0 - 50_000),
    cast.output(Buffer.from('c'), T0 + 1500),
  ])
  expect(strict(file).map(([interval]) => interval)).toEqual([1, 0, 0.5])
})

test('any bytes, in any pieces, at any times: the text is theirs and the intervals add up', () => {
  const pieces = fc.array(fc.tuple(fc.uint8Array({ maxLength: 40 }), fc.nat(5_000)), {
    maxLength: 20,
  })
  fc.assert(
    fc.property(pieces, (all) => {
      let now = T0
      const file = record((cast) => [
        ...all.map(([bytes, wait]) => cast.output(bytes, (now += wait))),
        cast.rest(now),
      ])
      const events = strict(file)
      const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(
        Buffer.concat(all.map(([bytes]) => bytes)),
      )
      expect(events.map(([, , one]) => one).join('')).toBe(text)
      const last = Math.round(events.reduce((sum, [interval]) => sum + interval, 0) * 1000)
      expect(last).toBeLessThanOrEqual(now - T0)
      expect(readCast(file)?.events.at(-1)?.at ?? 0).toBe(last)
    }),
    { numRuns: 60 },
  )
})

test('a burst is several events of bounded length, none with half a character', () => {
  const text = `${'x'.repeat(16 * 1024 - 1)}🙂${'y'.repeat(40_000)}`
  const events = strict(record((cast) => [cast.output(Buffer.from(text), T0)]))
  expect(events.map(([, , one]) => one).join('')).toBe(text)
  expect(Math.max(...events.map(([, , one]) => one.length))).toBeLessThanOrEqual(16 * 1024)
  for (const [, , one] of events) expect(one.isWellFormed()).toBe(true)
})

describe('a file that is none', () => {
  const head = '{"version":3,"term":{"cols":80,"rows":24}}\n'
  test.for<[string, string]>([
    ['empty', ''],
    ['version 2', '{"version":2,"width":80,"height":24}\n'],
    ['no size', '{"version":3,"term":{}}\n'],
    ['an event of two', `${head}[1,"o"]\n`],
    ['a negative interval', `${head}[-1,"o","a"]\n`],
    ['a size that is none', `${head}[1,"r","80"]\n`],
    ['half a line', `${head}[1,"o","a"]\n[1,"o`],
  ])('%s is not played', ([, text]) => expect(readCast(text)).toBeUndefined())
  test('comments and empty lines are passed over', () => {
    expect(readCast(`${head}# remark\n\n[1.5,"o","a"]\n`)?.events).toEqual([
      { at: 1500, code: 'o', text: 'a' },
    ])
  })
})
