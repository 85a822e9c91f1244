/** One Modbus PDU: is it well-formed, what would it do, may it. audit brief, section 6; Modbus Application Protocol V1.1b3. */

/** Addresses `from`..`to` of one unit, both inclusive. */
export interface Window {
  readonly unit: number
  readonly from: number
  readonly to: number
}

export interface Rules {
  /** 0 nothing, 1 read, 2 write. */
  readonly level: number
  /** Every inner list must hold for an address; within one, any window may. Empty restricts nothing. */
  readonly windows: ReadonlyArray<readonly Window[]>
}

export type Operation = 'read' | 'write' | 'identify' | 'unknown'
/** Modbus exception codes that a refusal is answered with. */
export const ILLEGAL_FUNCTION = 1
const ILLEGAL_ADDRESS = 2
const ILLEGAL_VALUE = 3
const NO_SUCH_UNIT = 0x0b

export interface Span {
  readonly address: number
  readonly quantity: number
}

export interface Reading {
  readonly operation: Operation
  /** What it touches; several where one request reads and writes. */
  readonly spans: readonly Span[]
  /** Undefined where the PDU is well-formed. */
  readonly exception?: number
}

const word = (pdu: Uint8Array, at: number): number => ((pdu[at] ?? 0) << 8) | (pdu[at + 1] ?? 0)

const malformed = (operation: Operation): Reading => ({
  operation,
  spans: [],
  exception: ILLEGAL_VALUE,
})

function span(pdu: Uint8Array, operation: Operation, most: number): Reading {
  const address = word(pdu, 1)
  const quantity = word(pdu, 3)
  if (pdu.length !== 5 || quantity < 1 || quantity > most) return malformed(operation)
  if (address + quantity > 65_536) return { operation, spans: [], exception: ILLEGAL_ADDRESS }
  return { operation, spans: [{ address, quantity }] }
}

function writeOne(pdu: Uint8Array, coil: boolean): Reading {
  const value = word(pdu, 3)
  if (pdu.length !== 5 || (coil && value !== 0 && value !== 0xff00)) return malformed('write')
  return { operation: 'write', spans: [{ address: word(pdu, 1), quantity: 1 }] }
}

/** 0Fh and 10h: the byte count must be the quantity's own, and the PDU exactly as long. */
function writeMany(pdu: Uint8Array, most: number, bytesFor: (quantity: number) => number): Reading {
  const address = word(pdu, 1)
  const quantity = word(pdu, 3)
  const bytes = pdu[5] ?? 0
  if (quantity < 1 || quantity > most || bytes !== bytesFor(quantity) || pdu.length !== 6 + bytes)
    return malformed('write')
  if (address + quantity > 65_536)
    return { operation: 'write', spans: [], exception: ILLEGAL_ADDRESS }
  return { operation: 'write', spans: [{ address, quantity }] }
}

function readWrite(pdu: Uint8Array): Reading {
  const read = { address: word(pdu, 1), quantity: word(pdu, 3) }
  const write = { address: word(pdu, 5), quantity: word(pdu, 7) }
  const bytes = pdu[9] ?? 0
  const counts =
    read.quantity >= 1 && read.quantity <= 125 && write.quantity >= 1 && write.quantity <= 121
  if (!counts || bytes !== 2 * write.quantity || pdu.length !== 10 + bytes)
    return malformed('write')
  if (read.address + read.quantity > 65_536 || write.address + write.quantity > 65_536)
    return { operation: 'write', spans: [], exception: ILLEGAL_ADDRESS }
  return { operation: 'write', spans: [read, write] }
}

const half = (quantity: number) => Math.ceil(quantity / 8)
const twice = (quantity: number) => 2 * quantity

/** One row per function code we let through at all; everything else is refused at every level. */
const functions: Readonly<Record<number, (pdu: Uint8Array) => Reading>> = {
  0x01: (pdu) => span(pdu, 'read', 2000),
  0x02: (pdu) => span(pdu, 'read', 2000),
  0x03: (pdu) => span(pdu, 'read', 125),
  0x04: (pdu) => span(pdu, 'read', 125),
  0x05: (pdu) => writeOne(pdu, true),
  0x06: (pdu) => writeOne(pdu, false),
  0x0f: (pdu) => writeMany(pdu, 1968, half),
  0x10: (pdu) => writeMany(pdu, 123, twice),
  0x11: (pdu) => (pdu.length === 1 ? { operation: 'identify', spans: [] } : malformed('identify')),
  0x16: (pdu) =>
    pdu.length === 7
      ? { operation: 'write', spans: [{ address: word(pdu, 1), quantity: 1 }] }
      : malformed('write'),
  0x17: readWrite,
  // Read FIFO queue: what it reads is not an address range, so windows cannot speak of it.
  0x18: (pdu) => (pdu.length === 3 ? { operation: 'read', spans: [] } : malformed('read')),
  0x2b: (pdu) => {
    const code = pdu[2] ?? 0
    if (pdu[1] !== 0x0e) return { operation: 'unknown', spans: [], exception: ILLEGAL_FUNCTION }
    return pdu.length === 4 && code >= 1 && code <= 4
      ? { operation: 'identify', spans: [] }
      : malformed('identify')
  },
}

/** What a PDU (function code first) is, whoever sends it. */
export function read(pdu: Uint8Array): Reading {
  const row = functions[pdu[0] ?? 0]
  return row === undefined
    ? { operation: 'unknown', spans: [], exception: ILLEGAL_FUNCTION }
    : row(pdu)
}

function within(unit: number, { address, quantity }: Span, windows: readonly Window[]): boolean {
  return windows.some(
    (window) =>
      window.unit === unit && window.from <= address && address + quantity - 1 <= window.to,
  )
}

/** The exception that refuses it, or undefined where it may pass. */
export function refusal(
  unit: number,
  pdu: Uint8Array,
  reading: Reading,
  rules: Rules,
): number | undefined {
  if (reading.operation === 'unknown' || rules.level < 1) return ILLEGAL_FUNCTION
  if (reading.operation === 'write' && rules.level < 2) return ILLEGAL_FUNCTION
  // Unit 0 is a broadcast on a serial line behind a gateway: no window can hold it.
  if (reading.operation === 'write' && unit === 0) return NO_SUCH_UNIT
  if (reading.exception !== undefined) return reading.exception
  const named = rules.windows.every((windows) => windows.some((window) => window.unit === unit))
  if (!named) return NO_SUCH_UNIT
  if (rules.windows.length > 0 && pdu[0] === 0x18) return ILLEGAL_ADDRESS
  const inside = reading.spans.every((one) =>
    rules.windows.every((windows) => within(unit, one, windows)),
  )
  return inside ? undefined : ILLEGAL_ADDRESS
}

/**
 * Whether `rules` let nothing pass that `bound` would refuse. Where lists overlap in a way that is not seen at a glance the
 * answer is no: whoever asks ends what is too wide.
 */
export function isWithin(rules: Rules, bound: Rules): boolean {
  if (rules.level < 1) return true
  return (
    rules.level <= bound.level &&
    bound.windows.every((outer) =>
      rules.windows.some((inner) =>
        inner.every(({ unit, from, to }) =>
          within(unit, { address: from, quantity: to - from + 1 }, outer),
        ),
      ),
    )
  )
}
