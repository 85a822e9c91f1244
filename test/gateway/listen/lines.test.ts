/** Reports of a device as lines, however it cuts them. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Lines } from '../../../gateway/listen/lines.ts'

test('any text in any chunks gives the same lines', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\n', ''))),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
      (texts, cuts) => {
        const bytes = Buffer.from(texts.map((text) => `${text}\n`).join(''))
        const lines = new Lines(10_000)
        const got: string[] = []
        for (let at = 0, cut = 0; at < bytes.length; cut++) {
          const end = at + (cuts[cut % cuts.length] ?? 1)
          got.push(...(lines.take(bytes.subarray(at, end)) ?? ['too long']))
          at = end
        }
        expect(got).toEqual(texts)
      },
    ),
  )
})

test.for<[string, readonly string[], readonly (readonly string[] | undefined)[]]>([
  ['a line at its limit', ['12345678\n'], [['12345678']]],
  ['a line over its limit', ['123456789\n'], [undefined]],
  ['a line that never ends', ['12345', '6789'], [[], undefined]],
  ['many short ones in one chunk', ['a\nb\nc\n'], [['a', 'b', 'c']]],
])('%s', ([, chunks, outcomes]) => {
  const lines = new Lines(8)
  expect(chunks.map((chunk) => lines.take(Buffer.from(chunk)))).toEqual(outcomes)
})
