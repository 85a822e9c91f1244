/** Debian's nginx in both places, TLS from the browser and TLS between the two: no session, no policy, no log. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Program } from '../../test/demo/programs.ts'
import { freePort } from '../../test/support/node.ts'
import { Absent } from '../tunnel/path.ts'
import { found, listening } from '../tunnel/program.ts'
import { programsIn } from '../tunnel/programs.ts'

export interface Nginx extends AsyncDisposable {
  readonly port: number
  /** In the gateway's place, and in the agent's. */
  readonly near: Program
  readonly far: Program
}

/** In front of the app on `app`. Throws `Absent` where there is no nginx. */
export async function startNginx(
  parent: string,
  certificate: { readonly key: string; readonly cert: string },
  app: number,
): Promise<Nginx> {
  const command = found('nginx')
  if (command === undefined) throw new Absent('nginx is not installed')
  const directory = join(parent, 'nginx')
  mkdirSync(directory)
  writeFileSync(join(directory, 'key.pem'), certificate.key, { mode: 0o600 })
  writeFileSync(join(directory, 'cert.pem'), certificate.cert)
  const [nearPort, farPort] = [await freePort(), await freePort()]
  const programs = programsIn(directory)
  const start = (name: string, port: number, upstream: Upstream): Program => {
    const home = join(directory, name)
    mkdirSync(home)
    const file = join(home, 'nginx.conf')
    writeFileSync(file, configuration(home, directory, port, upstream))
    const args = ['-p', home, '-c', file, '-e', 'stderr']
    return programs.start({ name: `nginx-${name}`, command, args, cwd: home })
  }
  try {
    const far = start('far', farPort, { scheme: 'http', port: app })
    const near = start('near', nearPort, { scheme: 'https', port: farPort })
    await Promise.all([listening(far, farPort), listening(near, nearPort)])
    return { port: nearPort, near, far, [Symbol.asyncDispose]: () => programs.stopAll() }
  } catch (error) {
    await programs.stopAll()
    throw error
  }
}

interface Upstream {
  readonly scheme: 'http' | 'https'
  readonly port: number
}

function configuration(home: string, keys: string, port: number, { scheme, port: next }: Upstream) {
  const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `  ${name}_temp_path ${join(home, name)};`)
    .join('\n')
  const verified = `proxy_ssl_verify on; proxy_ssl_trusted_certificate ${keys}/cert.pem; proxy_ssl_name 127.0.0.1; proxy_ssl_protocols TLSv1.3;`
  return `daemon off;
master_process off;
worker_processes 1;
pid ${join(home, 'pid')};
events { worker_connections 1024; }
http {
${folders}
  access_log off;
  keepalive_requests 1000000;
  keepalive_timeout 600s;
  upstream next { server 127.0.0.1:${next}; keepalive 64; keepalive_requests 1000000; keepalive_timeout 600s; }
  server {
    listen 127.0.0.1:${port} ssl;
    server_name _;
    ssl_certificate ${keys}/cert.pem;
    ssl_certificate_key ${keys}/key.pem;
    ssl_protocols TLSv1.3;
    location / {
      proxy_pass ${scheme}://next;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffering on;
      ${scheme === 'https' ? verified : ''}
    }
  }
}
`
}
