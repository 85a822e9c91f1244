/** The names of events: UUIDs of version 7, whatever the clock and the randomness give. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { uuid7 } from '../../audit/format/render.ts'
import { Uids } from '../../audit/uid.ts'

const form = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

test('each says its time as one that is made alone, and no two of a pool share their randomness', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.integer({ min: -1, max: 2 ** 48 }), fc.double()), { minLength: 1 }),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      (times, seed) => {
        let state = seed
        const uids = new Uids((n) =>
          Uint8Array.from({ length: n }, () => {
            state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
            return state >>> 24
          }),
        )
        const usual = times.map((time) => (Number.isFinite(time) ? time : 0))
        const made = usual.map((time) => uids.next(time))
        for (const [i, uid] of made.entries()) {
          expect(uid).toMatch(form)
          expect(uid.slice(0, 14)).toBe(uuid7(usual[i] ?? 0, new Uint8Array(10)).slice(0, 14))
        }
        expect(new Set(made.map((uid) => uid.slice(14))).size).toBe(made.length)
      },
    ),
  )
})

test('a pool is asked for once for 256 of them, and nothing of it is used twice', () => {
  let [asked, byte] = [0, 0]
  const uids = new Uids((n) => {
    asked++
    return Uint8Array.from({ length: n }, () => byte++ & 0xff)
  })
  const made = Array.from({ length: 512 }, () => uids.next(1))
  expect(asked).toBe(2)
  expect(new Set(made).size).toBe(512)
})

test('all variants come, and every bit of the randomness that stays is used', () => {
  let byte = 0
  const uids = new Uids((n) => new Uint8Array(n).fill(byte++))
  const digits = Array.from({ length: 256 * 256 }, () => uids.next(1)[19])
  expect(new Set(digits)).toEqual(new Set(['8', '9', 'a', 'b']))
})
