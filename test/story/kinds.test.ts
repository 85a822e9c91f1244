/**
 * The kinds of process, as they are used: the command as a program, a real gateway, a real agent, and
 * behind it a UDP service of this test.
 */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DeviceToken, Session } from '#api'
import { configFrom, enrolAgent, runAgent } from '#agent'
import { At } from '../../agent-tunnel/agent/at.ts'
import { targetOf } from '../../agent-tunnel/agent/target.ts'
import { saveCredentials } from '../../cli/login/index.ts'
import {
  grantFor,
  sha256,
  soon,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../support/node.ts'

const bin = resolve(import.meta.dirname, '../../cli/bin.mjs')
const home = mkdtempSync(join(tmpdir(), 'sallyport-kinds-'))
const root = userInfo().uid === 0
const user = root ? 'nobody' : userInfo().uid
const uid = root ? 65_534 : userInfo().uid
const missing =
  spawnSync('unshare', [
    ...(root ? [] : ['--user', '--map-current-user']),
    '--pid',
    '--fork',
    '--mount-proc',
    'true',
  ]).status !== 0
const stopping = new AbortController()
let node: TestNode
let vendor: Person
let agent: Promise<void>
let service: Socket

beforeAll(async () => {
  node = await startNode()
  service = createSocket('udp4')
  service.on('message', (datagram, from) => service.send(datagram, from.port, from.address))
  service.bind(0, '127.0.0.1')
  await once(service, 'listening')
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
    id: 'press-07',
  })
  const expect = { sha256: [sha256(readFileSync(process.execPath))] }
  await node.admin.ask('PUT', '/devices/press-07/processes/snmp', { kind: 'udp', expect })
  await node.admin.ask('PUT', '/devices/press-07/processes/shell', {
    kind: 'spawn',
    expect: { sha256: [sha256(readFileSync('/bin/sh'))], uid: [uid] },
  })
  await node.admin.ask('PUT', '/devices/press-07/processes/other', {
    kind: 'spawn',
    expect: { sha256: ['0'.repeat(64)] },
  })
  const config = configFrom(
    {
      gateway: node.origin,
      device: 'press-07',
      rootSha256: readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').split(/\s/)[0] ?? '',
      targets: [`snmp=udp:127.0.0.1:${service.address().port}`],
    },
    join(home, 'agent'),
  )
  await enrolAgent(config, { token: token.token, log: () => undefined })
  const program = (declaration: object) =>
    targetOf(new At('test', 'tool', { spawn: { user, terminal: true, ...declaration } }))
  const targets = new Map([
    ...config.targets,
    ['shell', program({ argv: ['/bin/sh'] })] as const,
    ['other', program({ argv: ['/bin/sh'] })] as const,
  ])
  agent = runAgent({ ...config, targets }, { signal: stopping.signal, log: () => undefined })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await saveCredentials(join(home, 'credentials'), vendor.credentials)
  await until('the device is connected', async () => (await node.health()).devices === 1)
  for (const process of ['snmp', 'shell', 'other'])
    await grantFor(vendor, node.admin, { device: 'press-07', process })
})
afterAll(async () => {
  stopping.abort()
  await agent
  service.close()
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

interface Running {
  readonly child: ChildProcessWithoutNullStreams
  readonly news: Record<string, unknown>[]
  err: string
  readonly over: Promise<number | null>
}

function sallyport(...args: string[]): Running {
  const env = { ...process.env, SALLYPORT_HOME: home }
  const child = spawn(process.execPath, [bin, '--json', ...args], { env, stdio: 'pipe' })
  const over = new Promise<number | null>((done) => child.on('close', done))
  const running: Running = { child, news: [], err: '', over }
  child.stderr.setEncoding('utf8').on('data', (text: string) => (running.err += text))
  createInterface({ input: child.stdout }).on('line', (line) =>
    running.news.push(JSON.parse(line) as Record<string, unknown>),
  )
  return running
}

async function heard(running: Running, event: string): Promise<Record<string, unknown>> {
  return await until(`${event}; ${running.err}`, () =>
    running.news.find((one) => one['event'] === event),
  )
}

describe('a udp process', () => {
  test('datagrams go there and back whole, are counted, and a kill ends it', async () => {
    const running = sallyport('connect', 'press-07/snmp', '--listen', 'udp:127.0.0.1:0')
    const listening = await heard(running, 'listening')
    const tool = createSocket('udp4')
    const back: number[] = []
    tool.on('message', ({ length }) => back.push(length))
    tool.connect(Number(listening['port']), '127.0.0.1')
    await once(tool, 'connect')
    for (const size of [1, 0, 1400, 30_000]) tool.send(Buffer.alloc(size, 97))
    await until('all came back', () => back.length === 4)
    expect(back).toEqual([1, 0, 1400, 30_000])
    const id = String(listening['session'])
    await node.admin.ask('POST', `/sessions/${id}/cut`, { reason: 'test' })
    expect(await soon('the command ends', running.over)).toBe(6)
    tool.close()
    const session = await node.admin.ask<Session>('GET', `/sessions/${id}`)
    expect(session).toMatchObject({
      state: 'ended',
      bytes_in: 31_401,
      bytes_out: 31_401,
    })
  })

  test.for([
    { name: '--stdio', args: ['--stdio'] },
    { name: 'a TCP port', args: ['--listen', 'tcp:127.0.0.1:0'] },
    { name: 'nothing said', args: [] },
  ])('asked for by $name: told what it is, before any session is opened', async ({ args }) => {
    const from = node.size()
    const running = sallyport('connect', 'press-07/snmp', ...args)
    expect(await soon('the command ends', running.over)).toBe(2)
    expect(running.err).toMatch(/press-07\/snmp is reached by (?:UDP|udp)/)
    expect(node.events(from).filter(({ code }) => code.startsWith('session.'))).toEqual([])
  })
})

/** The command as a program with pipes; what it said, and its exit code. */
async function piped(process_: string, input: string, ...args: string[]) {
  const env = { ...process.env, SALLYPORT_HOME: home }
  const child = spawn(process.execPath, [bin, 'connect', `press-07/${process_}`, ...args], { env })
  const over = new Promise<number | null>((done) => child.on('close', done))
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const code = await soon('the command ends', over)
  return { code, out, err }
}

describe.skipIf(missing)('unshare: a spawned process', () => {
  test.for([{ args: [] }, { args: ['--stdio'] }])(
    'by pipes ($args): a plain pipe, its exit code passed on',
    async ({ args }) => {
      const { code, out } = await piped('shell', 'tty; echo out; exit 7\n', ...args)
      expect([code, out]).toEqual([7, 'not a tty\nout\n'])
    },
  )

  test('that a signal ends: as a shell says it', async () => {
    expect(await piped('shell', 'kill -15 $$\n')).toMatchObject({ code: 143 })
  })

  test('another program than the approved one is not started', async () => {
    const { code, out, err } = await piped('other', 'echo out\n')
    expect([code, out]).toEqual([3, ''])
    expect(err).toContain('process.mismatch')
  })

  test('a port for it is refused, and no session is left', async () => {
    const { code, err } = await piped('shell', '', '--listen', '127.0.0.1:0')
    expect(code).toBe(2)
    expect(err).toContain('it has no port')
  })

  test.skipIf(spawnSync('script', ['--version']).status !== 0)(
    'script: on a terminal it has one there, of this size, and keys are its own',
    async () => {
      const inner = `stty rows 31 cols 97; ${process.execPath} ${bin} connect press-07/shell`
      const env = { ...process.env, SALLYPORT_HOME: home, TERM: 'xterm' }
      const child = spawn('script', ['-qec', inner, '/dev/null'], { env })
      let out = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
      const over = new Promise<number | null>((done) => child.on('close', done))
      await until('a prompt', () => out.includes('$ '))
      child.stdin.write('tty; stty size; echo $TERM\r')
      // Node's raw mode still writes a line's end as two characters: there may be a further CR.
      const answers = /\/dev\/pts\/\d+\r+\n31 97\r+\nxterm\r+\n/
      await until('the answers', () => answers.test(out))
      const loop = `trap "echo caught; exit 1" INT; echo ready; while :; do sleep 0.1; done`
      child.stdin.write(`sh -c '${loop}'\r`)
      await until('it runs', () => /ready\r+\n/.test(out))
      child.stdin.write('\x03')
      await until('it was interrupted', () => /caught\r+\n/.test(out))
      child.stdin.write('exit 9\r')
      expect(await soon('the command ends', over)).toBe(9)
    },
  )
})
