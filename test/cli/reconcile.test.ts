import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { beforeAll, expect, test } from 'vitest'
import { readLog } from '#audit'
import { Cursor } from '../../audit/ship/cursor.ts'
import { beginning, ending, first, second, writeEpoch } from '../audit/epoch-fixture.ts'
import { shared } from '../audit/fixture.ts'
import { at } from '../audit/node-of-epochs.ts'
import { run } from './run.ts'

const home = shared()
const node = join(home, 'log')
const keys = join(home, 'keys')
let one: string[]
let two: string[]
beforeAll(() => {
  writeEpoch(at(node, 1), first, { closing: ending(second) })
  writeEpoch(at(node, 2), second, { opening: beginning(first, at(node, 1)) })
  writeFileSync(keys, `${second.vkeys.join('\n')}\n`)
  const bodies = [first, second].map(({ origin }, i) =>
    [...readLog(at(node, i + 1), origin)].map(({ body }) => Buffer.from(body).toString()),
  )
  ;[one = [], two = []] = bodies
})

const ask = (rows: readonly string[], ...more: string[]) => {
  const file = join(home, 'export')
  writeFileSync(file, `${rows.join('\n')}\n`)
  return run(home, 'audit', 'reconcile', '--log', node, '--key', keys, '--file', file, ...more)
}

test('a folder of epochs is compared whole, and what is missing is named with its epoch', async () => {
  const all = await ask([...one, ...two])
  expect(all).toMatchObject({ code: 0 })
  expect(all.out).toContain('complete: the export holds every event')
  expect(all.out).toContain(`epoch 1: ${first.origin}`)
  expect(all.out).toContain(`epoch 2: ${second.origin}`)
  const other = two[0]?.replaceAll(second.origin, 'other.test/audit/n7/1') ?? ''
  const less = await ask([...one, other, ...two.toSpliced(2, 1), two[1] ?? ''])
  expect(less.code).toBe(1)
  expect(less.out).toContain('missing: event 2 of epoch 2')
  expect(less.out).toContain('more than once: event 1 of epoch 2')
  expect(less.out).toContain(
    'of another log: 1 event of other.test/audit/n7/1, first in line 5 of the export',
  )
})

test('an export that is cut at a joint is told which side of it is missing', async () => {
  expect((await ask(one)).out).toContain('nothing of epoch 2 is in the export')
  const unended = await ask([...one.slice(0, -1), ...two])
  expect(unended.code).toBe(1)
  expect(unended.out).toContain('the event that ends epoch 1 is among those missing')
})

test('a range names its epochs, and an index alone is refused', async () => {
  const some = [...one.slice(2), ...two.slice(0, 2)]
  expect(await ask(some, '--from', '1/2', '--to', '2/1')).toMatchObject({ code: 0 })
  const alone = await ask(some, '--from', '2')
  expect(alone.code).toBe(2)
  expect(alone.err).toContain('give 2/17, event 17 of epoch 2')
  expect(await ask(some, '--from', '1/2/3')).toMatchObject({ code: 2 })
  expect((await ask(some, '--to', '7/0')).err).toContain('epoch 7 is not here')
})

test('where a sink stands is shown of each epoch', async () => {
  const all = [...one, ...two]
  expect((await ask(all, '--sink', 'siem')).err).toContain('no sink siem')
  const cursor = new Cursor(join(at(node, 1), 'ship', 'siem.cur'), one.length)
  await cursor.advance(one.length)
  cursor.close()
  const { out } = await ask(all, '--sink', 'siem')
  expect(out).toMatch(/epoch 1:[^]+cursor at 4[^]+epoch 2:[^]+cursor at 0/)
})

test.each([
  ['compressed', gzipSync('{}')],
  ['UTF-16', Buffer.from('\ufeff{}', 'utf16le')],
])('an export that is %s is refused, and no event is called missing', async (what, bytes) => {
  const file = join(home, 'other')
  writeFileSync(file, bytes)
  const flags = ['--log', node, '--key', keys, '--file', file]
  const { code, err, out } = await run(home, 'audit', 'reconcile', ...flags)
  expect(code).toBe(2)
  expect(err).toContain(`is ${what}`)
  expect(out).not.toContain('missing')
})

test('events of which the sink was sent fields only are not said to be there as signed', async () => {
  const stub = (idx: number): string =>
    `CEF:0|Sallyport|Sallyport|1|x|x|1|cs6=${first.origin} cn1=${idx}`
  const found = await ask([stub(0), ...one.slice(1), ...two])
  expect(found.code).toBe(0)
  expect(found.out).toContain('complete by index')
  expect(found.out).not.toContain('as it was signed')
})
