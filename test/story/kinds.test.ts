/**
 * The kinds of process, as they are used: the command as a program, a real gateway, a real agent, and
 * behind it a UDP service of this test.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DeviceToken, Session } from '#api'
import { configFrom, enrolAgent, runAgent } from '#agent'
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
  agent = runAgent(config, { signal: stopping.signal, log: () => undefined })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await saveCredentials(join(home, 'credentials'), vendor.credentials)
  await until('the device is connected', async () => (await node.health()).devices === 1)
  await grantFor(vendor, node.admin, { device: 'press-07', process: 'snmp' })
}, 60_000)
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
    expect(await soon('the command ends', running.over, 30_000)).toBe(6)
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
  ])('asked for by $name: told what it is, and no session is left', async ({ args }) => {
    const running = sallyport('connect', 'press-07/snmp', ...args)
    expect(await soon('the command ends', running.over, 30_000)).toBe(2)
    expect(running.err).toMatch(/press-07\/snmp is reached by (?:UDP|udp)/)
    const { items } = await node.admin.ask<{ items: Session[] }>('GET', '/sessions')
    expect(items.filter(({ state }) => state === 'open')).toEqual([])
  })
})
