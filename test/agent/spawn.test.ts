/** Spawned programs as real processes: what they may be, what they may not, and that nothing of them stays. */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { appendFileSync, chownSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { At } from '../../agent-tunnel/agent/at.ts'
import { Sandbox } from '../../agent-tunnel/agent/spawn/sandbox.ts'
import { targetOf } from '../../agent-tunnel/agent/target.ts'
import { HandClock } from '../support/clock.ts'
import { enrolled, Directory, running } from './device.ts'
import type { Running } from './device.ts'
import { FakeGateway, holds, openStream, proceed, soon } from './gateway.ts'
import type { Held, Opened } from './gateway.ts'
import { sha256Of, startProgram } from './programs/process.ts'

const root = userInfo().uid === 0
const user = root ? 'nobody' : userInfo().uid
const uid = root ? 65_534 : userInfo().uid
const namespaces = spawnSync('unshare', [
  ...(root ? [] : ['--user', '--map-current-user']),
  '--pid',
  '--fork',
  '--mount-proc',
  'true',
])
const missing = process.platform !== 'linux' || namespaces.status !== 0
const spawner = fileURLToPath(new URL('programs/spawner.ts', import.meta.url))
const PYTHON = '/usr/bin/python3'
const SH = '/bin/sh'
/** Whether an unprivileged user may have a user namespace here. */
const own =
  spawnSync(
    'unshare',
    ['--user', '--map-current-user', '--pid', '--fork', '--mount-proc', 'true'],
    root ? { uid: 65_534, gid: 65_534 } : {},
  ).status === 0
const shell = missing ? '' : realpathSync(SH)

const target = (declaration: object) =>
  targetOf(new At('test', 'targets.tool', { spawn: { user, ...declaration } }))
const sh = (script: string, more: object = {}) => target({ argv: [SH, '-c', script], ...more })

let gateway: FakeGateway
let directory: Directory
beforeAll(async () => {
  gateway = await FakeGateway.start()
})
afterAll(() => gateway[Symbol.asyncDispose]())
beforeEach(() => {
  directory = new Directory()
  chmodSync(directory.path, 0o755)
  return () => directory[Symbol.dispose]()
})

interface Device extends AsyncDisposable {
  readonly agent: Running
  readonly held: Held
  open(overrides?: Readonly<Record<string, unknown>>): Promise<Opened>
}

async function device(tool: ReturnType<typeof target>, clock?: HandClock): Promise<Device> {
  const config = await enrolled(gateway, directory)
  const targets = new Map([['tool', tool]])
  const agent = running({ ...config, targets }, clock === undefined ? {} : { clock })
  const held = await gateway.nextTunnel()
  return {
    agent,
    held,
    open: (overrides = {}) => openStream(held, 'tool', overrides, 'spawn'),
    [Symbol.asyncDispose]: () => agent.stop(),
  }
}

const closed = (opened: Opened) => soon('the stream closes', opened.closed)

/** Runs `tool` to its end, its input ended at once; gives what it said and how it ended. */
async function run(tool: ReturnType<typeof target>, overrides = {}) {
  await using one = await device(tool)
  const opened = await one.open(overrides)
  proceed(opened)
  opened.stream.end()
  const reason = await closed(opened)
  return { said: opened.received.toString(), exit: opened.signals.at(-1), reason, opened }
}

/** Pids of processes of this machine whose command line holds `mark`. */
function alive(mark: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(mark)
    } catch {
      return false
    }
  })
}

let marks = 0
/** A duration for `sleep` that nobody else sleeps. */
const mark = () => `${4000 + (process.pid % 1000)}.${process.pid}${++marks}`

async function up(name: string, count: number): Promise<void> {
  await holds(() => expect(alive(name).length).toBeGreaterThanOrEqual(count))
}
async function none(name: string): Promise<void> {
  await holds(() => expect(alive(name)).toEqual([]))
}

describe.skipIf(missing)('unshare: a spawned program', () => {
  test('is told before it runs; then its input, its output, its code', async () => {
    await using one = await device(sh('read line; echo "got $line"; cat; exit 7'))
    expect(one.held.greeting['targets']).toMatchObject([
      {
        process: 'tool',
        kind: 'spawn',
        listener: { phase: 'listener', exe: shell, sha256: sha256Of(shell), uid, pid: null },
      },
    ])
    const opened = await one.open()
    expect(opened.observed).toMatchObject({
      phase: 'accepted',
      exe: shell,
      sha256: sha256Of(shell),
      uid,
      pid: null,
      others: [],
    })
    expect(one.agent.logged('spawn.started')).toEqual([])
    proceed(opened)
    opened.stream.write(Buffer.from('hello\nrest'))
    opened.stream.end()
    expect(await closed(opened)).toMatchObject({ code: 'done' })
    expect(opened.received.toString()).toBe('got hello\nrest')
    expect(opened.signals).toEqual([{ t: 'exit', code: 7 }])
  })

  test('that a signal kills: the signal is told', async () => {
    const { exit } = await run(sh('echo x; kill -9 $$'))
    expect(exit).toEqual({ t: 'exit', signal: 'SIGKILL' })
  })

  test('has both outputs as one, in order', async () => {
    const { said } = await run(sh('echo 1; echo 2 >&2; echo 3; ls /nowhere 2>&1 | wc -l'))
    expect(said).toBe('1\n2\n3\n1\n')
  })

  test('has the declared environment and nothing else, whatever is asked for', async () => {
    const { said } = await run(target({ argv: ['/usr/bin/env'], env: { LANG: 'C.UTF-8' } }), {
      env: { LD_PRELOAD: '/tmp/x.so', EXTRA: '1' },
      argv: ['/bin/true'],
    })
    const names = said
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split('=')[0])
    expect(names.toSorted((one, other) => (one ?? '').localeCompare(other ?? ''))).toEqual([
      'HOME',
      'LANG',
      'LOGNAME',
      'PATH',
      'USER',
    ])
  })

  test('has its own words, its first one too, and sees no descriptor but its three', async () => {
    const { said } = await run(sh('echo "$0 $1"; ls /proc/self/fd | tr "\\n" " "; echo $$'))
    // ls has one of its own, for the directory.
    expect(said).toMatch(/^\/bin\/sh \n0 1 2 3 \d+\n$/)
  })

  test('runs as its user, with no group, no capability and no way to more', async () => {
    const { said } = await run(
      sh('id -u; id -G; grep -E "^(Cap|NoNewPrivs|Seccomp:|SigIgn)" /proc/self/status'),
    )
    expect(said.split('\n')[0]).toBe(String(uid))
    if (root) expect(said.split('\n')[1]).toBe(String(uid))
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'])
      expect(said).toMatch(new RegExp(`^${set}:\\t0+$`, 'm'))
    expect(said).toMatch(/^NoNewPrivs:\t1$/m)
    expect(said).toMatch(/^SigIgn:\t0+$/m)
  })

  test.skipIf(!root)('a set-uid program that it runs stays without rights', async () => {
    const copy = join(directory.path, 'id')
    copyFileSync('/usr/bin/id', copy)
    chmodSync(copy, 0o4755)
    const { said } = await run(sh(`${copy} -u`))
    expect(said).toBe(`${uid}\n`)
  })

  test('sees no process of the machine, and its first process is not its own', async () => {
    const { said } = await run(sh('ls /proc | grep -c "^[0-9]*$"; kill -9 1; kill -15 1; echo on'))
    expect(Number(said.split('\n')[0])).toBeLessThan(8)
    expect(said).toContain('on\n')
  })

  test('is kept to its limits: files, processes, core', async () => {
    const { said } = await run(
      sh('ulimit -n; ulimit -c; ulimit -v; ulimit -f', {
        limits: { files: 64, memory_mb: 256, file_mb: 1 },
      }),
    )
    expect(said).toBe('64\n0\n262144\n2048\n')
  })

  test.skipIf(!existsSync(PYTHON))(
    'python3: that forks without end is kept to its number of processes, and all of it ends',
    async () => {
      const name = mark()
      const bomb = [
        'import os, time, sys',
        'made = 0',
        'for _ in range(300):',
        '  try:',
        '    if os.fork() == 0: time.sleep(600); os._exit(0)',
        '    made += 1',
        '  except OSError: pass',
        'print(made, flush=True)',
        'time.sleep(600)',
      ].join('\n')
      await using one = await device(
        target({ argv: [PYTHON, '-c', bomb, name], limits: { processes: 40 } }),
      )
      const opened = await one.open()
      proceed(opened)
      await holds(() => expect(opened.received.toString()).toMatch(/\n/))
      expect(Number(opened.received.toString())).toBeLessThan(40)
      expect(alive(name).length).toBeGreaterThan(1)
      opened.stream.reset('client.gone')
      await none(name)
    },
  )
})

const survivors = [
  { name: 'a child in the background', script: (name: string) => `sleep ${name} & exit 0` },
  { name: 'nohup', script: (name: string) => `nohup sleep ${name} >/dev/null 2>&1 & exit 0` },
  { name: 'setsid', script: (name: string) => `setsid sleep ${name} >/dev/null 2>&1 & exit 0` },
  {
    name: 'a double fork, everything closed',
    script: (name: string) =>
      `(setsid sh -c "(trap '' HUP TERM INT; exec sleep ${name}) <&- >&- 2>&- &" &); sleep 0.3; exit 0`,
  },
  {
    name: 'a namespace of its own inside',
    script: (name: string) =>
      `unshare --user --pid --fork setsid sleep ${name} >/dev/null 2>&1 & sleep 0.3; exit 0`,
  },
] as const

describe.skipIf(missing)('unshare: nothing survives', () => {
  test.for(survivors)('the program, by $name', async ({ script }) => {
    const name = mark()
    const { exit, reason } = await run(sh(`${script(name)}`))
    expect([exit, reason.code]).toEqual([{ t: 'exit', code: 0 }, 'done'])
    await none(name)
  })

  const hold = (name: string) => `setsid nohup sleep ${name} >/dev/null 2>&1 & exec sleep ${name}`

  test('a client that is gone', async () => {
    const name = mark()
    await using one = await device(sh(hold(name)))
    const opened = await one.open()
    proceed(opened)
    await up(name, 2)
    opened.stream.reset('client.gone')
    await none(name)
  })

  test('a gateway that is gone', async () => {
    const name = mark()
    await using one = await device(sh(hold(name)))
    const opened = await one.open()
    proceed(opened)
    await up(name, 2)
    one.held.socket.destroy()
    await none(name)
  })

  test('the end of the lease', async () => {
    const name = mark()
    const clock = new HandClock()
    await using one = await device(sh(hold(name)), clock)
    const opened = await one.open({ remaining_ms: 3000 })
    proceed(opened)
    await up(name, 2)
    clock.pass(3000)
    expect(await closed(opened)).toMatchObject({ code: 'lease.spent' })
    await none(name)
  })

  test('an agent that stops', async () => {
    const name = mark()
    const one = await device(sh(hold(name)))
    const opened = await one.open()
    proceed(opened)
    await up(name, 2)
    await one.agent.stop()
    await none(name)
  })

  const users = [
    { name: 'another user’s', uid: 0, able: root },
    { name: 'the agent’s own user’s, without privilege', uid: root ? 65_534 : uid, able: own },
  ].filter(({ able }) => able)
  test.for(users)('an agent that is killed by SIGKILL: $name program', async (row) => {
    const name = mark()
    const options = row.uid === userInfo().uid ? {} : { uid: row.uid }
    await using agent = await startProgram('spawner.ts', [hold(name)], options)
    expect(agent.port).toBe(1)
    await up(name, 2)
    agent.child.kill('SIGKILL')
    await none(name)
  })

  test.skipIf(!own)('in a user namespace: no privilege, its own user, its end told', async () => {
    const script =
      'id -u; grep -E "^(CapEff|NoNewPrivs)" /proc/self/status; ls /proc | grep -c "^[0-9]"; exit 4'
    const options = root ? { uid: 65_534 } : {}
    await using agent = await startProgram('spawner.ts', [script], options)
    await holds(() => expect(agent.said()).toMatch(/"exit".*\n/))
    const said = agent.said()
    expect(said).toMatch(/^\d+\nCapEff:\t0+\nNoNewPrivs:\t1\n[2-7]\n\{"t":"exit","code":4\}\n$/)
    expect(said.split('\n')[0]).toBe(String(uid))
  })

  test.skipIf(!own)(
    'in a user namespace: the agent’s data directory is empty to its own user, whatever is tried',
    async () => {
      const data = join(directory.path, 'data')
      mkdirSync(data, { mode: 0o700 })
      writeFileSync(join(data, 'key'), 'the key of the device')
      if (root) for (const path of [join(data, 'key'), data]) chownSync(path, uid, uid)
      const script = [
        `ls -A ${data} | wc -l`,
        `cat ${data}/key /proc/1/root${data}/key /proc/1/cwd${data}/key`,
        `echo x > ${data}/consent; rm -f ${data}/key; umount ${data}; umount -l ${data}`,
        `unshare --user --map-root-user --mount sh -c 'umount ${data}; umount -l ${data}; cat ${data}/key'`,
        `unshare --user --map-root-user --mount sh -c 'mount --bind ${directory.path} /mnt; cat /mnt/data/key'`,
        'echo over',
      ].join('\n')
      const options = root ? { uid: 65_534 } : {}
      await using agent = await startProgram('spawner.ts', [script, data], options)
      await holds(() => expect(agent.said()).toMatch(/"exit".*\n/))
      const said = agent.said()
      expect(said).toMatch(/^0\n/)
      expect(said).toContain('over\n')
      expect(said).not.toContain('the key')
      expect(readdirSync(data)).toEqual(['key'])
    },
  )

  test('one that is never decided on was never started, and its sandbox is gone', async () => {
    const name = mark()
    await using one = await device(sh(`sleep ${name}`))
    const opened = await one.open()
    opened.stream.reset('policy.denied')
    await none(name)
    expect(one.agent.logged('spawn.started')).toEqual([])
  })
})

/** docs/process-scope.md, of an agent that is not root and starts programs of other users on a terminal. */
const CAPABILITIES = ['sys_admin', 'sys_chroot', 'setuid', 'setgid', 'setpcap', 'chown']
const capable = (names: readonly string[]) => {
  const set = names.map((name) => `+${name}`).join(',')
  return [
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    `--bounding-set=-all,${set}`,
    `--inh-caps=-all,${set}`,
    `--ambient-caps=${set}`,
  ]
}
const setpriv = root && spawnSync('setpriv', [...capable(CAPABILITIES), 'true']).status === 0

describe.skipIf(missing || !setpriv)('unshare, setpriv: an agent with capabilities', () => {
  /** What an agent with those says of a program of user daemon, with a terminal. */
  const says = async (names: readonly string[]): Promise<string> => {
    const words = [process.execPath, spawner, 'tty; id -u', directory.path, 'daemon']
    const agent = spawn('setpriv', [...capable(names), ...words])
    let said = ''
    const { promise, resolve } = Promise.withResolvers<void>()
    const hear = (text: Buffer) => {
      said += text.toString()
      if (said.includes('"exit"')) resolve()
    }
    agent.stdout.on('data', hear)
    agent.stderr.on('data', hear)
    agent.once('close', () => resolve())
    await soon('it runs or does not', promise)
    agent.kill('SIGKILL')
    return said
  }
  test('has enough of those that are documented to start a program of another user on a terminal', async () => {
    expect(await says(CAPABILITIES)).toMatch(
      /^1\n\/dev\/pts\/\d+\r\n1\r\n\{"t":"exit","code":0\}\n/,
    )
  })
  // Without CAP_SETPCAP it starts with a bounding set that no_new_privs makes worth nothing.
  const needed = CAPABILITIES.filter((name) => name !== 'setpcap')
  test.for(needed)(
    'needs each other one of them: without %s nothing is started',
    async (without) => {
      const said = await says(CAPABILITIES.filter((name) => name !== without))
      expect(said).toMatch(/spawn\.|fchown|EPERM/)
      expect(said).not.toContain('"code":0')
    },
  )
})

describe.skipIf(missing)('unshare: a sandbox', () => {
  test('whose first process is gone is entered by nobody', async () => {
    const sandbox = await Sandbox.make(65_534, directory.path)
    await sandbox.end()
    expect(() => sandbox.enter(['true'])).toThrow(/has ended already/)
  })
  test('that is killed is told to be gone when all in it is gone', async () => {
    for (let at = 0; at < 5; at++) {
      const name = mark()
      const sandbox = await Sandbox.make(65_534, directory.path)
      const { file, args } = sandbox.enter([
        'sh',
        '-c',
        `for i in 1 2 3 4 5 6 7 8; do sleep ${name} & done; wait`,
      ])
      const child = spawn(file, args, { stdio: 'ignore' })
      await up(name, 8)
      sandbox.kill()
      await sandbox.end()
      // nsenter itself is outside, and bears the words too.
      expect(alive(name).filter((pid) => Number(pid) !== child.pid)).toEqual([])
      child.kill('SIGKILL')
    }
  })
})

describe.skipIf(missing)('unshare: what cannot be started', () => {
  test('a directory that is gone', async () => {
    const { reason } = await run(sh('true', { cwd: join(directory.path, 'gone') }))
    expect(reason).toMatchObject({
      code: 'spawn.failed',
      message: 'the program was not started: cwd: ENOENT',
    })
  })

  test.skipIf(!root)('a file that its user may not run', async () => {
    const copy = join(directory.path, 'true')
    copyFileSync('/bin/true', copy)
    chmodSync(copy, 0o700)
    const { reason } = await run(target({ argv: [copy] }))
    expect(reason.message).toBe('the program was not started: exec: EACCES')
  })

  const refused = async (tool: ReturnType<typeof target>): Promise<unknown> => {
    await using one = await device(tool)
    return await one.open().catch((error: unknown) => error)
  }
  test('a file that is not there, a script, a directory', async () => {
    const script = join(directory.path, 'script')
    writeFileSync(script, '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const rows = [
      [join(directory.path, 'nothing'), /cannot be opened/],
      [script, /is a script: declare its interpreter/],
      [directory.path, /is no file/],
    ] as const
    for (const [path, says] of rows)
      expect(await refused(target({ argv: [path] }))).toMatchObject({
        code: 'spawn.program',
        message: expect.stringMatching(says) as string,
      })
  })

  test('a file that is replaced or changed between decision and start: not a byte of it', async () => {
    const copy = join(directory.path, 'tool')
    copyFileSync('/bin/echo', copy)
    chmodSync(copy, 0o755)
    await using one = await device(target({ argv: [copy, 'the decided one'] }))
    const first = await one.open()
    rmSync(copy)
    copyFileSync('/usr/bin/env', copy)
    chmodSync(copy, 0o755)
    proceed(first)
    first.stream.end()
    expect(await closed(first)).toMatchObject({ code: 'spawn.program' })
    expect(first.received).toHaveLength(0)
    const second = await one.open()
    expect(second.observed!['sha256']).toBe(sha256Of('/usr/bin/env'))
    appendFileSync(copy, 'x')
    proceed(second)
    second.stream.end()
    expect(await closed(second)).toMatchObject({ code: 'spawn.program' })
    expect(second.received).toHaveLength(0)
  })

  test('a script that is replaced or changed between decision and start: not a byte of it', async () => {
    const script = join(directory.path, 'script')
    writeFileSync(script, 'echo the decided one\n', { mode: 0o755 })
    await using one = await device(target({ argv: [SH, script] }))
    const spoil = [
      () => {
        rmSync(script)
        writeFileSync(script, 'echo the decided one\n', { mode: 0o755 })
      },
      () => appendFileSync(script, 'echo and more\n'),
      () => rmSync(script),
    ]
    for (const change of spoil) {
      const opened = await one.open()
      expect(opened.observed!['script_sha256']).toBe(sha256Of(script))
      change()
      proceed(opened)
      opened.stream.end()
      expect(await closed(opened)).toMatchObject({ code: 'spawn.program' })
      expect(opened.received).toHaveLength(0)
    }
  })

  test('more than 32 at once: refused, and room again when one has ended', async () => {
    await using one = await device(sh('exit 0'))
    const all: Opened[] = []
    for (let at = 0; at < 32; at++) all.push(await one.open())
    await expect(one.open()).rejects.toMatchObject({ code: 'agent.full' })
    all.pop()!.stream.reset('client.gone')
    await holds(async () => (await one.open()).stream.reset('client.gone'))
  })
})

describe.skipIf(missing)('unshare: how much it says and hears', () => {
  test('64 MiB of output to a reader that stops: it waits, nothing is lost', async () => {
    await using one = await device(sh('head -c 67108864 /dev/zero'))
    const opened = await one.open()
    let got = 0
    let owed = 0
    let reading = false
    opened.stream.onData = (chunk) => {
      got += chunk.length
      if (reading) opened.stream.consumed(chunk.length)
      else owed += chunk.length
    }
    proceed(opened)
    await holds(() => expect(got).toBeGreaterThan(100_000))
    expect(got).toBeLessThan(32 * 1024 * 1024)
    reading = true
    opened.stream.consumed(owed)
    opened.stream.end()
    expect(await soon('all of it', opened.closed)).toMatchObject({ code: 'done' })
    expect(got).toBe(67_108_864)
  })

  test('input to a program that does not read it is held back by credit, and ends with it', async () => {
    await using one = await device(sh('sleep 2'))
    const opened = await one.open()
    proceed(opened)
    let taken = 0
    const chunk = Buffer.alloc(256 * 1024)
    while (taken < 64 && opened.stream.write(chunk)) taken++
    expect(taken).toBeLessThan(64)
    expect(opened.signals).toEqual([])
    await holds(() => expect(opened.signals).toEqual([{ t: 'exit', code: 0 }]))
    opened.stream.reset('client.done')
  })
})

describe.skipIf(missing)('unshare: a terminal', () => {
  const terminal = { rows: 33, cols: 101, term: 'xterm-256color' }

  test('of the size and kind of the person’s, which is its own and follows', async () => {
    await using one = await device(
      sh(
        'tty; stty size; echo $TERM; trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.05; done',
        {
          terminal: true,
        },
      ),
    )
    const opened = await one.open({ terminal })
    expect(JSON.parse(Buffer.from(opened.stream.answer).toString())).toMatchObject({
      terminal: true,
    })
    proceed(opened)
    await holds(() =>
      expect(opened.received.toString()).toMatch(
        /^\/dev\/pts\/\d+\r\n33 101\r\nxterm-256color\r\nready\r\n/,
      ),
    )
    opened.stream.signal(Buffer.from('{"t":"winsize","rows":50,"cols":0}'))
    opened.stream.signal(Buffer.from('{"t":"winsize","rows":50,"cols":132}'))
    await holds(() => expect(opened.signals).toEqual([{ t: 'exit', code: 3 }]))
    await holds(() => expect(opened.received.toString()).toMatch(/50 132\r\n$/))
  })

  test('has job control: an interrupt reaches the program and not what runs it', async () => {
    await using one = await device(
      sh('trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.05; done', {
        terminal: true,
      }),
    )
    const opened = await one.open({ terminal })
    proceed(opened)
    await holds(() => expect(opened.received.toString()).toContain('ready'))
    opened.stream.write(Buffer.from('\x03'))
    await holds(() => expect(opened.signals).toEqual([{ t: 'exit', code: 5 }]))
    await holds(() => expect(opened.received.toString()).toContain('caught'))
  })

  test('the end of input is the end of file', async () => {
    const { said, exit } = await run(sh('cat; echo over', { terminal: true }), { terminal })
    expect(said).toContain('over')
    expect(exit).toEqual({ t: 'exit', code: 0 })
  })

  test('is there only where declared and where the person has one', async () => {
    const script = 'tty'
    expect((await run(sh(script), { terminal })).said).toBe('not a tty\n')
    expect((await run(sh(script, { terminal: true }))).said).toBe('not a tty\n')
  })

  test('everything that it has started ends with it', async () => {
    const name = mark()
    await using one = await device(
      sh(`setsid nohup sleep ${name} >/dev/null 2>&1 & trap '' HUP; sleep ${name}`, {
        terminal: true,
      }),
    )
    const opened = await one.open({ terminal })
    proceed(opened)
    await up(name, 2)
    opened.stream.reset('session.cut')
    await none(name)
  })

  test.for([
    { rows: 0, cols: 80, term: 'xterm' },
    { rows: 24, cols: 1001, term: 'xterm' },
    { rows: 24, cols: 80, term: 'x\nPATH=/tmp' },
    'xterm',
  ])('that is none is refused: %j', async (wrong) => {
    await using one = await device(sh('true', { terminal: true }))
    await expect(one.open({ terminal: wrong })).rejects.toMatchObject({ code: 'open.metadata' })
  })
})
