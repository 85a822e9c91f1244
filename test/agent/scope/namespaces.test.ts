/** A target in a network namespace of its own, as a container has, and one that a user made up. */
import { execFileSync, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { refusalOf } from '../programs/kernel.ts'
import { dial, observe, sha256Of, startProgram } from '../programs/process.ts'

const IP = '/usr/sbin/ip'
const PYTHON = '/usr/bin/python3'
const SERVER = fileURLToPath(new URL('../programs/server.py', import.meta.url))
const DATAGRAMS = fileURLToPath(new URL('../programs/datagrams.py', import.meta.url))
const ready = process.getuid?.() === 0 && existsSync(IP) && existsSync(PYTHON)

function ip(...args: string[]): void {
  execFileSync(IP, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** A namespace beside ours, and the addresses of the pair of interfaces between them. */
interface Beside extends Disposable {
  readonly name: string
  readonly ours: string
  readonly its: string
}

let made = 0

/** Nothing of it is another row's: a namespace that was deleted goes some time later, and so would what is in it. */
function namespace(): Beside {
  const turn = made++
  const name = `sp-${process.pid}-${turn}`
  // 198.18.0.0/15 is for such uses (RFC 2544); the process id keeps two runs apart.
  const block = ((process.pid * 2 + turn) % 0x8000) * 4
  const at = (n: number) => `198.${18 + (block >> 16)}.${(block >> 8) & 255}.${(block & 255) + n}`
  const [ours, its, inner] = [at(1), at(2), `${name}i`]
  using undo = new DisposableStack()
  ip('netns', 'add', name)
  undo.defer(() => ip('netns', 'del', name))
  ip('link', 'add', name, 'type', 'veth', 'peer', 'name', inner, 'netns', name)
  // Both of the pair are gone, and their addresses, when this comes back.
  undo.defer(() => ip('link', 'del', name))
  ip('addr', 'add', `${ours}/30`, 'dev', name)
  ip('link', 'set', name, 'up')
  ip('-n', name, 'addr', 'add', `${its}/30`, 'dev', inner)
  ip('-n', name, 'link', 'set', inner, 'up')
  const all = undo.move()
  return { name, ours, its, [Symbol.dispose]: () => all.dispose() }
}

/** The same two addresses and ports, connected to each other, where a user has made everything up. */
const FORGERY = `
import socket, subprocess, sys
ours, theirs, port, local = sys.argv[1:3] + [int(n) for n in sys.argv[3:5]]
for command in (['link', 'set', 'lo', 'up'], ['addr', 'add', ours, 'dev', 'lo'], ['addr', 'add', theirs, 'dev', 'lo']):
    subprocess.run(['${IP}'] + command, check=True)
server = socket.socket()
server.bind((theirs, port))
server.listen()
client = socket.socket()
client.bind((ours, local))
client.connect((theirs, port))
kept, _ = server.accept()
print('forged', flush=True)
sys.stdin.read()
`

/** Who binds, in the namespace of the agent, where the datagrams to another one might be thought to go. */
const DECOY = `
import socket, sys
kept = []
while True:
    # A port that is free by TCP is taken by UDP now and then.
    listener = socket.create_server(('0.0.0.0', 0))
    port = listener.getsockname()[1]
    kept = [listener] + [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in kept[1:]:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept[2].setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND, which asks for no privilege
    try:
        kept[1].bind(('0.0.0.0', port))
        kept[2].bind((sys.argv[1], port))
        break
    except OSError:
        [one.close() for one in kept]
print(port, flush=True)
sys.stdin.read()
`

describe.skipIf(!ready)('another network namespace (needs root, iproute2, python3)', () => {
  test('its server is the owner; a connection that a user made up with the same ends is not', async () => {
    using beside = namespace()
    const { name, its } = beside
    const args = ['netns', 'exec', name, PYTHON, SERVER, 'plain', '0', its]
    await using target = await startProgram('server.py', args, { exe: IP, bare: true })
    await using socket = await dial(target.port, its)
    const scope = new ProcessScope()
    const facts = { exe: realpathSync(PYTHON), sha256: sha256Of(PYTHON), pid: target.pid }
    const sighting = await observe(scope, socket)
    expect(sighting.observed).toMatchObject(facts)
    expect(await scope.recheck(sighting, true)).toEqual({ state: 'same' })

    // Where the kernel makes no such namespace for a user, that is that.
    if (refusalOf('/usr/bin/unshare', ['-rn', 'true'], 64_002) !== undefined) return
    const ends = [beside.ours, its, String(target.port), String(socket.localPort)]
    const forger = spawn('/usr/bin/unshare', ['-rn', PYTHON, '-c', FORGERY, ...ends], {
      stdio: ['pipe', 'pipe', 'inherit'],
      uid: 64_002,
      gid: 64_002,
    })
    try {
      expect(await once(createInterface({ input: forger.stdout }), 'line')).toEqual(['forged'])
      const again = await observe(new ProcessScope(), socket)
      expect(again.sights.map(({ holder }) => holder.pid)).toEqual([target.pid])
      target.child.kill('SIGKILL')
      await once(target.child, 'exit')
      expect((await scope.recheck(sighting, true)).state).toBe('closed')
    } finally {
      const ended = once(forger, 'exit')
      forger.kill('SIGKILL')
      await ended
    }
  })

  test('whoever binds its UDP port here, by any address or by its own, gets nothing of it and is not told', async () => {
    using beside = namespace()
    const { name, its } = beside
    await using decoy = await startProgram('datagrams.py', ['-c', DECOY, its], {
      exe: PYTHON,
      bare: true,
      uid: 64_002,
    })
    const port = String(decoy.port)
    const args = ['netns', 'exec', name, PYTHON, DATAGRAMS, 'plain', port, its]
    await using target = await startProgram('datagrams.py', args, { exe: IP, bare: true })
    const socket = createSocket('udp4')
    try {
      socket.connect(target.port, its)
      await once(socket, 'connect')
      const [local, remote] = [socket.address(), socket.remoteAddress()].map((end) =>
        endpoint(end.address, end.port)!,
      )
      const scope = new ProcessScope()
      const dialled = { local: local!, remote: remote!, transport: 'udp' } as const
      const seen = await scope.observeAccepted(dialled, 60_000)
      if (!seen.ok) throw new Error(seen.why)
      expect(seen.sighting.observed).toMatchObject({ pid: target.pid, uid: 0, others: [] })
      expect(await scope.recheck(seen.sighting, true)).toEqual({ state: 'same' })
      // What the table here says in an instant is about this namespace.
      expect(scope.glance(seen.sighting)).toBeUndefined()
      // Nor does who listens here listen there.
      const exposed = await scope.exposures([{ ...remote!, transport: 'udp' }, remote!])
      expect(exposed.map(({ observed }) => observed)).toEqual([null, null])
      // It ends: nobody, and not who is bound here.
      target.child.kill('SIGKILL')
      await once(target.child, 'exit')
      expect(await scope.observeAccepted(dialled, 0)).toEqual({ ok: false, why: 'elsewhere' })
    } finally {
      socket.close()
    }
  })
})
