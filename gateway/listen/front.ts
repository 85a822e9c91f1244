/** HTTP on the one port: by host a web app behind a device, by path EST, revocation, sign-in or the API. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { WEBSOCKET_PATH } from '#tunnel'
import { isSocketPath } from '../access/sockets.ts'

export type Handler = (request: IncomingMessage, response: ServerResponse) => void

export interface Front {
  readonly appsDomain: string
  readonly est: Handler
  /** `/crl/…` and `/ocsp`, for everybody. */
  readonly revocation: Handler
  /** `/agent/…`, for everybody: what a machine fetches to become a device. */
  readonly agent: Handler
  readonly oidc: Handler
  readonly api: Handler
  readonly app: (request: IncomingMessage, response: ServerResponse, host: string) => void
}

/** Who may be upgraded: `session` is for pages that show a session's ticket, `app` for what stands behind devices, by host. */
export interface Upgrades {
  readonly appsDomain: string
  readonly tunnel: (request: IncomingMessage, socket: TLSSocket, head: Buffer) => void
  readonly session: (request: IncomingMessage, socket: TLSSocket, head: Buffer) => void
  readonly app: (request: IncomingMessage, socket: TLSSocket, head: Buffer, host: string) => void
}

/**
 * Routes an upgrade. A tunnel is for programs: a request with Origin comes from a page in somebody's
 * browser, which would present that person's certificate, and is refused (403).
 */
export function dispatchUpgrade({ appsDomain, tunnel, session, app }: Upgrades) {
  const suffix = `.${appsDomain}`
  return (request: IncomingMessage, socket: TLSSocket, head: Buffer): void => {
    const host = hostOf(request)
    if (hasTwoHosts(request) || !toOriginForm(request)) endUpgrade(socket, '400 Bad Request')
    else if (host.endsWith(suffix)) app(request, socket, head, host.slice(0, -suffix.length))
    else if (isSocketPath(request.url ?? '')) session(request, socket, head)
    else if (request.url !== WEBSOCKET_PATH) endUpgrade(socket, '404 Not Found')
    else if (request.headers.origin !== undefined) endUpgrade(socket, '403 Forbidden')
    else tunnel(request, socket, head)
  }
}

/** Saying so beats a connection that hangs. */
function endUpgrade(socket: TLSSocket, status: string): void {
  const answer = `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`
  socket.end(answer, () => socket.destroy())
}

/** The host of a request without its port, lower-case; empty where there is none. */
function hostOf(request: IncomingMessage): string {
  return (request.headers.host ?? '').toLowerCase().replace(/:\d+$/, '')
}

function hasTwoHosts({ rawHeaders }: IncomingMessage): boolean {
  let hosts = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]
    if (name?.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  return hosts > 1
}

const ABSOLUTE = /^https:\/\/([^/?#]*)(.*)$/i

/**
 * RFC 9112, section 3.2.2: a server takes the absolute form too, and its authority counts. Where it is not
 * what Host says, somebody on the way may believe the other one: false. Otherwise the request is as if it
 * had come in origin form.
 */
function toOriginForm(request: IncomingMessage): boolean {
  if (request.url?.startsWith('/') === true) return true
  const [, authority, rest = ''] = ABSOLUTE.exec(request.url ?? '/') ?? []
  if (authority === undefined) return true
  if (authority.toLowerCase() !== request.headers.host?.toLowerCase()) return false
  request.url = rest.startsWith('/') ? rest : `/${rest}`
  return true
}

export function dispatch(front: Front): Handler {
  const suffix = `.${front.appsDomain}`
  return (request, response) => {
    // RFC 9112, section 3.2: with two hosts, whoever reads on may believe the other one.
    if (hasTwoHosts(request)) {
      response.writeHead(400, { connection: 'close', 'content-length': '0' }).end()
      return
    }
    if (!toOriginForm(request)) {
      response.writeHead(400, { connection: 'close', 'content-length': '0' }).end()
      return
    }
    const host = hostOf(request)
    const path = request.url ?? '/'
    // The host decides first: an app must never reach the sign-in or the API under its own name.
    if (host.endsWith(suffix)) front.app(request, response, host.slice(0, -suffix.length))
    else if (path.startsWith('/.well-known/est/')) front.est(request, response)
    else if (/^\/(?:crl\/|ocsp(?:[/?]|$))/.test(path)) front.revocation(request, response)
    else if (path.startsWith('/agent/')) front.agent(request, response)
    else if (path === '/oidc' || path.startsWith('/oidc/') || path.startsWith('/oidc?'))
      front.oidc(request, response)
    else front.api(request, response)
  }
}
