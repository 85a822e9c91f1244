import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { answer } from './targets/modbus.ts'

const registers = new Uint16Array([7, 0xff_ff, 1800])

function request(pdu: readonly number[], transaction = 1): Buffer {
  return Buffer.from([transaction >> 8, transaction & 255, 0, 0, 0, pdu.length + 1, 9, ...pdu])
}

function only(bytes: Buffer): string | undefined {
  return answer(bytes, registers)
    ?.answers.map((one) => one.toString('hex'))
    .join(' ')
}

describe('a whole request gets its answer', () => {
  test.for([
    ['two holding registers', [3, 0, 0, 0, 2], '00010000000709030400 07ffff'.replace(' ', '')],
    ['an input register', [4, 0, 2, 0, 1], '0001000000050904020708'],
    ['a write: illegal function', [6, 0, 0, 0, 1], '000100000003098601'],
    ['no registers: illegal value', [3, 0, 0, 0, 0], '000100000003098303'],
    ['126 registers: illegal value', [3, 0, 0, 0, 126], '000100000003098303'],
    ['past the end: illegal address', [3, 0, 2, 0, 2], '000100000003098302'],
    ['a request too short: illegal value', [3, 0, 0], '000100000003098303'],
  ] as const)('%s', ([, pdu, reply]) => expect(only(request(pdu))).toBe(reply))
})

test('what is not Modbus/TCP ends the connection', () => {
  expect(answer(Buffer.from('GET / HTTP/1.1\r\n'), registers)).toBeUndefined()
  expect(answer(Buffer.from([0, 1, 0, 0, 0, 1, 9]), registers)).toBeUndefined()
  expect(answer(Buffer.from([0, 1, 0, 0, 0, 255, 9]), registers)).toBeUndefined()
})

test('however the bytes are cut, the answers are the same', () => {
  const all = Buffer.concat([1, 2, 3].map((n) => request([3, 0, 0, 0, 3], n)))
  const whole = only(all)
  fc.assert(
    fc.property(fc.array(fc.nat(all.length), { maxLength: 6 }), (cuts) => {
      const answers: Buffer[] = []
      let held: Buffer = Buffer.alloc(0)
      let from = 0
      for (const to of [...cuts.toSorted((a, b) => a - b), all.length]) {
        const exchange = answer(Buffer.concat([held, all.subarray(from, to)]), registers)
        answers.push(...(exchange?.answers ?? []))
        held = exchange?.rest ?? held
        from = to
      }
      expect(answers.map((one) => one.toString('hex')).join(' ')).toBe(whole)
      expect(held).toHaveLength(0)
    }),
  )
})
