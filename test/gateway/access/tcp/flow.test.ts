/** Native clients: what passes, at whose pace, over which tunnel of the device, and of Modbus what is granted. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { soon, until } from '../../../support/node.ts'
import { oblige } from '../../../support/policy.ts'
import { Client, echo, refusalOf, type FakeAgent } from '../../../support/tunnels.ts'
import { Press } from './press.ts'

let press: Press
beforeAll(async () => {
  press = await Press.start()
})
afterAll(() => press[Symbol.asyncDispose]())
beforeEach(() => press.reset())

describe('a reader who does not read', () => {
  test('costs bounded memory, and another session nothing', async () => {
    const session = await press.open()
    await using client = await Client.dial(press.node)
    await using other = await Client.dial(press.node)
    let sent = 0
    press.agent.target = (stream) => {
      const piece = new Uint8Array(65_536)
      const pour = () => {
        do sent += piece.length
        while (stream.write(piece))
      }
      stream.onDrain = pour
      stream.onData = (chunk) => stream.consumed(chunk.length)
      pour()
    }
    const stalled = await client.line(session, { reading: false, keep: false })
    await until('something came', () => stalled.total > 0)
    press.agent.target = echo
    const line = await other.line(session)
    for (let at = 1; at <= 20; at++) {
      line.write('x')
      await line.until('each echo', ({ total }) => total === at)
    }
    expect(sent).toBeLessThan(8 * 1024 * 1024)
    await press.end(session)
    await press.nothingOpen()
  })

  test('read fast before: what is on its way finds room', async () => {
    oblige({ max_bandwidth_bps: 1_000_000_000, max_bytes: 2 ** 36 })
    const session = await press.open()
    await using client = await Client.dial(press.node)
    let sent = 0
    press.agent.target = (stream) => {
      const piece = new Uint8Array(262_144)
      const pour = () => {
        do sent += piece.length
        while (stream.write(piece))
      }
      stream.onDrain = pour
      stream.onData = (chunk) => stream.consumed(chunk.length)
      pour()
    }
    const line = await client.line(session, { keep: false })
    await until('the windows have grown', () => line.total > 32 * 1024 * 1024)
    line.reading = false
    const stalledAt = line.total
    await until('nothing more comes', async () => {
      const before = sent
      await new Promise((resolve) => setTimeout(resolve, 200))
      return sent === before
    })
    expect(sent - stalledAt).toBeLessThan(96 * 1024 * 1024)
    expect((await press.record(session)).state).toBe('open')
    await press.end(session)
    await press.nothingOpen()
  })
})

describe('a device that goes away and comes back', () => {
  test('its streams end, its sessions wait for it', async () => {
    const session = await press.open()
    await using client = await Client.dial(press.node)
    const line = await client.line(session)
    line.write('x')
    await line.until('it is carried', ({ text }) => text === 'x')
    press.agent.tunnel.close('agent.draining')
    expect((await line.gone()).fault).toBe('remote')
    await until('the node knows', async () => (await press.node.health()).devices === 0)
    expect((await refusalOf(client.stream(session))).code).toBe('device.offline')
    const opening = await press.vendor.call('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect([opening.status, opening.body.code]).toEqual([503, 'device.offline'])

    press.agent = await press.attach()
    const again = await client.line(session)
    again.write('back')
    await again.until('it is carried again', ({ text }) => text === 'back')
    await press.end(session)
    await press.nothingOpen()
  })

  test('a newer tunnel takes over; sessions that were open go on over it', async () => {
    const session = await press.open()
    await using client = await Client.dial(press.node)
    const line = await client.line(session)
    line.write('x')
    await line.until('it is carried', ({ text }) => text === 'x')
    const older = press.agent
    press.agent = await press.attach()
    expect((await soon('the older one ends', older.tunnel.closed)).code).toBe('tunnel.replaced')
    expect((await line.gone()).code).toBe('tunnel.replaced')
    expect((await press.node.health()).devices).toBe(1)
    const again = await client.line(session)
    again.write('over the new one')
    await again.until('the new one carries', ({ text }) => text === 'over the new one')
    expect([older.opened.length > 0, press.agent.opened.length]).toEqual([true, 1])
    await press.end(session)
    await press.nothingOpen()
  })
})

describe('Modbus', () => {
  const read = '000100000006010300000002'
  const write = '000200000006010600010003'
  const registers = (stream: Parameters<FakeAgent['target']>[0], got: string[]) => {
    stream.onEnd = () => stream.end()
    stream.onData = (chunk) => {
      got.push(Buffer.from(chunk).toString('hex'))
      stream.consumed(chunk.length)
      stream.write(Buffer.from(`${got.at(-1)?.slice(0, 4)}000000070103040001000f`, 'hex'))
    }
  }

  test('reads pass; a write is answered with an exception and never reaches the device', async () => {
    const got: string[] = []
    press.agent.target = (stream) => registers(stream, got)
    const session = await press.open('registers')
    await using client = await Client.dial(press.node)
    const line = await client.line(session)
    line.write(Buffer.from(read, 'hex'))
    await line.until('registers', ({ total }) => total === 13)
    expect(line.bytes.toString('hex')).toBe('0001000000070103040001000f')
    const from = press.node.size()
    line.write(Buffer.from(write, 'hex'))
    await line.until('an exception', ({ total }) => total === 22)
    expect(line.bytes.subarray(13).toString('hex')).toBe('000200000003018601')
    expect(got).toEqual([read])
    const [denied] = await until('the refusal is in the log', () => {
      const events = press.node.events(from).filter(({ code }) => code === 'ot.deny')
      return events.length > 0 ? events : undefined
    })
    expect(denied?.text).toContain('"function_code":6')
    expect(denied?.text).toContain(session.id)
    line.write(Buffer.from(read, 'hex'))
    await line.until('reads still pass', ({ total }) => total === 35)
    await press.end(session)
    await press.nothingOpen()
  })

  test('what is not Modbus ends the connection, and says nothing of the session', async () => {
    press.agent.target = (stream) => registers(stream, [])
    const session = await press.open('registers')
    await using client = await Client.dial(press.node)
    const line = await client.line(session)
    const from = press.node.size()
    line.write('GET / HTTP/1.1\r\nHost: plc\r\n\r\n')
    expect((await line.gone()).code).toMatch(/^modbus\./)
    expect(line.signals).not.toContainEqual(expect.objectContaining({ t: 'ending' }))
    await press.nothingOpen()
    const next = await client.line(session)
    next.write(Buffer.from(read, 'hex'))
    await next.until('the next connection reads', ({ total }) => total === 13)
    next.stream.end()
    await until('it is in the log', () =>
      press.node.events(from).some(({ code }) => code === 'ot.violation'),
    )
    await press.end(session)
  })

  test('a write after the device has ended its side', async () => {
    press.agent.target = (stream) => {
      stream.onEnd = () => {}
      stream.onData = (chunk) => stream.consumed(chunk.length)
      stream.end()
    }
    const session = await press.open('registers')
    await using client = await Client.dial(press.node)
    const line = await client.line(session)
    await line.until('the end', ({ ended }) => ended)
    const from = press.node.size()
    line.write(Buffer.from(write, 'hex'))
    await until('it is refused all the same', () =>
      press.node.events(from).some(({ code }) => code === 'ot.deny'),
    )
    line.stream.end()
    await line.gone()
    expect((await press.record(session)).state).toBe('open')
    await press.end(session)
    await press.nothingOpen()
  })
})
