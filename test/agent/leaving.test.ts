/** A gateway that misbehaves, goes or dies, and an agent that leaves: who dials whom again, and what open streams have left. */
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Goaway } from '#tunnel'
import { HandClock } from '../support/clock.ts'
import { freePort, until } from '../support/node.ts'
import { enrolled, Directory, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { listening, scope } from './listening.ts'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

describe('the gateway misbehaves', () => {
  test.for([
    ['a line that is not JSON', '{{{\n', 'control.message'],
    ['a message without a type', '{"a":1}\n', 'control.message'],
    ['a line without end', 'x'.repeat(130 * 1024), 'control.limit'],
  ] as const)(
    '%s on the control stream ends the tunnel; the agent comes back',
    async ([, text, code]) => {
      using directory = new Directory()
      const config = await enrolled(gateway, directory)
      await using _agent = running(config, { scope })
      const held = await gateway.nextTunnel()
      held.control.write(Buffer.from('{"type":"ping"}\n{"type":"of a later version"}\n'))
      held.control.write(Buffer.from(text))
      expect(await soon('close', held.tunnel.closed)).toMatchObject({ code })
      await gateway.nextTunnel()
    },
  )

  test('a welcome for another device, or of no form, is not taken', async () => {
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    const good = gateway.welcome
    gateway.welcome = () => ({ device: 'other', now_ms: Date.now(), gateway: 'gw1', epoch: 1 })
    await using agent = running(config, { scope })
    await holds(() =>
      expect(agent.logged('tunnel.not_up').at(-1)?.fields['message']).toMatch(/another one/),
    )
    gateway.welcome = undefined
    await holds(() =>
      expect(agent.logged('tunnel.not_up').at(-1)?.fields['message']).toMatch(
        /not of the protocol/,
      ),
    )
    gateway.welcome = good
    await gateway.nextTunnel()
  })

  test("a refusal is told with the gateway's own code, and tried again", async () => {
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    gateway.refuses = () => 'device.quarantined'
    await using agent = running(config, { scope })
    await holds(() => expect(agent.logged('tunnel.not_up').length).toBeGreaterThan(1))
    expect(agent.logged('tunnel.not_up')[0]?.fields).toMatchObject({
      code: 'tunnel.refused',
      server_code: 'device.quarantined',
    })
    gateway.refuses = () => undefined
    await gateway.nextTunnel()
  })

  test('GOAWAY: dials again, and lets open streams end on the old tunnel', async () => {
    using directory = new Directory()
    await using server = await listening((socket) => socket.pipe(socket))
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    gateway.replaces = false
    held.tunnel.goaway('gateway.draining', 300)
    const began = performance.now()
    const next = await gateway.nextTunnel()
    expect(performance.now() - began).toBeGreaterThan(250)
    expect(agent.logged('tunnel.goaway')[0]?.fields).toEqual({
      code: 'gateway.draining',
      retry_after_ms: 300,
      alternatives: [],
    })
    expect(next.tunnel.peer.epoch).toBeGreaterThan(held.tunnel.peer.epoch)
    expect(next.tunnel.peer.instance).toBe(held.tunnel.peer.instance)
    opened.stream.write(Buffer.from('still here'))
    await holds(() => expect(opened.received.toString()).toBe('still here'))
    opened.stream.end()
    expect(await soon('the stream ends', opened.closed)).toMatchObject({ code: 'done' })
    expect(await soon('the old tunnel ends', held.tunnel.closed)).toMatchObject({
      code: 'agent.drained',
    })
    gateway.replaces = true
  })

  test('GOAWAY with other addresses: the first that takes the device has it, without the wait', async () => {
    using directory = new Directory()
    await using server = await listening((socket) => socket.pipe(socket))
    await using other = await FakeGateway.start({ house: gateway.bench.house })
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    held.tunnel.goaway('node.draining', 600_000, [
      'not an address',
      `127.0.0.1:${await freePort()}`,
      `127.0.0.1:${other.port}`,
    ])
    const next = await other.nextTunnel()
    expect(agent.logged('tunnel.not_up')[0]?.fields).toMatchObject({ code: 'gateway.unreachable' })
    expect(next.serial).toBe(held.serial)
    opened.stream.write(Buffer.from('still here'))
    await holds(() => expect(opened.received.toString()).toBe('still here'))
    opened.stream.end()
    await soon('the old tunnel ends', held.tunnel.closed)
    // What it was sent to is gone too: home again.
    await other.silence()
    await gateway.nextTunnel()
  })

  test('a gateway that names what the owner did not is not followed: it probes no ports through a device', async () => {
    using directory = new Directory()
    let knocked = 0
    const server = createServer((socket) => {
      knocked++
      socket.destroy()
    }).listen(0, '127.0.0.2')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const config = await enrolled(gateway, directory)
    await using agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    held.tunnel.goaway('node.draining', 0, [`127.0.0.2:${port}`])
    await gateway.nextTunnel()
    expect(knocked).toBe(0)
    expect(agent.logged('tunnel.elsewhere')[0]?.fields).toMatchObject({ port, followed: false })
    server.close()
  })

  test('eight addresses that say nothing take twenty seconds together, then it is home again', async () => {
    using directory = new Directory()
    const silent = new Set<Socket>()
    const server = createServer((socket) => {
      socket.on('error', () => {})
      silent.add(socket)
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const config = await enrolled(gateway, directory)
    const clock = new HandClock()
    await using _agent = running(config, { scope, clock })
    const held = await gateway.nextTunnel()
    let home = false
    const again = gateway.nextTunnel().then(() => (home = true))
    held.tunnel.goaway('node.draining', 0, Array<string>(8).fill(`127.0.0.1:${port}`))
    // A part of the time for each address, and when all of it is over no further one.
    for (let dialled = 1; dialled <= 4; dialled++) {
      await until('the next address is dialled', () => {
        clock.pass(0)
        return silent.size === dialled
      })
      clock.pass(4999)
      expect([silent.size, home]).toEqual([dialled, false])
      clock.pass(1)
    }
    await until('it is home', () => {
      clock.pass(0)
      return home
    })
    await again
    expect(silent.size).toBe(4)
    for (const socket of silent) socket.destroy()
    server.close()
  })

  test('an address that is not a gateway of this root is not believed', async () => {
    using directory = new Directory()
    await using stranger = await FakeGateway.start()
    const config = await enrolled(gateway, directory)
    await using agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    held.tunnel.goaway('node.draining', 0, [`127.0.0.1:${stranger.port}`])
    await gateway.nextTunnel()
    expect(stranger.tunnels).toEqual([])
    expect(agent.logged('tunnel.not_up')[0]?.fields).toMatchObject({ code: 'gateway.untrusted' })
  })

  test('an agent that stops lets its streams end, for as long as it may', async () => {
    using directory = new Directory()
    await using server = await listening((socket) => socket.pipe(socket))
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using agent = running({ ...config, drainMs: 60_000 }, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    const told = new Promise<Goaway>((resolve) => (held.tunnel.onGoaway = resolve))
    const stopped = agent.stop()
    expect((await soon('GOAWAY', told)).code).toBe('agent.stopping')
    await expect(openStream(held, 'plc')).rejects.toMatchObject({ code: 'tunnel.draining' })
    opened.stream.write(Buffer.from('still here'))
    await holds(() => expect(opened.received.toString()).toBe('still here'))
    opened.stream.end()
    expect(await soon('the stream ends', opened.closed)).toMatchObject({ code: 'done' })
    await stopped
    expect((await held.tunnel.closed).code).toBe('agent.stopping')
  })

  test('and no longer: then they are cut with the reason', async () => {
    using directory = new Directory()
    await using server = await listening((socket) => socket.pipe(socket))
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using agent = running({ ...config, drainMs: 300 }, { scope })
    const opened = await openStream(await gateway.nextTunnel(), 'plc')
    proceed(opened)
    await agent.stop()
    expect(await soon('the stream ends', opened.closed)).toMatchObject({ code: 'agent.stopping' })
  })

  test('a gateway that dies and comes back is dialled until it is there', async () => {
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    await using agent = running(config, { scope })
    await gateway.nextTunnel()
    const face = await gateway.face()
    await gateway.silence()
    await holds(() =>
      expect(agent.logged('tunnel.not_up').at(-1)?.fields['code']).toBe('gateway.unreachable'),
    )
    await gateway.listen(face)
    expect((await gateway.nextTunnel()).serial).not.toBe('')
  })
})
