/** One EST exchange over a connection whose channel binding the request may carry (RFC 7030 3.5). */
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { channelBinding, type EstCall } from '#est'
import { unreachable, type HttpAnswer } from './anchor.ts'
import { addressOf, dialTls } from './dial.ts'

const TIMEOUT_MS = 30_000
const BODY_MAX = 256 * 1024

export interface EstServer {
  readonly url: URL
  /** PEM of the roots to trust; absent: the peer is nobody, and only public data may be asked for. */
  readonly anchors?: string | undefined
  /** PEM of the certificate to present, and of its key. */
  readonly certificate?: string | undefined
  readonly key?: string | undefined
}

/**
 * Connects, lets `ask` make the request from the base64 of the connection's binding, and gives the answer.
 * Throws CliError `gateway.unreachable`, `gateway.untrusted`, and what `ask` throws.
 */
export async function estExchange(
  server: EstServer,
  ask: (binding: string | undefined) => EstCall,
): Promise<HttpAnswer> {
  const { url } = server
  const patience = AbortSignal.timeout(TIMEOUT_MS)
  const socket = await reaching(url, dialTls(addressOf(url), optionsOf(server), patience))
  try {
    // What is wrong with the request is not the network's fault.
    const call = ask(bindingOf(socket))
    return await reaching(url, send(socket, url, call))
  } finally {
    socket.destroy()
  }
}

async function reaching<T>(url: URL, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    throw unreachable(url, cause)
  }
}

function optionsOf({ anchors, certificate, key }: EstServer): ConnectionOptions {
  return {
    ALPNProtocols: ['http/1.1'],
    ...(anchors === undefined ? { rejectUnauthorized: false } : { ca: anchors }),
    ...(certificate === undefined || key === undefined ? {} : { cert: certificate, key }),
  }
}

function bindingOf(socket: TLSSocket): string | undefined {
  const binding = channelBinding(
    {
      getProtocol: () => socket.getProtocol(),
      exportKeyingMaterial: (length, label, context) =>
        socket.exportKeyingMaterial(length, label, Buffer.from(context)),
      isSessionReused: () => socket.isSessionReused(),
      getFinished: () => socket.getFinished(),
      getPeerFinished: () => socket.getPeerFinished(),
    },
    'client',
  )
  return binding === null ? undefined : Buffer.from(binding).toString('base64')
}

async function send(socket: TLSSocket, url: URL, call: EstCall): Promise<HttpAnswer> {
  const sent = httpRequest({
    createConnection: () => socket,
    method: call.method,
    path: call.path,
    headers: { host: url.host, ...call.headers },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
  sent.end(call.body)
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  let body = ''
  answer.setEncoding('latin1')
  for await (const chunk of answer as AsyncIterable<string>) {
    body += chunk
    if (body.length > BODY_MAX) throw new Error('the answer is too long')
  }
  const headers: Record<string, string | undefined> = {}
  for (const [name, value] of Object.entries(answer.headers))
    headers[name] = Array.isArray(value) ? value.join(', ') : value
  return { status: answer.statusCode ?? 0, headers, body }
}
