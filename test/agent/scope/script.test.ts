/** Scripts of interpreters and images of containers: what is said of them, and what is left unseen. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { Executables } from '../../../agent-tunnel/agent/scope/executable.ts'
import { containerOf, imageOf } from '../../../agent-tunnel/agent/scope/image.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { scriptArgument, scriptPath } from '../../../agent-tunnel/agent/scope/script.ts'
import { dial, observe, sha256Of, startProgram } from '../programs/process.ts'

const own = mkdtempSync(join(tmpdir(), 'sallyport-script-'))
afterAll(() => rmSync(own, { recursive: true, force: true }))

describe('the script argument of a command line', () => {
  test.for([
    [
      'first argument',
      '/usr/bin/python3.11',
      ['python3', '/opt/plc.py', '--port', '1'],
      '/opt/plc.py',
    ],
    [
      'after options without a value',
      '/usr/bin/python3',
      ['python3', '-u', '-sE', 'plc.py'],
      'plc.py',
    ],
    ['a module is no script', '/usr/bin/python3', ['python3', '-m', 'plc'], undefined],
    ['a program in the arguments', '/usr/bin/python3', ['python3', '-c', 'print(1)'], undefined],
    [
      'an option that takes a value',
      '/usr/bin/python3',
      ['python3', '-W', 'plc.py', 'x.py'],
      undefined,
    ],
    [
      'what is loaded before it',
      '/usr/bin/node',
      ['node', '--require', 'x.js', 'plc.js'],
      undefined,
    ],
    ['and in one word', '/usr/bin/node', ['node', '--import=./x.js', 'plc.js'], undefined],
    ['no interpreter', '/opt/plc/runtime', ['runtime', '/etc/plc.conf'], undefined],
    ['a name that only begins like one', '/usr/bin/python3-config', ['x', '/a.py'], undefined],
    ['no argument', '/bin/sh', ['sh'], undefined],
    ['an empty one', '/bin/sh', ['sh', ''], undefined],
    ['a script of a shell', '/usr/bin/dash', ['sh', '-e', './run.sh'], './run.sh'],
  ] as const)('%s', ([, exe, args, script]) => {
    const cmdline = Buffer.from(args.map((argument) => `${argument}\0`).join(''))
    expect(scriptArgument(exe, cmdline)?.toString()).toBe(script)
  })

  test('cut off: none', () => {
    expect(scriptArgument('/bin/sh', Buffer.from('sh\0/opt/run'))).toBeUndefined()
    expect(scriptArgument('/bin/sh', Buffer.alloc(0))).toBeUndefined()
  })
})

/** By this process, of whatever kind. */
function octetsRead(): number {
  return Number(/^rchar: (\d+)$/m.exec(readFileSync('/proc/self/io', 'latin1'))?.[1])
}

describe.skipIf(!existsSync('/proc/self/ns/mnt'))('a script that runs', () => {
  test('its hash; and of what has taken its place since', async () => {
    const script = join(own, 'target.ts')
    const source = fileURLToPath(new URL('../programs/target.ts', import.meta.url))
    copyFileSync(source, script)
    await using target = await startProgram('target.ts', [script], { bare: true })
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    const before = sha256Of(script)
    expect((await observe(scope, socket)).observed.script_sha256).toBe(before)
    appendFileSync(script, '\n')
    const after = (await observe(scope, socket)).observed.script_sha256
    expect(after).toBe(sha256Of(script))
    expect(after).not.toBe(before)
  })

  test('an edit of the same size, with the mtime set back, is another file', async () => {
    const file = join(own, 'edited')
    const then = new Date(2020, 0, 1)
    const executables = new Executables()
    const write = (text: string) => {
      writeFileSync(file, text)
      utimesSync(file, then, then)
      return executables.content(Buffer.from(file))
    }
    const first = await write('one')
    expect(first).toBe(sha256Of(file))
    expect(await executables.content(Buffer.from(file))).toBe(first)
    expect(await write('two')).toBe(sha256Of(file))
    expect(sha256Of(file)).not.toBe(first)
  })

  test('a file of the kernel that has no size is not read: it may never end', async () => {
    const executables = new Executables()
    expect(await executables.content(Buffer.from('/proc/self/pagemap'))).toBeNull()
    expect(await executables.content(Buffer.from('/proc/self/status'))).toBeNull()
  })

  test('what was changed a moment ago is read each time: the next change may leave the same ctime', async () => {
    const file = join(own, 'fresh')
    const size = 4 * 1024 * 1024
    writeFileSync(file, Buffer.alloc(size, 1))
    const changed = statSync(file).ctimeMs
    /** How many octets a second look reads, so long after the change. */
    const again = async (afterMs: number) => {
      const executables = new Executables(() => changed + afterMs)
      await executables.content(Buffer.from(file))
      const before = octetsRead()
      expect(await executables.content(Buffer.from(file))).toBe(sha256OfAll)
      return octetsRead() - before
    }
    const sha256OfAll = sha256Of(file)
    expect(await again(1000)).toBeGreaterThanOrEqual(size)
    // A clock that is behind says no less.
    expect(await again(-1000)).toBeGreaterThanOrEqual(size)
    expect(await again(10_000)).toBeLessThan(size)
  })

  test('what is no file is not opened: a pipe does not hang, a directory is nothing', async () => {
    const pipe = join(own, 'pipe')
    execFileSync('/usr/bin/mkfifo', [pipe])
    const executables = new Executables()
    expect(await executables.content(Buffer.from(pipe))).toBeNull()
    expect(await executables.content(Buffer.from(own))).toBeNull()
    expect(await executables.content(Buffer.from(join(own, 'nothing')))).toBeNull()
    expect(await executables.content(Buffer.from('/dev/zero'))).toBeNull()
    const big = join(own, 'big')
    writeFileSync(big, '')
    truncateSync(big, 16 * 1024 * 1024 + 1)
    expect(await executables.content(Buffer.from(big))).toBeNull()
  })

  test.for([
    ['the agent and the process in one', { self: 1, first: 1, its: 1 }, '/srv/a.py'],
    [
      'the process in that of the machine, the agent in one that its unit made',
      { self: 2, first: 1, its: 1 },
      'PROC/7/root/srv/a.py',
    ],
    ['the process in one of its own', { self: 2, first: 1, its: 3 }, undefined],
    ['the process alone in one of its own', { self: 1, first: 1, its: 3 }, undefined],
  ] as const)('mount namespaces: %s', async ([name, { self, first, its }, path]) => {
    const proc = join(own, `proc ${name}`)
    for (const [task, mounts] of Object.entries({ self, 1: first, 7: its })) {
      mkdirSync(join(proc, task, 'ns'), { recursive: true })
      symlinkSync(`mnt:[${mounts}]`, join(proc, task, 'ns/mnt'))
    }
    symlinkSync('/', join(proc, '7/root'))
    writeFileSync(join(proc, '7/cmdline'), 'python3\0/srv/a.py\0')
    const found = await scriptPath(proc, '7', '/usr/bin/python3')
    expect(found?.toString()).toBe(path?.replace('PROC', proc))
  })

  test.skipIf(process.getuid?.() !== 0)(
    'in a mount namespace of its own: unseen (needs root)',
    async () => {
      const script = join(own, 'elsewhere.js')
      writeFileSync(
        script,
        "require('net').createServer().listen(0, '127.0.0.1', function () { console.log(this.address().port) })",
      )
      const child = spawn('/usr/bin/unshare', ['-m', process.execPath, script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
      await using socket = await dial(Number(line))
      const { observed } = await observe(new ProcessScope(), socket)
      expect(observed).toMatchObject({ pid: child.pid, script_sha256: null })
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    },
  )
})

const id = 'a'.repeat(63) + '1'
const image = 'b'.repeat(64)

describe('the image of a container', () => {
  test.for([
    ['docker, systemd', `0::/system.slice/docker-${id}.scope\n`, { runtime: 'docker', id }],
    [
      'docker, cgroupfs',
      `1:name=systemd:/docker/${id}\n0::/docker/${id}\n`,
      { runtime: 'docker', id },
    ],
    [
      'docker, where a legacy hierarchy is not used',
      `9:name=systemd:/\n0::/system.slice/docker-${id}.scope\n`,
      { runtime: 'docker', id },
    ],
    ['docker, within', `0::/system.slice/docker-${id}.scope/init\n`, { runtime: 'docker', id }],
    ['podman', `0::/machine.slice/libpod-${id}.scope/container\n`, { runtime: 'podman', id }],
    ['none', '0::/system.slice/plc.service\n', undefined],
    [
      "a user's own group that is called like one",
      `0::/user.slice/user-1000.slice/user@1000.service/docker-${id}.scope\n`,
      undefined,
    ],
    ['an id that is too short', `0::/docker/${id.slice(1)}\n`, undefined],
    ['outside our group', `0::/../docker/${id}\n`, undefined],
    ...['\r', '\u2028', '\u2029'].map(
      (end) =>
        [
          `a user's own group with a ${JSON.stringify(end)} and a line in its name`,
          `0::/user.slice/user-1000.slice/user@1000.service/x${end}1:name=systemd:/docker/${id}\n`,
          undefined,
        ] as const,
    ),
  ] as const)('%s', ([, cgroup, container]) => {
    expect(containerOf(cgroup)).toEqual(container)
  })

  function state(path: string, value: unknown): void {
    mkdirSync(dirname(join(own, path)), { recursive: true })
    writeFileSync(join(own, path), typeof value === 'string' ? value : JSON.stringify(value))
  }

  test('as the runtime wrote it down, and nothing where it did not', () => {
    const docker = `0::/docker/${id}\n`
    const podman = `0::/machine.slice/libpod-${id}.scope\n`
    const config = `var/lib/docker/containers/${id}/config.v2.json`
    state(config, { ID: id, Image: `sha256:${image}` })
    state('var/lib/containers/storage/overlay-containers/containers.json', [
      { id: 'c'.repeat(64), image: 'd'.repeat(64) },
      { id, image },
    ])
    expect(imageOf(docker, `${own}/`)).toBe(`sha256:${image}`)
    expect(imageOf(podman, `${own}/`)).toBe(`sha256:${image}`)
    expect(imageOf('0::/system.slice/plc.service\n', `${own}/`)).toBeUndefined()
    state(config, { ID: 'c'.repeat(64), Image: `sha256:${image}` })
    expect(imageOf(docker, `${own}/`)).toBeUndefined()
    state(config, { ID: id, Image: 'plc:latest' })
    expect(imageOf(docker, `${own}/`)).toBeUndefined()
    expect(() => imageOf(docker, join(own, 'nowhere/'))).toThrow('ENOENT')
  })
})
