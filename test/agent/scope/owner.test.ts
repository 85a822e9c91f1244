import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, renameSync, realpathSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import { sameFacts } from '../../../agent-tunnel/agent/scope/observed.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { holds } from '../../support/patience.ts'
import { copyOfNode, dial, observe, sha256Of, startProgram, tupleOf } from '../programs/process.ts'

const node = { path: realpathSync(process.execPath), sha256: sha256Of(process.execPath) }

describe.skipIf(!existsSync('/proc/self/net/tcp'))('the owner of an accepted socket', () => {
  test('path, hash, uid, start and pid of the process that accepted', async () => {
    await using target = await startProgram('target.ts')
    await using socket = await dial(target.port)
    const { observed } = await observe(new ProcessScope(), socket)
    expect(observed).toMatchObject({
      phase: 'accepted',
      exe: node.path,
      sha256: node.sha256,
      uid: process.getuid!(),
      pid: target.pid,
      script_sha256: sha256Of(fileURLToPath(new URL('../programs/target.ts', import.meta.url))),
      image: null,
      others: [],
    })
    expect(Math.abs(observed.started_at! - Date.now() / 1000)).toBeLessThan(30)
  })

  test('another executable on the port is told apart by its hash and path', async () => {
    using other = copyOfNode()
    await using target = await startProgram('target.ts', [], { exe: other.path })
    await using socket = await dial(target.port)
    const { observed } = await observe(new ProcessScope(), socket)
    expect(observed).toMatchObject({ exe: other.path, sha256: other.sha256, pid: target.pid })
    expect(other.sha256).not.toBe(node.sha256)
  })

  test('a program whose path now names another file has a hash but no path', async () => {
    using other = copyOfNode()
    await using target = await startProgram('target.ts', [], { exe: other.path })
    renameSync(other.path, `${other.path}.old`)
    using replaced = copyOfNode()
    renameSync(replaced.path, other.path)
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    // The moved file is the one that runs: the kernel follows the move, so the path is true.
    expect((await observe(scope, socket)).observed.exe).toBe(`${other.path}.old`)
    renameSync(other.path, `${other.path}.old`)
    const after = (await observe(scope, socket)).observed
    expect(after).toMatchObject({ exe: null, sha256: other.sha256, pid: target.pid })
  })

  test.for(['::1', '::ffff:127.0.0.1', '127.0.0.1'])(
    'a dual-stack server reached as %s',
    async (host) => {
      await using target = await startProgram('target.ts', ['echo', '::'])
      await using socket = await dial(target.port, host)
      expect((await observe(new ProcessScope(), socket)).observed.pid).toBe(target.pid)
    },
  )

  test('a stopped server has not accepted: waits, gives up at the deadline, sees it when it goes on', async () => {
    await using target = await startProgram('target.ts')
    target.child.kill('SIGSTOP')
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    expect(await scope.observeAccepted(tupleOf(socket), 150)).toEqual({
      ok: false,
      why: 'not_accepted',
    })
    const later = scope.observeAccepted(tupleOf(socket), 60_000)
    await sleep(50)
    target.child.kill('SIGCONT')
    expect(await later).toMatchObject({ ok: true, sighting: { observed: { pid: target.pid } } })
  })

  test('a connection of another machine, or of nobody, is elsewhere', async () => {
    const nowhere = { local: endpoint('127.0.0.1', 1)!, remote: endpoint('192.0.2.1', 502)! }
    expect(await new ProcessScope().observeAccepted(nowhere, 20)).toEqual({
      ok: false,
      why: 'elsewhere',
    })
  })

  test('abort ends the wait', async () => {
    await using target = await startProgram('target.ts')
    target.child.kill('SIGSTOP')
    await using socket = await dial(target.port)
    const stop = new AbortController()
    const waiting = new ProcessScope().observeAccepted(tupleOf(socket), 60_000, stop.signal)
    stop.abort()
    await expect(waiting).rejects.toThrow(/abort/i)
  })

  test('every owner of a shared socket is told', async () => {
    await using target = await startProgram('target.ts', ['share'])
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    await holds(async () => {
      const { observed } = await observe(scope, socket)
      expect(observed.pid).toBe(target.pid)
      expect(observed.others.map((facts) => facts.exe)).toEqual([
        expect.stringMatching(/sleep|coreutils|busybox/),
      ])
    })
  })

  test('after the first, the owner is found where it was; the complete look still comes', async () => {
    await using target = await startProgram('target.ts')
    const scope = new ProcessScope()
    await using first = await dial(target.port)
    expect(await observe(scope, first)).toMatchObject({ complete: true })
    await using second = await dial(target.port)
    const quick = await observe(scope, second)
    expect(quick).toMatchObject({ complete: false, observed: { pid: target.pid, others: [] } })
    expect(await scope.recheck(quick, true)).toEqual({ state: 'same' })
  })

  test('who also holds the socket, where nobody did before, is found by the complete look', async () => {
    await using target = await startProgram('target.ts', ['later'])
    const scope = new ProcessScope()
    await using first = await dial(target.port)
    await observe(scope, first)
    await using second = await dial(target.port)
    const quick = await observe(scope, second)
    expect(quick).toMatchObject({ complete: false, observed: { others: [] } })
    second.write('go')
    await once(second, 'data')
    // Whoever has it now may still be on the way from shell to program.
    await holds(async () => {
      const again = await scope.recheck(quick, true)
      if (again.state !== 'changed') throw new Error(again.state)
      expect(again.sighting).toMatchObject({ complete: true })
      expect(again.sighting!.observed.others.map(({ exe }) => exe)).toEqual([
        expect.stringMatching(/cat|coreutils|busybox/),
      ])
    })
    // From now on the first answer of this target is the complete one.
    await using third = await dial(target.port)
    third.write('go')
    await once(third, 'data')
    const whole = await observe(scope, third)
    expect(whole).toMatchObject({ complete: true, observed: { others: [expect.anything()] } })
  })
})

describe.skipIf(!existsSync('/proc/self/net/tcp'))('looking again', () => {
  test('the same process is the same; a closed socket is closed', async () => {
    await using target = await startProgram('target.ts')
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    const sighting = await observe(scope, socket)
    expect(await scope.recheck(sighting)).toEqual({ state: 'same' })
    expect(await scope.recheck(sighting, true)).toEqual({ state: 'same' })
    target.child.kill('SIGKILL')
    await once(target.child, 'exit')
    expect((await scope.recheck(sighting)).state).toBe('closed')
  })

  test('a socket handed to another process is changed; the same program is told to be alike', async () => {
    await using target = await startProgram('target.ts', ['give'])
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    const first = await observe(scope, socket)
    await holds(async () => {
      const again = await scope.recheck(first, true)
      const pid = again.state === 'changed' ? again.sighting?.observed.pid : first.observed.pid
      expect(pid).not.toBe(target.pid)
    })
    const settled = await holds(async () => {
      const now = await observe(scope, socket)
      expect(now.observed).toMatchObject({ sha256: node.sha256, others: [] })
      return now
    })
    expect(sameFacts(first.observed, settled.observed)).toBe(true)
  })

  test('a process that replaces its program is found although pid and start time stay', async () => {
    await using target = await startProgram('target.ts', ['exec'])
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    let shell = await observe(scope, socket)
    await holds(async () => {
      shell = await observe(scope, socket)
      expect(shell.sights).toHaveLength(1)
      expect(shell.observed.pid).not.toBe(target.pid)
      expect(shell.observed.exe).toMatch(/sh$/)
    })
    expect(await scope.recheck(shell)).toEqual({ state: 'same' })
    socket.write('go\n')
    await holds(async () => {
      const again = await scope.recheck(shell)
      if (again.state !== 'changed') throw new Error(again.state)
      expect(again.sighting?.observed.pid).toBe(shell.observed.pid)
      expect(again.sighting?.observed.started_at).toBe(shell.observed.started_at)
      expect(sameFacts(shell.observed, again.sighting!.observed)).toBe(false)
    })
  })

  test('an owner who joins later is found by the full look', async () => {
    await using target = await startProgram('target.ts', ['share'])
    target.child.kill('SIGSTOP')
    await using socket = await dial(target.port)
    const scope = new ProcessScope()
    target.child.kill('SIGCONT')
    const first = await observe(scope, socket)
    await holds(async () => {
      const now = first.sights.length > 1 ? first : await observe(scope, socket)
      expect(now.observed.others).toHaveLength(1)
    })
    if (first.sights.length === 1) {
      expect(await scope.recheck(first)).toEqual({ state: 'same' })
      expect((await scope.recheck(first, true)).state).toBe('changed')
    }
  })
})

describe.skipIf(!existsSync('/proc/self/net/tcp'))('listeners', () => {
  test('who listens, and nobody', async () => {
    const scope = new ProcessScope()
    await using target = await startProgram('target.ts')
    expect(
      (await scope.exposures([endpoint('127.0.0.1', target.port)!]))[0]?.observed,
    ).toMatchObject({
      phase: 'listener',
      exe: node.path,
      sha256: node.sha256,
      pid: target.pid,
    })
    target.child.kill('SIGKILL')
    await once(target.child, 'exit')
    expect((await scope.exposures([endpoint('127.0.0.1', target.port)!]))[0]?.observed).toBeNull()
  })

  test('a second door of the same program is told without a look at all processes', async () => {
    const scope = new ProcessScope()
    await using target = await startProgram('target.ts', ['door'])
    const at = [endpoint('127.0.0.1', target.port)!]
    expect((await scope.exposures(at))[0]?.listens).toEqual([`127.0.0.1:${target.port}`])
    const opened = once(target.child.stdout!, 'data')
    target.child.stdin!.write('open\n')
    const second = String(((await opened) as [Buffer])[0]).trim()
    expect((await scope.exposures(at, false))[0]?.listens).toEqual(
      [`127.0.0.1:${target.port}`, `127.0.0.1:${second}`].toSorted(),
    )
  })

  test('what another program listens on is no affair of the target', async () => {
    const scope = new ProcessScope()
    await using target = await startProgram('target.ts')
    const at = [endpoint('127.0.0.1', target.port)!]
    const before = await scope.exposures(at)
    await using _other = await startProgram('target.ts')
    expect(await scope.exposures(at, false)).toEqual(before)
  })

  test('a wildcard listener answers for the address', async () => {
    const server = createServer().listen(0, '0.0.0.0')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const seen = (await new ProcessScope().exposures([endpoint('127.0.0.1', port)!]))[0]?.observed
    expect(seen?.pid).toBe(process.pid)
    server.close()
  })
})

describe.skipIf(process.getuid?.() !== 0)('without privilege (needs root to give it up)', () => {
  const run = promisify(execFile)
  const look = fileURLToPath(new URL('../programs/look.ts', import.meta.url))

  test("another user's process is unseen, not guessed", async () => {
    await using target = await startProgram('target.ts')
    const { stdout } = await run(process.execPath, [look, String(target.port)], {
      uid: 65_534,
      gid: 65_534,
    })
    const blank = {
      exe: null,
      sha256: null,
      uid: null,
      unit: null,
      pid: null,
      started_at: null,
      others: [],
    }
    const seen = JSON.parse(stdout) as { unreadable: number }
    expect(seen).toMatchObject({ accepted: blank, listener: blank, recheck: { state: 'same' } })
    expect(seen.unreadable).toBeGreaterThan(0)
  })

  test('its own process is seen in full', async () => {
    await using target = await startProgram('target.ts', [], { uid: 65_534 })
    const { stdout } = await run(process.execPath, [look, String(target.port)], {
      uid: 65_534,
      gid: 65_534,
    })
    expect(JSON.parse(stdout)).toMatchObject({
      accepted: { exe: node.path, sha256: node.sha256, uid: 65_534, pid: target.pid },
    })
  })

  const setpriv = '/usr/bin/setpriv'
  test.skipIf(!existsSync(setpriv)).for([
    ['+sys_ptrace', false],
    ['+dac_read_search', false],
    ['+sys_ptrace,+dac_read_search', true],
  ] as const)('with %s, a user of its own sees all: %s', async ([capabilities, all]) => {
    await using target = await startProgram('target.ts')
    const args = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
    args.push('--inh-caps', capabilities, '--ambient-caps', capabilities)
    const { stdout } = await run(setpriv, [...args, process.execPath, look, String(target.port)])
    const seen = JSON.parse(stdout) as { accepted: { sha256: string | null }; unreadable: number }
    expect(seen.accepted.sha256).toBe(all ? node.sha256 : null)
    // Some systems keep their first process from everybody, root included.
    if (!all) expect(seen.unreadable).toBeGreaterThan(1)
  })
})
