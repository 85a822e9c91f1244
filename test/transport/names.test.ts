/** Names that are looked up: how many lookups a name has at once, and who waits for whose. */
import { expect, test } from 'vitest'
import { Names } from '../../agent-tunnel/transport/names.ts'

const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

function scene() {
  const asked: string[] = []
  const answers = new Map<string, PromiseWithResolvers<readonly string[]>>()
  const names = new Names(async (host, family) => {
    asked.push(`${host} ${family}`)
    const answer = Promise.withResolvers<readonly string[]>()
    answers.set(`${host} ${family}`, answer)
    return await answer.promise
  })
  const both = (host: string) =>
    [6, 4].map((family) => names.addressesOf(host, family as 4 | 6).catch(() => 'none'))
  return { asked, answers, both }
}

test('a name that hangs has one lookup, however often it is dialled; the next name is looked up', async () => {
  const { asked, answers, both } = scene()
  for (let dial = 0; dial < 5; dial++) void both('hangs.example')
  void both('HANGS.example')
  const next = both('next.example')
  await settle()
  expect(asked).toEqual(['hangs.example 4', 'next.example 4'])
  answers.get('next.example 4')?.resolve(['192.0.2.1'])
  await settle()
  answers.get('next.example 6')?.reject(new Error('ENOTFOUND'))
  expect(await Promise.all(next)).toEqual(['none', ['192.0.2.1']])
})

test('IPv4 is told when it is known, whatever becomes of IPv6', async () => {
  const { answers, both } = scene()
  const [, four] = both('half.example')
  answers.get('half.example 4')?.resolve(['192.0.2.1'])
  expect(await four).toEqual(['192.0.2.1'])
})

test('no IPv4 is no reason not to look for IPv6, and an answer is not kept: the next dial asks anew', async () => {
  const { asked, answers, both } = scene()
  const first = both('six.example')
  answers.get('six.example 4')?.reject(new Error('ENOTFOUND'))
  await settle()
  answers.get('six.example 6')?.resolve(['2001:db8::1'])
  expect(await Promise.all(first)).toEqual([['2001:db8::1'], 'none'])
  void both('six.example')
  expect(asked).toEqual(['six.example 4', 'six.example 6', 'six.example 4'])
})
