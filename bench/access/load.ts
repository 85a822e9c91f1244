/** The browsers and tools of `bench -- access`: the same for every path. Started by the bench, answers over IPC. */
import { once } from 'node:events'
import { Agent as PlainAgent, request as plainRequest, type IncomingMessage } from 'node:http'
import { Agent, request as tlsRequest } from 'node:https'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import autocannon from 'autocannon'
import { answerWith } from '../tunnel/rpc.ts'

/** One page of one path. */
export interface Page {
  readonly url: string
  /** PEM; null where the path is plain HTTP. */
  readonly ca: string | null
  /** Null for an address, which has none. */
  readonly servername: string | null
  readonly headers: Readonly<Record<string, string>>
}

export interface Asked {
  readonly page: Page
  readonly connections: number
  readonly seconds: number
  /** No request asks for what another one asked for. */
  readonly fresh: boolean
}

let next = 0

async function requests({ page, connections, seconds, fresh }: Asked): Promise<number> {
  const { url, headers, servername } = page
  const named = servername === null ? {} : { servername }
  const done = await autocannon({
    url,
    headers: { ...headers },
    connections,
    duration: seconds,
    ...(fresh
      ? { requests: [{ setupRequest: (one: object) => ({ ...one, path: `/${++next}` }) }] }
      : {}),
    ...named,
  })
  const odd = done.errors + done.timeouts + done.non2xx
  if (odd > 0) throw new Error(`${odd} of ${done.requests.total} requests to ${url} failed`)
  return done['2xx']
}

/** One request after the other on one connection: milliseconds each. */
async function trips({ page, count }: { readonly page: Page; readonly count: number }) {
  const { ca, servername, headers } = page
  const url = new URL(page.url)
  const options = {
    method: 'GET',
    headers,
    ...(servername === null ? {} : { servername }),
    ...(ca === null ? {} : { ca }),
  }
  const agent = new (ca === null ? PlainAgent : Agent)({ keepAlive: true, maxSockets: 1 })
  const ask = ca === null ? plainRequest : tlsRequest
  const times = new Float64Array(count)
  try {
    for (let at = 0; at < count; at++) {
      const began = performance.now()
      const sent = ask(url, { ...options, agent })
      sent.end()
      const [response] = (await once(sent, 'response')) as [IncomingMessage]
      response.resume()
      await once(response, 'end')
      times[at] = performance.now() - began
      if (response.statusCode !== 200)
        throw new Error(`${page.url} answered ${response.statusCode}`)
    }
  } finally {
    agent.destroy()
  }
  return times
}

export interface Pour {
  readonly port: number
  /** PEM for a sink that takes TLS. */
  readonly ca: string | null
  readonly ms: number
}

/** Writes all that is taken for so long. */
async function pour({ port, ca, ms }: Pour): Promise<void> {
  const socket: Socket =
    ca === null
      ? connect({ port, host: '127.0.0.1' })
      : connectTls({ port, host: '127.0.0.1', ca, minVersion: 'TLSv1.3' })
  await once(socket, ca === null ? 'connect' : 'secureConnect')
  const piece = Buffer.alloc(256 * 1024, 7)
  const until = performance.now() + ms
  while (performance.now() < until) if (!socket.write(piece)) await once(socket, 'drain')
  socket.destroy()
}

const asks = { requests, trips, pour }
export type Load = typeof asks
answerWith(asks)
