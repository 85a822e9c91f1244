/** Spawned programs as real processes: nothing of them stays, whatever they do and whoever is gone. */
import { spawn, spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { Sandbox } from '../../../agent-tunnel/agent/spawn/sandbox.ts'
import { HandClock } from '../../support/clock.ts'
import { holds, proceed, soon } from '../gateway.ts'
import { startProgram } from '../programs/process.ts'
import {
  alive,
  closed,
  device,
  mark,
  missing,
  none,
  place,
  root,
  run,
  sh,
  uid,
  up,
} from './tool.ts'

const spawner = fileURLToPath(new URL('../programs/spawner.ts', import.meta.url))
/** Whether an unprivileged user may have a user namespace here. */
const own =
  spawnSync(
    'unshare',
    ['--user', '--map-current-user', '--pid', '--fork', '--mount-proc', 'true'],
    root ? { uid: 65_534, gid: 65_534 } : {},
  ).status === 0

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
      const data = join(place(), 'data')
      mkdirSync(data, { mode: 0o700 })
      writeFileSync(join(data, 'key'), 'the key of the device')
      if (root) for (const path of [join(data, 'key'), data]) chownSync(path, uid, uid)
      const script = [
        `ls -A ${data} | wc -l`,
        `cat ${data}/key /proc/1/root${data}/key /proc/1/cwd${data}/key`,
        `echo x > ${data}/consent; rm -f ${data}/key; umount ${data}; umount -l ${data}`,
        `unshare --user --map-root-user --mount sh -c 'umount ${data}; umount -l ${data}; cat ${data}/key'`,
        `unshare --user --map-root-user --mount sh -c 'mount --bind ${place()} /mnt; cat /mnt/data/key'`,
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
    const words = [process.execPath, spawner, 'tty; id -u', place(), 'daemon']
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
    const sandbox = await Sandbox.make(65_534, place())
    await sandbox.end()
    expect(() => sandbox.enter(['true'])).toThrow(/has ended already/)
  })
  test('that is killed is told to be gone when all in it is gone', async () => {
    for (let at = 0; at < 5; at++) {
      const name = mark()
      const sandbox = await Sandbox.make(65_534, place())
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
