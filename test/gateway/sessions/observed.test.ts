/** What a device answers to OPEN, read again and again: the same octets give the same facts, others are read anew. */
import { expect, test } from 'vitest'
import { readAnswer } from '../../../gateway/sessions/observed.ts'
import { PLC, seen } from '../../support/tunnels.ts'

const octets = (value: unknown) => Buffer.from(JSON.stringify(value))

test('one octet differs: it is another answer', () => {
  const one = octets({ v: 1, observed: seen(PLC) })
  const other = octets({ v: 1, observed: { ...seen(PLC), pid: 78 } })
  const facts = readAnswer(one)
  expect(readAnswer(Buffer.from(one))).toEqual(facts)
  expect(readAnswer(other).observed?.pid).toBe(78)
  expect(readAnswer(one)).toEqual(facts)
})

test('what was read is kept although its octets are written over', () => {
  const once = octets({ v: 1, observed: null })
  expect(readAnswer(once).observed).toBeNull()
  once.write('{"v":2', 0)
  expect(() => readAnswer(once)).toThrow('facts of another form')
  expect(readAnswer(octets({ v: 1, observed: null })).observed).toBeNull()
})

test('an answer that cannot be read does not stand for the next', () => {
  expect(() => readAnswer(octets({ v: 2 }))).toThrow('facts of another form')
  expect(() => readAnswer(octets({ v: 2 }))).toThrow('facts of another form')
})
