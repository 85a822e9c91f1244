/** What strangers repeat: told once a minute, counted in between, and never more than there is room for. */
import { expect, test } from 'vitest'
import { Quiet } from '../../../gateway/listen/quiet.ts'

test('the first is told, the rest of its minute is counted', () => {
  const quiet = new Quiet()
  expect(quiet.tell('a', 0)).toBe(0)
  for (let at = 1; at <= 500; at++) expect(quiet.tell('a', at)).toBeUndefined()
  expect(quiet.tell('a', 59_999)).toBeUndefined()
  expect(quiet.tell('a', 60_000)).toBe(501)
  expect(quiet.tell('a', 60_001)).toBeUndefined()
  expect(quiet.tell('a', 120_000)).toBe(1)
})

test('kinds do not hold each other back', () => {
  const quiet = new Quiet()
  expect(quiet.tell('a', 0)).toBe(0)
  expect(quiet.tell('b', 1)).toBe(0)
  expect(quiet.tell('a', 2)).toBeUndefined()
})

test('more kinds than there is room for are one kind together', () => {
  const quiet = new Quiet({ windowMs: 100, kinds: 2 })
  const told = ['a', 'b', 'c', 'd', 'e'].map((kind) => quiet.tell(kind, 0))
  expect(told).toEqual([0, 0, 0, undefined, undefined])
  expect(quiet.tell('a', 50)).toBeUndefined()
})

test('room comes back when a window is over, and what was held back is not lost', () => {
  const quiet = new Quiet({ windowMs: 100, kinds: 2 })
  quiet.tell('a', 0)
  quiet.tell('a', 1)
  quiet.tell('b', 50)
  expect(quiet.tell('c', 120)).toBe(0)
  expect(quiet.tell('c', 121)).toBeUndefined()
  expect(quiet.tell('d', 121)).toBe(1)
})

test('ten thousand sources in a minute are told no oftener than there is room', () => {
  const quiet = new Quiet({ windowMs: 60_000, kinds: 10 })
  let told = 0
  for (let source = 0; source < 10_000; source++)
    if (quiet.tell(`peer.none ${source}`, source) !== undefined) told++
  expect(told).toBe(11)
})
