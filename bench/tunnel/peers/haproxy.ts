/** HAProxy twice: TLS from the load generator, TLS between the two, plain to the target. No mux, no policy. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../../../test/support/node.ts'
import { Absent, type Path, type Peer, type Site } from '../path.ts'
import { found, listening } from '../program.ts'
import { programsIn } from '../programs.ts'

export const haproxy: Peer = {
  name: 'haproxy',
  says: 'HAProxy → HAProxy, TLS on both hops, one thread each',
  start: startHaproxy,
}

async function startHaproxy(site: Site): Promise<Path> {
  const command = found('haproxy')
  if (command === undefined) throw new Absent('haproxy is not installed')
  const pem = join(site.directory, 'haproxy.pem')
  const ca = join(site.directory, 'haproxy-ca.pem')
  const { key, cert } = site.certificate
  writeFileSync(pem, `${cert}\n${key}`, { mode: 0o600 })
  writeFileSync(ca, cert)
  const [near, far] = [await freePort(), await freePort()]
  const server = `server next 127.0.0.1:${await site.uplink(far)} ssl verify required ca-file ${ca} no-ssl-reuse`
  const programs = programsIn(site.directory)
  const start = (name: string, port: number, next: string) => {
    const file = join(site.directory, `${name}.cfg`)
    writeFileSync(file, config(port, pem, next, site.lines))
    const args = ['-db', '-f', file]
    return programs.start({ name, command, args, cwd: site.directory })
  }
  const agent = start('haproxy-agent', far, `server target 127.0.0.1:${site.target}`)
  const gateway = start('haproxy-gateway', near, server)
  try {
    await Promise.all([listening(gateway, near), listening(agent, far)])
  } catch (error) {
    await programs.stopAll()
    throw error
  }
  return {
    entry: { kind: 'tls', port: near, ca: cert },
    hops: { gateway: [gateway.pid], agent: [agent.pid] },
    [Symbol.asyncDispose]: () => programs.stopAll(),
  }
}

function config(port: number, pem: string, server: string, lines: number): string {
  return `global
  maxconn ${lines + 64}
  nbthread 1
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen path
  bind 127.0.0.1:${port} ssl crt ${pem} backlog 4096
  ${server}
`
}
