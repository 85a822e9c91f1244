/** The owner's switch: what it cuts, what keeps it cut, and who can lift it. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { configFrom, layIsland, liftIsland, readIsland, readStatus } from '#agent'
import { Directory, enrolled, running } from './device.ts'
import { DEVICE, FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { startProgram } from './programs/process.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))
const NOW = '2026-01-02T03:04:05.000Z'

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

/** Polls; a condition that never comes is a failure. */
const become = (check: () => void) => holds(check)
const stateOf = ({ path }: Directory) => readStatus(path)?.status.state

test('the owner cuts: the stream and the tunnel end, the gateway is told why, nothing is dialled until it is lifted', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  await using agent = running(config)
  const held = await gateway.nextTunnel()
  const opened = await openStream(held, 'plc')
  proceed(opened)
  opened.stream.write(Buffer.from('through'))
  await become(() => expect(opened.received.toString()).toBe('through'))
  const before = gateway.tunnels.length
  const asked = gateway.asked.length

  layIsland(directory.path, 'maintenance', NOW)
  await soon('the stream ends', opened.closed)
  const why = await soon('the tunnel ends', held.tunnel.closed)
  expect(why).toMatchObject({ code: 'owner.island', fault: 'remote' })
  await become(() => expect(stateOf(directory)).toBe('island'))
  expect(agent.logged('island.on')[0]?.fields).toEqual({ since: NOW, reason: 'maintenance' })

  liftIsland(directory.path)
  await gateway.nextTunnel()
  // With no wait between two attempts (`random` is nothing), one that was made meanwhile would be here.
  expect(gateway.tunnels.length).toBe(before + 1)
  expect(gateway.asked.length).toBe(asked)
  expect(agent.logged('island.off')).toHaveLength(1)
})

test('streams that are allowed to drain are not drained by the owner', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const config = await enrolled(gateway, directory, [`plc=tcp:127.0.0.1:${target.port}`])
  await using _agent = running({ ...config, drainMs: 86_400_000 })
  const held = await gateway.nextTunnel()
  const opened = await openStream(held, 'plc')
  proceed(opened)
  layIsland(directory.path, undefined, NOW)
  await soon('the stream ends', opened.closed)
  await become(() => expect(stateOf(directory)).toBe('island'))
})

test('a dial on its way is given up', async () => {
  using directory = new Directory()
  const sockets: Socket[] = []
  const mute = createServer((socket) => void sockets.push(socket.on('error', () => {}).resume()))
  mute.listen(0, '127.0.0.1')
  await once(mute, 'listening')
  await enrolled(gateway, directory)
  const { port } = mute.address() as AddressInfo
  const setup = {
    gateway: `https://127.0.0.1:${port}`,
    device: DEVICE,
    rootSha256: gateway.pin,
  }
  await using _agent = running(configFrom(setup, directory.path))
  await become(() => expect(sockets).toHaveLength(1))
  const gone = once(sockets[0]!, 'close')
  layIsland(directory.path, undefined, NOW)
  await soon('the dial is given up', gone)
  await become(() => expect(stateOf(directory)).toBe('island'))
  expect(sockets).toHaveLength(1)
  mute.close()
})

describe('a file laid by hand', () => {
  test.for([
    ['empty', (path: string) => writeFileSync(path, '')],
    ['not JSON', (path: string) => writeFileSync(path, 'off')],
    ['a directory', (path: string) => mkdirSync(path)],
  ] as const)('that is %s cuts as well', async ([, lay]) => {
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    lay(join(directory.path, 'island'))
    expect(readIsland(directory.path)).toEqual({ since: null, reason: null })
    const before = gateway.tunnels.length
    await using _agent = running(config)
    await become(() => expect(stateOf(directory)).toBe('island'))
    expect(gateway.tunnels.length).toBe(before)
    liftIsland(directory.path)
    expect(existsSync(join(directory.path, 'island'))).toBe(false)
    await gateway.nextTunnel()
  })
})

test('a cut that cannot be written down holds while the agent runs', async () => {
  using directory = new Directory()
  const config = await enrolled(gateway, directory)
  let cut = () => {}
  await using agent = running(config, { onCut: (given) => (cut = given) })
  const held = await gateway.nextTunnel()
  // Where the file would be written aside, something is in the way.
  mkdirSync(join(directory.path, 'island.new/full'), { recursive: true })
  cut()
  await soon('the tunnel ends', held.tunnel.closed)
  await become(() => expect(stateOf(directory)).toBe('island'))
  expect(agent.logged('island.unwritten')).toHaveLength(1)
})

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [bin, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
}

async function command(...args: readonly string[]): Promise<{ code: number; out: string }> {
  const child = start(args)
  let out = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (out += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out }
}

test('command and signal on a real agent: cut, cut still after kill -9, lifted by the command only', async () => {
  using directory = new Directory()
  await enrolled(gateway, directory)
  const data = ['--data', directory.path]
  const children: ChildProcess[] = []
  const agent = () => {
    const child = start(['agent', 'run', ...data])
    children.push(child)
    return child
  }
  try {
    const first = agent()
    const held = await gateway.nextTunnel()
    await become(() => expect(stateOf(directory)).toBe('connected'))
    const on = await command('agent', 'island', 'on', ...data, '--reason', 'line 3 is open')
    expect(on).toMatchObject({ code: 0 })
    expect(on.out).toContain('its sessions have ended')
    expect((await soon('the tunnel ends', held.tunnel.closed)).code).toBe('owner.island')
    const status = await command('agent', 'island', 'status', ...data)
    expect(status.out).toContain('line 3 is open')
    expect((await command('agent', 'status', ...data)).out).toContain('cut off by the owner')
    const doctor = await command('agent', 'doctor', ...data)
    expect(doctor).toMatchObject({ code: 1 })
    expect(doctor.out).toContain('island off')

    const tunnels = gateway.tunnels.length
    first.kill('SIGKILL')
    await once(first, 'exit')
    const second = agent()
    await become(() =>
      expect(readStatus(directory.path)).toMatchObject({
        status: { pid: second.pid, state: 'island' },
      }),
    )
    expect(gateway.tunnels.length).toBe(tunnels)

    const coming = gateway.nextTunnel()
    const off = await command('--json', 'agent', 'island', 'off', ...data)
    expect(JSON.parse(off.out)).toEqual({ device: DEVICE, island: false, running: true })
    const again = await coming
    // The gateway has a tunnel before the agent has: only one that the agent holds can be told why it ends.
    await become(() => expect(stateOf(directory)).toBe('connected'))
    second.kill('SIGUSR2')
    expect((await soon('the tunnel ends', again.tunnel.closed)).code).toBe('owner.island')
    expect(readIsland(directory.path)?.reason).toBe('signal')
    // The signal only cuts.
    await become(() => expect(stateOf(directory)).toBe('island'))
    second.kill('SIGUSR2')
    second.kill('SIGTERM')
    expect(await soon('the end', once(second, 'exit'))).toEqual([0, null])
    expect(gateway.tunnels.length).toBe(tunnels + 1)
    const idle = await command('agent', 'island', 'off', ...data)
    expect(idle).toMatchObject({
      code: 0,
      out: expect.stringContaining('no longer cut off') as string,
    })
  } finally {
    for (const child of children) child.kill('SIGKILL')
  }
})

test('a device that is cut off does not enrol', async () => {
  using directory = new Directory()
  layIsland(directory.path, undefined, NOW)
  const asked = gateway.asked.length
  await expect(enrolled(gateway, directory)).rejects.toMatchObject({ code: 'agent.island' })
  expect(gateway.asked.length).toBe(asked)
})
