/**
 * Both ends behind proxies: a device and a vendor who can only leave their networks by somebody
 * else's proxy meet at a gateway. With proxies of ours, then with foreign ones, skipped by name where absent.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { configFrom, enrolAgent, runAgent } from '#agent'
import type { Way } from '#agent'
import type { DeviceToken } from '#api'
import { deviceLogin, saveCredentials } from '../../cli/login/index.ts'
import { takeWay } from '../../cli/way.ts'
import { approveDevice, openBrowser } from '../support/browser.ts'
import { throughConnect } from '../support/connect.ts'
import {
  freePort,
  grantFor,
  startNode,
  sha256,
  until,
  type Person,
  type TestNode,
} from '../support/node.ts'
import { httpProxy, socksProxy } from '../support/proxy.ts'
import { run } from '../cli/run.ts'

const PASSWORD = 'correct horse battery staple'

let node: TestNode
let vendor: Person
let echo: Server
let folder: string
let pin: string
let at = 0
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-way-'))
  node = await startNode()
  const operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const info = await vendor.ask<{ ca_sha256: string }>('GET', '/info')
  pin = info.ca_sha256
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
  approve = async (device) => void (await grantFor(vendor, operator, { device, process: 'plc' }))
})
let approve: (device: string) => Promise<void>
afterAll(async () => {
  echo.close()
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})
afterEach(() => takeWay({}))

/** The executable that answers for the process: the one that runs this test. */
const own = realpathSync('/proc/self/exe')

const portOf = (server: Server) => (server.address() as AddressInfo).port
const secret = (text: string): string => {
  const file = join(folder, `auth-${at++}`)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

/** A device on its own way out, enrolled and running. */
async function device(id: string, way: Way): Promise<AsyncDisposable> {
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })
  await node.admin.ask('PUT', `/devices/${id}/processes/plc`, {
    kind: 'tcp',
    expect: { exe: [own], sha256: [sha256(readFileSync(own))] },
  })
  const setup = {
    gateway: node.origin,
    device: id,
    rootSha256: pin,
    targets: [`plc=tcp:127.0.0.1:${portOf(echo)}`],
    way,
  }
  const config = configFrom(setup, join(folder, id))
  await enrolAgent(config, { token: token.token, log: () => {} })
  const stopping = new AbortController()
  const done = runAgent(config, { signal: stopping.signal, log: () => {} })
  await until('the device is connected', async () => {
    const { connected } = await node.admin.ask<{ connected: boolean }>('GET', `/devices/${id}`)
    return connected
  })
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await done
    },
  }
}

/** Signs the vendor in on this way; gives the home of the sign-in. */
async function signedIn(way: Way): Promise<string> {
  takeWay(way)
  const home = join(folder, `home-${at++}`)
  await using browser = openBrowser(node.anchor)
  let page: Promise<unknown> | undefined
  const credentials = await deviceLogin({
    gateway: node.origin,
    trust: { pin },
    onPrompt({ completeUrl: url }) {
      page = approveDevice(browser, { url, email: vendor.email, password: PASSWORD })
      page.catch(() => {})
    },
  })
  await page
  await saveCredentials(join(home, 'credentials'), credentials)
  takeWay({})
  return home
}

const options = ({ carrier, proxy, proxyAuthFile }: Way): string[] => [
  ...(carrier === undefined ? [] : ['--carrier', carrier]),
  ...(proxy === undefined ? [] : ['--proxy', proxy]),
  ...(proxyAuthFile === undefined ? [] : ['--proxy-auth-file', proxyAuthFile]),
]

const pairs = [
  { name: 'HTTP CONNECT for the vendor, SOCKS5 for the device', carrier: 'tls' },
  { name: 'the same with WebSocket inside', carrier: 'websocket' },
] as const

test.for(pairs)('$name', async ({ carrier }, { expect: holds }) => {
  await using office = await httpProxy({ login: 'vera:secret' })
  await using plant = await socksProxy({ login: 'press:secret' })
  const id = `press-${carrier}`
  await using _agent = await device(id, {
    carrier,
    proxy: plant.url,
    proxyAuthFile: secret('press:secret'),
  })
  await approve(id)
  const way = { carrier, proxy: office.url, proxyAuthFile: secret('vera:secret') }
  const home = await signedIn(way)
  const before = office.asked.length
  holds(await throughConnect(home, `${id}/plc`, `to ${id}`, options(way))).toBe(`to ${id}`)
  // The API calls and the tunnel, all of them through the proxy; the device's too.
  holds(office.asked.length - before).toBeGreaterThan(1)
  holds(new Set([...office.asked, ...plant.asked])).toEqual(new Set([`localhost:${node.port}`]))
})

test('the command says which proxy does not let it out, and what to do', async () => {
  const home = await signedIn({})
  await using office = await httpProxy({ login: 'vera:secret' })
  const refused = await run(home, '--json', '--proxy', office.url, 'whoami')
  expect(refused.code).toBe(5)
  expect(JSON.parse(refused.err)).toMatchObject({ error: { code: 'proxy.auth' } })
  const missing = await run(
    home,
    '--json',
    '--proxy',
    office.url,
    '--proxy-auth-file',
    '/nonexistent/file',
    'doctor',
  )
  expect(missing.code).toBe(2)
  expect(missing.err).toContain('proxy.secret')
  const walked = await run(
    home,
    '--proxy',
    office.url,
    '--proxy-auth-file',
    secret('vera:secret'),
    '--carrier',
    'websocket',
    'doctor',
  )
  expect(walked).toMatchObject({ code: 0 })
  expect(walked.out).toContain('name of the proxy: 127.0.0.1')
  const wrong = await run(home, '--carrier', 'pigeon', 'connect', 'a/b', '--listen', '127.0.0.1:0')
  expect(wrong.code).not.toBe(0)
})

const has = (program: string, ...args: string[]) => spawnSync(program, args).error === undefined
const noTiny = !has('tinyproxy', '-v')
const noSocks = !has('microsocks', '-h')

async function running(child: ChildProcess, port: number): Promise<AsyncDisposable> {
  await until('the proxy listens', async () => {
    const socket = connect({ port, host: '127.0.0.1' })
    const heard = Promise.withResolvers<boolean>()
    socket.on('connect', () => heard.resolve(true)).on('error', () => heard.resolve(false))
    const listens = await heard.promise
    socket.destroy()
    return listens
  })
  return {
    async [Symbol.asyncDispose]() {
      const over = once(child, 'close')
      child.kill('SIGTERM')
      await over
    },
  }
}

async function tinyproxy(port: number): Promise<AsyncDisposable> {
  const file = join(folder, `tinyproxy-${port}.conf`)
  writeFileSync(
    file,
    `Port ${port}\nListen 127.0.0.1\nTimeout 600\nAllow 127.0.0.1\nBasicAuth press secret\nConnectPort ${node.port}\n`,
  )
  return await running(spawn('tinyproxy', ['-d', '-c', file], { stdio: 'ignore' }), port)
}

async function microsocks(port: number): Promise<AsyncDisposable> {
  const args = ['-i', '127.0.0.1', '-p', String(port), '-u', 'press', '-P', 'secret']
  return await running(spawn('microsocks', args, { stdio: 'ignore' }), port)
}

const foreign = [
  { name: 'tinyproxy', absent: noTiny, start: tinyproxy, scheme: 'http' },
  { name: 'microsocks', absent: noSocks, start: microsocks, scheme: 'socks5' },
] as const

describe.each(foreign)('$name', ({ name, absent, start, scheme }) => {
  test.skipIf(absent).for(['tls', 'websocket'] as const)(
    'carries a device and a vendor, in %s',
    async (carrier) => {
      const port = await freePort()
      await using _proxy = await start(port)
      const proxy = `${scheme}://127.0.0.1:${port}`
      const way = { carrier, proxy, proxyAuthFile: secret('press:secret') }
      const id = `${name}-${carrier}`
      await using _agent = await device(id, way)
      await approve(id)
      const home = await signedIn(way)
      expect(await throughConnect(home, `${id}/plc`, `to ${id}`, options(way))).toBe(`to ${id}`)
      const wrong = { ...way, proxyAuthFile: secret('press:wrong') }
      const refused = await run(home, '--json', ...options(wrong), 'whoami')
      expect(JSON.parse(refused.err)).toMatchObject({ error: { code: 'proxy.auth' } })
    },
  )
})
