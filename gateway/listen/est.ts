/** EST over HTTP: reads a bounded body and what TLS knows, and lets the CA answer. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TLSSocket } from 'node:tls'
import { bodyTooLarge, EST_BODY_LIMIT, type EstRequest, type EstResponse } from '#ca'
import { channelBinding } from '#est'
import { newId } from '../ids.ts'
import type { Handler } from './front.ts'
import { presentedChain } from './tunnel.ts'

async function readBody(request: IncomingMessage): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    size += chunk.length
    if (size > EST_BODY_LIMIT) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function send(response: ServerResponse, answer: EstResponse): void {
  response.statusCode = answer.status
  for (const [name, value] of Object.entries(answer.headers)) response.setHeader(name, value)
  if (answer.close) response.setHeader('connection', 'close')
  response.setHeader('content-length', Buffer.byteLength(answer.body))
  response.end(answer.body)
}

/** `report` is told of what is no answer at all: a connection that broke while its body was read. */
export function estHandler(
  serve: (request: EstRequest) => Promise<EstResponse>,
  report: (error: unknown, what: string) => void,
): Handler {
  return (request, response) => {
    void answer(serve, request, response).catch((error: unknown) => {
      if (!request.destroyed) report(error, 'an EST request could not be answered')
      response.destroy()
    })
  }
}

async function answer(
  serve: (request: EstRequest) => Promise<EstResponse>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { socket } = request
  if (!(socket instanceof TLSSocket)) throw new Error('EST is served over TLS only')
  const requestId = newId('r')
  const body = await readBody(request)
  if (body === undefined) {
    send(response, bodyTooLarge(requestId))
    return
  }
  const headers: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(request.headers))
    headers[name] = Array.isArray(value) ? value.join(', ') : value
  send(
    response,
    await serve({
      method: request.method ?? '',
      path: request.url ?? '/',
      headers,
      body,
      connection: {
        tlsVersion: socket.getProtocol() ?? '',
        channelBinding: channelBinding(socket, 'server'),
        clientChain: presentedChain(socket),
        remoteAddress: socket.remoteAddress ?? '',
        requestId,
      },
    }),
  )
}
