/** What a gateway offers a machine that wants to become a device: files by hash, a script, one line. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer, get, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AgentBuild, installLine } from '../../../gateway/devices/onboarding.ts'
import { deviceToken } from '../../../gateway/devices/token.ts'
import { agentFiles } from '../../../gateway/listen/agent-files.ts'
import { HandClock } from '../../support/clock.ts'
import { until } from '../../support/node.ts'

const sha256 = (text: string | Uint8Array) => createHash('sha256').update(text).digest('hex')

/** The head of an ELF file for a machine, and something behind it. */
function elf(machine: number, more = ''): Buffer {
  const head = Buffer.alloc(20)
  head.writeUInt32BE(0x7f454c46, 0)
  head.writeUInt16LE(machine, 18)
  return Buffer.concat([head, Buffer.from(more)])
}

let folder: string
let build: AgentBuild
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-files-'))
  build = new AgentBuild(folder)
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const put = (name: string, bytes: string | Buffer) => writeFileSync(join(folder, name), bytes)

describe('the files', () => {
  test('no folder, no files, no script', async () => {
    const none = new AgentBuild(join(folder, 'none'))
    expect(await none.files()).toEqual([])
    expect(await none.script()).toBeUndefined()
    put('THIRD-PARTY.txt', 'MIT')
    expect(await build.script()).toBeUndefined()
  })

  test('an executable is served by the architecture it is for, whatever it is called', async () => {
    put('sallyport-agent', elf(62))
    put('sallyport-agent-x64', elf(183))
    put('sallyport-agent.cjs', 'bundle')
    put('sallyport-agent.cjs.map', 'stays at home')
    put('THIRD-PARTY.txt', 'MIT')
    put('passwords', 'secret')
    const files = await build.files()
    expect(files.map(({ name }) => name).sort()).toEqual([
      'THIRD-PARTY.txt',
      'sallyport-agent-arm64',
      'sallyport-agent-x64',
      'sallyport-agent.cjs',
    ])
    expect(files.find(({ name }) => name === 'sallyport-agent.cjs')?.sha256).toBe(sha256('bundle'))
  })

  test.for([
    ['no ELF', Buffer.from('#!/bin/sh\necho twenty octets and more\n')],
    ['cut off', elf(62).subarray(0, 10)],
    ['of another machine', elf(40)],
  ] as const)('an executable that is %s is not served', async ([, bytes]) => {
    put('sallyport-agent', bytes)
    expect(await build.files()).toEqual([])
  })

  test('a file that was replaced, even by one as long and as old, is hashed again', async () => {
    put('sallyport-agent.cjs', 'one')
    const path = join(folder, 'sallyport-agent.cjs')
    utimesSync(path, 1000, 1000)
    const before = await build.script()
    put('sallyport-agent.cjs', 'two')
    utimesSync(path, 1000, 1000)
    const after = await build.script()
    expect(before).toContain(sha256('one'))
    expect(after).toContain(sha256('two'))
    expect(after).not.toContain(sha256('one'))
  })
})

test('script and line are sh: every shell here that can read them does', async () => {
  put('sallyport-agent.cjs', 'bundle')
  put('sallyport-agent', elf(62))
  const script = (await build.script()) ?? ''
  expect(script).not.toMatch(/@[A-Z_]+@/)
  const line = installLine({
    origin: 'https://gw.example:8443',
    device: 'press-07',
    tenant: 'main.sallyport.internal',
    caSha256: 'c'.repeat(64),
    updateKeys: [],
    token: 'spt_0',
    scriptSha256: sha256(script),
  })
  expect(line).not.toContain('\n')
  for (const shell of ['sh', 'dash', 'bash'])
    for (const text of [script, line]) {
      const read = spawnSync(shell, ['-n'], { input: text })
      if (read.error === undefined) expect([shell, String(read.stderr)]).toEqual([shell, ''])
    }
})

test('the keys that the site signs updates with stand in both lines, and none where it names none', async () => {
  put('sallyport-agent.cjs', 'bundle')
  const words = ['A', 'E'].map((last) => `ed25519:${'A'.repeat(42)}${last}`)
  const made = (updateKeys: readonly string[]) =>
    deviceToken(
      {
        tenant: 'main.sallyport.internal',
        store: { addToken: async () => undefined } as never,
        origin: 'https://gw.example:8443',
        caSha256: () => 'c'.repeat(64),
        updateKeys,
        build,
        now: () => 1_800_000_000_000,
      },
      'press-07',
    )
  const told = ` --ca-sha256 ${'c'.repeat(64)} --update-key ${words[0]} --update-key ${words[1]}`
  const { install_command: install, enrol_command: enrol } = await made(words)
  expect(install?.endsWith(told)).toBe(true)
  expect(enrol).toContain(`${told} --token-file`)
  const without = await made([])
  expect(`${without.install_command} ${without.enrol_command}`).not.toContain('--update-key')
})

test('the bundle is offered to the Node that it was made for', async () => {
  put('sallyport-agent.cjs', 'bundle')
  const text = readFileSync(join(import.meta.dirname, '../../../package.json'), 'utf8')
  const pins = (JSON.parse(text) as { optionalDependencies: Record<string, string> })
    .optionalDependencies
  const script = (await build.script()) ?? ''
  const [, major] = /^NODE_MAJOR=(\d+)$/m.exec(script) ?? []
  const [, minor] = /^NODE_MINOR=(\d+)$/m.exec(script) ?? []
  for (const version of Object.values(pins)) expect(version).toMatch(`${major}.${minor}.`)
})

describe('the script, among programs that only say how they were called', () => {
  let tools: string
  beforeEach(() => {
    tools = join(folder, 'tools')
    mkdirSync(tools)
    fake('sleep', 'exit 0')
    put('sallyport-agent-x64', elf(62))
    put('sallyport-agent-arm64', elf(183))
  })
  const fake = (name: string, script: string) =>
    writeFileSync(join(tools, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const called = () => readFileSync(join(folder, 'called'), 'utf8').split('\n').slice(0, -1)
  const env = (more: Record<string, string> = {}) => ({
    PATH: `${tools}:${process.env['PATH']}`,
    ...more,
  })
  async function install(...words: string[]) {
    const path = join(folder, 'install')
    writeFileSync(path, (await build.script()) ?? '')
    return spawnSync('sh', [path, ...words], { encoding: 'utf8', env: env() })
  }

  test('a gateway that serves others is asked for minutes, and what is said then is that', async () => {
    fake('curl', `echo x >>${folder}/called; printf 503; exit 22`)
    const { status, stderr } = await install('--gateway', 'https://gw', '--root', folder)
    expect([status, stderr]).toEqual([1, expect.stringMatching(/serving other machines all/)])
    expect(stderr.match(/trying again/g)).toHaveLength(1)
    expect(called()).toHaveLength(30)
  })

  test('one that is not there is asked four times, and the network is named', async () => {
    fake('curl', `echo x >>${folder}/called; printf 000; exit 7`)
    const { status, stderr } = await install('--gateway', 'https://gw', '--root', folder)
    expect([status, stderr]).toEqual([1, expect.stringMatching(/check the name, the network/)])
    expect(called()).toHaveLength(4)
  })

  test.for([
    ['--gateway https://gw --proxy http://p:3128', 'https://gw http://p:3128'],
    ['--gateway=https://gw --proxy=http://p:3128', 'https://gw http://p:3128'],
    ['--proxy=http://p:3128 --gateway https://gw', 'https://gw http://p:3128'],
    ['--gateway https://gw', 'https://gw '],
  ] as const)('%s', async ([line, asked]) => {
    fake(
      'curl',
      `for word; do :; done; echo "\${word%/agent/*} $https_proxy" >>${folder}/called; exit 7`,
    )
    const { status } = await install(...line.split(' '), `--root=${folder}`)
    expect([status, called()[0]]).toEqual([1, asked])
  })

  test('the authority and the login of a proxy reach curl as settings, whatever is in them', async () => {
    put('auth', 'press:"se\\cret"\n')
    fake('curl', `cat >${folder}/called; exit 7`)
    const words = ['--proxy', 'https://p', '--proxy-ca-file', `${folder}/c"a.pem`]
    const secret = ['--proxy-auth-file', `${folder}/auth`]
    await install('--gateway', 'https://gw', '--root', folder, ...words, ...secret)
    expect(called()).toEqual([
      String.raw`proxy-user = "press:\"se\\cret\""`,
      `proxy-cacert = "${folder}/c\\"a.pem"`,
    ])
  })

  test('an empty --root is refused, however it is written', async () => {
    for (const words of [['--root', ''], ['--root=']])
      expect(await install('--gateway', 'https://gw', ...words)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining('--root') as string,
      })
  })

  test.for([
    ['sudo keeps the proxy that the line has', { https_proxy: 'http://u:p@p:3128' }],
    ['sudo is asked to keep nothing that is not there', {}],
  ] as const)('%s', async ([, more]) => {
    const script = (await build.script()) ?? ''
    put('script', script)
    fake('id', 'echo 1000')
    fake('sudo', 'echo "sudo $1 $2"')
    fake(
      'curl',
      `while [ $# -gt 0 ]; do [ "$1" = -o ] && cp ${folder}/script "$2"; shift; done; exit 0`,
    )
    const line = installLine({
      origin: 'https://gw',
      device: 'press-07',
      tenant: 'main.sallyport.internal',
      caSha256: 'c'.repeat(64),
      updateKeys: [],
      token: 'spt_0',
      scriptSha256: sha256(script),
    })
    const { stdout } = spawnSync('sh', ['-c', line], { encoding: 'utf8', env: env(more) })
    if ('https_proxy' in more) expect(stdout).toBe('sudo --preserve-env=https_proxy sh\n')
    else expect(stdout).toMatch(/^sudo sh \//)
  })
})

describe('served', () => {
  let server: Server
  const reports: unknown[] = []
  let clock: HandClock
  beforeEach(async () => {
    reports.length = 0
    clock = new HandClock()
    const report = (error: unknown) => void reports.push(error)
    server = createServer(agentFiles({ build, report, clock }))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  afterEach(async () => {
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  })
  const at = (path: string) => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`

  test('script, agent and licences, whole and with their length', async () => {
    put('sallyport-agent.cjs', 'bundle')
    put('THIRD-PARTY.txt', 'MIT')
    for (const [name, body] of [
      ['install', await build.script()],
      ['sallyport-agent.cjs', 'bundle'],
      ['THIRD-PARTY.txt', 'MIT'],
    ] as const) {
      const answer = await fetch(at(`/agent/${name}`))
      expect([answer.status, await answer.text()]).toEqual([200, body])
      expect(answer.headers.get('content-length')).toBe(String(Buffer.byteLength(body ?? '')))
      const head = await fetch(at(`/agent/${name}`), { method: 'HEAD' })
      expect([head.status, await head.text()]).toEqual([200, ''])
    }
  })

  test.for([
    ['GET', '/agent/passwords', 404],
    ['GET', '/agent/..%2fpasswords', 404],
    ['GET', '/agent/sallyport-agent.cjs/', 404],
    ['GET', '/agent/', 404],
    ['GET', '/agent/sallyport-agent-arm64', 404],
    ['POST', '/agent/install', 405],
  ] as const)('%s %s: %i', async ([method, path, status]) => {
    put('sallyport-agent.cjs', 'bundle')
    put('passwords', 'secret')
    expect((await fetch(at(path), { method })).status).toBe(status)
  })

  test('a gateway without a build says what to do', async () => {
    const answer = await fetch(at('/agent/install'))
    expect([answer.status, await answer.text()]).toEqual([
      404,
      expect.stringContaining('npm run build:agent') as string,
    ])
  })

  /** Begins to take the agent, from `localAddress`, and does not read on. */
  async function begin(localAddress: string) {
    const request = get(at('/agent/sallyport-agent.cjs'), { agent: false, localAddress })
    request.on('error', () => {})
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.on('error', () => {})
    return { request, response, status: response.statusCode }
  }
  /** Longer than what a connection buffers, so that who does not read is still being served. */
  const long = () => put('sallyport-agent.cjs', Buffer.alloc(64 * 1024 * 1024))

  test('the fifth at once from one address is told to come again, and keeps nobody else out; nobody who leaves is a failure', async () => {
    long()
    const four = await Promise.all(Array.from({ length: 4 }, async () => await begin('127.0.0.1')))
    expect(four.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    const fifth = await begin('127.0.0.1')
    expect([fifth.status, fifth.response.headers['retry-after']]).toEqual([503, '10'])
    const script = await fetch(at('/agent/install'))
    expect([script.status, (await script.text()) === (await build.script())]).toEqual([200, true])
    const other = await begin('127.0.0.2')
    expect(other.status).toBe(200)
    four[0]?.request.destroy()
    const again = [fifth, other]
    do again.push(await begin('127.0.0.1'))
    while (again.at(-1)?.status !== 200)
    for (const { request } of [...four, ...again]) request.destroy()
    expect(reports).toEqual([])
  })

  test('of all together sixteen are served at once', async () => {
    long()
    const readers = await Promise.all(
      Array.from({ length: 16 }, async (_, at) => await begin(`127.0.0.${1 + (at >> 2)}`)),
    )
    expect(readers.map(({ status }) => status)).toEqual(Array(16).fill(200))
    const next = await begin('127.0.0.9')
    expect(next.status).toBe(503)
    for (const { request } of [...readers, next]) request.destroy()
  })

  test('who takes less than 480 kB in half a minute is let go of, and who takes more is not', async () => {
    long()
    const slow = await begin('127.0.0.1')
    const quick = await begin('127.0.0.2')
    const cut = new Promise((done) => slow.response.once('close', done))
    let taken = 0
    quick.response.on('data', (chunk: Buffer) => (taken += chunk.length))
    // What connections buffer counts as taken in the first time; the one that reads has had all when the second begins.
    await until('the quick one has all', async () => taken === 64 * 1024 * 1024)
    clock.pass(30_000)
    clock.pass(30_000)
    slow.response.resume()
    await cut
    expect(slow.response.complete).toBe(false)
    expect(quick.response.complete).toBe(true)
    expect(reports).toEqual([])
  })
})
