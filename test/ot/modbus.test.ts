/** The Modbus gate: every verdict as data, any splitting of the bytes, and nothing that was refused ever passes. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ModbusGate, type GateOutcome, type Window } from '#ot'

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
