/** `sallyport agent` as people run it: a process, its exit codes, its words, and its sockets. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findHolders } from '../../agent-tunnel/agent/scope/holders.ts'
import { parseSocketTable } from '../../agent-tunnel/agent/scope/procfs.ts'
import { Directory } from './device.ts'
import { DEVICE, FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import { startProgram } from './programs/process.ts'

const bin = fileURLToPath(new URL('../../cli/bin.mjs', import.meta.url))

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(process.execPath, [bin, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

async function sallyport(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const child = start(args, env)
  let [stdout, stderr] = ['', '']
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, stdout, stderr }
}

let gateway: FakeGateway
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())

function enrollArgs(directory: Directory, more: readonly string[] = []): string[] {
  return [
    'agent',
    'enroll',
    '--gateway',
    gateway.url,
    '--device',
    DEVICE,
    '--ca-sha256',
    gateway.pin,
    '--data',
    directory.path,
    ...more,
  ]
}

test('enroll, run, status, doctor: the agent serves, listens on nothing, and ends on SIGTERM', async () => {
  using directory = new Directory()
  await using target = await startProgram('target.ts')
  const enroll = await sallyport(
    enrollArgs(directory, ['--target', `plc=tcp:127.0.0.1:${target.port}`]),
    {
      SALLYPORT_TOKEN: await gateway.bench.token(),
    },
  )
  expect(enroll).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('is enrolled') as string,
  })

  const idle = await sallyport(['agent', 'status', '--data', directory.path])
  expect(idle).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('never ran here') as string,
  })

  const child = start(['agent', 'run', '--data', directory.path])
  // When it has ended and all that it said is here.
  const over = once(child, 'close')
  child.stdout?.resume()
  const lines: Record<string, unknown>[] = []
  createInterface({ input: child.stderr! }).on('line', (line) =>
    lines.push(JSON.parse(line) as Record<string, unknown>),
  )
  try {
    const held = await gateway.nextTunnel()
    const opened = await openStream(held, 'plc')
    proceed(opened)
    opened.stream.write(Buffer.from('through'))
    await holds(() => expect(opened.received.toString()).toBe('through'))

    if (existsSync('/proc/self/net/tcp')) expect(await listeningSockets(child.pid!)).toEqual([])

    const status = await sallyport(['--json', 'agent', 'status', '--data', directory.path])
    expect(JSON.parse(status.stdout)).toMatchObject({
      device: DEVICE,
      running: true,
      state: 'connected',
      gateway: 'gw1',
      tls: { group: 'X25519MLKEM768' },
    })
    const doctor = await sallyport(['agent', 'doctor', '--data', directory.path])
    expect(doctor.code).toBe(0)
    // A machine may have processes that nobody may look into; that is advice and no failure.
    expect(doctor.stderr).toMatch(/^(?:processes: Where policy needs to know, .*\n)?$/)
    expect(doctor.stdout).toMatch(/tunnel +ok +the running agent is connected to gw1/)
    expect(doctor.stdout).toMatch(/target plc +ok/)
    expect(held.tunnel.draining).toBe(false)

    const second = await sallyport(['agent', 'run', '--data', directory.path])
    expect(second).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('agent.running') as string,
    })
  } finally {
    child.kill('SIGTERM')
  }
  expect(await soon('exit', over)).toEqual([0, null])
  expect(lines.map((line) => line['event'])).toContain('tunnel.up')
  expect(lines.at(-1)).toMatchObject({ level: 'info', event: 'agent.stopped' })
  const key = readFileSync(join(directory.path, 'identity', 'a', 'key.pem'), 'utf8').split('\n')[1]!
  expect(JSON.stringify(lines)).not.toContain(key)
})

/** Sockets of a process in a state that takes connections or datagrams from others. */
async function listeningSockets(pid: number): Promise<unknown[]> {
  const read = (name: string) => parseSocketTable(readFileSync(`/proc/self/net/${name}`, 'latin1'))
  const tcp = ['tcp', 'tcp6'].flatMap(read).filter((row) => row.state === 0x0a)
  const udp = ['udp', 'udp6'].flatMap(read)
  const rows = [...tcp, ...udp]
  const { holders } = await findHolders('/proc', new Set(rows.map((row) => row.inode)))
  return holders.filter((holder) => holder.pid === pid)
}

test('a process that was killed leaves a directory the next one starts on', async () => {
  using directory = new Directory()
  await sallyport(enrollArgs(directory), { SALLYPORT_TOKEN: await gateway.bench.token() })
  const child = start(['agent', 'run', '--data', directory.path])
  await gateway.nextTunnel()
  child.kill('SIGKILL')
  await once(child, 'exit')
  const status = await sallyport(['agent', 'status', '--data', directory.path])
  expect(status).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('does not run') as string,
  })
  const again = start(['agent', 'run', '--data', directory.path])
  await gateway.nextTunnel()
  again.kill('SIGINT')
  expect(await once(again, 'exit')).toEqual([0, null])
})

describe('told with code, next step and exit code', () => {
  test.for([
    ['no token', [], 2, 'token.missing'],
    ['a target by name', ['--target', 'plc=tcp:localhost:1'], 2, 'config.invalid'],
    ['a short pin', ['--ca-sha256', 'abcd'], 2, 'config.invalid'],
    ['a key of updates that is none', ['--update-key', 'ed25519:x'], 2, 'update.keys'],
  ] as const)('enroll with %s', async ([, more, code, name]) => {
    using directory = new Directory()
    const ended = await sallyport(enrollArgs(directory, more), {
      SALLYPORT_TOKEN: name === 'token.missing' ? '' : 'token',
    })
    expect(ended.code).toBe(code)
    expect(ended.stderr).toContain(name)
    expect(ended.stderr).toMatch(/next {2}\S/)
  })

  test('enroll with a token the gateway does not know', async () => {
    using directory = new Directory()
    const ended = await sallyport(enrollArgs(directory), { SALLYPORT_TOKEN: 'wrong' })
    expect(ended.code).toBe(3)
    expect(ended.stderr).toContain('enrol.refused')
    expect(ended.stderr).not.toContain('wrong\n')
  })

  test('run before enroll', async () => {
    using directory = new Directory()
    expect(await sallyport(['agent', 'run', '--data', directory.path])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('config.missing') as string,
    })
  })

  test('doctor names the hop: no gateway, no listener, no enrolment', async () => {
    using directory = new Directory()
    writeFileSync(
      join(directory.path, 'agent.json'),
      JSON.stringify({
        v: 1,
        gateway: gateway.url,
        device: DEVICE,
        ca_sha256: gateway.pin,
        targets: { plc: { tcp: '127.0.0.1:1' } },
      }),
    )
    const before = await sallyport(['agent', 'doctor', '--data', directory.path])
    expect(before).toMatchObject({ code: 1 })
    expect(before.stdout).toMatch(/identity +broken/)
    expect(before.stdout).toMatch(/target plc +broken +nothing listens on 127\.0\.0\.1:1/)
    await using gone = await FakeGateway.start()
    const args = [
      'agent',
      'enroll',
      '--gateway',
      gone.url,
      '--device',
      DEVICE,
      '--ca-sha256',
      gone.pin,
      '--data',
      directory.path,
    ]
    await sallyport(args, { SALLYPORT_TOKEN: await gone.bench.token() })
    gone.refuses = () => 'device.quarantined'
    const refused = await sallyport(['agent', 'doctor', '--data', directory.path])
    expect(refused.code).toBe(1)
    expect(refused.stdout).toMatch(/tls +ok +TLSv1\.3.*X25519MLKEM768/)
    expect(refused.stdout).toMatch(/tunnel +broken .*device\.quarantined/)
    await gone.silence()
    const down = await sallyport(['--json', 'agent', 'doctor', '--data', directory.path])
    const hops = Object.fromEntries(
      (JSON.parse(down.stdout) as { hop: string; verdict: string }[]).map(({ hop, verdict }) => [
        hop,
        verdict,
      ]),
    )
    expect(hops).toMatchObject({
      config: 'ok',
      identity: 'ok',
      dns: 'ok',
      tcp: 'broken',
      tls: 'unknown',
      tunnel: 'unknown',
    })
  })
})
