/** Questions to a device to look again: one at a time, one behind it, and none that keeps anybody waiting for good. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Looks } from '../../../gateway/devices/looks.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** Looks of a device that hears, what it heard, and whether each question has come to its end. */
function heard() {
  const said: number[] = []
  const looks = new Looks()
  looks.reaches((id) => void said.push(id))
  const ask = () => {
    const question = { over: false }
    void looks.ask().then(() => (question.over = true))
    return question
  }
  return { looks, said, ask }
}
const settle = () => vi.advanceTimersByTimeAsync(0)

test('a device that does not know how is not asked, and nobody waits', async () => {
  const looks = new Looks()
  await looks.ask()
  expect(vi.getTimerCount()).toBe(0)
})

test('who asks during a look does not take its answer: it may have begun before they asked', async () => {
  const { looks, said, ask } = heard()
  const first = ask()
  const second = ask()
  const third = ask()
  await settle()
  expect(said).toEqual([1])
  looks.answered(1)
  await settle()
  expect([first.over, second.over, third.over, said]).toEqual([true, false, false, [1, 2]])
  looks.answered(2)
  await settle()
  expect([second.over, third.over, said]).toEqual([true, true, [1, 2]])
  expect(vi.getTimerCount()).toBe(0)
})

test('an answer to another question ends nothing', async () => {
  const { looks, ask } = heard()
  const question = ask()
  looks.answered(0)
  looks.answered(2)
  await settle()
  expect(question.over).toBe(false)
})

test('a device that is silent keeps nobody longer than two seconds, and its late answer is nobody’s', async () => {
  const { looks, said, ask } = heard()
  const first = ask()
  await vi.advanceTimersByTimeAsync(1999)
  expect(first.over).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  // What has come by then is read first.
  expect(first.over).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  expect(first.over).toBe(true)
  const second = ask()
  looks.answered(1)
  await settle()
  expect([second.over, said]).toEqual([false, [1, 2]])
})

test('the end of the tunnel ends the look and what waits behind it', async () => {
  const { looks, said, ask } = heard()
  const first = ask()
  const second = ask()
  looks.end()
  await settle()
  expect([first.over, second.over, said]).toEqual([true, true, [1]])
  expect(vi.getTimerCount()).toBe(0)
})
