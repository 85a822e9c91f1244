/** frp: its own protocol with a mux over TLS; the vendor's side is plain TCP. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../../../test/support/node.ts'
import { built } from '../golang.ts'
import type { Path, Peer, Site } from '../path.ts'
import { listening } from '../program.ts'
import { programsIn } from '../programs.ts'

const MODULE = {
  name: 'frp',
  module: 'github.com/fatedier/frp',
  version: '0.61.1',
  commands: ['cmd/frps', 'cmd/frpc'],
}

export const frp: Peer = {
  name: 'frp',
  says: `frp ${MODULE.version} over TLS, vendor side plain`,
  start: startFrp,
}

async function startFrp(site: Site): Promise<Path> {
  const folder = await built(MODULE)
  const file = (name: string) => join(site.directory, `frp-${name}`)
  writeFileSync(file('key.pem'), site.certificate.key, { mode: 0o600 })
  writeFileSync(file('cert.pem'), site.certificate.cert)
  const [port, entry] = [await freePort(), await freePort()]
  writeFileSync(
    file('server.toml'),
    `bindAddr = "127.0.0.1"
proxyBindAddr = "127.0.0.1"
bindPort = ${port}
transport.tls.force = true
transport.tls.certFile = "${file('cert.pem')}"
transport.tls.keyFile = "${file('key.pem')}"
log.level = "error"
`,
  )
  writeFileSync(
    file('client.toml'),
    `serverAddr = "127.0.0.1"
serverPort = ${await site.uplink(port)}
transport.tls.trustedCaFile = "${file('cert.pem')}"
log.level = "error"
[[proxies]]
name = "target"
type = "tcp"
localIP = "127.0.0.1"
localPort = ${site.target}
remotePort = ${entry}
`,
  )
  const programs = programsIn(site.directory)
  const start = (name: string, config: string) =>
    programs.start({
      name,
      command: join(folder, name),
      args: ['-c', config],
      cwd: site.directory,
    })
  try {
    const server = start('frps', file('server.toml'))
    await listening(server, port)
    const agent = start('frpc', file('client.toml'))
    await listening(agent, entry)
    return {
      entry: { kind: 'tcp', port: entry },
      hops: { gateway: [server.pid], agent: [agent.pid] },
      [Symbol.asyncDispose]: () => programs.stopAll(),
    }
  } catch (error) {
    await programs.stopAll()
    throw error
  }
}
