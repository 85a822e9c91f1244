/** OpenSSH: the agent's `ssh -R` to an sshd of the bench's own; the vendor's side is plain TCP. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { processTree } from '../../../test/demo/proc.ts'
import { freePort } from '../../../test/support/node.ts'
import { Absent, type Path, type Peer, type Site } from '../path.ts'
import { found, listening } from '../program.ts'
import { programsIn } from '../programs.ts'

const CIPHER = 'aes256-gcm@openssh.com'

export const ssh: Peer = {
  name: 'ssh',
  says: `ssh -R with ${CIPHER}, vendor side plain`,
  start: startSsh,
}

async function startSsh(site: Site): Promise<Path> {
  const [sshd, client, keygen] = ['sshd', 'ssh', 'ssh-keygen'].map(found)
  if (sshd === undefined || client === undefined || keygen === undefined)
    throw new Absent('OpenSSH with its server is not installed')
  const directory = join(site.directory, 'ssh')
  mkdirSync(directory, { mode: 0o700 })
  const file = (name: string) => join(directory, name)
  for (const name of ['host', 'user'])
    execFileSync(keygen, ['-q', '-t', 'ed25519', '-N', '', '-f', file(name)])
  const [port, entry] = [await freePort(), await freePort()]
  const uplink = await site.uplink(port)
  writeFileSync(file('authorized'), readFileSync(file('user.pub')), { mode: 0o600 })
  writeFileSync(file('known'), `[127.0.0.1]:${uplink} ${readFileSync(file('host.pub'), 'utf8')}`)
  writeFileSync(file('sshd_config'), config(port, file('host'), file('authorized')))
  // What sshd separates its privileges into; a directory of the system, made where it is not yet.
  if (userInfo().uid === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const programs = programsIn(directory)
  const start = (name: string, command: string, args: readonly string[]) =>
    programs.start({ name, command, args, cwd: directory })
  try {
    const server = start('sshd', sshd, ['-D', '-e', '-f', file('sshd_config')])
    await listening(server, port)
    const agent = start('ssh', client, arguments_(directory, site.target, uplink, entry))
    await listening(agent, entry)
    return {
      entry: { kind: 'tcp', port: entry },
      hops: { gateway: processTree(server.pid), agent: [agent.pid] },
      [Symbol.asyncDispose]: () => programs.stopAll(),
    }
  } catch (error) {
    await programs.stopAll()
    throw error
  }
}

function config(port: number, host: string, authorized: string): string {
  return `Port ${port}
ListenAddress 127.0.0.1
HostKey ${host}
AuthorizedKeysFile ${authorized}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding yes
Ciphers ${CIPHER}
`
}

function arguments_(directory: string, target: number, port: number, entry: number): string[] {
  const options = {
    IdentityFile: join(directory, 'user'),
    IdentitiesOnly: 'yes',
    UserKnownHostsFile: join(directory, 'known'),
    StrictHostKeyChecking: 'yes',
    BatchMode: 'yes',
    ExitOnForwardFailure: 'yes',
    Ciphers: CIPHER,
  }
  return [
    '-F',
    'none',
    '-N',
    ...Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]),
    '-R',
    `127.0.0.1:${entry}:127.0.0.1:${target}`,
    '-p',
    String(port),
    `${userInfo().username}@127.0.0.1`,
  ]
}
