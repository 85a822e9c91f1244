/** chisel: a reverse tunnel over SSH in a WebSocket over TLS; the vendor's side is plain TCP. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../../../test/support/node.ts'
import { built } from '../golang.ts'
import type { Path, Peer, Site } from '../path.ts'
import { listening } from '../program.ts'
import { programsIn } from '../programs.ts'

const MODULE = {
  name: 'chisel',
  module: 'github.com/jpillora/chisel',
  version: '1.11.3',
  commands: [''],
}

export const chisel: Peer = {
  name: 'chisel',
  says: `chisel ${MODULE.version} over TLS, vendor side plain`,
  start: startChisel,
}

async function startChisel(site: Site): Promise<Path> {
  const command = join(await built(MODULE), 'chisel')
  const [key, cert] = ['chisel.key', 'chisel.crt'].map((name) => join(site.directory, name)) as [
    string,
    string,
  ]
  writeFileSync(key, site.certificate.key, { mode: 0o600 })
  writeFileSync(cert, site.certificate.cert)
  const [port, entry] = [await freePort(), await freePort()]
  const programs = programsIn(site.directory)
  const start = (name: string, args: readonly string[]) =>
    programs.start({ name, command, args, cwd: site.directory })
  const listen = ['--host', '127.0.0.1', '--port', String(port)]
  const tls = ['--tls-key', key, '--tls-cert', cert]
  try {
    const server = start('chisel-server', ['server', ...listen, '--reverse', ...tls])
    await listening(server, port)
    const remote = `R:127.0.0.1:${entry}:127.0.0.1:${site.target}`
    const to = `https://127.0.0.1:${await site.uplink(port)}`
    const agent = start('chisel-client', ['client', '--tls-ca', cert, to, remote])
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
