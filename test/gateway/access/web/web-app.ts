/** Two web apps behind one device, a real HTTP server and a bare socket, and a browser that goes to them through the gateway. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { request as httpsRequest } from 'node:https'
import {
  createServer as createTcpServer,
  type AddressInfo,
  type Server as TcpServer,
  type Socket,
} from 'node:net'
import type { TLSSocket } from 'node:tls'
import { expect, onTestFinished } from 'vitest'
import type { Grant, OpenedSession } from '#api'
import {
  dial,
  grantFor,
  openSession,
  soon,
  startNode,
  until,
  type DeviceIdentity,
  type Person,
  type TestNode,
} from '../../../support/node.ts'
import { attach, expecting, PLC, seen, toPort, type FakeAgent } from '../../../support/tunnels.ts'

export interface Reply {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly raw: readonly string[]
  readonly text: string
  readonly trailers: NodeJS.Dict<string>
}

interface Asked {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string | string[]>>
  readonly body?: string | Uint8Array
  readonly host?: string
}

/** A request whose connection the test holds in its hand. */
interface Browsing {
  text: string
  readonly socket: TLSSocket
  readonly closed: Promise<unknown>
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

export const hostOf = (process: string) => `${process}--press-07.apps.localhost`

export const requestsIn = (text: string) => text.match(/^[A-Z]+ \S+ HTTP\/1\.1\r$/gm)?.length ?? 0

export class WebApp implements AsyncDisposable {
  readonly node: TestNode
  readonly vendor: Person
  readonly identity: DeviceIdentity
  readonly agent: FakeAgent
  readonly grants: { readonly hmi: Grant; readonly wire: Grant }
  /** What the app does with a request; each test says. */
  app: Handler = hello
  /** What the app on a bare socket does with the bytes of a connection; each test says. */
  onWire: (socket: Socket) => void = refuse
  /** For what is no plain request. */
  readonly hmi: Server
  readonly #wire: TcpServer

  private constructor(
    given: Pick<WebApp, 'node' | 'vendor' | 'identity' | 'agent' | 'grants'>,
    hmi: Server,
    wire: TcpServer,
  ) {
    this.node = given.node
    this.vendor = given.vendor
    this.identity = given.identity
    this.agent = given.agent
    this.grants = given.grants
    this.hmi = hmi
    this.#wire = wire
    hmi.on('request', (request, response) => this.app(request, response))
    hmi.on('clientError', (_error, socket) => socket.destroy())
    wire.on('connection', (socket) => {
      socket.on('error', () => {})
      this.onWire(socket)
    })
  }

  static async start(): Promise<WebApp> {
    const node = await startNode()
    const hmi = createServer()
    const wire = createTcpServer({ allowHalfOpen: true })
    for (const server of [hmi, wire]) server.listen(0, '127.0.0.1')
    await Promise.all([once(hmi, 'listening'), once(wire, 'listening')])
    const identity = await node.device('press-07', {
      hmi: expecting(PLC, 'http'),
      wire: expecting(PLC, 'http'),
    })
    const listener = seen(PLC, 'listener')
    const [vendor, agent] = await Promise.all([
      node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
      attach(node, identity, { listeners: { hmi: listener, wire: listener } }),
    ])
    const ports = { hmi, wire }
    agent.target = (stream, { process }) => {
      const { port } = ports[process as keyof typeof ports].address() as AddressInfo
      toPort(port)(stream)
    }
    const grants = {
      hmi: await grantFor(vendor, node.admin, { device: 'press-07', process: 'hmi' }),
      wire: await grantFor(vendor, node.admin, { device: 'press-07', process: 'wire' }),
    }
    return new WebApp({ node, vendor, identity, agent, grants }, hmi, wire)
  }

  /** Both apps as they are before a test says otherwise. */
  reset(): void {
    this.app = hello
    this.onWire = refuse
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hmi.closeAllConnections()
    this.hmi.close()
    this.#wire.close()
    await this.agent[Symbol.asyncDispose]()
    await this.node[Symbol.asyncDispose]()
  }

  /** One request as a browser would send it, on a connection of its own. */
  async ask(path: string, asked: Asked = {}): Promise<Reply> {
    const { method = 'GET', headers = {}, body, host = hostOf('hmi') } = asked
    const request = httpsRequest({
      host: '127.0.0.1',
      port: this.node.port,
      servername: host,
      ca: this.node.anchor,
      agent: false,
      method,
      path,
      headers: { host: `${host}:${this.node.port}`, ...headers },
    })
    request.end(body)
    const [response] = (await soon('an answer', once(request, 'response'))) as [IncomingMessage]
    const chunks: Buffer[] = []
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      raw: response.rawHeaders,
      text: Buffer.concat(chunks).toString(),
      trailers: response.trailers,
    }
  }

  /** A session and the browser's cookie for it; both end with the test. */
  async enter(process = 'hmi'): Promise<{ session: OpenedSession; cookie: string }> {
    const session = await openSession(this.vendor, 'press-07', process)
    onTestFinished(async () => void (await this.vendor.call('POST', `/sessions/${session.id}/end`)))
    return { session, cookie: await this.redeem(session) }
  }

  async redeem({ url }: OpenedSession): Promise<string> {
    if (url === null) throw new Error('not a web process')
    const { pathname, search, hostname } = new URL(url)
    const entered = await this.ask(pathname + search, { host: hostname })
    expect([entered.status, entered.headers.location]).toEqual([303, '/'])
    const [line = ''] = entered.headers['set-cookie'] ?? []
    expect(line).toMatch(/; Path=\/; Secure; HttpOnly; SameSite=Lax$/)
    expect(line).not.toMatch(/domain/i)
    return line.split(';')[0] ?? ''
  }

  async nothingOpen(): Promise<void> {
    await until('no stream is left on the device', () => this.agent.open() === 0)
  }

  /** Bytes as they are, to one app; gives the whole reply once the gateway has closed, or what `enough` says is enough. */
  async send(
    text: string,
    host: string,
    enough: (reply: string) => boolean = () => false,
  ): Promise<string> {
    const socket = await dial(this.node, { servername: host, ALPNProtocols: ['http/1.1'] })
    let reply = ''
    const closed = once(socket, 'close')
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      reply += chunk
      if (enough(reply)) socket.destroy()
    })
    socket.on('error', () => {})
    socket.write(text, 'latin1')
    await soon(`the connection closes; came: ${reply.slice(0, 300)}`, closed)
    return reply
  }

  /** What one request made arrive at the app's socket, which answers it and keeps the connection. */
  recording(answer = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'): {
    text: string
    connections: number
  } {
    const got = { text: '', connections: 0 }
    this.onWire = (socket) => {
      got.connections++
      socket.on('data', (chunk: Buffer) => {
        got.text += chunk.toString('latin1')
        if (/\r\n\r\n/.test(got.text)) socket.write(answer, 'latin1')
      })
      socket.on('end', () => socket.end())
    }
    return got
  }

  /** A request whose connection the test holds in its hand. */
  async browse(
    path: string,
    cookie: string,
    { method = 'GET', head = '', host = hostOf('hmi') } = {},
  ): Promise<Browsing> {
    const socket = await dial(this.node, { servername: host, ALPNProtocols: ['http/1.1'] })
    // Not once(): it rejects with the error of a socket that is cut off while it writes.
    const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()))
    const browsing = { text: '', socket, closed }
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => (browsing.text += chunk.toString('latin1')))
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nCookie: ${cookie}\r\n${head}\r\n`)
    return browsing
  }
}

const hello: Handler = (_request, response) => void response.end('hello')
const refuse = (socket: Socket) => void socket.destroy()
