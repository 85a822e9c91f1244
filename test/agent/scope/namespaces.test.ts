/** A target in a network namespace of its own, as a container has, and one that a user made up. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, realpathSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { ProcessScope } from '../../../agent-tunnel/agent/scope/owner.ts'
import { dial, observe, sha256Of, startProgram } from '../programs/process.ts'

const IP = '/usr/sbin/ip'
const PYTHON = '/usr/bin/python3'
const SERVER = fileURLToPath(new URL('../programs/server.py', import.meta.url))
const ready = process.getuid?.() === 0 && existsSync(IP) && existsSync(PYTHON)
// 198.18.0.0/15 is for such uses (RFC 2544); the process id keeps two runs apart.
const net = `198.18.${process.pid % 250}`
const name = `sp-${process.pid}`

function ip(...args: string[]): void {
  execFileSync(IP, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

function namespace(): Disposable {
  ip('netns', 'add', name)
  const peer = { type: 'veth', peer: `${name}-in` }
  ip('link', 'add', name, 'type', peer.type, 'peer', 'name', peer.peer, 'netns', name)
  ip('addr', 'add', `${net}.1/30`, 'dev', name)
  ip('link', 'set', name, 'up')
  ip('-n', name, 'addr', 'add', `${net}.2/30`, 'dev', peer.peer)
  ip('-n', name, 'link', 'set', peer.peer, 'up')
  return { [Symbol.dispose]: () => ip('netns', 'del', name) }
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

describe.skipIf(!ready)('another network namespace (needs root, iproute2, python3)', () => {
  test('its server is the owner; a connection that a user made up with the same ends is not', async () => {
    using _namespace = namespace()
    const args = ['netns', 'exec', name, PYTHON, SERVER, 'plain', '0', `${net}.2`]
    await using target = await startProgram('server.py', args, { exe: IP, bare: true })
    await using socket = await dial(target.port, `${net}.2`)
    const scope = new ProcessScope()
    const facts = { exe: realpathSync(PYTHON), sha256: sha256Of(PYTHON), pid: target.pid }
    const sighting = await observe(scope, socket)
    expect(sighting.observed).toMatchObject(facts)
    expect(await scope.recheck(sighting, true)).toEqual({ state: 'same' })

    const ends = [`${net}.1`, `${net}.2`, String(target.port), String(socket.localPort)]
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
})
