/** One look for many questions, and no answer older than its question. */
import { expect, test } from 'vitest'
import { Shared } from '../../../agent-tunnel/agent/scope/shared.ts'

function looks() {
  const begun: { readonly asked: readonly string[]; readonly end: (error?: Error) => void }[] = []
  const shared = new Shared<string, number>((questions) => {
    const { promise, resolve, reject } = Promise.withResolvers<number>()
    const nth = begun.push({
      asked: questions,
      end: (error) => (error === undefined ? resolve(nth) : reject(error)),
    })
    return promise
  })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  return { begun, shared, turn }
}

test('who asks in one breath shares one look', async () => {
  const { begun, shared, turn } = looks()
  const answers = Promise.all([shared.ask('a'), shared.ask('b'), shared.ask('c')])
  await turn()
  expect(begun.map(({ asked }) => asked)).toEqual([['a', 'b', 'c']])
  begun[0]!.end()
  expect(await answers).toEqual([1, 1, 1])
})

test('who asks while a look runs gets the next one, and not what was seen before they asked', async () => {
  const { begun, shared, turn } = looks()
  const first = shared.ask('a')
  await turn()
  const late = Promise.all([shared.ask('b'), shared.ask('c')])
  await turn()
  expect(begun).toHaveLength(1)
  begun[0]!.end()
  expect(await first).toBe(1)
  await turn()
  expect(begun[1]!.asked).toEqual(['b', 'c'])
  begun[1]!.end()
  expect(await late).toEqual([2, 2])
})

test('a look that fails fails for its own askers only', async () => {
  const { begun, shared, turn } = looks()
  const first = shared.ask('a')
  await turn()
  const next = shared.ask('b')
  begun[0]!.end(new Error('no /proc'))
  await expect(first).rejects.toThrow('no /proc')
  await turn()
  begun[1]!.end()
  expect(await next).toBe(2)
})
