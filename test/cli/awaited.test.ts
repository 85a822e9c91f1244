/** The people at a device are asked first: who wants in comes back to the question, and is told so once. */
import { expect, test } from 'vitest'
import { onceAnswered, type Awaiting } from '../../cli/awaited.ts'

const asked = Object.assign(new Error('asked'), { code: 'owner.asked' })

/** By a clock that a pause moves. */
function waiting(attempts: readonly (Error | string)[], each = 0) {
  let at = 0
  let times = 0
  let told = 0
  const pauses: number[] = []
  const options: Awaiting = {
    codeOf: (error) => (error as { code?: string }).code,
    told: () => void told++,
    pause: async (ms) => {
      pauses.push(ms)
      at += ms
    },
    now: () => at,
  }
  const attempt = async () => {
    at += each
    const outcome = attempts[Math.min(times++, attempts.length - 1)]
    if (outcome instanceof Error) throw outcome
    return outcome
  }
  const given = onceAnswered(attempt, options)
  return { given, options, pauses, told: () => told, times: () => times }
}

test('who is let in at once hears of no question', async () => {
  const { given, told, pauses } = waiting(['in'])
  expect([await given, told(), pauses]).toEqual(['in', 0, []])
})

test('who has to wait is told once, and is in with the yes', async () => {
  const { given, told, pauses } = waiting([asked, asked, asked, 'in'])
  expect([await given, told(), pauses]).toEqual(['in', 1, [2000, 2000, 2000]])
})

test.for(['owner.denied', 'owner.silent', 'grant.expired'])('%s ends the waiting', async (code) => {
  const { given, times } = waiting([asked, Object.assign(new Error(code), { code })])
  await expect(given).rejects.toThrow(code)
  expect(times()).toBe(2)
})

test('a device that never ends its question is not waited for without end', async () => {
  const { given, times } = waiting([asked], 6000)
  await expect(given).rejects.toBe(asked)
  // An hour and a minute, six seconds for each attempt and two between.
  expect(times()).toBe(Math.ceil(3_660_000 / 8000) + 1)
})

test('who gives up while waiting has given up', async () => {
  const { options } = waiting([])
  const left = new Error('left')
  const given = onceAnswered(() => Promise.reject(asked), {
    ...options,
    pause: () => Promise.reject(left),
  })
  await expect(given).rejects.toBe(left)
})
