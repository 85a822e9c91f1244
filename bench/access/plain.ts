/**
 * A proxy of nothing but what Node brings: `node:https` in front, a pool of undici's behind, every header passed on as it is.
 * No session, no policy, no count, no tunnel, no log: what is left is the least that carrying a request takes in Node.
 * Started by the bench, answers over IPC.
 */
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { Pool, type Dispatcher } from 'undici'
import { answerWith } from '../tunnel/rpc.ts'

interface Carried {
  readonly key: string
  readonly cert: string
  /** Origin of what is behind it. */
  readonly next: string
}

const LONG_MS = 600_000

const asks = {
  /** The port where it takes TLS. */
  async listen({ key, cert, next }: Carried): Promise<number> {
    const connect = { ca: cert, minVersion: 'TLSv1.3' as const }
    // As many connections as the gateway's own pool has.
    const pool = new Pool(next, { connections: 8, pipelining: 1, connect })
    const options = { key, cert, minVersion: 'TLSv1.3' as const, keepAliveTimeout: LONG_MS }
    const server = createServer(options, (request, response) => {
      const { method = 'GET', url = '/', rawHeaders } = request
      const asked = { path: url, method: method as Dispatcher.HttpMethod, headers: rawHeaders }
      pool.dispatch(asked, {
        onRequestStart() {},
        onResponseStart(_controller, status, headers) {
          response.writeHead(status, headers)
        },
        onResponseData(_controller, chunk) {
          response.write(chunk)
        },
        onResponseEnd() {
          response.end()
        },
        onResponseError() {
          response.destroy()
        },
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
}

export type Plain = typeof asks
answerWith(asks)
