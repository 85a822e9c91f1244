/**
 * A colleague with a shell on the device, who is not root: each attempt to have a connection answered
 * by something else than the declared process, as real processes. docs/process-scope.md has the table.
 */
import { execFile, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findHolders } from '../../../agent-tunnel/agent/scope/holders.ts'
import type { Observed } from '../../../agent-tunnel/agent/scope/observed.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { refusalOf } from '../programs/kernel.ts'
import { copyOf, dial, observe, sha256Of, startProgram, startServer } from '../programs/process.ts'
import type { Executable, Started } from '../programs/process.ts'

const PYTHON = '/usr/bin/python3'
const SERVER = fileURLToPath(new URL('../programs/server.py', import.meta.url))
const LOOK = fileURLToPath(new URL('../programs/look.ts', import.meta.url))
const SERVICE = 64_001
const COLLEAGUE = 64_002
const ready = process.getuid?.() === 0 && existsSync(PYTHON) && existsSync('/usr/bin/unshare')

describe.skipIf(!ready)(
  'a colleague on the device (needs root to become one, python3, unshare)',
  () => {
    let approved: Executable
    let other: Executable
    let own: string
    const scope = new ProcessScope()

    beforeAll(() => {
      approved = copyOf(realpathSync(PYTHON))
      // A byte more: another program, with another hash.
      other = copyOf(approved.path)
      own = mkdtempSync(join(tmpdir(), 'sallyport-colleague-'))
      chmodSync(own, 0o777)
    })
    afterAll(() => {
      approved[Symbol.dispose]()
      other[Symbol.dispose]()
      rmSync(own, { recursive: true, force: true })
    })

    /** Which parts of the declaration {exe, sha256, uid} every owner meets. */
    function meets(observed: Observed) {
      const owners = [observed, ...observed.others]
      return {
        exe: owners.every(({ exe }) => exe === approved.path),
        sha256: owners.every((owner) => owner.sha256 === approved.sha256),
        uid: owners.every(({ uid }) => uid === SERVICE),
      }
    }

    async function seen(target: Started, by = scope): Promise<Observed> {
      await using socket = await dial(target.port)
      return (await observe(by, socket)).observed
    }

    /** Starts the server as the colleague, by a shell command that ends in `exec … server.py plain`. */
    function started(command: string, unshared: readonly string[] = []): Promise<Started> {
      const shell = ['-c', `${command} "$0" plain 0`, SERVER]
      const args = unshared.length === 0 ? shell : [...unshared, '/bin/sh', ...shell]
      return startProgram('server.py', args, {
        exe: unshared.length === 0 ? '/bin/sh' : '/usr/bin/unshare',
        bare: true,
        uid: COLLEAGUE,
      })
    }

    const all = { exe: true, sha256: true, uid: true }

    test('the service itself meets its declaration', async () => {
      await using service = await startServer('plain', { exe: approved.path, uid: SERVICE })
      expect(meets(await seen(service))).toEqual(all)
    })

    test('their own program on the port', async () => {
      await using theirs = await startServer('plain', { exe: other.path, uid: COLLEAGUE })
      expect(meets(await seen(theirs))).toEqual({ exe: false, sha256: false, uid: false })
    })

    test('the declared program, started by themselves: told by its uid alone', async () => {
      await using theirs = await startServer('plain', { exe: approved.path, uid: COLLEAGUE })
      expect(meets(await seen(theirs))).toEqual({ ...all, uid: false })
    })

    test('the declared program with a library of theirs in it (LD_PRELOAD): told by its uid alone', async () => {
      const library =
        /\S*\/libm\.so\.6$/m.exec(readFileSync('/proc/self/maps', 'latin1'))?.[0] ?? ''
      const env = { ...process.env, LD_PRELOAD: library }
      await using theirs = await startServer('plain', { exe: approved.path, uid: COLLEAGUE, env })
      expect(readFileSync(`/proc/${theirs.pid}/maps`, 'latin1')).toContain('libm.so')
      expect(meets(await seen(theirs))).toEqual({ ...all, uid: false })
    })

    test('beside the service on its port (SO_REUSEPORT): the kernel lets only its own user', async () => {
      await using service = await startServer('share', { exe: approved.path, uid: SERVICE })
      const tried = spawnSync(PYTHON, [SERVER, 'share', String(service.port)], {
        uid: COLLEAGUE,
        gid: COLLEAGUE,
        encoding: 'utf8',
      })
      expect(tried.stderr).toContain('Address already in use')
      expect(meets(await seen(service))).toEqual(all)
    })

    test.for(['ptrace', 'pidfd_getfd', 'mem'])(
      'reaching into the service (%s): refused',
      async (way) => {
        await using service = await startServer('plain', { exe: approved.path, uid: SERVICE })
        const script = [
          'import ctypes, os, sys',
          'libc = ctypes.CDLL(None, use_errno=True)',
          'pid, way = int(sys.argv[1]), sys.argv[2]',
          "got = libc.ptrace(16, pid, 0, 0) if way == 'ptrace' else -1",
          "if way == 'pidfd_getfd': got = libc.syscall(438, os.pidfd_open(pid), 3, 0)",
          'code = ctypes.get_errno()',
          'try:',
          "  if way == 'mem': got = open(f'/proc/{pid}/mem', 'r+b').fileno()",
          'except OSError as error: code = error.errno',
          'print(got, code)',
        ].join('\n')
        const { stdout } = spawnSync(PYTHON, ['-c', script, String(service.pid), way], {
          uid: COLLEAGUE,
          gid: COLLEAGUE,
          encoding: 'utf8',
        })
        expect(stdout).toMatch(/^-1 (1|13)\n$/)
      },
    )

    test('their program under a link that is called like the declared one', async () => {
      const link = join(own, 'other')
      symlinkSync(other.path, link)
      await using theirs = await startServer('plain', { exe: link, uid: COLLEAGUE })
      const observed = await seen(theirs)
      expect(observed.exe).toBe(other.path)
      expect(meets(observed)).toEqual({ exe: false, sha256: false, uid: false })
    })

    test('the declared program under another name (a hard link): the name it was started by', async () => {
      const link = join(own, 'linked')
      linkSync(approved.path, link)
      await using theirs = await startServer('plain', { exe: link, uid: COLLEAGUE })
      const observed = await seen(theirs)
      expect(observed.exe).toBe(link)
      expect(meets(observed)).toEqual({ exe: false, sha256: true, uid: false })
    })

    test('their program mounted over the declared one, in a mount namespace of their own; or the kernel refuses it', async () => {
      if (refusalOf('/usr/bin/unshare', ['-rm', 'true'], COLLEAGUE) !== undefined) return
      const command = `mount --bind ${other.path} ${approved.path} && exec ${approved.path}`
      await using theirs = await started(command, ['-rm'])
      const observed = await seen(theirs)
      expect(observed).toMatchObject({ exe: null, sha256: other.sha256, uid: COLLEAGUE })
    })

    test('root in a user namespace of their own: the uid they have outside; or the kernel refuses it', async () => {
      if (refusalOf('/usr/bin/unshare', ['-r', 'true'], COLLEAGUE) !== undefined) return
      await using theirs = await started(`exec ${approved.path}`, ['-r'])
      expect(await seen(theirs)).toMatchObject({ exe: approved.path, uid: COLLEAGUE })
    })

    test('a process that calls itself like the declared one', async () => {
      const script = [
        'import ctypes, os, sys',
        `os.execv('${other.path}', ['${approved.path}', sys.argv[1], 'plain', '0'])`,
      ].join('\n')
      await using theirs = await startProgram('server.py', ['-c', script, SERVER], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
      })
      expect(readFileSync(`/proc/${theirs.pid}/cmdline`, 'latin1')).toContain(approved.path)
      expect(meets(await seen(theirs))).toEqual({ exe: false, sha256: false, uid: false })
    })

    test('a program without a file (memfd): no path', async () => {
      const script = [
        'import os, sys',
        "fd = os.memfd_create('press')",
        `os.write(fd, b'') or os.sendfile(fd, os.open('${other.path}', 0), 0, 1 << 30)`,
        "os.execv(f'/proc/self/fd/{fd}', ['x', sys.argv[1], 'plain', '0'])",
      ].join('\n')
      await using theirs = await startProgram('server.py', ['-c', script, SERVER], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
      })
      expect(await seen(theirs)).toMatchObject({ exe: null, sha256: other.sha256 })
    })

    test('a lease on their script, which holds up whoever opens it: unseen, and nobody waits', async () => {
      const script = join(own, 'leased.py')
      copyFileSync(SERVER, script)
      chownSync(script, COLLEAGUE, COLLEAGUE)
      await using theirs = await startProgram('server.py', [script, 'plain', '0'], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
      })
      expect((await seen(theirs)).script_sha256).toBe(sha256Of(SERVER))
      const hold = [
        'import fcntl, signal, sys',
        'signal.signal(signal.SIGIO, signal.SIG_IGN)',
        "file = open(sys.argv[1], 'rb')",
        'fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)',
        'print(1, flush=True)',
        'sys.stdin.read()',
      ].join('\n')
      await using _holder = await startProgram('server.py', ['-c', hold, script], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
      })
      // By one that has not seen it yet: who has seen it settled does not open it again.
      const observed = await seen(theirs, new ProcessScope())
      expect(observed).toMatchObject({ uid: COLLEAGUE, script_sha256: null })
    })

    test('very many descriptors: the agent goes on while it looks through them', async () => {
      const flood = [
        'import os, resource, sys',
        'most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20000)',
        'resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))',
        'for fd in range(3, most): os.dup2(0, fd)',
        'print(most, flush=True)',
        'sys.stdin.read()',
      ].join('\n')
      await using theirs = await startProgram('server.py', ['-c', flood], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
      })
      // A /proc with nobody else in it.
      const proc = join(own, 'proc')
      mkdirSync(proc)
      symlinkSync(`/proc/${theirs.pid}`, join(proc, String(theirs.pid)))
      let turns = 0
      const ticking = setInterval(() => turns++, 0)
      const found = await findHolders(proc, new Set([1]))
      clearInterval(ticking)
      expect(found).toEqual({ holders: [], unreadable: 0 })
      // Of 20,000, which take tens of milliseconds; fewer where the machine allows nobody so many.
      expect(turns).toBeGreaterThan(Math.floor(theirs.port / 5000) - 1)
    })

    test('a pid that was given out again is not who it was', async () => {
      await using service = await startServer('plain', { exe: approved.path, uid: SERVICE })
      await using socket = await dial(service.port)
      const sighting = await observe(scope, socket)
      const [sight] = sighting.sights
      const holder = { ...sight!.holder, startTicks: sight!.holder.startTicks - 1 }
      const before = { ...sighting, sights: [{ ...sight!, holder }] }
      expect(await scope.recheck(sighting)).toEqual({ state: 'same' })
      expect((await scope.recheck(before)).state).toBe('changed')
    })

    test('hidepid on /proc: an agent without privilege sees nobody, and says so', async () => {
      await using service = await startServer('plain', { exe: approved.path, uid: SERVICE })
      const drop = 'setpriv --reuid 64003 --regid 64003 --clear-groups'
      const command = `mount -t proc -o hidepid=2 proc /proc && exec ${drop} "$0" "$@"`
      const { stdout } = await promisify(execFile)('/usr/bin/unshare', [
        '-m',
        '/bin/sh',
        '-c',
        command,
        process.execPath,
        LOOK,
        String(service.port),
      ])
      const blank = { exe: null, sha256: null, uid: null, unit: null, pid: null, others: [] }
      expect(JSON.parse(stdout)).toMatchObject({ accepted: blank, listener: blank })
    })
  },
)
