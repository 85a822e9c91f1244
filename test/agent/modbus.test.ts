/** A Modbus session at the agent: what the gateway let pass is judged again; what it cannot judge is not opened. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { modbusRules } from '../../agent-tunnel/agent/modbus.ts'
import { Directory, enrolled, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

/** A target that keeps what it got, and answers each request of twelve octets with its own bytes. */
async function plc(): Promise<
  { port: number; got: () => string; sockets: Socket[] } & AsyncDisposable
> {
  let got = ''
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString('hex')
      if (chunk.length === 12)
        socket.write(
          Buffer.concat([
            chunk.subarray(0, 4),
            Buffer.from('0005', 'hex'),
            chunk.subarray(6, 8),
            Buffer.from('02002a', 'hex'),
          ]),
        )
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as { port: number }).port,
    got: () => got,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

const window = { unit: 1, from: 100, to: 109 }
const reading = { protocol: 'modbus', obligations: { ot_level: 1, ot_windows: [[window]] } }
const frame = (hex: string) => Buffer.from(hex, 'hex')

describe('a session that is said to be Modbus', () => {
  test('reads inside the window pass; a write is answered here and logged; what is no Modbus ends it', async () => {
    using directory = new Directory()
    await using target = await plc()
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using agent = running(config)
    const opened = await openStream(await gateway.nextTunnel(), 'plc', reading)
    proceed(opened)
    opened.stream.write(frame('000100000006010300640001'))
    await holds(() => expect(opened.received.toString('hex')).toBe('000100000005010302002a'))
    // A write, a read one past the window, another unit, and then in pieces what may pass.
    opened.stream.write(frame('0002000000060106006400ff' + '000300000006010300640014'))
    opened.stream.write(frame('000400000006020300640001' + '00050000'))
    opened.stream.write(frame('0006010300650001'))
    await holds(() =>
      expect(opened.received.subarray(11).toString('hex')).toBe(
        '000200000003018601' +
          '000300000003018302' +
          '00040000000302830b' +
          '000500000005010302002a',
      ),
    )
    expect(target.got()).toBe('000100000006010300640001' + '000500000006010300650001')
    expect(agent.logged('modbus.refused')[0]?.fields).toMatchObject({
      functionCode: 6,
      address: 100,
      exception: 1,
    })
    opened.stream.write(frame('00060001'))
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'modbus.violation' })
  })

  test('a gateway that checks nothing writes inside the addresses of its own OPEN alone', async () => {
    using directory = new Directory()
    await using target = await plc()
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using _agent = running(config)
    const writing = { protocol: 'modbus', obligations: { ot_level: 2, ot_windows: [[window]] } }
    const opened = await openStream(await gateway.nextTunnel(), 'plc', writing)
    proceed(opened)
    // One past the window, the unit that is every unit, another unit, and then what may pass.
    opened.stream.write(frame('000100000006' + '0106006e00ff' + '000200000006' + '0006006400ff'))
    opened.stream.write(frame('000300000006' + '0206006400ff' + '000400000006' + '0106006400ff'))
    await holds(() =>
      expect(opened.received.toString('hex')).toBe(
        '000100000003018602' +
          '00020000000300860b' +
          '00030000000302860b' +
          '000400000005010602002a',
      ),
    )
    expect(target.got()).toBe('0004000000060106006400ff')
  })

  test('a silent target is answered for; bytes it sends unasked go nowhere', async () => {
    using directory = new Directory()
    await using target = await plc()
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using _agent = running(config)
    const opened = await openStream(await gateway.nextTunnel(), 'plc', reading)
    proceed(opened)
    await holds(() => expect(target.sockets).toHaveLength(1))
    target.sockets[0]!.write(frame('000900000005010302dead'))
    opened.stream.write(frame('000700000002' + '0111'))
    await holds(() => expect(opened.received.toString('hex')).toBe('00070000000301910b'))
  })

  test.for([
    ['no obligations', { protocol: 'modbus', obligations: undefined }],
    ['a level there is not', { protocol: 'modbus', obligations: { ot_level: 3, ot_windows: [] } }],
    [
      'windows that are no list',
      { protocol: 'modbus', obligations: { ot_level: 1, ot_windows: {} } },
    ],
    [
      'a window without an end',
      { protocol: 'modbus', obligations: { ot_level: 1, ot_windows: [[{ unit: 1, from: 1 }]] } },
    ],
    ['a protocol there is not', { protocol: 's7', obligations: {} }],
  ] as const)('%s: refused, not opened without rules', async ([, asked]) => {
    using directory = new Directory()
    await using target = await plc()
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using _agent = running(config)
    const held = await gateway.nextTunnel()
    await expect(openStream(held, 'plc', asked)).rejects.toMatchObject({ code: 'open.metadata' })
    expect(target.sockets).toEqual([])
  })
})

test('rules are read whole or not at all', () => {
  expect(modbusRules({ ot_level: 1, ot_windows: [[window], []] })).toEqual({
    level: 1,
    windows: [[window], []],
  })
  for (const wrong of [
    { ...window, to: 65_536 },
    { ...window, unit: -1 },
    { ...window, from: 1.5 },
    null,
    7,
  ])
    expect(modbusRules({ ot_level: 1, ot_windows: [[window, wrong]] })).toBeUndefined()
  expect(
    modbusRules({ ot_level: 1, ot_windows: Array.from({ length: 17 }, () => []) }),
  ).toBeUndefined()
  expect(modbusRules({ ot_level: '1', ot_windows: [] })).toBeUndefined()
})
