/**
 * A colleague with a shell on the device, who is not root, and what they can make a process of theirs look like: each
 * attempt as real processes. What tells them apart is the uid, which no user can choose. docs/process-scope.md.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findHolders } from '../../../agent-tunnel/agent/scope/holders.ts'
import type { Observed } from '../../../agent-tunnel/agent/scope/observed.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { freePort } from '../../support/port.ts'
import { refusalOf } from '../programs/kernel.ts'
import { copyOf, dial, observe, sha256Of, startProgram, startServer } from '../programs/process.ts'
import { tupleOf, type Executable, type Started } from '../programs/process.ts'

const PYTHON = '/usr/bin/python3'
const UNSHARE = '/usr/bin/unshare'
const SERVER = fileURLToPath(new URL('../programs/server.py', import.meta.url))
const MASK = fileURLToPath(new URL('../programs/mask.c', import.meta.url))
const SERVICE = 64_001
const COLLEAGUE = 64_002
const ready = process.getuid?.() === 0 && existsSync(PYTHON) && existsSync(UNSHARE)
const hasCompiler = ready && spawnSync('gcc', ['--version']).status === 0

describe.skipIf(!ready)(
  'a colleague in disguise (needs root to become one, python3, unshare)',
  () => {
    let approved: Executable
    let other: Executable
    let own: string
    const scope = new ProcessScope()

    beforeAll(() => {
      approved = copyOf(realpathSync(PYTHON))
      other = copyOf(approved.path)
      own = mkdtempSync(join(tmpdir(), 'sallyport-impostor-'))
      chmodSync(own, 0o777)
    })
    afterAll(() => {
      approved[Symbol.dispose]()
      other[Symbol.dispose]()
      rmSync(own, { recursive: true, force: true })
    })

    async function seen(target: Started): Promise<Observed> {
      await using socket = await dial(target.port)
      return (await observe(scope, socket)).observed
    }

    /** A python of theirs, run by `exe`; `script` prints the port. */
    function theirs(script: string, args: readonly string[] = [], exe = PYTHON): Promise<Started> {
      return startProgram('server.py', ['-c', script, ...args], { exe, bare: true, uid: COLLEAGUE })
    }

    /** The same below a mount of theirs, by a shell command that ends in `exec … server.py plain`. */
    function mounted(command: string): Promise<Started> {
      const shell = ['/bin/sh', '-c', `${command} "$0" plain 0`, SERVER]
      return startProgram('server.py', ['-rm', ...shell], {
        exe: UNSHARE,
        bare: true,
        uid: COLLEAGUE,
      })
    }

    /** What the kernel says against an overlay of a user's, and against a user namespace of theirs. */
    const refused = (command = 'true', how = '-r') =>
      refusalOf(UNSHARE, [how, '/bin/sh', '-c', command], COLLEAGUE)
    function overlayRefused(): string | undefined {
      const [upper, lower] = ['probe', 'under'].map((name) => join(own, name))
      for (const made of [upper!, lower!]) mkdirSync(made, { recursive: true })
      return refused(`mount -t overlay none -o lowerdir=${upper}:${lower} ${lower}`, '-rm')
    }

    const file = () => approved.path
    const folder = () => join(approved.path, '..')

    test('an overlay over the directory of the declared program, with another in its place; or the kernel refuses it', async () => {
      if (overlayRefused() !== undefined) return
      const layer = join(own, 'layer')
      mkdirSync(layer)
      copyFileSync(other.path, join(layer, 'other'))
      const mount = `mount -t overlay none -o lowerdir=${layer}:${folder()} ${folder()}`
      await using target = await mounted(`${mount} && exec ${file()}`)
      const { sha256 } = other
      expect(await seen(target)).toMatchObject({ exe: null, sha256, uid: COLLEAGUE })
    })

    test('the declared program itself through an overlay: its octets, not its path; or the kernel refuses it', async () => {
      if (overlayRefused() !== undefined) return
      const layer = join(own, 'empty')
      mkdirSync(layer)
      const mount = `mount -t overlay none -o lowerdir=${layer}:${folder()} ${folder()}`
      await using target = await mounted(`${mount} && exec ${file()}`)
      const { sha256 } = approved
      expect(await seen(target)).toMatchObject({ exe: null, sha256, uid: COLLEAGUE })
    })

    test('their listening socket, inherited by the declared program across exec: the uid alone tells', async () => {
      const script = [
        'import os, socket, sys',
        'server = socket.create_server(("127.0.0.1", 0))',
        'os.set_inheritable(server.fileno(), True)',
        'print(server.getsockname()[1], flush=True)',
        'serve = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); kept = [s.accept() for _ in iter(int, 1)]"',
        'os.execv(sys.argv[1], [sys.argv[1], "-c", serve, str(server.fileno())])',
      ].join('\n')
      await using target = await theirs(script, [file()], other.path)
      const { path: exe, sha256 } = approved
      expect(await seen(target)).toMatchObject({ exe, sha256, uid: COLLEAGUE })
    })

    test('an interpreter that is told to run the declared script, and runs theirs first: the uid alone tells', async () => {
      const script = join(own, 'site')
      mkdirSync(script)
      copyFileSync(SERVER, join(script, 'service.py'))
      const serve = [
        'import socket',
        'server = socket.create_server(("127.0.0.1", 0))',
        'print(server.getsockname()[1], flush=True)',
        'kept = [server.accept() for _ in iter(int, 1)]',
      ]
      writeFileSync(join(script, 'sitecustomize.py'), serve.join('\n'))
      await using target = await startProgram('server.py', [join(script, 'service.py')], {
        exe: PYTHON,
        bare: true,
        uid: COLLEAGUE,
        env: { PYTHONPATH: script },
      })
      const exe = realpathSync(PYTHON)
      const facts = { exe, sha256: sha256Of(exe), script_sha256: sha256Of(SERVER) }
      expect(await seen(target)).toMatchObject({ ...facts, uid: COLLEAGUE })
    })

    test('a deleted program beside a copy of the declared one that is called as the kernel shows the deleted', async () => {
      const name = join(own, 'gone')
      copyFileSync(other.path, name)
      chmodSync(name, 0o755)
      await using target = await startServer('plain', { exe: name, uid: COLLEAGUE })
      rmSync(name)
      copyFileSync(file(), `${name} (deleted)`)
      const { sha256 } = other
      expect(await seen(target)).toMatchObject({ exe: null, sha256, uid: COLLEAGUE })
    })

    test.skipIf(!hasCompiler)(
      'another file in the place of the one that runs (PR_SET_MM_MAP, as root in a user namespace): the uid alone tells, or the kernel refuses it (needs gcc)',
      async () => {
        if (refused() !== undefined) return
        const mask = join(own, 'mask')
        execFileSync('gcc', ['-O1', '-o', mask, MASK])
        await using target = await startProgram('server.py', ['-r', mask, file()], {
          exe: UNSHARE,
          bare: true,
          uid: COLLEAGUE,
        })
        const observed = await seen(target)
        // A kernel without CONFIG_CHECKPOINT_RESTORE refuses, and the program shows as itself.
        const shown = target.said() === '0\n' ? approved : { path: mask, sha256: sha256Of(mask) }
        const { path: exe, sha256 } = shown
        expect(observed).toMatchObject({ exe, sha256, uid: COLLEAGUE })
      },
    )

    test('a name (PR_SET_NAME) that reads as a line of its own with the uid of root: the uid it has', async () => {
      const script = [
        'import socket',
        'name = b"\\rUid:\\t0\\t0\\t0\\t0"',
        'open("/proc/self/comm", "wb", buffering=0).write(name)',
        'server = socket.create_server(("127.0.0.1", 0))',
        'print(server.getsockname()[1], flush=True)',
        'kept = [server.accept() for _ in iter(int, 1)]',
      ].join('\n')
      await using target = await theirs(script, [], other.path)
      expect(await seen(target)).toMatchObject({ sha256: other.sha256, uid: COLLEAGUE })
    })

    test('a process that nobody of its own user may look at (PR_SET_DUMPABLE): seen all the same', async () => {
      await using target = await startServer('hidden', { exe: other.path, uid: COLLEAGUE })
      const { path: exe, sha256 } = other
      expect(await seen(target)).toMatchObject({ exe, sha256, uid: COLLEAGUE })
    })

    test('a server that is bound to a device, which the kernel does not name when it is asked for any', async () => {
      await using target = await startServer('device', { exe: other.path, uid: COLLEAGUE })
      const { path: exe, sha256 } = other
      expect(await seen(target)).toMatchObject({ exe, sha256, uid: COLLEAGUE })
    })

    test.for(['::1', '127.0.0.2'])(
      "the service's port at another address of this machine (it has %s): who was dialled",
      async (host) => {
        const port = await freePort()
        await using target = await startServer('plain', { exe: other.path, uid: COLLEAGUE, port })
        await using service = await startProgram(
          'server.py',
          ['plain', String(target.port), host],
          { exe: file(), uid: SERVICE },
        )
        expect(await seen(target)).toMatchObject({ sha256: other.sha256, uid: COLLEAGUE })
        await using socket = await dial(service.port, host)
        const { observed } = await observe(scope, socket)
        expect(observed).toMatchObject({ sha256: approved.sha256, uid: SERVICE })
      },
    )

    test('the service lets go and ends, and they take its port before the look: nobody', async () => {
      // One that no connection of anybody's is given meanwhile.
      const port = await freePort()
      await using service = await startServer('once', { exe: file(), uid: SERVICE, port })
      const ended = once(service.child, 'exit')
      await using socket = await dial(service.port)
      const dialled = tupleOf(socket)
      await ended
      await using _target = await startServer('reuse', {
        exe: other.path,
        uid: COLLEAGUE,
        port: service.port,
      })
      expect(await scope.observeAccepted(dialled, 100)).toMatchObject({ ok: false })
    })

    test('two processes with one table of descriptors: both are told', async () => {
      // The parent runs on; its child, by CLONE_FILES alone, has its table and not its memory.
      const script = [
        'import ctypes, os, signal, socket',
        'libc = ctypes.CDLL(None)',
        'number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]',
        'server = socket.create_server(("127.0.0.1", 0))',
        'started = os.getpid()',
        'child = libc.syscall(number, 0x400 | signal.SIGCHLD, 0, 0, 0, 0)',
        // Its parent may have ended before it asked to end with it.
        'if child == 0: libc.prctl(1, signal.SIGKILL); os.getppid() == started or os._exit(0); libc.pause()',
        'print(server.getsockname()[1], flush=True)',
        'kept = [server.accept() for _ in iter(int, 1)]',
      ].join('\n')
      await using target = await theirs(script, [], other.path)
      await using socket = await dial(target.port)
      const { inodes, sights } = await observe(scope, socket)
      expect(sights.map(({ holder }) => holder.pid)).toContain(target.pid)
      expect(sights).toHaveLength(2)
      expect((await findHolders('/proc', new Set(inodes))).holders).toHaveLength(2)
    })
  },
)
