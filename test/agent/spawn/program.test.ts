/** Spawned programs as real processes: what they have, what they see, and what they may. */
import { chmodSync, copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { holds, proceed } from '../gateway.ts'
import { sha256Of } from '../programs/process.ts'
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
  shell,
  target,
  uid,
  up,
} from './tool.ts'

const PYTHON = '/usr/bin/python3'

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
    const copy = join(place(), 'id')
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
