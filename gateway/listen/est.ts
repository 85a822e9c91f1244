/** EST over HTTP: reads a bounded body in bounded time, and what TLS knows, and lets the CA answer. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import {
  bodyTooLarge,
  EST_BODY_LIMIT,
  type EstConnection,
  type EstRequest,
  type EstResponse,
} from '#ca'
import { channelBinding } from '#est'
import { plainAddress } from '../facts.ts'
import { newId } from '../ids.ts'
import type { Handler } from './front.ts'

export interface EstLimits {
  /** A body that is not whole by then is answered 408. */
  readonly bodyMs: number
  /** Requests of one address that may be under way at once; beyond them, 429. */
  readonly atOnce: number
}
const LIMITS: EstLimits = { bodyMs: 15_000, atOnce: 512 }

type Body = Uint8Array | 'long' | 'late'

async function readBody(request: IncomingMessage, { bodyMs }: EstLimits): Promise<Body> {
  const chunks: Uint8Array[] = []
  let size = 0
  const { promise, resolve, reject } = Promise.withResolvers<Body>()
  const timer = setTimeout(() => resolve('late'), bodyMs)
  request.on('data', (chunk: Uint8Array) => {
    size += chunk.length
    if (size > EST_BODY_LIMIT) resolve('long')
    else chunks.push(chunk)
  })
  request.once('end', () => resolve(Buffer.concat(chunks)))
  request.once('error', reject)
  request.once('close', () => reject(new Error('the connection ended before the body did')))
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    request.removeAllListeners('data')
    // Whatever else comes is read and forgotten: an unread socket is reset before its answer is seen.
    request.resume()
  }
}

/** What the client presented, DER, leaf first; nothing has been checked. A maker's chain may be longer than ours. */
function presented(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = []
  let next = socket.getPeerX509Certificate()
  while (next !== undefined && chain.length < MOST_PRESENTED) {
    chain.push(new Uint8Array(next.raw))
    const issuer = next.issuerCertificate
    next = issuer === undefined || issuer.raw.equals(next.raw) ? undefined : issuer
  }
  return chain
}
const MOST_PRESENTED = 5

/** Gives whether the connection may carry another request. */
function send(response: ServerResponse, answer: EstResponse): boolean {
  const { status, headers, body, close } = answer
  response.writeHead(status, {
    ...headers,
    ...(close ? { connection: 'close' } : {}),
    // RFC 9110 8.6: 204 has no length; everything else states it, because some clients read no chunks.
    ...(status === 204 ? {} : { 'content-length': Buffer.byteLength(body) }),
  })
  response.end(body)
  return !close
}

/** An answer of this file's own: RFC 7030 4.2.3 wants text, and the connection is of no further use. */
function refusal(status: number, line: string, requestId: string, more = {}): EstResponse {
  const headers = {
    'content-type': 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
    ...more,
  }
  return { status, headers, body: `${line} (request ${requestId})\n`, close: true }
}

export interface EstEdge {
  /** Told of what is no answer at all: a connection that broke while its body was read. */
  readonly report: (error: unknown, what: string) => void
  /** Somebody at this address was given a certificate, so they belong here. */
  readonly proven: (address: string) => void
  readonly limits?: EstLimits | undefined
}

/** EST as a handler of requests that came through TLS. */
export function estHandler(
  serve: (request: EstRequest) => Promise<EstResponse>,
  edge: EstEdge,
): Handler {
  const { report, limits = LIMITS } = edge
  const underway = new Map<string, number>()
  // What is sent before an answer has come is begun after it, and not at all where that ends the connection: a
  // binding authenticates one request (RFC 9266 4.1), however fast the next one follows.
  const turns = new WeakMap<Socket, Promise<boolean>>()
  return (request, response) => {
    const { socket } = request
    const from = socket.remoteAddress ?? ''
    const count = underway.get(from) ?? 0
    underway.set(from, count + 1)
    const begin = () =>
      count < limits.atOnce ? answer(serve, edge, request, response) : busy(response)
    const before = turns.get(socket)
    const work =
      before === undefined
        ? begin()
        : before.then((goesOn) => (goesOn ? begin() : forgotten(response)))
    const settled = work.catch(() => false)
    turns.set(socket, settled)
    void work
      .catch((error: unknown) => {
        if (!request.destroyed) report(error, 'an EST request could not be answered')
        response.destroy()
      })
      .finally(() => {
        const left = (underway.get(from) ?? 1) - 1
        if (left > 0) underway.set(from, left)
        else underway.delete(from)
      })
  }
}

/** What came after the request that ended its connection. */
function forgotten(response: ServerResponse): false {
  response.destroy()
  return false
}

async function busy(response: ServerResponse): Promise<boolean> {
  const line = 'rate: too many requests of this address are under way; try again after Retry-After'
  return send(response, refusal(429, line, newId('r'), { 'retry-after': '5' }))
}

/** What one reader of a request may take for another than the next one does; Node takes the first of two. */
const ONCE = ['authorization', 'content-type'] as const

/**
 * Why a head says two things at once, or that the body is coded in a way nobody here undoes; undefined for
 * a plain one. RFC 9110 5.3 and 8.4, RFC 9112 6.1.
 */
function ambiguity({ headers, headersDistinct }: IncomingMessage): Refused | undefined {
  const twice = ONCE.find((name) => (headersDistinct[name]?.length ?? 0) > 1)
  if (twice !== undefined) return [400, `head.twice: there are two ${twice} fields; send one`]
  const coding = headers['transfer-encoding'] ?? 'chunked'
  if (coding.trim().toLowerCase() !== 'chunked')
    return [501, 'body.coding: the transfer coding is none but chunked; send the body as it is']
  const content = headers['content-encoding'] ?? 'identity'
  if (content.trim().toLowerCase() !== 'identity')
    return [415, 'body.coding: the body has a content coding; send it as it is']
  return undefined
}
type Refused = readonly [status: number, line: string]

async function answer(
  serve: (request: EstRequest) => Promise<EstResponse>,
  { proven, limits = LIMITS }: EstEdge,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<boolean> {
  const { socket } = request
  if (!(socket instanceof TLSSocket)) throw new Error('EST is served over TLS only')
  const requestId = newId('r')
  const fault = ambiguity(request)
  if (fault !== undefined) {
    request.resume()
    return send(response, refusal(...fault, requestId))
  }
  const body = await readBody(request, limits)
  if (body === 'late') {
    const line = `body.late: a body is sent within ${limits.bodyMs / 1_000} s; send it in one piece`
    return send(response, refusal(408, line, requestId))
  }
  if (body === 'long') return send(response, bodyTooLarge(requestId))
  const headers: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(request.headers))
    headers[name] = Array.isArray(value) ? value.join(', ') : value
  const { method = '', url: path = '/' } = request
  const connection = connectionOf(socket, requestId)
  const said = await serve({ method, path, headers, body, connection })
  // A posted question that is answered with 200 came with a token or a certificate that held.
  if (said.status === 200 && method === 'POST') proven(plainAddress(connection.remoteAddress))
  return send(response, said)
}

/** What costs is found out only for who asks: with a token nobody does for the chain, without a challengePassword nobody for the binding. */
function connectionOf(socket: TLSSocket, requestId: string): EstConnection {
  let chain: Uint8Array[] | undefined
  return {
    tlsVersion: socket.getProtocol() ?? '',
    get channelBinding() {
      return channelBinding(socket, 'server')
    },
    get clientChain() {
      return (chain ??= presented(socket))
    },
    remoteAddress: socket.remoteAddress ?? '',
    requestId,
  }
}
