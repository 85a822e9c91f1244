/** Starting: what is wrong is said with its code and place, and nothing is changed; what was kept is found again. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Device, Grant, OpenedSession, Session } from '#api'
import { initGateway, runGateway, type GatewayArguments } from '#gateway'
import {
  atNode,
  freePort,
  grantFor,
  openSession,
  soon,
  startNode,
  until,
} from '../../support/node.ts'
import { attach, Client, expecting, PLC, seen } from '../../support/tunnels.ts'

const BIN = resolve(import.meta.dirname, '../../../cli/bin.mjs')
const IMPATIENT = resolve(import.meta.dirname, '../../support/impatient.ts')

let data = ''
beforeAll(async () => {
  data = mkdtempSync(join(tmpdir(), 'sallyport-start-'))
  await initGateway({ dataDirectory: data })
})
afterAll(() => rmSync(data, { recursive: true }))

/** Every file with its bytes, but for what each start may add to: log, store and lock. */
function files(): Record<string, string> {
  const names = readdirSync(data, { recursive: true, encoding: 'utf8' })
  const kept = names.filter((name) => !/^(log\/|store\.sqlite|lock|gateway\.yaml)/.test(name))
  return Object.fromEntries(
    kept
      .filter((name) => statSync(join(data, name)).isFile())
      .map((name) => [name, readFileSync(join(data, name), 'base64')]),
  )
}

/** Starts a node that must not start; gives what it said. */
async function fails(
  given: GatewayArguments = {},
): Promise<{ readonly code: string; readonly message: string; readonly place?: unknown }> {
  const stop = new AbortController()
  const running = runGateway(
    { dataDirectory: data, listen: '127.0.0.1:0', operations: '127.0.0.1:0', ...given },
    { signal: stop.signal, ready: () => stop.abort() },
  )
  const [outcome] = await soon('it ends', Promise.allSettled([running]))
  if (outcome.status === 'fulfilled') throw new Error('it started')
  return outcome.reason as { code: string; message: string }
}

/** The program, as a person starts it. */
async function program(
  ...args: string[]
): Promise<{ readonly exit: number | null; readonly err: string; readonly out: string }> {
  const child = spawn(process.execPath, [BIN, 'gateway', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let err = ''
  let out = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  onTestFinished(() => void child.kill('SIGKILL'))
  const [exit] = (await soon('it ends', once(child, 'close'))) as [number | null]
  return { exit, err, out }
}

describe('a mistake in what it is told ends the program, with code and place', () => {
  const rows: readonly {
    readonly name: string
    readonly text: string
    readonly place: string
    readonly code?: string
  }[] = [
    { name: 'a key nobody knows', text: 'site: a\nlsiten: 127.0.0.1:1\n', place: ':2:1' },
    { name: 'not YAML', text: 'site: [\n', place: ':2:1', code: 'config.syntax' },
    { name: 'a port that is none', text: 'listen: 127.0.0.1\n', place: ':1:1' },
    { name: 'a data directory that is a number', text: 'data: 7\n', place: ':1:1' },
  ]
  test.for(rows)('$name', async ({ text, place, code = 'config.value' }) => {
    const file = join(data, 'gateway.yaml')
    writeFileSync(file, text)
    const before = files()
    expect(await fails({ configFile: file })).toMatchObject({ code, place: `${file}${place}` })
    expect(files()).toEqual(before)
  })

  test('as a person sees it: code, place, and no stack', async () => {
    const file = join(data, 'gateway.yaml')
    writeFileSync(file, 'operations: 127.0.0.1:0\nlsiten: 127.0.0.1:1\n')
    const { exit, err } = await program('--config', file, '--data', data)
    expect(exit).toBeGreaterThan(0)
    for (const word of ['config.value', `${file}:2:1`, 'lsiten']) expect(err).toContain(word)
    expect(err).not.toMatch(/\n\s+at /)
  })

  test('health for everybody', async () => {
    const said = await fails({ operations: '0.0.0.0:9443' })
    expect(said).toMatchObject({ code: 'config.value', place: 'operations' })
  })

  test('a file that is not there', async () => {
    const said = await fails({ configFile: join(data, 'nothing.yaml') })
    expect(said).toMatchObject({ code: 'config.unreadable', place: join(data, 'nothing.yaml') })
  })
})

describe('what keeps it from starting', () => {
  test.for(['listen', 'operations'] as const)('the port of %s is in use', async (which) => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    expect((await fails({ [which]: `127.0.0.1:${port}` })).code).toBe('EADDRINUSE')
    // Nothing of the attempt is left: the directory can be used at once.
    await initGateway({ dataDirectory: data })
  })

  // Not the root's: a node that runs never opens it, `sallyport ca` does.
  const keys = [
    'ca/issuing.key.pem',
    'keys/log-ed25519.key.pem',
    'keys/log-ml-dsa-44.key.pem',
    'keys/gateway.key.pem',
  ]
  test.for(keys)('%s can be read by others', async (name) => {
    // The gateway's own key is made by the first start that listens.
    if (!readdirSync(join(data, 'keys')).includes('gateway.key.pem')) await startAndStop()
    const path = join(data, name)
    chmodSync(path, 0o640)
    const said = await fails()
    chmodSync(path, 0o600)
    expect(said.code).toBe('key.exposed')
    expect(said.message).toContain(path)
  })

  test.for(keys)('%s is no key: it is never overwritten', async (name) => {
    const path = join(data, name)
    const kept = readFileSync(path)
    writeFileSync(path, 'garbage')
    const said = await fails()
    expect(said.code).toBe('key.unreadable')
    expect(said.message).toContain(path)
    expect(readFileSync(path, 'utf8')).toBe('garbage')
    writeFileSync(path, kept)
  })

  test('one byte of the log was changed', async () => {
    const log = join(data, 'log', 'gw1', '1')
    const segment = readdirSync(log, { recursive: true, encoding: 'utf8' })
      .map((name) => join(log, name))
      .filter((path) => statSync(path).isFile() && readFileSync(path).includes('node.start'))
      .toSorted()[0]
    if (segment === undefined) throw new Error('no segment')
    const kept = readFileSync(segment)
    const bent = Buffer.from(kept)
    const at = bent.indexOf('node.start')
    bent[at] = (bent[at] ?? 0) ^ 1
    writeFileSync(segment, bent)
    const said = await fails()
    expect(said.code).toBe('log.corrupt')
    expect(readFileSync(segment)).toEqual(bent)
    writeFileSync(segment, kept)
    await initGateway({ dataDirectory: data })
  })

  test('another gateway runs on the directory', async () => {
    const stop = new AbortController()
    const ready = Promise.withResolvers<void>()
    const given = { dataDirectory: data, listen: '127.0.0.1:0', operations: '127.0.0.1:0' }
    const running = runGateway(given, { signal: stop.signal, ready: () => ready.resolve() })
    await Promise.race([running, ready.promise])
    expect((await fails()).code).toBe('data.in_use')
    stop.abort()
    await running
  })
})

/** One start and stop. */
async function startAndStop(): Promise<void> {
  const stop = new AbortController()
  await runGateway(
    { dataDirectory: data, listen: '127.0.0.1:0', operations: '127.0.0.1:0' },
    { signal: stop.signal, ready: () => stop.abort() },
  )
}

test('a second start keeps CA, devices, grants, logins and what the sessions were', async () => {
  const kept = mkdtempSync(join(tmpdir(), 'sallyport-kept-'))
  onTestFinished(() => rmSync(kept, { recursive: true }))
  const port = await freePort()
  const first = await startNode({ data: kept, port })
  const identity = await first.device('press-07', { plc: expecting() })
  const listeners = { plc: seen(PLC, 'listener') }
  const agent = await attach(first, identity, { listeners })
  const vendor = await first.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const grant = await grantFor(vendor, first.admin, { device: 'press-07', process: 'plc' })
  const session = await vendor.ask<OpenedSession>('POST', '/sessions', {
    device: 'press-07',
    process: 'plc',
  })
  const { anchor } = first
  await first.stop()
  await agent.tunnel.closed

  const second = await startNode({ data: kept, port, bare: true })
  try {
    expect(second.anchor).toBe(anchor)
    const device = await first.admin.ask<Device>('GET', '/devices/press-07')
    expect(device).toMatchObject({ state: 'active', connected: false, processes: [{ id: 'plc' }] })
    expect(await vendor.ask<Grant>('GET', `/grants/${grant.id}`)).toMatchObject({
      hash: grant.hash,
      state: 'active',
    })
    const before = await vendor.ask<Session>('GET', `/sessions/${session.id}`)
    expect(before).toMatchObject({ state: 'ended', reason: 'killed' })
    await using again = await attach(second, identity, { listeners })
    expect(again.welcome['device']).toBe('press-07')
    const reopened = await vendor.ask<OpenedSession>('POST', '/sessions', {
      device: 'press-07',
      process: 'plc',
    })
    expect(reopened.grant).toBe(grant.id)
    await using client = await Client.dial(second)
    const line = await client.line(reopened)
    line.write('still there')
    await line.until('it is carried', ({ text }) => text === 'still there')
  } finally {
    await first.admin[Symbol.asyncDispose]()
    await vendor[Symbol.asyncDispose]()
    await second.stop()
  }
})

test('a crash: the sessions it cut off have ended, for that reason, in list and log', async () => {
  const kept = mkdtempSync(join(tmpdir(), 'sallyport-crash-'))
  onTestFinished(() => rmSync(kept, { recursive: true }))
  const port = await freePort()
  const child = spawn(
    process.execPath,
    [
      '--import',
      IMPATIENT,
      BIN,
      'gateway',
      '--data',
      kept,
      '--listen',
      `127.0.0.1:${port}`,
      '--operations',
      '127.0.0.1:0',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  let out = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  await until('it is ready', () => out.includes('"msg":"ready"'))
  const crashed = await atNode(kept, port)
  const identity = await crashed.device('press-07', { plc: expecting() })
  const agent = await attach(crashed, identity, { listeners: { plc: seen(PLC, 'listener') } })
  const oda = await crashed.person('oda', { party: 'staff', roles: ['operator'] })
  await grantFor(oda, crashed.admin, { device: 'press-07', process: 'plc' })
  const session = await openSession(oda, 'press-07', 'plc')
  child.kill('SIGKILL')
  await once(child, 'close')
  await agent.tunnel.closed

  const again = await startNode({ data: kept, port, bare: true })
  try {
    const after = await crashed.admin.ask<Session>('GET', `/sessions/${session.id}`)
    expect(after).toMatchObject({ state: 'ended', reason: 'node_crash' })
    const ends = again.events().filter(({ code }) => code === 'session.end')
    expect(
      ends.map(({ text }) => text.includes('node_crash') && text.includes(session.id)),
    ).toEqual([true])
    expect(again.rows('SELECT id FROM session WHERE ended_at IS NULL')).toEqual([])
  } finally {
    for (const person of crashed.people()) await person[Symbol.asyncDispose]()
    await again.stop()
  }
})
