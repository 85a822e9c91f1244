/**
 * The agent's side of a case with a target in a network namespace beside its own: does the case named by its argument and
 * prints what the scope saw, as one line of JSON. It makes interfaces, so it is run where nobody else is: by
 * `unshare --net`, as root.
 */
import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { endpoint } from '../../../agent-tunnel/agent/scope/address.ts'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { refusalOf } from './kernel.ts'
import { dial, observe, startProgram } from './process.ts'

const IP = '/usr/sbin/ip'
const PYTHON = '/usr/bin/python3'
const UNSHARE = '/usr/bin/unshare'
const USER = 64_002
const [ours, its] = ['198.18.0.1', '198.18.0.2'] as const
const SERVER = fileURLToPath(new URL('server.py', import.meta.url))
const DATAGRAMS = fileURLToPath(new URL('datagrams.py', import.meta.url))

function ip(...args: string[]): void {
  execFileSync(IP, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 })
}

/** A namespace beside ours, with a pair of interfaces between them: 198.18.0.0/15 is for such uses (RFC 2544). */
function beside(): Disposable & { readonly name: string } {
  const name = `sp-${process.pid}`
  using undo = new DisposableStack()
  ip('netns', 'add', name)
  undo.defer(() => ip('netns', 'del', name))
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', 'sp0', 'type', 'veth', 'peer', 'name', 'sp0', 'netns', name)
  ip('addr', 'add', `${ours}/30`, 'dev', 'sp0')
  ip('link', 'set', 'sp0', 'up')
  ip('-n', name, 'addr', 'add', `${its}/30`, 'dev', 'sp0')
  ip('-n', name, 'link', 'set', 'sp0', 'up')
  const all = undo.move()
  return { name, [Symbol.dispose]: () => all.dispose() }
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
print(local, flush=True)
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

/** A server there, and a user who makes up a connection with the same ends; `forged` is null where the kernel lets no user. */
async function server(name: string) {
  const args = ['netns', 'exec', name, PYTHON, SERVER, 'plain', '0', its]
  await using target = await startProgram('server.py', args, { exe: IP, bare: true })
  await using socket = await dial(target.port, its)
  const scope = new ProcessScope()
  const sighting = await observe(scope, socket)
  const seen = {
    target: target.pid,
    observed: sighting.observed,
    recheck: await scope.recheck(sighting, true),
  }
  if (refusalOf(UNSHARE, ['-rn', 'true'], USER) !== undefined) return { ...seen, forged: null }
  const ends = [ours, its, String(target.port), String(socket.localPort)]
  // Its first line comes when the ends are connected.
  await using _ = await startProgram('forgery', ['-rn', PYTHON, '-c', FORGERY, ...ends], {
    exe: UNSHARE,
    bare: true,
    uid: USER,
  })
  const again = await observe(new ProcessScope(), socket)
  const holders = again.sights.map(({ holder }) => holder.pid)
  target.child.kill('SIGKILL')
  await once(target.child, 'exit')
  const { state } = await scope.recheck(sighting, true)
  return { ...seen, forged: { holders, ended: state } }
}

/** A server of datagrams there, and a user who binds here where they might be thought to go. */
async function datagrams(name: string) {
  await using decoy = await startProgram('datagrams.py', ['-c', DECOY, its], {
    exe: PYTHON,
    bare: true,
    uid: USER,
  })
  const args = ['netns', 'exec', name, PYTHON, DATAGRAMS, 'plain', String(decoy.port), its]
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
    const recheck = await scope.recheck(seen.sighting, true)
    const glance = scope.glance(seen.sighting)
    const exposed = await scope.exposures([{ ...remote!, transport: 'udp' }, remote!])
    target.child.kill('SIGKILL')
    await once(target.child, 'exit')
    return {
      target: target.pid,
      observed: seen.sighting.observed,
      recheck,
      glance: glance ?? null,
      exposed: exposed.map(({ observed }) => observed),
      ended: await scope.observeAccepted(dialled, 0),
    }
  } finally {
    socket.close()
  }
}

const cases = { server, datagrams }
/** What the program prints of each case. */
export type Seen = {
  readonly [Name in keyof typeof cases]: Awaited<ReturnType<(typeof cases)[Name]>>
}

const [, , which] = process.argv
if (which !== 'server' && which !== 'datagrams') throw new Error(`no such case: ${which}`)
using other = beside()
console.log(JSON.stringify(await cases[which](other.name)))
