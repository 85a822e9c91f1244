/** Servers that accept in unusual ways, as real processes: who is told is who holds the connection. */
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { holds } from '../../support/patience.ts'
import { refusalOf } from '../programs/kernel.ts'
import { copyOf, dial, observe, sha256Of, startServer, tupleOf } from '../programs/process.ts'

const PYTHON = '/usr/bin/python3'
const absent = !existsSync(PYTHON) || !existsSync('/proc/self/net/tcp')
const python = absent ? '' : realpathSync(PYTHON)
const sha256 = absent ? '' : sha256Of(python)

/** One call, as a server makes it. */
const RING = `import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
made = libc.syscall(425, 8, (ctypes.c_char * 120)())
sys.exit(0 if made >= 0 else os.strerror(ctypes.get_errno()))`
const MPTCP = `import os, socket, sys
try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError as error: sys.exit(os.strerror(error.errno))`

/** The pid that the server says has accepted. */
async function said(socket: Socket): Promise<number> {
  const ended = once(socket, 'end').then(() => {
    throw new Error('the server closed the connection and said nothing')
  })
  const [line] = (await Promise.race([once(socket, 'data'), ended])) as [Buffer]
  return Number(line)
}

describe.skipIf(absent)('python3', () => {
  test('TCP_DEFER_ACCEPT: unobserved before the deadline, observed once the kernel gives in', async () => {
    await using target = await startServer('defer')
    const scope = new ProcessScope()
    await using socket = await dial(target.port)
    expect(await scope.observeAccepted(tupleOf(socket), 100)).toEqual({
      ok: false,
      why: 'not_accepted',
    })
    const { observed } = await observe(scope, socket)
    expect(observed).toMatchObject({ exe: python, sha256, pid: target.pid, others: [] })
  })

  test('a child for each connection: the child, told apart from none of its like', async () => {
    await using target = await startServer('fork')
    const scope = new ProcessScope()
    for (let opening = 0; opening < 6; opening++) {
      await using socket = await dial(target.port)
      const child = await said(socket)
      const { observed, sights } = await observe(scope, socket)
      expect(observed).toMatchObject({ exe: python, sha256, others: [] })
      expect(sights.map(({ holder }) => holder.pid)).toEqual([child])
      expect(child).not.toBe(target.pid)
    }
  })

  test('children that share a listening socket: the one that accepted, each time', async () => {
    await using target = await startServer('prefork')
    const scope = new ProcessScope()
    for (let opening = 0; opening < 12; opening++) {
      await using socket = await dial(target.port)
      const sighting = await observe(scope, socket)
      expect(sighting.observed.pid).toBe(await said(socket))
      expect(await scope.recheck(sighting, true)).toEqual({ state: 'same' })
    }
  })

  test('two programs on one port (SO_REUSEPORT): whoever got this connection, each time', async () => {
    await using one = await startServer('share')
    using other = copyOf(python)
    await using two = await startServer('share', { port: one.port, exe: other.path })
    const scope = new ProcessScope()
    const seen = new Set<string | null>()
    for (let opening = 0; opening < 24; opening++) {
      await using socket = await dial(one.port)
      const { observed } = await observe(scope, socket)
      const pid = await said(socket)
      expect(observed.pid).toBe(pid)
      expect(observed.sha256).toBe(pid === two.pid ? other.sha256 : sha256)
      seen.add(observed.exe)
    }
    expect(seen).toEqual(new Set([other.path, python]))
  })

  test('a connection passed over a Unix socket and kept: both hold it', async () => {
    await using target = await startServer('pass')
    const scope = new ProcessScope()
    await using socket = await dial(target.port)
    await said(socket)
    const { sights } = await observe(scope, socket)
    expect(sights).toHaveLength(2)
    expect(sights.map(({ holder }) => holder.pid)).toContain(target.pid)
  })

  test('an owner at its end, without a program already and still with the socket, is not another one', async () => {
    await using target = await startServer('leave')
    await using socket = await dial(target.port)
    await said(socket)
    const scope = new ProcessScope()
    const first = await observe(scope, socket)
    expect(first.sights).toHaveLength(5)
    const seen = new Set<string>()
    socket.write('x')
    for (let owners = 5; owners > 1;) {
      const now = await observe(scope, socket)
      owners = now.sights.length
      for (const facts of [now.observed, ...now.observed.others]) seen.add(String(facts.sha256))
      const again = await scope.recheck(first, true)
      if (again.state === 'changed') seen.add(String(again.sighting?.observed.sha256))
      else seen.add(again.state)
    }
    seen.delete('same')
    expect(seen).toEqual(new Set([sha256]))
  })

  test('a connection that is in no table of descriptors is unseen, not whoever let go of it', async () => {
    await using target = await startServer('flight')
    await using socket = await dial(target.port)
    await said(socket)
    // It is said before it is let go of.
    await holds(async () => {
      const { observed, sights } = await observe(new ProcessScope(), socket)
      expect(observed).toMatchObject({ pid: null, exe: null, sha256: null, others: [] })
      expect(sights).toEqual([])
    })
  })

  test('a connection that only an io_uring holds is in no table of descriptors either; or the kernel makes none', async () => {
    if (refusalOf(PYTHON, ['-c', RING]) !== undefined) return
    await using target = await startServer('ring')
    await using socket = await dial(target.port)
    await said(socket)
    await holds(async () => {
      const { observed, sights } = await observe(new ProcessScope(), socket)
      expect(observed).toMatchObject({ pid: null, exe: null, sha256: null, others: [] })
      expect(sights).toEqual([])
    })
  })

  test('a server that listens for MPTCP is found as any other; or the kernel has none', async () => {
    if (refusalOf(PYTHON, ['-c', MPTCP]) !== undefined) return
    await using target = await startServer('mptcp')
    const scope = new ProcessScope()
    await using socket = await dial(target.port)
    const { observed } = await observe(scope, socket)
    expect(observed).toMatchObject({ exe: python, sha256, pid: target.pid, others: [] })
    const [exposure] = await scope.exposures([endpoint('127.0.0.1', target.port)!])
    expect(exposure?.observed).toMatchObject({ sha256, pid: target.pid })
  })

  test.for(['thread', 'leader'])(
    'held by a thread alone (%s): its process is the owner',
    async (mode) => {
      await using target = await startServer(mode)
      await using socket = await dial(target.port)
      await said(socket)
      const { observed } = await observe(new ProcessScope(), socket)
      expect(observed).toMatchObject({ pid: target.pid, sha256 })
    },
  )
})
