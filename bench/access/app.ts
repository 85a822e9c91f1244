/**
 * The process behind the device: a web app that answers at once, and a sink that counts. The sink also
 * takes TLS, for what one bare connection carries. Started by the bench, answers over IPC.
 */
import { once } from 'node:events'
import { createServer as createWeb } from 'node:http'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { answerWith } from '../tunnel/rpc.ts'

/** What a panel's page is made of: small answers. */
const BODY = Buffer.alloc(1024, 'a')

let received = 0
function swallow(socket: Socket): void {
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk: Buffer) => (received += chunk.length))
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

const asks = {
  async listen(certificate: { readonly key: string; readonly cert: string }) {
    const web = createWeb({ keepAliveTimeout: 600_000 }, (request, response) => {
      request.resume()
      response.setHeader('content-type', 'text/plain')
      response.setHeader('content-length', BODY.length)
      response.end(BODY)
    })
    const [app, sink, tls] = await Promise.all([
      listen(web),
      listen(createServer(swallow)),
      listen(createTlsServer({ ...certificate, minVersion: 'TLSv1.3' }, swallow)),
    ])
    return { app, sink, tls }
  },
  /** Octets that the sinks have taken so far, and when. */
  received: (_: null) => ({ bytes: received, at: performance.now() }),
}

export type App = typeof asks
answerWith(asks)
