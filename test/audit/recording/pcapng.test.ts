/** pcapng, read by a strict parser of our own and, where it is there, by Wireshark's tshark and capinfos. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { pcapHeader, pcapPacket, type Packet } from '../../../audit/recording/pcapng.ts'
import { temporary } from '../fixture.ts'

const missing = ['tshark', 'capinfos'].filter(
  (program) => spawnSync(program, ['--version']).status !== 0,
)
const T0 = 1_750_000_000_123.456

const person = { ip: '192.0.2.7', port: 50_123 }
const plc = { ip: '198.51.100.9', port: 502 }
const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex')

const read: Packet = {
  at: T0,
  protocol: 'mbtcp',
  from: person,
  to: plc,
  direction: 'in',
  bytes: hex('0001 0000 0006 01 03 0000 000a'),
  comment: 'allowed: read unit 1 function 3 address 0 x 10',
}
const write: Packet = {
  ...read,
  at: T0 + 1000,
  bytes: hex('0002 0000 0006 01 06 0001 00ff'),
  comment: 'refused with exception 1: write unit 1 function 6',
}
const answer: Packet = {
  at: T0 + 1001,
  protocol: 'mbtcp',
  from: plc,
  to: person,
  direction: 'out',
  bytes: hex('0002 0000 0003 01 86 01'),
}
const file = (...packets: Packet[]) =>
  Buffer.concat([pcapHeader('Sallyport 0', 'session s_1'), ...packets.map(pcapPacket)])

interface Block {
  readonly type: number
  readonly body: Buffer
}

/** Blocks, each with both lengths the same and a multiple of four, and nothing between or behind them. */
function blocks(bytes: Buffer): Block[] {
  const found: Block[] = []
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt32LE(at + 4)
    expect(length % 4).toBe(0)
    expect(at + length).toBeLessThanOrEqual(bytes.length)
    expect(bytes.readUInt32LE(at + length - 4)).toBe(length)
    found.push({ type: bytes.readUInt32LE(at), body: bytes.subarray(at + 8, at + length - 4) })
    at += length
  }
  return found
}

/** Options up to the one that ends them, which must be there. */
function options(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  for (let at = 0; ;) {
    const [code, length] = [bytes.readUInt16LE(at), bytes.readUInt16LE(at + 2)]
    if (code === 0) {
      expect([length, at + 4]).toEqual([0, bytes.length])
      return found
    }
    found.set(code, bytes.subarray(at + 4, at + 4 + length))
    at += 4 + Math.ceil(length / 4) * 4
  }
}

function tags(pdu: Buffer): { tags: Map<number, Buffer>; payload: Buffer } {
  const found = new Map<number, Buffer>()
  for (let at = 0; ;) {
    const [code, length] = [pdu.readUInt16BE(at), pdu.readUInt16BE(at + 2)]
    at += 4
    if (code === 0) return { tags: found, payload: pdu.subarray(at) }
    expect(length % 4).toBe(0)
    found.set(code, pdu.subarray(at, at + length))
    at += length
  }
}

function packets(bytes: Buffer) {
  const [section, link, ...rest] = blocks(bytes)
  expect([section?.type, link?.type]).toEqual([0x0a0d0d0a, 1])
  expect(section?.body.readUInt32LE(0)).toBe(0x1a2b3c4d)
  expect(link?.body.readUInt16LE(0)).toBe(252)
  expect(options(link?.body.subarray(8) ?? Buffer.alloc(0)).get(9)).toEqual(Buffer.of(6))
  return rest.map(({ type, body }) => {
    expect(type).toBe(6)
    const [captured, length] = [body.readUInt32LE(12), body.readUInt32LE(16)]
    expect(captured).toBe(length)
    const micros = (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8))
    return {
      micros,
      ...tags(body.subarray(20, 20 + captured)),
      options: options(body.subarray(20 + Math.ceil(captured / 4) * 4)),
    }
  })
}

test('each message stands there with who, when, which protocol, and what was made of it', () => {
  const [first, second, third] = packets(file(read, write, answer))
  expect(first?.micros).toBe(1_750_000_000_123_456n)
  expect(first?.tags.get(12)?.toString().replaceAll('\0', '')).toBe('mbtcp')
  expect([...(first?.tags.get(20) ?? [])]).toEqual([192, 0, 2, 7])
  expect([...(first?.tags.get(21) ?? [])]).toEqual([198, 51, 100, 9])
  expect(first?.tags.get(24)?.readUInt32BE(0)).toBe(2)
  expect(first?.tags.get(25)?.readUInt32BE(0)).toBe(50_123)
  expect(first?.tags.get(26)?.readUInt32BE(0)).toBe(502)
  expect(first?.payload).toEqual(read.bytes)
  expect(first?.options.get(1)?.toString()).toBe(read.comment)
  expect(first?.options.get(2)?.readUInt32LE(0)).toBe(1)
  expect(second?.options.get(1)?.toString()).toContain('refused')
  expect(third?.options.get(2)?.readUInt32LE(0)).toBe(2)
  expect(third?.options.has(1)).toBe(false)
})

test.for([0, 1, 2, 3, 4, 5, 260, 65_535])('%i octets of payload keep every boundary', (size) => {
  const bytes = Buffer.alloc(size, 7)
  const [first, last] = packets(file({ ...read, bytes, comment: 'x'.repeat(size % 7) }, answer))
  expect(first?.payload).toEqual(bytes)
  expect(last?.payload).toEqual(answer.bytes)
})

test.for([
  ['2001:db8::1', '2001:db8:0:0:1::2', [22, 23]],
  ['::1', '::', [22, 23]],
  ['::ffff:192.0.2.1', '192.0.2.2', [20, 21]],
  ['fe80::1%eth0', '2001:db8::2', [22, 23]],
  ['192.0.2.1', '2001:db8::2', []],
  ['unknown', '192.0.2.1', []],
  ['1::2::3', '::1', []],
] as const)('from %s to %s: the tags %o', ([from, to, expected]) => {
  const [one] = packets(file({ ...read, from: { ip: from, port: 1 }, to: { ip: to, port: 2 } }))
  expect([...(one?.tags.keys() ?? [])].filter((code) => code >= 20 && code <= 23)).toEqual(expected)
})

describe.skipIf(missing.length > 0)(`Wireshark's own programs (Debian package tshark)`, () => {
  const run = (program: string, args: readonly string[], bytes: Buffer) => {
    const directory = temporary()
    writeFileSync(join(directory, 'a.pcapng'), bytes)
    const ended = spawnSync(program, args, { cwd: directory, encoding: 'utf8' })
    return { status: ended.status, stdout: ended.stdout }
  }

  test('tshark dissects Modbus in it: query, refusal, addresses, comments', () => {
    const fields = [
      '_ws.col.Protocol',
      'ip.src',
      'exported_pdu.dst_port',
      'modbus.func_code',
      'modbus.exception_code',
      'frame.comment',
    ]
    const args = ['-r', 'a.pcapng', '-T', 'fields', ...fields.flatMap((field) => ['-e', field])]
    const { status, stdout } = run('tshark', args, file(read, write, answer))
    expect(status).toBe(0)
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split('\t'))
    expect(rows.map((row) => row[0])).toEqual(['Modbus/TCP', 'Modbus/TCP', 'Modbus/TCP'])
    expect(rows.map((row) => row[3])).toEqual(['3', '6', '6'])
    expect(rows[2]?.[4]).toBe('1')
    expect(rows.map((row) => row[5] ?? '')).toEqual([read.comment, write.comment, ''])
    expect(rows[0]?.[2]).toBe('502')
  })

  test('capinfos counts what was written and takes the file for whole', () => {
    const { status, stdout } = run('capinfos', ['-c', '-E', 'a.pcapng'], file(read, write, answer))
    expect(status).toBe(0)
    expect(stdout).toMatch(/Number of packets:\s+3/)
    expect(stdout).toMatch(/Upper PDU/i)
  })
})
