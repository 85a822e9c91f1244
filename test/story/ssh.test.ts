/**
 * `sallyport connect --stdio`, and stock OpenSSH through it, as they are used: the command as a program,
 * a real gateway, a real agent, and behind it an sshd of this test or a program of ours.
 */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { DeviceToken, Session } from '#api'
import { configFrom, enrolAgent, runAgent } from '#agent'
import { saveCredentials } from '../../cli/login/index.ts'
import {
  freePort,
  grantFor,
  sha256,
  soon,
  startNode,
  until,
  type Person,
  type TestNode,
} from '../support/node.ts'

const bin = resolve(import.meta.dirname, '../../cli/bin.mjs')
const SSHD = '/usr/sbin/sshd'
const MiB = 1024 * 1024
const missing = ['ssh', 'scp', 'ssh-keygen']
  .filter((name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0)
  .concat(existsSync(SSHD) ? [] : ['sshd'])

const home = mkdtempSync(join(tmpdir(), 'sallyport-ssh-'))
const stopping = new AbortController()
let node: TestNode
let vendor: Person
let agent: Promise<void>
let tool: Server
let sshd: ChildProcessWithoutNullStreams | undefined
/** What the program on the device does with a connection; each test says. */
let onConnection: (socket: Socket) => void

beforeAll(async () => {
  node = await startNode()
  tool = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    onConnection(socket)
  })
  tool.listen(0, '127.0.0.1')
  await once(tool, 'listening')
  const sshPort = await freePort()
  const expected = {
    tool: sha256(readFileSync(process.execPath)),
    ...(missing.length === 0 ? { shell: sha256(readFileSync(SSHD)) } : {}),
  }
  const { token } = await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', {
    id: 'press-07',
  })
  for (const [name, digest] of Object.entries(expected))
    await node.admin.ask('PUT', `/devices/press-07/processes/${name}`, {
      kind: 'tcp',
      expect: { sha256: [digest] },
    })
  const config = configFrom(
    {
      gateway: node.origin,
      device: 'press-07',
      rootSha256: readFileSync(join(node.data, 'ca-root.sha256'), 'utf8').split(/\s/)[0] ?? '',
      targets: [
        `tool=tcp:127.0.0.1:${(tool.address() as AddressInfo).port}`,
        `shell=tcp:127.0.0.1:${sshPort}`,
      ],
    },
    join(home, 'agent'),
  )
  if (missing.length === 0) sshd = await startSshd(sshPort)
  await enrolAgent(config, { token: token.token, log: () => undefined })
  agent = runAgent(config, { signal: stopping.signal, log: () => undefined })
  vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  await saveCredentials(join(home, 'credentials'), vendor.credentials)
  await until('the device is connected', async () => (await node.health()).devices === 1)
  for (const process of Object.keys(expected))
    await grantFor(vendor, node.admin, { device: 'press-07', process })
})
afterAll(async () => {
  stopping.abort()
  await agent
  sshd?.kill()
  tool.close()
  await node[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})
beforeEach(() => {
  onConnection = (socket) => socket.pipe(socket)
})

/** An sshd with keys of its own, that lets in one key and nobody by password. */
async function startSshd(port: number): Promise<ChildProcessWithoutNullStreams> {
  const folder = join(home, 'sshd')
  mkdirSync(folder, { mode: 0o700 })
  for (const name of ['host', 'client'])
    spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, name)])
  const lines = [
    `ListenAddress 127.0.0.1:${port}`,
    `HostKey ${join(folder, 'host')}`,
    `AuthorizedKeysFile ${join(folder, 'client.pub')}`,
    'PidFile none',
    'UsePAM no',
    'StrictModes no',
    'PasswordAuthentication no',
    'Subsystem sftp internal-sftp',
  ]
  writeFileSync(join(folder, 'config'), `${lines.join('\n')}\n`)
  // Where sshd, started as root, keeps those whom it does not know yet; the distribution makes it at boot.
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const child = spawn(realpathSync(SSHD), ['-D', '-e', '-f', join(folder, 'config')])
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  await until('sshd listens', () => {
    if (child.exitCode !== null) throw new Error(`sshd: ${said}`)
    return said.includes('Server listening')
  })
  return child
}

interface Running {
  readonly child: ChildProcessWithoutNullStreams
  out: Buffer
  err: string
  /** Its exit code, when both outputs have ended. */
  readonly over: Promise<number | null>
}

function start(command: string, args: readonly string[], reading = true): Running {
  const env = { ...process.env, SALLYPORT_HOME: home }
  const child = spawn(command, args, { env, stdio: 'pipe' })
  const over = new Promise<number | null>((done) => child.on('close', done))
  const running: Running = { child, out: Buffer.alloc(0), err: '', over }
  child.stdin.on('error', () => {})
  if (reading)
    child.stdout.on('data', (piece: Buffer) => (running.out = Buffer.concat([running.out, piece])))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (running.err += text))
  return running
}
const sallyport = (...args: string[]) => start(process.execPath, [bin, ...args])
const connect = (process = 'tool') =>
  sallyport('--json', 'connect', `press-07/${process}`, '--stdio')

const ended = async (running: Running): Promise<number | null> =>
  await soon(`the command ends; it said ${running.err}`, running.over)

async function openSessions(): Promise<Session[]> {
  const { items } = await node.admin.ask<{ items: Session[] }>('GET', '/sessions')
  return items.filter(({ state }) => state === 'open')
}
/** The error that the command printed last, as one line of JSON. */
function told({ err }: Running): unknown {
  return (JSON.parse(err.trim().split('\n').at(-1) ?? '') as { error: unknown }).error
}

describe('one connection over stdin and stdout', () => {
  test('every byte goes there and back, and the answer after the end of speech still arrives', async () => {
    onConnection = (socket) => {
      socket.on('data', (chunk: Buffer) => socket.write(chunk))
      socket.on('end', () => socket.end('goodbye'))
    }
    const said = randomBytes(3 * MiB)
    const running = connect()
    running.child.stdin.end(said)
    expect([await ended(running), running.err]).toEqual([0, ''])
    expect(running.out.equals(Buffer.concat([said, Buffer.from('goodbye')]))).toBe(true)
    expect(await openSessions()).toEqual([])
  })

  test('the device has said all it has to say, and hears on', async () => {
    let heard = ''
    onConnection = (socket) => {
      socket.end('first word')
      socket.setEncoding('utf8').on('data', (text: string) => (heard += text))
    }
    const running = connect()
    await soon('stdout ends before stdin does', once(running.child.stdout, 'end'))
    running.child.stdin.end('last word')
    expect([await ended(running), running.out.toString(), heard]).toEqual([
      0,
      'first word',
      'last word',
    ])
  })

  test('without a grant nothing is written to stdout', async () => {
    await node.admin.ask('PUT', '/devices/press-07/processes/other', {
      kind: 'tcp',
      expect: { sha256: [sha256('other')] },
    })
    const running = connect('other')
    expect([await ended(running), running.out.length]).toEqual([3, 0])
    expect(told(running)).toMatchObject({ code: 'grant.none' })
  })

  test('the session is cut in the middle: exit 6, with the reason', async () => {
    const running = connect()
    running.child.stdin.write('hello')
    await until('the echo is here', () => running.out.toString() === 'hello')
    const [session] = await openSessions()
    await node.admin.ask('POST', `/sessions/${session?.id}/cut`, { reason: 'enough' })
    expect(await ended(running)).toBe(6)
    expect(told(running)).toMatchObject({ message: 'the session ended: press-07/tool' })
  })

  test('the program on the device resets: exit 1, and the session is not left behind', async () => {
    onConnection = (socket) => socket.once('data', () => socket.resetAndDestroy())
    const running = connect()
    running.child.stdin.write('hello')
    expect(await ended(running)).toBe(1)
    expect(told(running)).toMatchObject({ message: 'the connection was cut' })
    expect(await openSessions()).toEqual([])
  })

  test('whoever read stdout has gone: exit 1, no signal, and the session is not left behind', async () => {
    const running = connect()
    running.child.stdout.destroy()
    running.child.stdin.write('hello')
    expect(await ended(running)).toBe(1)
    expect(told(running)).toMatchObject({ code: 'stdout.closed' })
    expect(await openSessions()).toEqual([])
  })

  test.for(['SIGTERM', 'SIGHUP', 'SIGINT'] as const)('%s ends the session', async (signal) => {
    const running = connect()
    running.child.stdin.write('hello')
    await until('the echo is here', () => running.out.toString() === 'hello')
    running.child.kill(signal)
    expect([await ended(running), running.err]).toEqual([130, ''])
    expect(await openSessions()).toEqual([])
  })

  test('a reader that does not read holds the device back', async () => {
    let sent = 0
    let held = 0
    const total = 64 * MiB
    onConnection = (socket) => {
      const piece = Buffer.alloc(64 * 1024)
      const pump = (): void => {
        while (sent < total) {
          sent += piece.length
          if (socket.write(piece)) continue
          held = sent
          socket.once('drain', pump)
          return
        }
        socket.end()
      }
      pump()
      socket.resume()
    }
    const args = [bin, 'connect', 'press-07/tool', '--stdio']
    const running = start(process.execPath, args, false)
    running.child.stdin.end()
    await until('the device has to wait', () => held > 0)
    // Quiet means: a while in which nothing more was taken from it.
    for (let before = -1; before !== held;) {
      before = held
      await new Promise((done) => setTimeout(done, 500))
    }
    expect(sent).toBeLessThan(total / 2)
    let got = 0
    running.child.stdout.on('data', (chunk: Buffer) => (got += chunk.length))
    const before = held
    await until('it goes on', () => held > before && got > before / 2)
    running.child.kill()
    expect(await ended(running)).toBe(130)
  })

  test.for([
    { name: 'neither port nor stdio', args: [] },
    { name: 'both port and stdio', args: ['--stdio', '--listen', '127.0.0.1:0'] },
  ])('$name', async ({ args }) => {
    const running = sallyport('connect', 'press-07/tool', ...args)
    expect([await ended(running), running.out.length]).toEqual([2, 0])
  })
})

const named = missing.length === 0 ? '' : ` (skipped: no ${missing.join(', ')})`

describe.skipIf(missing.length > 0)(`stock OpenSSH${named}`, () => {
  const known = join(home, 'known_hosts')
  const options = [
    ['-i', join(home, 'sshd', 'client')],
    ['-o', 'BatchMode=yes'],
    ['-o', 'StrictHostKeyChecking=accept-new'],
    ['-o', `UserKnownHostsFile=${known}`],
  ].flat()
  const none = ['-F', '/dev/null']

  async function config(): Promise<string> {
    const running = sallyport('ssh-config')
    expect(await ended(running)).toBe(0)
    const file = join(home, 'ssh_config')
    writeFileSync(file, running.out)
    return file
  }

  test('a command runs there; its input, output and exit code are those of the one at home', async () => {
    const rest = [...none, ...options, '-l', userInfo().username, 'cat; echo fault >&2; exit 7']
    const running = sallyport('ssh', 'press-07/shell', '--', ...rest)
    const said = randomBytes(MiB)
    running.child.stdin.end(said)
    expect(await ended(running)).toBe(7)
    expect(running.out.equals(said)).toBe(true)
    expect(running.err).toContain('fault')
    // The device's key is kept under the device's name, so that another one cannot take its place unseen.
    expect(readFileSync(known, 'utf8')).toMatch(/^shell--press-07\.sallyport ssh-ed25519 /)
    await until('the session has ended', async () => (await openSessions()).length === 0)
  })

  test('scp copies there and back by the name in the configuration', async () => {
    const file = await config()
    const [from, there, back] = ['from', 'there', 'back'].map((name) => join(home, name))
    const said = randomBytes(4 * MiB)
    writeFileSync(from ?? '', said)
    const host = `${userInfo().username}@shell--press-07.sallyport`
    for (const ends of [
      [from ?? '', `${host}:${there}`],
      [`${host}:${there}`, back ?? ''],
    ]) {
      const running = start('scp', ['-q', '-F', file, ...options, ...ends])
      expect([await ended(running), running.err]).toEqual([0, expect.any(String)])
    }
    expect(readFileSync(back ?? '').equals(said)).toBe(true)
  })

  test('another host key under the same name is refused', async () => {
    const other = readFileSync(join(home, 'sshd', 'client.pub'), 'utf8')
    const trap = join(home, 'other_hosts')
    writeFileSync(trap, `shell--press-07.sallyport ${other}`)
    const rest = [...none, '-o', `UserKnownHostsFile=${trap}`, ...options, 'true']
    const running = sallyport('ssh', 'press-07/shell', '--', ...rest)
    expect(await ended(running)).toBe(255)
    expect(running.err).toContain('HOST IDENTIFICATION HAS CHANGED')
  })

  test('what was refused is said by ssh’s own way of failing', async () => {
    const running = sallyport('ssh', 'press-07/nothing', '--', ...none, ...options, 'true')
    expect(await ended(running)).toBe(255)
    expect(running.err).toMatch(/sallyport: [^]*code {2}/)
  })
})
