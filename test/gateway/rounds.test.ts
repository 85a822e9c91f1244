/** A look that is taken again and again. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Rounds } from '../../gateway/rounds.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** Rounds whose looks end when the row says so. */
function looking(firstMs?: number) {
  const looks: PromiseWithResolvers<number>[] = []
  const rounds = new Rounds(async () => {
    const look = Promise.withResolvers<number>()
    looks.push(look)
    return await look.promise
  }, firstMs)
  return { looks, rounds }
}

test('the first look is taken at once, or after as long as is said', async () => {
  const { looks } = looking()
  expect(looks).toHaveLength(1)
  const later = looking(250)
  await vi.advanceTimersByTimeAsync(249)
  expect(later.looks).toHaveLength(0)
  await vi.advanceTimersByTimeAsync(1)
  expect(later.looks).toHaveLength(1)
})

test('two looks side by side, because the first takes long', async () => {
  const { looks } = looking()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(looks).toHaveLength(1)
  looks[0]?.resolve(1_000)
  await vi.advanceTimersByTimeAsync(999)
  expect(looks).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(looks).toHaveLength(2)
})

test('left between two looks: no other begins', async () => {
  const { looks, rounds } = looking()
  looks[0]?.resolve(1_000)
  await vi.advanceTimersByTimeAsync(500)
  await rounds[Symbol.asyncDispose]()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(looks).toHaveLength(1)
})

test('left while one looks: it is waited for, knows that it is the last, and is', async () => {
  const { looks, rounds } = looking()
  expect(rounds.over).toBe(false)
  const left = vi.fn<() => void>()
  const leaving = rounds[Symbol.asyncDispose]().then(left)
  expect(rounds.over).toBe(true)
  await vi.advanceTimersByTimeAsync(60_000)
  expect(left).not.toHaveBeenCalled()
  looks[0]?.resolve(1_000)
  await leaving
  await vi.advanceTimersByTimeAsync(60_000)
  expect(looks).toHaveLength(1)
})
