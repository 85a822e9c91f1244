/** Streams through an agent to real targets: no byte before both ends have said yes, and none after one of them says no. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ProcessScope } from '../../agent-tunnel/agent/scope/owner.ts'
import type { Observation, Recheck, Sighting } from '../../agent-tunnel/agent/scope/owner.ts'
import { HandClock } from '../support/clock.ts'
import { copyOfNode, sha256Of, startProgram } from './programs/process.ts'
import { enrolled, Directory, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { listening, scope } from './listening.ts'

const node = { sha256: sha256Of(process.execPath) }
const noProc = process.platform !== 'linux'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

describe.skipIf(noProc)('a stream', () => {
  test('no byte of the target passes before proceed, all of them after; half-close is kept', async () => {
    using directory = new Directory()
    // Speaks first, echoes, and says goodbye only after it has heard goodbye.
    await using server = await listening((socket) => {
      socket.write('hello ')
      socket.on('data', (chunk) => socket.write(chunk))
      socket.on('end', () => socket.end(' bye'))
    })
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    expect(opened.observed).toMatchObject({
      phase: 'accepted',
      pid: process.pid,
      sha256: node.sha256,
      others: [],
    })
    await sleep(150)
    expect(opened.received).toHaveLength(0)
    proceed(opened)
    await holds(() => expect(opened.received.toString()).toBe('hello '))
    opened.stream.write(Buffer.from('echo'))
    opened.stream.end()
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'done' })
    expect(opened.received.toString()).toBe('hello echo bye')
    await holds(() => expect(agent.logged('stream.closed').at(-1)?.fields['code']).toBe('done'))
  })

  test.for(['same', 'closed', 'changed'] as const)(
    'an owner found first: no byte before all processes were looked at, and then %s',
    async (state) => {
      using directory = new Directory()
      const looked = Promise.withResolvers<void>()
      class First extends ProcessScope {
        override async observeAccepted(
          ...args: Parameters<ProcessScope['observeAccepted']>
        ): Promise<Observation> {
          const seen = await super.observeAccepted(...args)
          return seen.ok ? { ok: true, sighting: { ...seen.sighting, complete: false } } : seen
        }
        override async recheck(sighting: Sighting, full?: boolean): Promise<Recheck> {
          expect(full).toBe(true)
          await looked.promise
          const observed = { ...sighting.observed, exe: '/usr/bin/other' }
          return state === 'changed'
            ? { state, sighting: { ...sighting, observed, complete: true } }
            : { state }
        }
      }
      await using server = await listening((socket) => void socket.write('hello'))
      const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
      await using _agent = running(config, { scope: new First() })
      const held = await gateway.nextTunnel()
      const opened = await openStream(held, 'plc')
      proceed(opened)
      await sleep(100)
      expect(opened.received).toHaveLength(0)
      looked.resolve()
      if (state === 'same') {
        await holds(() => expect(opened.received.toString()).toBe('hello'))
        return
      }
      expect(await soon('close', opened.closed)).toMatchObject({ code: 'process.changed' })
      expect(opened.received).toHaveLength(0)
      if (state === 'changed')
        await holds(() =>
          expect(held.reports.findLast(({ type }) => type === 'owner_changed')).toMatchObject({
            observed: { exe: '/usr/bin/other' },
          }),
        )
    },
  )

  test('bytes the gateway sends before proceed wait for it', async () => {
    using directory = new Directory()
    const heard: (string | Buffer)[] = []
    await using server = await listening((socket) =>
      socket.on('data', (chunk) => heard.push(chunk)),
    )
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using _agent = running(config, { scope })
    const opened = await openStream(await gateway.nextTunnel(), 'plc')
    opened.stream.write(Buffer.from('early'))
    await sleep(150)
    expect(heard).toEqual([])
    opened.stream.reset('test.over')
    await sleep(50)
    expect(heard).toEqual([])
  })

  test('8 MiB pass both ways through a reader that stops now and then', async () => {
    using directory = new Directory()
    await using server = await listening((socket) => {
      socket.pipe(socket)
      let awake = 0
      socket.on('data', ({ length }: Buffer) => {
        awake += length
        if (awake < 512 * 1024) return
        awake = 0
        socket.pause()
        setTimeout(() => socket.resume(), 20)
      })
    })
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using _agent = running(config, { scope })
    const opened = await openStream(await gateway.nextTunnel(), 'plc')
    proceed(opened)
    const chunk = Buffer.alloc(64 * 1024)
    for (let at = 0; at < chunk.length; at++) chunk[at] = at % 251
    for (let sent = 0; sent < 128; sent++) {
      if (opened.stream.write(chunk)) continue
      const { promise, resolve } = Promise.withResolvers<void>()
      opened.stream.onDrain = resolve
      await promise
    }
    opened.stream.end()
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'done' })
    expect(opened.received.length).toBe(128 * chunk.length)
    expect(opened.received.subarray(127 * chunk.length).equals(chunk)).toBe(true)
  })

  test('another executable on the port is named as it is, and nothing reaches it when refused', async () => {
    using directory = new Directory()
    using other = copyOfNode()
    await using impostor = await startProgram('target.ts', [], { exe: other.path })
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${impostor.port}`])
    await using _agent = running(config, { scope })
    const opened = await openStream(await gateway.nextTunnel(), 'plc')
    expect(opened.observed).toMatchObject({
      exe: other.path,
      sha256: other.sha256,
      pid: impostor.pid,
    })
    opened.stream.write(Buffer.from('secret'))
    opened.stream.reset('process.mismatch')
    await sleep(100)
    expect(opened.received).toHaveLength(0)
  })

  test('the lease ends the stream although the gateway says nothing', async () => {
    using directory = new Directory()
    await using server = await listening(() => undefined)
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    const clock = new HandClock()
    await using _agent = running(config, { scope, clock })
    const opened = await openStream(await gateway.nextTunnel(), 'plc', { remaining_ms: 1500 })
    proceed(opened)
    let closed = false
    void opened.closed.then(() => (closed = true))
    clock.pass(1499)
    await openStream(gateway.tunnels.at(-1)!, 'plc')
    expect(closed).toBe(false)
    clock.pass(1)
    expect(await soon('close', opened.closed)).toMatchObject({
      code: 'lease.spent',
      fault: 'remote',
    })
  })

  test('a process that becomes another program during the session ends it, and is told', async () => {
    using directory = new Directory()
    await using target = await startProgram('target.ts', ['exec'])
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using _agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.from('go\n'))
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'process.changed' })
    await holds(() =>
      expect(held.reports.findLast(({ type }) => type === 'owner_changed')).toMatchObject({
        observed: {
          phase: 'accepted',
          exe: expect.stringMatching(/sleep|coreutils|busybox|sh$/) as string,
        },
      }),
    )
  })

  test('a server that hands the connection to its own child keeps the session; the gateway is told', async () => {
    using directory = new Directory()
    await using target = await startProgram('target.ts', ['give'])
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
    await using _agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.from('ping'))
    await holds(() => expect(opened.received.toString()).toBe('ping'))
    await sleep(1500)
    opened.stream.write(Buffer.from('pong'))
    await holds(() => expect(opened.received.toString()).toBe('pingpong'))
    const told = held.reports.filter((report) => report['type'] === 'owner_changed')
    for (const report of told) expect(report['observed']).toMatchObject({ sha256: node.sha256 })
  })

  test('the target that goes away resets; a tunnel that goes away closes the target', async () => {
    using directory = new Directory()
    const sockets: Socket[] = []
    await using server = await listening((socket) => sockets.push(socket))
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using _agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    const first = await openStream(held, 'plc')
    proceed(first)
    sockets[0]?.resetAndDestroy()
    expect((await soon('close', first.closed)).code).toMatch(/^target\./)
    const second = await openStream(held, 'plc')
    proceed(second)
    const gone = once(sockets[1]!.resume(), 'end')
    held.socket.destroy()
    await soon('the target is let go', gone)
    await gateway.nextTunnel()
  })
})
