import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { CliError } from '../../cli/exit.ts'
import {
  readAddresses,
  readEvery,
  readDuration,
  readInteger,
  readListen,
  readPlace,
  readProcess,
  readSecret,
} from '../../cli/input.ts'

const directory = mkdtempSync(join(tmpdir(), 'sallyport-input-'))
afterAll(() => rmSync(directory, { recursive: true }))

function refused(act: () => unknown): CliError {
  try {
    act()
  } catch (error) {
    if (error instanceof CliError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

describe('durations', () => {
  test.for([
    ['90s', 90],
    ['2m', 120],
    ['1h30m', 5400],
    ['1d', 86_400],
    ['1d2h3m4s', 93_784],
    ['0h1s', 1],
  ] as const)('%s is %i seconds', ([text, seconds]) => expect(readDuration(text)).toBe(seconds))

  test.for(['', '0s', '2', 'm', '2 m', '-2m', '1.5h', '30m1h', '2m;', '99999999s', '２m'])(
    'not a duration: %j',
    (text) => expect(refused(() => readDuration(text)).exit).toBe('usage'),
  )

  test('whatever is printed in its parts is read back', () => {
    const parts = [fc.nat(999), fc.nat(9999), fc.nat(99_999), fc.nat(9_999_999)] as const
    fc.assert(
      fc.property(...parts, (d, h, m, s) => {
        fc.pre(d + h + m + s > 0)
        expect(readDuration(`${d}d${h}h${m}m${s}s`)).toBe(d * 86_400 + h * 3600 + m * 60 + s)
      }),
    )
  })
})

describe('places', () => {
  test('one process', () =>
    expect(readPlace('press-07/plc')).toEqual({ device: 'press-07', processes: ['plc'] }))
  test('several processes', () =>
    expect(readPlace('press-07/plc, hmi')).toEqual({
      device: 'press-07',
      processes: ['plc', 'hmi'],
    }))
  test.for([
    '',
    '/',
    'press-07',
    'press-07/',
    '/plc',
    'a/b/c',
    'Press/plc',
    'press--07/plc',
    '-a/b',
    'a-/b',
    'a/b,',
    'a/..',
  ])('not a place: %j', (text) => expect(refused(() => readPlace(text)).exit).toBe('usage'))
  test('40 characters are a name, 41 are not', () => {
    expect(readPlace(`${'a'.repeat(40)}/b`).device).toHaveLength(40)
    expect(refused(() => readPlace(`${'a'.repeat(41)}/b`)).exit).toBe('usage')
  })
  test('exactly one process where one is meant', () =>
    expect(refused(() => readProcess('a/b,c')).message).toContain('one process'))
})

describe('addresses to listen on', () => {
  test.for([
    ['127.0.0.1:1502', '127.0.0.1', 1502],
    ['1502', '127.0.0.1', 1502],
    ['[::1]:0', '::1', 0],
    ['localhost:65535', 'localhost', 65_535],
  ] as const)('%s', ([text, host, port]) => expect(readListen(text)).toEqual({ host, port }))
  test.for(['', ':1502', '127.0.0.1:', '127.0.0.1:65536', '::1:1502', 'a b:1', '127.0.0.1:15o2'])(
    'not an address: %j',
    (text) => {
      const { exit, next } = refused(() => readListen(text))
      expect([exit, next]).toEqual(['usage', expect.stringContaining('127.0.0.1:1502')])
    },
  )
})

test('numbers keep their bounds', () => {
  expect(readInteger('65535', 'port', 1, 65_535)).toBe(65_535)
  for (const text of ['0', '65536', '-1', '1e3', '0x10', '', ' 5'])
    expect(refused(() => readInteger(text, 'port', 1, 65_535)).exit).toBe('usage')
})

describe('secrets', () => {
  const put = (text: string): string => {
    const path = join(directory, `${Math.round(performance.now() * 1000)}.secret`)
    writeFileSync(path, text)
    return path
  }
  test('one line end is not part of it, blanks are', async () => {
    expect(await readSecret(put('open sesame \n'), 'password')).toBe('open sesame ')
    expect(await readSecret(put('x\r\n'), 'password')).toBe('x')
  })
  test.for([
    ['an empty file', ''],
    ['a line end alone', '\n'],
    ['more than 4 KiB', 'x'.repeat(4097)],
  ] as const)('%s is refused', async ([, text]) => {
    await expect(readSecret(put(text), 'password')).rejects.toMatchObject({ exit: 'usage' })
  })
  test('a file that is not there is named', async () => {
    await expect(readSecret(join(directory, 'none'), 'token')).rejects.toMatchObject({
      exit: 'usage',
      message: /token file/,
    })
  })
  test('without file and terminal the option is named', async () => {
    await expect(readSecret(undefined, 'password')).rejects.toMatchObject({
      next: /--password-file/,
    })
  })
})

describe('addresses', () => {
  test('windows and single ones, as many as there are commas', () => {
    expect(readAddresses('1:0-9, 255:40')).toEqual([
      { unit: 1, from: 0, to: 9 },
      { unit: 255, from: 40, to: 40 },
    ])
  })
  test.for(['', '1', '1:', ':5', '1:5-', '1:a-b', '1:0-9,', '-1:0', '1:0-9-10', '1:123456'])(
    '%s is none',
    (text) => expect(refused(() => readAddresses(text)).exit).toBe('usage'),
  )
})

describe('windows of a week', () => {
  test.for<readonly [string, readonly number[], number, number]>([
    ['Tue 02:00-04:00', [2], 120, 240],
    ['Thu,mon 22:00-02:00', [1, 4], 1320, 1560],
    ['daily 06:00-07:00', [0, 1, 2, 3, 4, 5, 6], 360, 420],
    ['sat 22:00 - 24:00', [6], 1320, 1440],
    ['sun 00:00-23:59', [0], 0, 1439],
  ])('%s', ([text, days, from_min, to_min]) => {
    expect(readEvery(text)).toEqual({ days, from_min, to_min })
  })
  test.for([
    '',
    'Tue',
    'Tue 2:00-4:00',
    'Tue 02:00',
    'Tue 02:00-02:00',
    'Tue 24:00-25:00',
    'Tue 00:00-24:00',
    'Tue 02:60-04:00',
    'Tue,Tue 02:00-04:00',
    'Tue,Someday 02:00-04:00',
    'Tuesday 02:00-04:00',
  ])('%j is none', (text) => expect(refused(() => readEvery(text)).exit).toBe('usage'))
})
