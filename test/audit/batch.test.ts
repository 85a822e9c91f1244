import fc from 'fast-check'
import { expect, test } from 'vitest'
import { pack } from '../../audit/batch.ts'
import { complete } from '../../audit/format/ocsf.ts'
import { headerBytes, readFrame, sealFrame } from '../../audit/segment.ts'
import { leafHash, leafHashInPlace } from '../../audit/tree.ts'
import { heads, temporary, writer } from './fixture.ts'

const sized = (texts: readonly string[]) =>
  texts.map((head) => ({ head, bytes: Buffer.byteLength(head) + 18 }))

test('a batch holds, frame by frame, the bodies that completing each text gives', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }), { minLength: 1 }),
      fc.nat({ max: 2 ** 40 }),
      (texts, first) => {
        const { bytes, count } = pack(sized(texts), first, new ArrayBuffer(100))
        const block = Buffer.from(bytes)
        let at = 0
        for (let i = 0; i < count; i++) {
          const end = sealFrame(block, at, first + i, 2 ** 33 + 5)
          const frame = readFrame(block, at)
          const body = complete(texts[i] ?? '', first + i)
          expect(frame).toMatchObject({ idx: first + i, batch: 2 ** 33 + 5, end })
          if (typeof frame !== 'string') expect(Buffer.compare(frame.body, body)).toBe(0)
          expect(leafHashInPlace(block, at + headerBytes, end)).toEqual(leafHash(body))
          at = end
        }
        expect(at).toBe(block.length)
      },
    ),
  )
})

test('memory that comes back is used again when it is large enough, and only then', () => {
  const spare = new ArrayBuffer(4_096)
  expect(pack(sized(['a', 'b']), 0, spare).bytes.buffer).toBe(spare)
  expect(pack(sized(['x'.repeat(5_000)]), 0, spare).bytes.buffer).not.toBe(spare)
})

test.for([
  { name: 'for another place in the log', first: 3, cut: 0 },
  { name: 'that ends inside a frame', first: 5, cut: 1 },
])('a batch $name is refused before a byte is written', ({ first, cut }) => {
  const one = writer(temporary())
  one.open()
  one.write(heads(5))
  const batch = pack(sized(heads(2)), first)
  const bytes = batch.bytes.subarray(0, batch.bytes.length - cut)
  expect(() => one.append({ ...batch, bytes })).toThrow(/batch/)
  one.write(heads(1))
  expect(one.size).toBe(6)
  one.close()
})
