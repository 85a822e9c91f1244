import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  bodyLimit,
  framesAfter,
  headerBytes,
  readFrame,
  segmentFirst,
  segmentName,
} from '../../audit/segment.ts'
import { writeFrame } from './fixture.ts'
import { tilePath } from '../../audit/tile.ts'

function frame(idx: number, batch: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(headerBytes + body.length)
  writeFrame(bytes, 0, idx, batch, body)
  return bytes
}
const body = Buffer.from('{"a":1}')

describe('a frame', () => {
  test('is these bytes', () => {
    expect(frame(258, 3, body).toString('hex')).toBe(
      '53504131' +
        '07000000' +
        '32fcce3a' +
        '00000000' +
        '0201000000000000' +
        '0300000000000000' +
        '7b2261223a317d',
    )
  })
  test('reads back what was written, for every index up to 2^53', () => {
    fc.assert(
      fc.property(
        fc.maxSafeNat(),
        fc.maxSafeNat(),
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        (idx, batch, bytes) => {
          const read = readFrame(frame(idx, batch, bytes), 0)
          expect(read).toMatchObject({ idx, batch, end: headerBytes + bytes.length })
          if (typeof read !== 'string') expect(Buffer.from(read.body).equals(bytes)).toBe(true)
        },
      ),
    )
  })
  test('with any one bit changed is no frame', () => {
    const whole = frame(7, 2, body)
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const changed = Buffer.from(whole)
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
      expect(typeof readFrame(changed, 0)).toBe('string')
    }
  })
  test.for([
    { name: 'header cut', bytes: frame(0, 0, body).subarray(0, 31), why: 'cut short' },
    { name: 'body cut', bytes: frame(0, 0, body).subarray(0, -1), why: 'cut short' },
    { name: 'length zero', bytes: patched(4, 0), why: 'impossible length' },
    { name: 'length over the limit', bytes: patched(4, bodyLimit + 1), why: 'impossible length' },
    { name: 'reserved field used', bytes: patched(12, 1), why: 'reserved field is not zero' },
    { name: 'sector of zeros', bytes: Buffer.alloc(512), why: 'no frame begins here' },
  ])('$name: $why', ({ bytes, why }) => {
    expect(readFrame(bytes, 0)).toBe(why)
  })
})

function patched(offset: number, value: number): Buffer {
  const bytes = frame(0, 0, body)
  bytes.writeUInt32LE(value, offset)
  return bytes
}

test('a body that quotes a frame is still one body', () => {
  const quoting = Buffer.concat([
    Buffer.from('{"x":"'),
    Buffer.from('SPA1 SPA1SPA1'),
    Buffer.from('"}'),
  ])
  const bytes = Buffer.concat([frame(0, 0, quoting), frame(1, 0, body)])
  expect([...framesAfter(bytes, 0)].map((found) => found.idx)).toEqual([0, 1])
})

test('frames are found behind garbage', () => {
  const bytes = Buffer.concat([
    Buffer.from('SPA1garbage'),
    frame(5, 1, body),
    Buffer.alloc(100),
    frame(6, 1, body),
  ])
  expect([...framesAfter(bytes, 1)].map((found) => found.idx)).toEqual([5, 6])
})

test('a segment is named by its first index', () => {
  expect(segmentName(0)).toBe('00000000000000000000.aud')
  expect(segmentName(123_456)).toBe('00000000000000123456.aud')
  expect(segmentFirst('00000000000000123456.aud')).toBe(123_456)
  for (const name of ['123.aud', '00000000000000123456.aud.tmp', 'x0000000000000123456.aud'])
    expect(segmentFirst(name)).toBeNull()
})

test.for([
  { level: 0, n: 0, path: 'tile/0/000' },
  { level: 0, n: 999, path: 'tile/0/999' },
  { level: 1, n: 1_000, path: 'tile/1/x001/000' },
  { level: 0, n: 1_234_067, path: 'tile/0/x001/x234/067' },
])('tile $n of level $level is $path', ({ level, n, path }) => {
  expect(tilePath(level, n)).toBe(path)
})
