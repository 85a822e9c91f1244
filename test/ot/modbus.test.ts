/** The Modbus gate: every verdict as data, any splitting of the bytes, and nothing that was refused ever passes. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  isWithin,
  ModbusGate,
  type GateOutcome,
  type ModbusRequest,
  type Ruling,
  type Window,
} from '#ot'

interface Vector {
  readonly name: string
  readonly pdu: string
  readonly level: number
  readonly windows?: Window[][]
  readonly exception: number | null
}
const vectors = JSON.parse(
  readFileSync(new URL('../vectors/modbus/requests.json', import.meta.url), 'utf8'),
) as Vector[]

function frame(tid: number, unit: number, pdu: Uint8Array): Uint8Array {
  const length = pdu.length + 1
  return Uint8Array.of(tid >> 8, tid & 255, 0, 0, length >> 8, length & 255, unit, ...pdu)
}
const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))
const join = (parts: readonly Uint8Array[]) => Buffer.concat(parts).toString('hex')

const cuts: Record<string, (bytes: Uint8Array) => Uint8Array[]> = {
  whole: (bytes) => [bytes],
  halves: (bytes) => [bytes.subarray(0, bytes.length >> 1), bytes.subarray(bytes.length >> 1)],
  'byte by byte': (bytes) => [...bytes].map((byte) => Uint8Array.of(byte)),
}

function feed(gate: ModbusGate, chunks: readonly Uint8Array[]): GateOutcome {
  const all = chunks.map((chunk) => gate.fromClient(chunk, 0))
  const violation = all.find((one) => one.violation !== undefined)?.violation
  return {
    toTarget: all.flatMap((one) => one.toTarget),
    toClient: all.flatMap((one) => one.toClient),
    verdicts: all.flatMap((one) => one.verdicts),
    ...(violation === undefined ? {} : { violation }),
  }
}

describe.for(Object.entries(cuts))('requests, %s', ([, cut]) => {
  test.for(vectors)('$name', ({ pdu, level, windows = [], exception }) => {
    const gate = new ModbusGate({ level, windows })
    const sent = frame(7, 1, hex(pdu))
    const out = feed(gate, cut(sent))
    expect(out.verdicts).toHaveLength(1)
    expect(out.verdicts[0]?.exception).toBe(exception)
    if (exception === null) {
      expect(join(out.toTarget)).toBe(Buffer.from(sent).toString('hex'))
      expect(out.toClient).toEqual([])
    } else {
      expect(out.toTarget).toEqual([])
      expect(join(out.toClient)).toBe(
        join([frame(7, 1, Uint8Array.of(Number.parseInt(pdu.slice(0, 2), 16) | 0x80, exception))]),
      )
    }
  })
})

test('a write to unit 0, which every unit behind a serial line would hear, is refused', () => {
  const gate = new ModbusGate({ level: 2, windows: [[{ unit: 0, from: 0, to: 65_535 }]] })
  const out = gate.fromClient(frame(7, 0, hex('0600010003')), 0)
  expect(out.toTarget).toEqual([])
  expect(join(out.toClient)).toBe(join([frame(7, 0, hex('860b'))]))
  expect(gate.fromClient(frame(8, 0, hex('0300010003')), 0).toTarget).toHaveLength(1)
})

test('a reply that never ends is waited for as long as a request', () => {
  const gate = new ModbusGate({ level: 1, windows: [] })
  gate.fromClient(frame(7, 1, hex('0300000001')), 0)
  gate.fromTarget(hex('0007000000050103'), 10)
  expect(gate.wakeAt()).toBe(5000)
  expect(join(gate.tick(5000).toClient)).toBe(join([frame(7, 1, hex('830b'))]))
  expect(gate.wakeAt()).toBe(5010)
  expect(gate.tick(5010).violation?.code).toBe('modbus.violation')
  // What is over waits for nothing: whoever asks would be told the same for ever.
  expect(gate.wakeAt()).toBeUndefined()
})

describe('what is not Modbus ends the connection', () => {
  test.for([
    { name: 'protocol id is not 0', bytes: '00010001000601030000000a' },
    { name: 'length 1', bytes: '000100000001' },
    { name: 'length 255', bytes: '0001000000ff' },
    { name: 'function code 0', bytes: '0001000000020100' },
    { name: 'function code 80h', bytes: '0001000000020180' },
  ])('$name', ({ bytes }) => {
    const gate = new ModbusGate({ level: 2, windows: [] })
    const out = feed(gate, [hex(bytes)])
    expect(out.violation?.code).toBe('modbus.violation')
    expect(out.toTarget).toEqual([])
    expect(feed(gate, [frame(1, 1, hex('030000000a'))]).toTarget).toEqual([])
  })

  test('a bad protocol id is seen at octet 4, before the frame is whole', () => {
    const gate = new ModbusGate({ level: 1, windows: [] })
    expect(feed(gate, [hex('00010001')]).violation).toBeDefined()
  })

  test('a frame that never ends', () => {
    const gate = new ModbusGate({ level: 1, windows: [] })
    gate.fromClient(hex('0001'), 1000)
    expect(gate.wakeAt()).toBe(6000)
    expect(gate.tick(5999).violation).toBeUndefined()
    expect(gate.tick(6000).violation).toBeDefined()
  })

  test('requests piled up behind a silent target', () => {
    const gate = new ModbusGate({ level: 1, windows: [] })
    const read = frame(1, 1, hex('0300000001'))
    const out = feed(
      gate,
      Array.from({ length: 65 }, () => read),
    )
    expect(out.verdicts.filter(({ allowed }) => allowed)).toHaveLength(16)
    expect(out.verdicts[16]?.exception).toBe(6)
    expect(out.violation).toBeDefined()
  })
})

describe('replies', () => {
  const gateWith = (...tids: number[]) => {
    const gate = new ModbusGate({ level: 1, windows: [] })
    for (const tid of tids) gate.fromClient(frame(tid, 1, hex('0300000001')), 0)
    return gate
  }
  const reply = (tid: number, unit = 1, pdu = '03020007') => frame(tid, unit, hex(pdu))

  test('a local exception waits for the replies before it', () => {
    const gate = gateWith(1)
    expect(gate.fromClient(frame(2, 1, hex('0600010003')), 0).toClient).toEqual([])
    expect(join(gate.fromTarget(reply(1), 0).toClient)).toBe(
      join([reply(1), frame(2, 1, hex('8601'))]),
    )
  })

  test('replies out of order reach the client in order', () => {
    const gate = gateWith(1, 2)
    expect(gate.fromTarget(reply(2), 0).toClient).toEqual([])
    expect(join(gate.fromTarget(reply(1), 0).toClient)).toBe(join([reply(1), reply(2)]))
  })

  test.for([
    { name: 'to another transaction', bytes: reply(9) },
    { name: 'of another unit', bytes: reply(1, 2) },
    { name: 'to another function', bytes: reply(1, 1, '04020007') },
  ])('a reply $name is dropped', ({ bytes }) => {
    expect(gateWith(1).fromTarget(bytes, 0).toClient).toEqual([])
  })

  test('an exception of the target passes', () => {
    expect(join(gateWith(1).fromTarget(reply(1, 1, '8302'), 0).toClient)).toBe(
      join([reply(1, 1, '8302')]),
    )
  })

  test('a silent target is answered for after 5 s, and its late reply dropped', () => {
    const gate = gateWith(1)
    expect(gate.wakeAt()).toBe(5000)
    expect(join(gate.tick(5000).toClient)).toBe(join([frame(1, 1, hex('830b'))]))
    expect(gate.fromTarget(reply(1), 5001).toClient).toEqual([])
    expect(gate.wakeAt()).toBeUndefined()
  })
})

test('whatever comes in whatever pieces: at level 1 nothing but reads leaves, well-formed and whole', () => {
  const reads = new Set([1, 2, 3, 4, 0x11, 0x18, 0x2b])
  const anyFrame = fc
    .record({
      tid: fc.nat(65_535),
      pid: fc.oneof({ weight: 30, arbitrary: fc.constant(0) }, fc.nat(65_535)),
      unit: fc.nat(255),
      pdu: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 20 }),
        fc.constantFrom(...vectors.map(({ pdu }) => hex(pdu))),
      ),
    })
    .map(({ tid, pid, unit, pdu }) => {
      const bytes = frame(tid, unit, pdu)
      bytes[2] = pid >> 8
      bytes[3] = pid & 255
      return bytes
    })
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
      (frames, sizes) => {
        const gate = new ModbusGate({ level: 1, windows: [] })
        const bytes = Buffer.concat(frames)
        const chunks: Uint8Array[] = []
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1
          chunks.push(bytes.subarray(at, at + size))
          at += size
        }
        for (const passed of feed(gate, chunks).toTarget) {
          expect(reads.has(passed[7] ?? 0)).toBe(true)
          expect(passed.length).toBe(6 + ((passed[4] ?? 0) << 8) + (passed[5] ?? 0))
          expect(
            new ModbusGate({ level: 1, windows: [] }).fromClient(passed, 0).verdicts[0]?.allowed,
          ).toBe(true)
        }
      },
    ),
    { numRuns: 6000 },
  )
})

describe('whoever rules on requests', () => {
  const windows = [[{ unit: 1, from: 0, to: 9 }]]
  const READ = hex('0300010001')
  const WRITE = hex('0600050007')
  /** A gate whose rulings come from `answer`; what it asked about is kept. */
  function ruled(answer: (request: ModbusRequest) => Ruling) {
    const asked: ModbusRequest[] = []
    const rule = (request: ModbusRequest) => {
      asked.push(request)
      return answer(request)
    }
    return { asked, gate: new ModbusGate({ level: 2, windows, rule }) }
  }
  const holdWrites = ({ operation }: ModbusRequest): Ruling =>
    operation === 'write' ? 'hold' : 'pass'
  const tids = (frames: readonly Uint8Array[]) =>
    frames.map((one) => ((one[0] ?? 0) << 8) | (one[1] ?? 0))

  test('a write that is held keeps what comes behind it, and all goes in order', () => {
    const { gate, asked } = ruled(holdWrites)
    expect(tids(gate.fromClient(frame(1, 1, READ), 0).toTarget)).toEqual([1])
    const held = gate.fromClient(Buffer.concat([frame(2, 1, WRITE), frame(3, 1, READ)]), 0)
    expect([held.toTarget, held.verdicts]).toEqual([[], []])
    gate.fromClient(frame(4, 1, WRITE), 0)
    expect(gate.holding).toBe(2)
    const numbers = asked
      .filter(({ operation }) => operation === 'write')
      .map(({ number }) => number)
    // The later one first: it waits for the one before.
    expect(gate.settle(numbers[1] ?? 0, true, 1).toTarget).toEqual([])
    const out = gate.settle(numbers[0] ?? 0, true, 2)
    expect(tids(out.toTarget)).toEqual([2, 3, 4])
    expect(out.verdicts.map(({ allowed, functionCode }) => [allowed, functionCode])).toEqual([
      [true, 6],
      [true, 3],
      [true, 6],
    ])
    expect(gate.holding).toBe(0)
  })

  test('one that cannot be recorded is answered 0Ah, and what is behind it goes on', () => {
    const { gate } = ruled(holdWrites)
    gate.fromClient(Buffer.concat([frame(1, 1, WRITE), frame(2, 1, READ)]), 0)
    const out = gate.settle(1, false, 1)
    expect(tids(out.toTarget)).toEqual([2])
    expect(join(out.toClient)).toBe(join([frame(1, 1, hex('860a'))]))
    expect(out.verdicts.map(({ exception }) => exception)).toEqual([0x0a, null])
  })

  test('one that is refused is answered 01, whatever it was', () => {
    const { gate } = ruled(() => 'refuse')
    const out = gate.fromClient(Buffer.concat([frame(1, 1, WRITE), frame(2, 1, READ)]), 0)
    expect(out.toTarget).toEqual([])
    expect(join(out.toClient)).toBe(join([frame(1, 1, hex('8601')), frame(2, 1, hex('8301'))]))
  })

  test('one that is held for 5 s is answered 0Ah with those behind it, and never goes', () => {
    const { gate } = ruled(holdWrites)
    gate.fromClient(Buffer.concat([frame(1, 1, WRITE), frame(2, 1, READ)]), 100)
    expect(gate.wakeAt()).toBe(5100)
    const late = gate.tick(5100)
    expect(late.toTarget).toEqual([])
    expect(join(late.toClient)).toBe(join([frame(1, 1, hex('860a')), frame(2, 1, hex('830a'))]))
    expect(late.verdicts.map(({ allowed }) => allowed)).toEqual([false, false])
    expect(gate.settle(1, true, 5200)).toMatchObject({ toTarget: [], toClient: [], verdicts: [] })
  })

  test('the target has its 5 s from when it got the request', () => {
    const { gate } = ruled(holdWrites)
    gate.fromClient(frame(1, 1, WRITE), 0)
    gate.settle(1, true, 4000)
    expect(gate.wakeAt()).toBe(9000)
    expect(join(gate.tick(9000).toClient)).toBe(join([frame(1, 1, hex('860b'))]))
  })

  test('a reply to what is still held is nobody’s', () => {
    const { gate } = ruled(holdWrites)
    gate.fromClient(frame(1, 1, WRITE), 0)
    expect(gate.fromTarget(frame(1, 1, WRITE), 0).toClient).toEqual([])
    expect(tids(gate.settle(1, true, 1).toTarget)).toEqual([1])
  })

  test('a violation: what was held is told as refused, and never goes', () => {
    const { gate } = ruled(holdWrites)
    gate.fromClient(frame(1, 1, WRITE), 0)
    const out = gate.fromClient(hex('00020001'), 1)
    expect(out.violation?.code).toBe('modbus.violation')
    expect(out.verdicts.map(({ allowed, exception }) => [allowed, exception])).toEqual([
      [false, 0x0a],
    ])
    expect(gate.settle(1, true, 2).toTarget).toEqual([])
    expect(gate.holding).toBe(0)
  })

  test('sixteen are held at once; the next is answered that we are busy, and nobody is asked', () => {
    const { gate, asked } = ruled(holdWrites)
    for (let tid = 1; tid <= 17; tid++) gate.fromClient(frame(tid, 1, WRITE), 0)
    expect([gate.holding, asked.length]).toEqual([16, 16])
    const verdicts = asked.flatMap(({ number }) => gate.settle(number, true, 1).verdicts)
    expect(verdicts.map(({ exception }) => exception)).toEqual([...Array(16).fill(null), 6])
  })

  test.for([
    { name: 'outside the addresses', unit: 1, pdu: '06000a0007', exception: 2 },
    { name: 'across their end', unit: 1, pdu: '1000090002040001000200', exception: 3 },
    { name: 'across their end, well-formed', unit: 1, pdu: '10000900020400010002', exception: 2 },
    { name: 'to every unit at once', unit: 0, pdu: '0600050007', exception: 0x0b },
    { name: 'to another unit', unit: 2, pdu: '0600050007', exception: 0x0b },
    { name: 'with a function of its own', unit: 1, pdu: '5a00', exception: 1 },
  ])('nobody is asked about a write $name', ({ unit, pdu, exception }) => {
    const { gate, asked } = ruled(holdWrites)
    const [verdict] = gate.fromClient(frame(1, unit, hex(pdu)), 0).verdicts
    expect([asked, verdict?.exception]).toEqual([[], exception])
  })

  test('one that reads and writes is asked about with both ranges', () => {
    const { gate, asked } = ruled(holdWrites)
    gate.fromClient(frame(1, 1, hex('17000000020004000102abcd')), 0)
    expect(asked[0]).toMatchObject({
      operation: 'write',
      spans: [
        { address: 0, quantity: 2 },
        { address: 4, quantity: 1 },
      ],
    })
  })

  test('whatever is settled when: what passes is what was asked, in its order, and each once', () => {
    const turn = fc.record({
      write: fc.boolean(),
      settle: fc.option(fc.record({ which: fc.nat(15), passes: fc.boolean() }), { nil: undefined }),
    })
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 40 }), (turns) => {
        const { gate, asked } = ruled(holdWrites)
        const sent: number[] = []
        const told: number[] = []
        const failed = new Set<number>()
        const note = (out: GateOutcome) => {
          sent.push(...tids(out.toTarget))
          told.push(...out.verdicts.map(({ number }) => number))
        }
        const settle = (number: number, passes: boolean) => {
          if (!passes) failed.add(number)
          note(gate.settle(number, passes, 0))
        }
        const open = new Set<number>()
        for (const [at, { write, settle: one }] of turns.entries()) {
          note(gate.fromClient(frame(at + 1, 1, write ? WRITE : READ), 0))
          if (asked.at(-1)?.number === at + 1 && write) open.add(at + 1)
          const number = one === undefined ? undefined : [...open][one.which % (open.size || 1)]
          if (one === undefined || number === undefined) continue
          open.delete(number)
          settle(number, one.passes)
        }
        for (const number of open) settle(number, true)
        const expected = asked.map(({ number }) => number).filter((number) => !failed.has(number))
        expect(sent).toEqual(expected)
        expect(told).toEqual(turns.map((_, at) => at + 1))
      }),
      { numRuns: 500 },
    )
  })
})

describe('a gate within bounds', () => {
  const rules = (level: number, ...lists: (readonly [number, number, number])[][]) => ({
    level,
    windows: lists.map((list) => list.map(([unit, from, to]) => ({ unit, from, to }))),
  })
  test.for([
    { name: 'the same', inner: rules(2, [[1, 0, 9]]), outer: rules(2, [[1, 0, 9]]), within: true },
    { name: 'a lower level', inner: rules(1), outer: rules(2), within: true },
    { name: 'a higher level', inner: rules(2, [[1, 0, 9]]), outer: rules(1), within: false },
    { name: 'every address', inner: rules(1), outer: rules(1, [[1, 0, 9]]), within: false },
    {
      name: 'one list more',
      inner: rules(1, [[1, 0, 9]], [[1, 2, 3]]),
      outer: rules(1, [[1, 2, 3]]),
      within: true,
    },
    {
      name: 'one address more',
      inner: rules(1, [[1, 0, 10]]),
      outer: rules(1, [[1, 0, 9]]),
      within: false,
    },
    {
      name: 'another unit',
      inner: rules(1, [[2, 0, 9]]),
      outer: rules(1, [[1, 0, 9]]),
      within: false,
    },
    {
      name: 'two that only together hold it',
      inner: rules(1, [[1, 0, 9]]),
      outer: rules(1, [
        [1, 0, 4],
        [1, 5, 9],
      ]),
      within: false,
    },
    { name: 'nothing at all', inner: rules(0), outer: rules(0, [[1, 0, 9]]), within: true },
  ])('$name', ({ inner, outer, within }) => {
    expect(isWithin(inner, outer)).toBe(within)
  })

  test('what is within lets nothing pass that the bound refuses', () => {
    const window = fc
      .tuple(fc.integer({ min: 1, max: 2 }), fc.nat(12), fc.nat(6))
      .map(([unit, from, more]) => ({ unit, from, to: from + more }))
    const any = fc.record({
      level: fc.nat(2),
      windows: fc.array(fc.array(window, { maxLength: 3 }), { maxLength: 2 }),
    })
    const pdu = fc
      .tuple(fc.constantFrom('03', '06'), fc.nat(18), fc.integer({ min: 1, max: 6 }))
      .map(([code, address, count]) =>
        hex(code + address.toString(16).padStart(4, '0') + count.toString(16).padStart(4, '0')),
      )
    fc.assert(
      fc.property(any, any, fc.integer({ min: 1, max: 2 }), pdu, (inner, outer, unit, asked) => {
        fc.pre(isWithin(inner, outer))
        const passes = (of: typeof inner) =>
          new ModbusGate(of).fromClient(frame(1, unit, asked), 0).toTarget.length > 0
        expect(!passes(inner) || passes(outer)).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })
})
