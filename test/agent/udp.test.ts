/** UDP targets with real processes: who gets the datagrams is who was decided on, and nobody beside. */
import { createSocket } from 'node:dgram'
import { existsSync, realpathSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { networkInterfaces, userInfo } from 'node:os'
import { ProcessScope } from '../../agent-tunnel/agent/scope/owner.ts'
import { enrolled, Directory, running } from './device.ts'
import type { Running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import type { Held, Opened } from './gateway.ts'
import { copyOf, sha256Of, startProgram } from './programs/process.ts'
import type { Started } from './programs/process.ts'
import { HandClock } from '../support/clock.ts'
import { freePort, until } from '../support/node.ts'

const PYTHON = '/usr/bin/python3'
const absent = !existsSync(PYTHON) || !existsSync('/proc/self/net/udp')
const python = absent ? '' : realpathSync(PYTHON)
const sha256 = absent ? '' : sha256Of(python)
const root = userInfo().uid === 0

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

interface Server extends Started {
  /** How many datagrams it says it got. */
  got: number
}

async function server(
  mode: string,
  options: { port?: number; host?: string; exe?: string; uid?: number } = {},
): Promise<Server> {
  const { port = 0, host = '127.0.0.1', exe = PYTHON, uid } = options
  const started = await startProgram('datagrams.py', [mode, String(port), host], {
    exe,
    ...(uid === undefined ? {} : { uid }),
  })
  const counted: Server = Object.assign(started, { got: 0 })
  createInterface({ input: started.child.stdout! }).on('line', (line) => {
    counted.got = Number(line)
  })
  return counted
}

/** A device whose targets are `plc` and whatever is given, connected. */
class Device implements AsyncDisposable {
  readonly directory = new Directory()
  agent!: Running
  held!: Held

  static async with(
    targets: readonly string[],
    scope = new ProcessScope(),
    clock?: HandClock,
  ): Promise<Device> {
    const device = new Device()
    const config = await enrolled(gateway, device.directory, targets)
    device.agent = running(config, { scope, ...(clock === undefined ? {} : { clock }) })
    device.held = await gateway.nextTunnel()
    return device
  }
  open(process = 'plc', overrides = {}): Promise<Opened> {
    return openStream(this.held, process, overrides, 'udp')
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.stop()
    this.directory[Symbol.dispose]()
  }
}

/** Sends until an answer to that comes: a datagram may be lost, by the rules. */
async function ask(opened: Opened, text: string, back = [text]): Promise<string> {
  const before = opened.pieces.length
  let sent = -Infinity
  const answer = await until(`an answer to ${text}`, () => {
    if (performance.now() - sent > 250) {
      opened.stream.write(Buffer.from(text))
      sent = performance.now()
    }
    const pieces = opened.pieces.slice(before).map(String)
    return pieces.find((piece) => back.some((one) => piece.endsWith(` ${one}`)))
  })
  return answer
}

describe.skipIf(absent)('python3: a udp target', () => {
  test('every datagram as it was, the empty one and the longest too', async () => {
    await using target = await server('plain')
    await using device = await Device.with([`plc=udp:127.0.0.1:${target.port}`])
    expect(device.held.greeting['targets']).toMatchObject([
      {
        process: 'plc',
        kind: 'udp',
        listener: { phase: 'listener', sha256, pid: target.pid },
        listens: [`udp:127.0.0.1:${target.port}`],
      },
    ])
    const opened = await device.open()
    expect(opened.observed).toMatchObject({
      phase: 'accepted',
      exe: python,
      sha256,
      pid: target.pid,
      others: [],
    })
    expect(target.got).toBe(0)
    proceed(opened)
    opened.stream.write(Buffer.from('hello'))
    await holds(() => expect(opened.pieces).toHaveLength(1))
    expect(opened.received.toString()).toBe(`${target.pid} hello`)
    const before = opened.pieces.length
    const sizes = [0, 1, 2, 1200, 1473, 9000, 65_000]
    for (const size of sizes) opened.stream.write(Buffer.alloc(size, 97))
    await holds(() => expect(opened.pieces).toHaveLength(before + sizes.length))
    const head = `${target.pid} `.length
    expect(opened.pieces.slice(before).map(({ length }) => length - head)).toEqual(sizes)
    opened.stream.write(Buffer.alloc(65_507, 98))
    await holds(() => expect(opened.pieces.at(-1)).toHaveLength(65_507))
    expect(opened.stream.dropped).toBe(0)
    opened.stream.end()
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'done' })
  })

  test('nobody bound: refused, and said so; bound later: opened', async () => {
    const port = await freePort()
    await using device = await Device.with([`plc=udp:127.0.0.1:${port}`])
    await expect(device.open()).rejects.toMatchObject({
      code: 'target.unreachable',
      message: 'no process of this machine is bound to that port',
    })
    await using target = await server('plain', { port })
    expect((await device.open()).observed).toMatchObject({ pid: target.pid })
  })

  test('the target ends: the network says so, and the stream ends with that', async () => {
    await using target = await server('plain')
    await using device = await Device.with([`plc=udp:127.0.0.1:${target.port}`])
    const opened = await device.open()
    proceed(opened)
    await ask(opened, 'hello')
    await target[Symbol.asyncDispose]()
    const { code } = await soon('close', opened.closed)
    expect(code).toBe('target.closed')
  })

  test('beside this machine nothing is observed, and an ICMP refusal ends the stream', async () => {
    const own = Object.values(networkInterfaces())
      .flat()
      .find((one) => one?.family === 'IPv4' && !one.internal)?.address
    if (own !== undefined) {
      await using device = await Device.with([`plc=lan_udp:${own}:9`])
      await expect(device.open()).rejects.toMatchObject({ code: 'target.unreachable' })
    }
    await using device = await Device.with(['plc=lan_udp:192.0.2.7:9'])
    const opened = await device.open().catch((error: unknown) => error)
    // Where there is no way at all to that network, the kernel says so at once.
    if (opened instanceof Error) expect(opened).toMatchObject({ code: 'target.unreachable' })
    else expect((opened as Opened).observed).toBeNull()
  })

  test('a stream of another kind than the target is refused', async () => {
    await using target = await server('plain')
    await using device = await Device.with([
      `plc=udp:127.0.0.1:${target.port}`,
      'tool=tcp:127.0.0.1:9',
    ])
    await expect(openStream(device.held, 'plc')).rejects.toMatchObject({ code: 'open.kind' })
    await expect(device.open('tool')).rejects.toMatchObject({ code: 'open.kind' })
    await expect(device.open('plc', { protocol: 'modbus' })).rejects.toMatchObject({
      code: 'open.metadata',
    })
  })

  test('the lease ends it whatever the gateway does', async () => {
    await using target = await server('plain')
    const clock = new HandClock()
    const targets = [`plc=udp:127.0.0.1:${target.port}`]
    await using device = await Device.with(targets, new ProcessScope(), clock)
    const opened = await device.open('plc', { remaining_ms: 300 })
    proceed(opened)
    clock.pass(300)
    expect(await soon('close', opened.closed)).toMatchObject({ code: 'lease.spent' })
  })
})

const ways = [
  { name: 'sock_diag', scope: () => new ProcessScope() },
  { name: '/proc', scope: () => new ProcessScope({ diag: false }) },
] as const

describe.skipIf(absent).each(ways)('python3: who gets the datagrams, by $name', (way) => {
  let other: ReturnType<typeof copyOf>
  beforeAll(() => {
    other = copyOf(python)
    return () => other[Symbol.dispose]()
  })

  const rows = [
    { name: 'every address', host: '0.0.0.0', target: '127.0.0.1' },
    { name: 'every address of both families', host: '::', target: '127.0.0.1' },
    { name: 'IPv6', host: '::1', target: '[::1]' },
    { name: 'every address, reached by IPv6', host: '::', target: '[::1]' },
  ]
  test.for(rows)('a socket bound to $name', async ({ host, target: address }) => {
    await using target = await server('plain', { host })
    await using device = await Device.with([`plc=udp:${address}:${target.port}`], way.scope())
    const opened = await device.open()
    expect(opened.observed).toMatchObject({ pid: target.pid, sha256, others: [] })
    proceed(opened)
    expect(await ask(opened, 'hello')).toBe(`${target.pid} hello`)
  })

  test('another program shares the port (SO_REUSEPORT): both are told', async () => {
    await using one = await server('share')
    await using two = await server('share', { port: one.port, exe: other.path })
    await using device = await Device.with([`plc=udp:127.0.0.1:${one.port}`], way.scope())
    const { observed } = await device.open()
    const all = [observed, ...(observed!['others'] as Record<string, unknown>[])]
    expect(new Set(all.map((owner) => owner!['pid']))).toEqual(new Set([one.pid, two.pid]))
    expect(new Set(all.map((owner) => owner!['sha256']))).toEqual(new Set([sha256, other.sha256]))
  })

  test('a more exactly bound socket gets them, and is the one that is told', async () => {
    await using wide = await server('reuse', { host: '0.0.0.0' })
    await using exact = await server('reuse', { port: wide.port, exe: other.path })
    await using device = await Device.with([`plc=udp:127.0.0.1:${wide.port}`], way.scope())
    const opened = await device.open()
    expect(opened.observed).toMatchObject({ pid: exact.pid, sha256: other.sha256, others: [] })
    proceed(opened)
    expect(await ask(opened, 'hello')).toBe(`${exact.pid} hello`)
  })

  test.skipIf(!root)(
    'another user binds the same port during a session: not one datagram reaches them',
    async () => {
      await using target = await server('reuse')
      await using device = await Device.with([`plc=udp:127.0.0.1:${target.port}`], way.scope())
      const opened = await device.open()
      proceed(opened)
      await ask(opened, 'hello')
      await using intruder = await server('reuse', {
        port: target.port,
        exe: other.path,
        uid: 65_534,
      })
      for (let at = 0; at < 20; at++) opened.stream.write(Buffer.from('secret'))
      expect(await soon('close', opened.closed)).toMatchObject({ code: 'process.changed' })
      expect(intruder.got).toBe(0)
      expect(device.agent.logged('owner.changed').at(-1)?.fields['alike']).toBe(false)
    },
  )

  test('the target ends and another program takes its port: not one datagram reaches it', async () => {
    await using target = await server('plain')
    await using device = await Device.with([`plc=udp:127.0.0.1:${target.port}`], way.scope())
    const opened = await device.open()
    proceed(opened)
    await ask(opened, 'hello')
    await target[Symbol.asyncDispose]()
    await using heir = await server('plain', { port: target.port, exe: other.path })
    for (let at = 0; at < 20; at++) opened.stream.write(Buffer.from('secret'))
    const { code } = await soon('close', opened.closed)
    expect(['process.changed', 'target.closed']).toContain(code)
    expect(heir.got).toBe(0)
  })

  test('a child that connects a socket to us takes over: alike, and it goes on', async () => {
    await using target = await server('meet')
    await using device = await Device.with([`plc=udp:127.0.0.1:${target.port}`], way.scope())
    const opened = await device.open()
    proceed(opened)
    const met = await ask(opened, 'hello', ['met', 'hello'])
    const child = Number(met.split(' ')[0])
    expect(child).not.toBe(target.pid)
    expect(await ask(opened, 'again')).toMatch(new RegExp(`^${child} `))
    await holds(() =>
      expect(device.agent.logged('owner.changed').at(-1)?.fields).toMatchObject({
        alike: true,
        observed: { pid: child },
      }),
    )
  })
})

describe.skipIf(absent)('a flood', () => {
  let device: Device
  let target: Server
  beforeEach(async () => {
    target = await server('plain')
    device = await Device.with([`plc=udp:127.0.0.1:${target.port}`])
    return async () => {
      await device[Symbol.asyncDispose]()
      await target[Symbol.asyncDispose]()
    }
  })

  test('is kept to its budget, the rest dropped and counted, and the stream goes on', async () => {
    const opened = await device.open()
    proceed(opened)
    await ask(opened, 'before')
    for (let at = 0; at < 20_000; at++) opened.stream.write(Buffer.alloc(1000, 120))
    expect(opened.stream.dropped).toBeGreaterThan(15_000)
    await ask(opened, 'after')
  })

  test('from a stranger on this machine does not reach the session: the socket is connected', async () => {
    const opened = await device.open()
    proceed(opened)
    await ask(opened, 'hello')
    const stranger = createSocket('udp4')
    const before = opened.pieces.length
    // Every port the agent may have been given; only the target's own address and port is heard.
    for (let port = 32_768; port < 61_000; port += 7) stranger.send('forged', port, '127.0.0.1')
    await ask(opened, 'still')
    stranger.close()
    expect(opened.pieces.slice(before).every((piece) => !piece.includes('forged'))).toBe(true)
  })
})
