/**
 * The agent as devices get it: one file, and one executable. Built here from these sources, then
 * enrolled, connected and used at a real gateway; and the executable with updates, which are the one file.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import type { Writable } from 'node:stream'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { pinUpdateKeys } from '#agent'
import type { DeviceToken } from '#api'
import { launcherCommand } from '../../agent-tunnel/agent/spawn/launcher.ts'
import { saveCredentials } from '../../cli/login/index.ts'
import { Directory, enrolled } from '../agent/device.ts'
import { holds } from '../agent/gateway.ts'
import { another, Offers } from '../agent/offers.ts'
import { throughConnect } from '../support/connect.ts'
import { grantFor, sha256, startNode, until, type Person, type TestNode } from '../support/node.ts'
import { Service } from '../support/service.ts'

const run = promisify(execFile)
const build = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))
/** The executable that answers for the process: the one that runs this test. */
const own = realpathSync('/proc/self/exe')

let folder: string
let node: TestNode
let operator: Person
let vendor: Person
let echo: Server
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-build-'))
  const built = run(process.execPath, [build, '--sea', '--out', folder])
  node = await startNode({ config: `agent_files: ${folder}\n` })
  operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await saveCredentials(join(folder, 'home/credentials'), vendor.credentials)
  echo = createServer((socket) => void socket.on('error', () => {}).pipe(socket))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
  await built
})
afterAll(async () => {
  echo.close()
  await node[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

const file = () => join(folder, 'sallyport-agent.cjs')

/** Registers a device; gives the arguments to enrol it with, and its token. */
async function created(id: string): Promise<{ enroll: string[]; token: string }> {
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })
  await node.admin.ask('PUT', `/devices/${id}/processes/plc`, {
    kind: 'tcp',
    expect: { exe: [own], sha256: [sha256(readFileSync(own))] },
  })
  const { ca_sha256: pin } = await vendor.ask<{ ca_sha256: string }>('GET', '/info')
  const { port } = echo.address() as AddressInfo
  const words = ['agent', 'enroll', '--gateway', node.origin, '--device', id, '--ca-sha256', pin]
  return {
    enroll: [...words, '--data', join(folder, id), '--target', `plc=tcp:127.0.0.1:${port}`],
    token: token.token,
  }
}

const kinds: readonly { name: string; id: string; made: () => string[] }[] = [
  { name: 'the one file', id: 'filed', made: () => [process.execPath, file()] },
  {
    name: 'the executable',
    id: 'whole',
    made: () => [join(folder, 'sallyport-agent')],
  },
]

test.for(kinds)('$name enrols, connects and serves a session', async ({ id, made }) => {
  const { enroll, token } = await created(id)
  const [program = '', ...first] = made()
  const env = { ...process.env, SALLYPORT_TOKEN: token }
  const { stdout: said } = await run(program, [...first, ...enroll], { env })
  expect(said).toContain('is enrolled')
  await grantFor(vendor, operator, { device: id, process: 'plc' })
  const data = join(folder, id)
  const agent = spawn(program, [...first, 'agent', 'run', '--data', data], { stdio: 'pipe' })
  let log = ''
  agent.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
  try {
    await until('the device is connected', () => log.includes('"tunnel.up"'))
    expect(await throughConnect(join(folder, 'home'), `${id}/plc`, `to ${id}`)).toBe(`to ${id}`)
    // It became its lean self and stayed the process that was started; its log has nothing else in it.
    const environment = readFileSync(`/proc/${agent.pid}/environ`, 'latin1').split('\0')
    expect(environment).toContain('MALLOC_ARENA_MAX=1')
    const status = JSON.parse(readFileSync(join(data, 'status.json'), 'utf8')) as { pid: number }
    expect(status.pid).toBe(agent.pid)
    for (const line of log.trim().split('\n')) expect(JSON.parse(line)).toHaveProperty('event')
  } finally {
    const ended = once(agent, 'exit')
    agent.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
  }
})

test('a machine without Node becomes a device by the line, with the executable', async () => {
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id: 'bare' })
  const tools = join(folder, 'tools')
  mkdirSync(tools)
  // Whatever Node the machine that runs this has: on this one it does not run.
  writeFileSync(join(tools, 'node'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
  const root = join(folder, 'bare')
  const shell = spawn('sh', { env: { PATH: `${tools}:${process.env['PATH']}` }, stdio: 'pipe' })
  let said = ''
  for (const stream of [shell.stdout, shell.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  shell.stdin.end(`${token.install_command ?? ''} --root ${root}\n`)
  const ended = await once(shell, 'close')
  expect([ended, said]).toEqual([[0, null], expect.stringContaining('bare is enrolled') as string])
  const unit = readFileSync(join(root, 'etc/systemd/system/sallyport-agent.service'), 'utf8')
  expect(unit).toContain(
    '\nExecStart=/usr/local/lib/sallyport/sallyport-agent run --data /var/lib/sallyport\n',
  )
  const installed = join(root, 'usr/local/lib/sallyport')
  expect(statSync(join(installed, 'sallyport-agent')).mode & 0o777).toBe(0o755)
  expect(existsSync(join(installed, 'NODE-LICENSE.txt'))).toBe(true)
})

const launchers: readonly { name: string; started: () => Launching }[] = [
  {
    name: 'the one file',
    started: () => ({ words: [process.execPath, file(), 'become-program'] }),
  },
  {
    name: 'the executable',
    started: () => ({ words: [join(folder, 'sallyport-agent'), 'become-program'] }),
  },
  {
    name: 'an update that the executable runs, its place hidden,',
    started: () => {
      const { path } = asUpdate(another(file(), '0.4.0'))
      const { words, file: itself } = launcherCommand(pathToFileURL(path).href, true)
      expect(itself).toBe(path)
      const own = openSync(path, 'r')
      rmSync(path)
      return { words: [join(folder, 'sallyport-agent'), ...words.slice(1)], own }
    },
  },
]
interface Launching {
  readonly words: readonly string[]
  /** What is open as the descriptor that the words name. */
  readonly own?: number
}
test.for(launchers)('$name is its own launcher of declared programs', async ({ started }) => {
  const { words, own: itself } = started()
  const [launcher = '', ...first] = words
  const program = openSync('/bin/echo', 'r')
  try {
    // As agent-tunnel/agent/spawn/line.ts starts it: the program on one descriptor, the words on the next.
    const child = spawn(launcher, first, {
      env: {},
      stdio: ['pipe', 'pipe', 'inherit', program, 'pipe', itself ?? 'ignore'],
    })
    let said = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (said += text))
    const spec = { argv: ['echo', 'it is'], env: [], cwd: '/', user: null, terminal: false }
    const control = child.stdio[4] as Writable
    control.end(JSON.stringify({ ...spec, limits: [] }))
    expect(await once(child, 'close')).toEqual([0, null])
    expect(said).toBe('it is\n')
  } finally {
    closeSync(program)
    if (itself !== undefined) closeSync(itself)
  }
})

/** What has the executable run `bundle`, which lies where updates do, and the file. */
function asUpdate(bundle: Buffer): { readonly words: readonly string[]; readonly path: string } {
  const place = join(folder, 'update')
  mkdirSync(place, { recursive: true })
  const path = join(place, `${sha256(bundle)}.cjs`)
  writeFileSync(path, bundle)
  return { words: ['become-update', sha256(bundle), path], path }
}

test('the executable runs an update in its octets and no others, with the words behind', async () => {
  const executable = join(folder, 'sallyport-agent')
  const { words, path } = asUpdate(another(file(), '0.2.0'))
  expect((await run(executable, [...words, '--version'])).stdout).toBe('0.2.0\n')
  const near = [...words.slice(0, 2), relative(folder, path), '--version']
  expect((await run(executable, near, { cwd: folder })).stdout).toBe('0.2.0\n')
  expect((await run(executable, ['--version'])).stdout).toBe('0.1.0\n')
  writeFileSync(path, another(file(), '0.3.0'))
  const refused = run(executable, [...words, '--version'])
  await expect(refused).rejects.toMatchObject({
    code: 75,
    stdout: '',
    stderr: `${path} is not ${words[1]}\n`,
  })
})

/** An executable starts again and again in it: on a slow machine longer than other rows take. */
const UPDATES = { timeout: 300_000 }

test(
  'the executable takes updates: one that cannot reconnect is rolled back, one that can stays',
  UPDATES,
  async () => {
    const offers = await Offers.start()
    await using gateway = offers.gateway
    using directory = new Directory()
    const config = await enrolled(gateway, directory)
    pinUpdateKeys(config.dataDir, [offers.key.word])
    // By a relative path, as on a line that somebody types.
    const data = relative('.', config.dataDir)
    await using service = new Service(join(folder, 'sallyport-agent'), data, null)
    await holds(() => expect(gateway.tunnels.length).toBeGreaterThan(0))
    const own = { kind: 'executable', node: process.versions.node }
    await offers.reports({ version: '0.1.0', ...own, keys: [offers.key.id], outcome: null })

    const deaf = another(file(), '0.2.0', (source) =>
      source.replaceAll('sallyport/1', 'sallyport/9'),
    )
    offers.offer('r_deaf', offers.published('0.2.0', deaf, 1))
    const back = { rollout: 'r_deaf', version: '0.2.0', fault: 'update.unhealthy' }
    await offers.reports({ version: '0.1.0', ...own, outcome: back })
    offers.say({ act: 'heard', rollout: 'r_deaf' })

    const good = another(file(), '0.3.0')
    offers.offer('r_good', offers.published('0.3.0', good, 3600))
    await offers.reports({ version: '0.3.0', ...own, trial: 'r_good', outcome: null })
    offers.say({ act: 'heard', rollout: 'r_good' })
    await offers.reports({ trial: null, outcome: { rollout: 'r_good', fault: null } })
    offers.say({ act: 'heard', rollout: 'r_good' })
    const state = join(config.dataDir, 'update/state.json')
    await holds(() =>
      expect(JSON.parse(readFileSync(state, 'utf8'))).toMatchObject({ outcome: null }),
    )
    // To the first and back, and to the second.
    expect(service.ends).toEqual([75, 75, 75])
    // It starts again, and small, though Node and the file of the update are not one.
    let tunnels = gateway.tunnels.length
    service.kill()
    await holds(() => expect(gateway.tunnels.length).toBeGreaterThan(tunnels))
    await offers.reports({ version: '0.3.0', trial: null, outcome: null })
    const status = JSON.parse(readFileSync(join(config.dataDir, 'status.json'), 'utf8')) as {
      pid: number
    }
    expect(readFileSync(`/proc/${status.pid}/environ`, 'latin1')).toContain('MALLOC_ARENA_MAX=1')
    expect(realpathSync(`/proc/${status.pid}/exe`)).toBe(join(folder, 'sallyport-agent'))

    // What is not any more what was signed does not start.
    writeFileSync(join(config.dataDir, 'update', `${sha256(good)}.cjs`), 'another')
    tunnels = gateway.tunnels.length
    service.kill()
    await holds(() => expect(gateway.tunnels.length).toBeGreaterThan(tunnels))
    await offers.reports({ version: '0.1.0', trial: null, outcome: null })
  },
)

test('the same sources give the same file, with no path of this machine in it', async () => {
  const again = join(folder, 'again')
  await run(process.execPath, [build, '--out', again])
  const bytes = readFileSync(join(again, 'sallyport-agent.cjs'))
  expect(sha256(bytes)).toBe(sha256(readFileSync(file())))
  expect(bytes.includes(fileURLToPath(new URL('../..', import.meta.url)))).toBe(false)
  // One octet a character, or V8 keeps twice its size in memory.
  expect(bytes.every((octet) => octet < 0x80)).toBe(true)
  expect(statSync(file()).mode & 0o111).toBe(0o111)
})

test('every package in it is named with its licence', () => {
  const map = JSON.parse(readFileSync(`${file()}.map`, 'utf8')) as { sources: string[] }
  const packages = map.sources.flatMap(
    (source) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source)?.[1] ?? [],
  )
  const text = readFileSync(join(folder, 'THIRD-PARTY.txt'), 'utf8')
  expect(packages.length).toBeGreaterThan(0)
  for (const name of new Set(packages))
    expect(text).toMatch(new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(MIT\\)$`, 'm'))
  expect(text).toContain('Permission is hereby granted')
})

test('who gives Node arguments keeps them; a connected agent has not loaded what it can do without', async () => {
  const heard = join(folder, 'heard.cjs')
  writeFileSync(heard, `process.on('exit', () => console.log(process.moduleLoadList.join(' ')))`)
  const words = ['--require', heard, file(), 'run', '--data', join(folder, 'filed')]
  const agent = spawn(process.execPath, words, { stdio: 'pipe' })
  let [log, loaded] = ['', '']
  agent.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
  agent.stdout.setEncoding('utf8').on('data', (text: string) => (loaded += text))
  const ended = once(agent, 'close')
  try {
    await until('the device is connected', () => log.includes('"tunnel.up"'))
    const environment = readFileSync(`/proc/${agent.pid}/environ`, 'latin1')
    expect(environment).not.toContain('MALLOC_ARENA_MAX')
  } finally {
    agent.kill('SIGTERM')
    await ended
  }
  expect(loaded).toContain('NativeModule tls')
  const dear = ['http', 'zlib', 'child_process', 'dgram', 'dns/promises', 'fs/promises']
  const names = [...dear, 'internal/deps/undici/undici'].map((name) => `NativeModule ${name} `)
  expect(names.filter((name) => `${loaded.trim()} `.includes(name))).toEqual([])
})
