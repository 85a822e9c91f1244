/**
 * The part of Modbus/TCP that a pretend PLC answers: read holding (03) and input (04) registers.
 * Pure: bytes in, answers out. MODBUS Application Protocol V1.1b3 sections 6.3, 6.4 and 7;
 * MODBUS Messaging on TCP/IP V1.0b section 3.1.3.
 */

/** Transaction u16, protocol u16, length u16 (of what follows it), unit u8. */
const HEADER = 7
/** A PDU is at most 253 octets, and the length counts the unit in. */
const LENGTH_MAX = 254
const ILLEGAL_FUNCTION = 1
const ILLEGAL_ADDRESS = 2
const ILLEGAL_VALUE = 3

export interface Exchange {
  /** One answer per whole request, in order. */
  readonly answers: readonly Buffer[]
  /** Octets that belong to a request still arriving. */
  readonly rest: Buffer
}

/**
 * Answers every whole request in `bytes` from `registers`.
 * Returns undefined where the bytes are not Modbus/TCP: the connection is to be closed.
 */
export function answer(bytes: Buffer, registers: Uint16Array): Exchange | undefined {
  const answers: Buffer[] = []
  let at = 0
  while (bytes.length - at >= HEADER) {
    const length = bytes.readUInt16BE(at + 4)
    if (bytes.readUInt16BE(at + 2) !== 0 || length < 2 || length > LENGTH_MAX) return undefined
    if (bytes.length - at < 6 + length) break
    const pdu = bytes.subarray(at + HEADER, at + 6 + length)
    answers.push(envelope(bytes.readUInt16BE(at), bytes.readUInt8(at + 6), reply(pdu, registers)))
    at += 6 + length
  }
  return { answers, rest: bytes.subarray(at) }
}

function reply(pdu: Buffer, registers: Uint16Array): Buffer {
  const code = pdu.readUInt8(0)
  if (code !== 3 && code !== 4) return exception(code, ILLEGAL_FUNCTION)
  if (pdu.length !== 5) return exception(code, ILLEGAL_VALUE)
  const start = pdu.readUInt16BE(1)
  const count = pdu.readUInt16BE(3)
  if (count < 1 || count > 125) return exception(code, ILLEGAL_VALUE)
  if (start + count > registers.length) return exception(code, ILLEGAL_ADDRESS)
  const out = Buffer.alloc(2 + 2 * count)
  out.writeUInt8(code, 0)
  out.writeUInt8(2 * count, 1)
  for (let n = 0; n < count; n++) out.writeUInt16BE(registers[start + n] ?? 0, 2 + 2 * n)
  return out
}

function exception(code: number, why: number): Buffer {
  return Buffer.from([code | 0x80, why])
}

function envelope(transaction: number, unit: number, pdu: Buffer): Buffer {
  const head = Buffer.alloc(HEADER)
  head.writeUInt16BE(transaction, 0)
  head.writeUInt16BE(pdu.length + 1, 4)
  head.writeUInt8(unit, 6)
  return Buffer.concat([head, pdu])
}
