/**
 * A gateway for agent tests: the real EST server and the real acceptor of #tunnel behind one TLS port
 * told apart by ALPN, with certificates made here. What a gateway decides, the test decides.
 */
import { createHash, createPublicKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { constants } from 'node:crypto'
import { createServer as createHttpServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import type { SecureContextOptions, Server, TLSSocket } from 'node:tls'
import { instant, issueServer } from '#ca'
import { acceptWebSocket, driveTunnel } from '#tunnel'
import type { CloseReason, Offer, StreamKind, Tunnel, TunnelStream } from '#tunnel'
import { Bench, newHouse, newKey, pem, random, TENANT } from '../ca/support.ts'
import type { House } from '../ca/support.ts'
import { soon } from '../support/patience.ts'
import { freePort } from '../support/port.ts'

export { holds, soon } from '../support/patience.ts'

export const DEVICE = 'press-07'
const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))
const decode = (bytes: Uint8Array) =>
  JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>

export interface ServerFace {
  readonly key: KeyObject
  readonly chain: readonly Uint8Array[]
}

/** A tunnel as the gateway holds it. */
export interface Held {
  readonly tunnel: Tunnel
  readonly control: TunnelStream
  /** What the agent said in OPEN. */
  readonly greeting: Record<string, unknown>
  /** Every report since, in order. */
  readonly reports: Record<string, unknown>[]
  readonly socket: TLSSocket
  /** Serial of the client certificate, lower-case hex. */
  readonly serial: string
}

/** One stream to the agent with what came of it. */
export interface Opened {
  readonly stream: TunnelStream
  readonly observed: Record<string, unknown> | null
  received: Buffer
  /** The same, as it came: of a udp stream, the datagrams. */
  readonly pieces: Buffer[]
  readonly signals: Record<string, unknown>[]
  ended: boolean
  readonly closed: Promise<CloseReason>
}

export class FakeGateway implements AsyncDisposable {
  readonly bench: Bench
  readonly tunnels: Held[] = []
  /** EST requests by path, in order. */
  readonly asked: string[] = []
  /** Runs before an EST answer is sent; may destroy the connection instead. */
  onEst: (request: IncomingMessage) => Promise<'answer' | 'drop'> = async () => 'answer'
  /** What `/agent/NAME` gives, by name. */
  readonly files = new Map<string, Uint8Array>()
  /** Answered instead with 503 and this for `retry-after`. */
  serving: string | undefined
  /** The code a tunnel is refused with, by the serial of its certificate; undefined takes it. */
  refuses: (serial: string) => string | undefined = () => undefined
  /** Closes the older tunnel when a newer one comes, as the real one does. */
  replaces = true
  /** What the welcome holds beside `v`; undefined sends bytes that are no JSON. */
  welcome: (() => Record<string, unknown>) | undefined
  readonly #http = createHttpServer((request, response) => void this.#est(request, response))
  #server: Server | undefined
  #waiting: ((held: Held) => void)[] = []

  /** Whether a tunnel in WebSocket is taken. */
  upgrades = true

  private constructor(bench: Bench) {
    this.bench = bench
    this.#http.on('upgrade', (request: IncomingMessage, socket: TLSSocket, head: Buffer) => {
      if (request.url !== '/tunnel' || !this.upgrades)
        return void socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n')
      void this.#accept(socket, { request, head }).catch(() => socket.destroy())
    })
    this.welcome = () => ({ device: DEVICE, now_ms: Date.now(), gateway: 'gw1', epoch: 1 })
  }

  static async start(
    options: { readonly house?: House; readonly now?: number } = {},
  ): Promise<FakeGateway> {
    const now = options.now ?? Date.now()
    const bench = await Bench.open(':memory:', options.house ?? (await newHouse(now)))
    bench.now = now
    const gateway = new FakeGateway(bench)
    await gateway.listen(await gateway.face())
    return gateway
  }

  /** A certificate for this gateway. */
  async face(
    names: readonly string[] = ['localhost'],
    ips: readonly string[] = ['127.0.0.1'],
    now = this.bench.now,
  ): Promise<ServerFace> {
    const key = newKey()
    const publicKey = new Uint8Array(createPublicKey(key).export({ type: 'spki', format: 'der' }))
    const request = {
      tenant: TENANT,
      gateway: 'gw1',
      dnsNames: names,
      ipAddresses: ips,
      publicKey,
      issuers: this.bench.house.issuers,
      now: instant(now),
      random,
    }
    const { chain } = await issueServer(request, {
      store: this.bench.store,
      log: async () => undefined,
      failed: () => undefined,
    } as never)
    return { key, chain }
  }

  /** (Re)starts the port with `face`; the port number stays. */
  async listen(
    face: ServerFace,
    extra: SecureContextOptions & { ALPNProtocols?: string[] } = {},
  ): Promise<void> {
    const port = this.#server === undefined ? await freePort() : this.port
    await this.silence()
    const server = createTlsServer({
      key: String(face.key.export({ type: 'pkcs8', format: 'pem' })),
      cert: face.chain.map((der) => pem(der)).join(''),
      ALPNProtocols: ['sallyport/1', 'http/1.1'],
      requestCert: true,
      rejectUnauthorized: false,
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
      ...extra,
    })
    server.on('tlsClientError', () => undefined)
    server.on('secureConnection', (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => this.#sockets.delete(socket))
      if (socket.alpnProtocol === 'sallyport/1')
        void this.#accept(socket).catch(() => socket.destroy())
      else this.#http.emit('connection', socket)
    })
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    this.#server = server
  }
  readonly #sockets = new Set<TLSSocket>()

  /** Stops listening and cuts every connection. */
  async silence(): Promise<void> {
    const server = this.#server
    if (server?.listening !== true) return
    for (const socket of this.#sockets) socket.destroy()
    const closed = once(server, 'close')
    server.close()
    await closed
  }

  get port(): number {
    return (this.#port ??= (this.#server!.address() as AddressInfo).port)
  }
  #port: number | undefined
  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }
  get pin(): string {
    return createHash('sha256').update(this.bench.house.authority.root).digest('hex')
  }

  /** The next tunnel that is welcomed, or the newest one not yet taken. */
  async nextTunnel(): Promise<Held> {
    const { promise, resolve } = Promise.withResolvers<Held>()
    this.#waiting.push(resolve)
    try {
      return await soon('a tunnel', promise)
    } finally {
      this.#waiting = this.#waiting.filter((waiter) => waiter !== resolve)
    }
  }

  async #accept(
    socket: TLSSocket,
    upgrade?: { readonly request: IncomingMessage; readonly head: Buffer },
  ): Promise<void> {
    const options = { role: 'gateway', instance: 'gw1', epoch: 1 } as const
    const tunnel =
      upgrade === undefined
        ? await driveTunnel(socket, { ...options, side: 'acceptor' })
        : await acceptWebSocket({ ...upgrade, socket }, options)
    const serial = socket.getPeerX509Certificate()?.serialNumber.toLowerCase() ?? ''
    const refusal = this.refuses(serial)
    if (refusal !== undefined) return tunnel.close(refusal, 'the test says no')
    const { promise, resolve } = Promise.withResolvers<Offer>()
    tunnel.onOpen = resolve
    const offer = await promise
    const greeting = decode(offer.metadata)
    const answer =
      this.welcome === undefined
        ? Buffer.from('\xff{', 'latin1')
        : encode({ v: 1, ...this.welcome() })
    const control = offer.accept(answer)
    const held: Held = { tunnel, control, greeting, reports: [], socket, serial }
    let text = ''
    control.onData = (chunk) => {
      text += Buffer.from(chunk).toString('utf8')
      control.consumed(chunk.length)
      const lines = text.split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) held.reports.push(JSON.parse(line) as Record<string, unknown>)
    }
    const before = this.tunnels.at(-1)
    this.tunnels.push(held)
    this.#waiting.shift()?.(held)
    if (this.replaces)
      before?.tunnel.close('tunnel.replaced', 'a newer tunnel of this device took over')
  }

  async #est(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const socket = request.socket as TLSSocket
    this.asked.push(request.url ?? '')
    if (request.url?.startsWith('/agent/') === true) {
      if (this.serving !== undefined)
        return void response.writeHead(503, { 'retry-after': this.serving }).end()
      const file = this.files.get(request.url.slice('/agent/'.length))
      return void response.writeHead(file === undefined ? 404 : 200).end(file)
    }
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const leaf = socket.getPeerX509Certificate()
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
    )
    const answer = await this.bench.server()({
      method: request.method ?? '',
      path: request.url ?? '',
      headers,
      body: Buffer.concat(chunks),
      connection: {
        tlsVersion: 'TLSv1.3',
        channelBinding: socket.exportKeyingMaterial(
          32,
          'EXPORTER-Channel-Binding',
          Buffer.alloc(0),
        ),
        clientChain: leaf === undefined ? [] : [new Uint8Array(leaf.raw)],
        remoteAddress: '127.0.0.1',
        requestId: 'req-1',
      },
    })
    if ((await this.onEst(request)) === 'drop') return void socket.destroy()
    // The clock of the bench: what a test says is the time, the device hears.
    const date = new Date(this.bench.now).toUTCString()
    response.writeHead(answer.status, { ...answer.headers, date, connection: 'close' })
    response.end(answer.body)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.silence()
    this.#http.close()
    await this.bench[Symbol.asyncDispose]()
  }
}

const SESSION = `s_${'0'.repeat(26)}`

/** Opens a stream as the gateway does; `overrides` replace fields of the metadata. */
export async function openStream(
  held: Held,
  process: string,
  overrides: Readonly<Record<string, unknown>> = {},
  kind: StreamKind = 'tcp',
): Promise<Opened> {
  const metadata = {
    v: 1,
    session: SESSION,
    process,
    remaining_ms: 60_000,
    obligations: {},
    ...overrides,
  }
  const stream = await held.tunnel.open(kind, encode(metadata))
  return follow(stream)
}

function follow(stream: TunnelStream): Opened {
  const { promise, resolve } = Promise.withResolvers<CloseReason>()
  const answer = decode(stream.answer)
  const opened: Opened = {
    stream,
    observed: answer['observed'] as Opened['observed'],
    received: Buffer.alloc(0),
    pieces: [],
    signals: [],
    ended: false,
    closed: promise,
  }
  stream.onData = (chunk) => {
    opened.received = Buffer.concat([opened.received, chunk])
    opened.pieces.push(Buffer.from(chunk))
    stream.consumed(chunk.length)
  }
  stream.onEnd = () => (opened.ended = true)
  stream.onSignal = (payload) => opened.signals.push(decode(payload))
  stream.onClose = resolve
  return opened
}

export function proceed(opened: Opened): void {
  opened.stream.signal(encode({ t: 'proceed' }))
}
