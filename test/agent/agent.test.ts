import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Goaway } from '#tunnel'
import type { FourTuple } from '../../agent-tunnel/agent/scope/address.ts'
import { unseen } from '../../agent-tunnel/agent/scope/observed.ts'
import { ProcessScope } from '../../agent-tunnel/agent/scope/owner.ts'
import type { Observation, Recheck, Sighting } from '../../agent-tunnel/agent/scope/owner.ts'
import { copyOfNode, sha256Of, startProgram } from './programs/process.ts'
import { enrolled, Directory, running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { HandClock } from '../support/clock.ts'
import { freePort, until } from '../support/node.ts'

const node = { sha256: sha256Of(process.execPath) }
// One scope for the file: Node's own executable is hashed once.
const scope = new ProcessScope()
const noProc = process.platform !== 'linux'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

async function listening(
  onSocket: (socket: Socket) => void,
): Promise<Server & AsyncDisposable & { port: number }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined)
    onSocket(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return Object.assign(server, {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => void server.close(),
  })
}

test('connects, greets, is welcomed, reports its targets, leaves in good form', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [
    `plc=tcp:127.0.0.1:${target.port}`,
    'press=lan:192.0.2.7:502',
  ])
  await using agent = running(config, { scope })
  const held = await gateway.nextTunnel()
  expect(held.greeting).toMatchObject({
    v: 1,
    agent: { version: '0.1.0', version_int: 1000 },
    tls: { version: 'TLSv1.3', group: 'X25519MLKEM768' },
    targets: [
      {
        process: 'plc',
        kind: 'tcp',
        listener: { phase: 'listener', sha256: node.sha256, pid: target.pid },
        listens: [`127.0.0.1:${target.port}`],
      },
      { process: 'press', kind: 'lan', listener: null, listens: [] },
    ],
    unreadable: expect.any(Number),
  })
  expect(held.tunnel.peer.role).toBe('agent')
  await holds(() => expect(agent.logged('tunnel.up')).toHaveLength(1))
  await holds(() =>
    expect(JSON.parse(readFileSync(`${directory.path}/status.json`, 'utf8'))).toMatchObject({
      state: 'connected',
      gateway: 'gw1',
      pid: process.pid,
    }),
  )
  await agent.stop()
  expect(await soon('close', held.tunnel.closed)).toMatchObject({
    code: 'agent.stopping',
    fault: 'remote',
  })
})

test('a listener that changes is reported on the control stream', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  await using _agent = running(config, { scope })
  const held = await gateway.nextTunnel()
  target.child.kill('SIGKILL')
  await holds(() =>
    expect(held.reports.at(-1)).toEqual({
      type: 'targets',
      targets: [{ process: 'plc', kind: 'tcp', listener: null, listens: [] }],
      unreadable: expect.any(Number),
    }),
  )
})

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
      const nap = setInterval(() => {
        socket.pause()
        setTimeout(() => socket.resume(), 20)
      }, 60)
      socket.on('close', () => clearInterval(nap))
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

describe('refused, with a code', () => {
  let directory: Directory
  let agent: ReturnType<typeof running>
  let held: Awaited<ReturnType<FakeGateway['nextTunnel']>>
  let stopped: Awaited<ReturnType<typeof startProgram>>
  beforeAll(async () => {
    directory = new Directory()
    stopped = await startProgram('target.ts')
    stopped.child.kill('SIGSTOP')
    const targets = [
      'down=tcp:127.0.0.1:1',
      `stuck=tcp:127.0.0.1:${stopped.port}`,
      'self=lan:127.0.0.2:9'.replace('127.0.0.2', ownAddress()),
    ]
    const config = await enrolled(gateway, directory, targets)
    agent = running({ ...config, acceptDeadlineMs: 200 }, { scope })
    held = await gateway.nextTunnel()
  })
  afterAll(async () => {
    await agent.stop()
    await stopped[Symbol.asyncDispose]()
    directory[Symbol.dispose]()
  })

  test.for([
    ['a process this device does not name', 'nope', {}, 'target.unknown'],
    ['a target that is down', 'down', {}, 'target.unreachable'],
    ['a target that does not accept', 'stuck', {}, 'target.unobserved'],
    ['a lan target that is this machine', 'self', {}, 'target.unreachable'],
    ['no time left', 'down', { remaining_ms: 0 }, 'lease.spent'],
    ['less than no time', 'down', { remaining_ms: -5 }, 'lease.spent'],
    ['time that is no number', 'down', { remaining_ms: '60000' }, 'open.metadata'],
    ['time without end', 'down', { remaining_ms: 1e300 }, 'open.metadata'],
    ['a session id that is none', 'down', { session: '../../etc' }, 'open.metadata'],
    ['a process name that is none', 'PLC!', {}, 'open.metadata'],
    ['a prototype for a process', '__proto__', {}, 'open.metadata'],
    ['another version', 'down', { v: 2 }, 'open.metadata'],
    [
      'an address smuggled in changes nothing',
      'nope',
      { target: '127.0.0.1:22', host: '127.0.0.1' },
      'target.unknown',
    ],
  ] as const)('%s', async ([, process, overrides, code]) => {
    await expect(openStream(held, process, overrides)).rejects.toMatchObject({
      name: 'TunnelRefused',
      code,
    })
  })

  test.for([
    ['not JSON', '\x00\xff'],
    ['not an object', '[]'],
    ['null', 'null'],
    ['nothing', ''],
    ['4 KiB of brackets', '['.repeat(4096)],
  ] as const)('metadata that is %s', async ([, text]) => {
    await expect(held.tunnel.open('tcp', Buffer.from(text, 'latin1'))).rejects.toMatchObject({
      code: 'open.metadata',
    })
  })

  test.for(['relay', 'control'] as const)('a stream of kind %s', async (kind) => {
    await expect(held.tunnel.open(kind, Buffer.from('{}'))).rejects.toMatchObject({
      code: 'open.kind',
    })
  })

  test('after all that the tunnel is the same one', async () => {
    await expect(openStream(held, 'nope')).rejects.toMatchObject({ code: 'target.unknown' })
    expect(agent.logged('tunnel.down')).toEqual([])
  })
})

function ownAddress(): string {
  // Any address of this machine that is not loopback; where there is none, one that nobody answers on.
  const all = Object.values(networkInterfaces()).flat()
  return all.find((own) => own?.family === 'IPv4' && !own.internal)?.address ?? '192.0.2.1'
}

describe('more to say than fits', () => {
  test('owners that do not fit the answer: refused, not shortened', async () => {
    using directory = new Directory()
    class Crowd extends ProcessScope {
      override async observeAccepted(dialled: FourTuple): Promise<Observation> {
        const one = { ...unseen('accepted'), exe: '/'.padEnd(900, 'x') }
        const observed = { ...one, others: Array.from({ length: 8 }, () => one) }
        return {
          ok: true,
          sighting: { observed, dialled, inodes: [], sights: [], complete: true, unreadable: 0 },
        }
      }
    }
    await using server = await listening(() => undefined)
    const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${server.port}`])
    await using _agent = running(config, { scope: new Crowd() })
    const held = await gateway.nextTunnel()
    await expect(openStream(held, 'plc')).rejects.toMatchObject({ code: 'target.unobserved' })
  })

  test('targets that do not fit the greeting follow on the control stream', async () => {
    using directory = new Directory()
    const targets = Array.from({ length: 200 }, (_, at) => `plc-${at}=lan:192.0.2.7:${at + 1}`)
    const config = await enrolled(gateway, directory, targets)
    await using _agent = running(config, { scope })
    const held = await gateway.nextTunnel()
    expect(held.greeting['targets']).toEqual([])
    await holds(() => expect(held.reports[0]).toMatchObject({ type: 'targets' }))
    expect(held.reports[0]?.['targets']).toHaveLength(200)
  })
})

describe('the gateway misbehaves', () => {
  test.for([
    ['a line that is not JSON', '{{{\n', 'control.message'],
    ['a message without a type', '{"a":1}\n', 'control.message'],
    ['a line without end', 'x'.repeat(20_000), 'control.limit'],
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
