/**
 * A machine becomes a device by the one line that `device add` prints: fetched from a real gateway, checked, installed,
 * enrolled, connected. Into an image everywhere; as root also onto the machine itself, in a mount namespace.
 */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Device, DeviceToken } from '#api'
import { saveCredentials } from '../../cli/login/index.ts'
import { throughConnect } from '../support/connect.ts'
import { grantFor, sha256, startNode, until, type Person, type TestNode } from '../support/node.ts'

const build = fileURLToPath(new URL('../../deploy/agent/build.ts', import.meta.url))
/** The executable that answers for the process: the one that runs this test. */
const own = realpathSync('/proc/self/exe')
const UNIT = 'etc/systemd/system/sallyport-agent.service'
const BUNDLE = 'usr/local/lib/sallyport/sallyport-agent.cjs'

let folder: string
/** First in the path of every line: a Node that every user can run, and what stands between here and there. */
let tools: string
let node: TestNode
let echo: Server
beforeAll(async () => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'sallyport-onboarding-')))
  // The service's own user has to reach what is in it.
  chmodSync(folder, 0o755)
  tools = join(folder, 'tools')
  mkdirSync(tools)
  chmodSync(tools, 0o755)
  try {
    linkSync(own, join(tools, 'node'))
  } catch {
    copyFileSync(own, join(tools, 'node'))
  }
  const built = promisify(execFile)(process.execPath, [build, '--out', join(folder, 'agent')])
  node = await startNode({ config: `agent_files: ${join(folder, 'agent')}\n` })
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

/** Puts a program before the real `name`, which it is given as `$real`. */
function between(name: string, script: string): Disposable {
  const real = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim()
  writeFileSync(join(tools, name), `#!/bin/sh\nreal=${real}\n${script}\n`, { mode: 0o755 })
  return { [Symbol.dispose]: () => rmSync(join(tools, name)) }
}

async function added(id: string): Promise<DeviceToken> {
  return (await node.admin.ask<{ token: DeviceToken }>('POST', '/devices', { id })).token
}

const target = () => `--target plc=tcp:127.0.0.1:${(echo.address() as AddressInfo).port}`

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly says: string
}

/** Runs text as somebody types it into a shell: on its standard input, so that no argument holds it. */
async function typed(text: string, shell: readonly string[] = ['sh']): Promise<Ended> {
  const [program = 'sh', ...words] = shell
  const child = spawn(program, words, { env: { PATH: `${tools}:${process.env['PATH']}` } })
  let [out, says] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (more: string) => (out += more))
  child.stderr.setEncoding('utf8').on('data', (more: string) => (says += more))
  child.stdin.end(`${text}\n`)
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out, says }
}

const lineOf = (token: DeviceToken, root: string) =>
  `${token.install_command ?? ''} --root ${root} ${target()}`

/** Every file below a folder. */
function filesBelow(root: string): string[] {
  if (!existsSync(root)) return []
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

/** The agent as the service of an image would start it; resolves once its tunnel is up. */
async function started(root: string): Promise<ChildProcess> {
  const exec = /^ExecStart=(\S+) (\S+) run --data (\S+)$/m.exec(
    readFileSync(join(root, UNIT), 'utf8'),
  )
  const [, program = '', file = '', data = ''] = exec ?? []
  const words = [join(root, file), 'run', '--data', join(root, data)]
  const agent = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  for await (const line of createInterface({ input: agent.stderr }))
    if (line.includes('"tunnel.up"')) return agent
  throw new Error('the agent ended')
}

test('the line leaves a service, a certificate, and the token nowhere; the same line again changes nothing', async () => {
  const token = await added('imaged')
  const root = join(folder, 'imaged')
  const arguments_ = join(folder, 'arguments')
  // While the agent is fetched, what every user can read of every process.
  using _ = between('curl', `cat /proc/[0-9]*/cmdline >>${arguments_} 2>/dev/null; exec $real "$@"`)
  const first = await typed(lineOf(token, root))
  expect(first).toMatchObject({ code: 0 })
  expect(first.says).toContain('- enrolled as imaged\n')
  expect(first.out).toContain('imaged is enrolled below')
  expect(readFileSync(arguments_, 'latin1')).toContain('/agent/install')
  expect(readFileSync(arguments_, 'latin1')).not.toContain(token.token)
  const files = filesBelow(root)
  expect(files.map((path) => path.slice(root.length + 1))).toEqual(
    expect.arrayContaining([UNIT, BUNDLE, 'usr/local/lib/sallyport/THIRD-PARTY.txt']),
  )
  expect(files.filter((path) => readFileSync(path, 'latin1').includes(token.token))).toEqual([])
  expect(statSync(join(root, 'var/lib/sallyport')).mode & 0o777).toBe(0o700)

  const agent = await started(root)
  try {
    const shown = await until('the gateway shows it', async () => {
      const device = await node.admin.ask<Device>('GET', '/devices/imaged')
      return device.connected && device
    })
    expect(shown.processes).toEqual([])
  } finally {
    agent.kill('SIGTERM')
    await once(agent, 'exit')
  }

  // An owner's own edits outlive it, and what the line says anew counts.
  const config = join(root, 'var/lib/sallyport/agent.json')
  const { port } = echo.address() as AddressInfo
  const { targets, ...rest } = JSON.parse(readFileSync(config, 'utf8')) as {
    targets: Record<string, unknown>
  }
  expect(targets).toEqual({ plc: { tcp: `127.0.0.1:${port}` } })
  const edited = { plc: { tcp: '127.0.0.1:1', consent: true }, press: { lan: '10.0.0.5:502' } }
  writeFileSync(config, JSON.stringify({ ...rest, targets: edited, drain_s: 7 }))
  const before = files.map((path) => (path === config ? '' : readFileSync(path, 'latin1')))
  const again = await typed(`${lineOf(token, root)} --key-exchange classical`)
  expect(again).toMatchObject({ code: 0 })
  expect(again.says).toContain('- enrolled as imaged already\n')
  expect(files.map((path) => (path === config ? '' : readFileSync(path, 'latin1')))).toEqual(before)
  expect(JSON.parse(readFileSync(config, 'utf8'))).toMatchObject({
    drain_s: 7,
    key_exchange: 'classical',
    targets: { ...edited, plc: { tcp: `127.0.0.1:${port}`, consent: true } },
  })
})

test('killed after each thing it did, the same command goes on to the end, with one certificate', async () => {
  const { token, ca_sha256: pin } = await added('killed')
  const root = join(folder, 'killed')
  const bundle = join(folder, 'agent/sallyport-agent.cjs')
  const words = [bundle, 'install', '--gateway', node.origin, '--device', 'killed']
  const install = [...words, '--ca-sha256', pin, '--root', root]
  const env = { ...process.env, SALLYPORT_TOKEN: token }
  let done = 0
  for (let kill = 1; ; kill++) {
    const child = spawn(join(tools, 'node'), install, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let told = 0
    for await (const line of createInterface({ input: child.stderr }))
      if (line.startsWith('- ') && ++told === kill) child.kill('SIGKILL')
    const [code] =
      child.exitCode === null && child.signalCode === null
        ? ((await once(child, 'exit')) as [number | null])
        : [child.exitCode]
    // The last thing it tells of is the last thing it does: from there on it may end well.
    if (told < kill) {
      expect(code).toBe(0)
      done = told
      break
    }
  }
  expect(done).toBeGreaterThanOrEqual(4)
  // A device that has its certificate needs no token; one that has none does.
  const without = async (...more: string[]) =>
    await typed([join(tools, 'node'), ...install, ...more].join(' '))
  const again = await without()
  expect([again.code, again.says]).toEqual([
    0,
    expect.stringContaining('- enrolled as killed already') as string,
  ])
  const nobody = await without('--data', '/var/lib/other')
  expect(nobody).toMatchObject({
    code: 2,
    says: expect.stringContaining('token.missing') as string,
  })
  const issued = await node.admin.ask<{ items: { serial: string }[] }>(
    'GET',
    '/certificates?device=killed',
  )
  expect(issued.items).toHaveLength(1)
})

describe('what is in between gets nothing installed', () => {
  const rows = [
    {
      id: 'script',
      of: '*/agent/install',
      adds: 'echo it ran',
      says: 'is not what this line was made for',
    },
    {
      id: 'program',
      of: '*.cjs',
      adds: '//',
      says: 'as sallyport-agent.cjs is not what the gateway promised',
    },
    {
      id: 'licences',
      of: '*.txt',
      adds: 'more',
      says: 'as THIRD-PARTY.txt is not what the gateway promised',
    },
  ]
  test.for(rows)('another $id', async ({ id, of, adds, says }) => {
    const token = await added(id)
    const root = join(folder, id)
    using _ = between(
      'curl',
      `for word; do [ "$previous" = -o ] && file=$word; previous=$word; done
$real "$@" && case $word in ${of}) echo '${adds}' >>"$file" ;; esac`,
    )
    const ended = await typed(lineOf(token, root))
    expect(ended.code).not.toBe(0)
    expect(ended.says).toContain(says)
    expect(ended.out).not.toContain('it ran')
    expect(filesBelow(root)).toEqual([])
  })
})

test('a line of a token that is used up says so, and leaves no service', async () => {
  const token = await added('spent')
  await node.admin.ask('POST', '/devices/spent/token')
  const root = join(folder, 'spent')
  const ended = await typed(lineOf(token, root))
  expect(ended.code).toBe(3)
  expect(ended.says).toContain('enrol.refused')
  expect(existsSync(join(root, UNIT))).toBe(false)
})

test('without curl it is wget; without a Node that everybody can run it says what is missing', async () => {
  const only = join(folder, 'only')
  mkdirSync(only)
  const needed = 'sh cat rm id mktemp sha256sum uname date readlink ls sleep chmod printf wget sed'
  for (const name of needed.split(' ')) {
    const path = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim()
    if (path.startsWith('/'))
      writeFileSync(join(only, name), `#!/bin/sh\nexec ${path} "$@"\n`, { mode: 0o755 })
  }
  const token = await added('wgot')
  const root = join(folder, 'wgot')
  const path = (folders: string) => ['env', '-i', `PATH=${folders}`, '/bin/sh']
  const bare = await typed(lineOf(token, root), path(only))
  expect(bare).toMatchObject({ code: 1 })
  expect(bare.says).toMatch(/has no Node 26\.10 that every user can run/)
  cpSync(join(tools, 'node'), join(only, 'node'))
  chmodSync(only, 0o700)
  const shut = await typed(lineOf(token, root), path(only))
  expect(shut.says).toMatch(/has no Node 26\.10 that every user can run/)
  chmodSync(only, 0o755)
  const whole = await typed(lineOf(token, root), path(only))
  expect(whole).toMatchObject({ code: 0 })
})

test('uninstall takes away what install put there, and the data where it is told to', async () => {
  const token = await added('gone')
  const root = join(folder, 'gone')
  expect(await typed(lineOf(token, root))).toMatchObject({ code: 0 })
  const bundle = join(root, BUNDLE)
  const uninstall = async (...more: string[]) =>
    await typed(`node ${bundle} uninstall --root ${root} ${more.join(' ')}`)
  expect(await uninstall()).toMatchObject({ code: 0 })
  const left = filesBelow(root).map((path) => path.slice(root.length + 1))
  expect(left).toContain('var/lib/sallyport/agent.json')
  expect(left.filter((path) => !path.startsWith('var/lib/sallyport/'))).toEqual([])
  const from = join(folder, 'agent/sallyport-agent.cjs')
  const purge = `node ${from} uninstall --purge --root ${root}`
  expect(await typed(purge)).toMatchObject({ code: 0 })
  expect(filesBelow(root)).toEqual([])
  expect(await typed(purge)).toMatchObject({ code: 0 })
})

/** Root, and a namespace whose /etc, /usr/local, /run and /var/lib are this test's own. */
const inside = ['unshare', '--mount', '--propagation', 'private', 'sh']
const mayMount = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0
const withSysusers = spawnSync('systemd-sysusers', ['--version']).status === 0

/** systemctl, as far as an installation asks it: it starts the unit's own command as that user, with exactly those rights. */
const SYSTEMCTL = `#!/bin/sh
unit=/etc/systemd/system/sallyport-agent.service
of() { sed -n "s/^$1=//p" "$unit"; }
echo "systemctl $*" >>/run/told
pid=$(cat /run/agent.pid 2>/dev/null)
running() { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }
end() { running || return 0; kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done; rm /run/agent.pid; }
case $1 in
  is-active) running ;;
  disable) end ;;
  restart)
    end
    capabilities=-all$(of AmbientCapabilities | sed 's/ *CAP_/,+/g' | tr A-Z a-z)
    setsid setpriv --reuid "$(of User)" --regid "$(of Group)" --clear-groups --no-new-privs \\
      --inh-caps "$capabilities" --ambient-caps "$capabilities" --bounding-set "$capabilities" \\
      $(of ExecStart) </dev/null >/dev/null 2>/run/agent.log &
    echo $! >/run/agent.pid ;;
esac
`

describe.skipIf(!mayMount || !withSysusers)(
  mayMount && withSysusers
    ? 'on the machine itself'
    : 'on the machine itself: needs root, unshare and systemd-sysusers',
  () => {
    let operator: Person
    let vendor: Person
    beforeAll(async () => {
      operator = await node.person('otto', { party: 'staff', roles: ['operator'] })
      vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
      await saveCredentials(join(folder, 'home/credentials'), vendor.credentials)
    })

    test('the line ends with a tunnel, of a service that sees other users’ processes by two capabilities', async () => {
      const token = await added('lived')
      await node.admin.ask('PUT', '/devices/lived/processes/plc', {
        kind: 'tcp',
        expect: { exe: [own], sha256: [sha256(readFileSync(own))], uid: [0] },
      })
      writeFileSync(join(folder, 'systemctl'), SYSTEMCTL, { mode: 0o755 })
      const told = join(folder, 'told')
      const line = `${token.install_command ?? ''} ${target()}`
      const serves = join(folder, 'serves')
      const served = join(folder, 'served')
      const shell = typed(
        `set -e
cp -a /etc ${folder}/etc
mount --bind ${folder}/etc /etc
for place in /usr/local /run /var/lib; do mount -t tmpfs none $place; done
mkdir -p /run/systemd/system /usr/local/sbin
cp ${folder}/systemctl /usr/local/sbin/
${line}
echo "=== first"
grep -E '^(Uid|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/$(cat /run/agent.pid)/status
stat -c '%U %a' /var/lib/sallyport
sallyport=/usr/local/bin/sallyport-agent
$sallyport status --data /var/lib/sallyport
echo "=== again"
before=$(cat /run/agent.pid)
${line}
[ "$before" = "$(cat /run/agent.pid)" ] && echo "=== not restarted"
touch ${serves}
while [ -d ${folder} ] && ! [ -e ${served} ]; do sleep 0.1; done
$sallyport uninstall --purge
ls /etc/systemd/system/sallyport-agent.service /usr/local/bin/sallyport-agent /var/lib/sallyport 2>&1 || true
cp /run/told ${told}
cat /run/agent.log >&2`,
        inside,
      )
      let over = false
      void shell.then(() => (over = true))
      try {
        while (!existsSync(serves) && !over) await new Promise((done) => setTimeout(done, 10))
        if (!existsSync(serves)) expect(await shell).toMatchObject({ code: 0 })
        await grantFor(vendor, operator, { device: 'lived', process: 'plc' })
        expect(await throughConnect(join(folder, 'home'), 'lived/plc', 'to lived')).toBe('to lived')
      } finally {
        writeFileSync(served, '')
      }
      const { code, out, says } = await shell
      expect([code, says]).toEqual([
        0,
        expect.stringContaining('- the service is started') as string,
      ])
      expect(out).toContain('lived is connected to gw1')
      // CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE are bits 2 and 19.
      const rights = '0000000000080004'
      for (const set of ['CapEff', 'CapBnd', 'CapAmb']) expect(out).toContain(`${set}:\t${rights}`)
      expect(out).toMatch(/^Uid:\t(?!0\t)/m)
      expect(out).toContain('NoNewPrivs:\t1')
      expect(out).toContain('sallyport 700')
      expect(out).toContain('=== not restarted')
      expect(out.match(/No such file/g)).toHaveLength(3)
      const calls = readFileSync(told, 'utf8').trim().split('\n')
      expect(calls.filter((call) => call.includes(' restart '))).toHaveLength(1)
      expect(calls.at(-2)).toBe('systemctl disable --now --quiet sallyport-agent.service')
    })
  },
)
