/** The one port: TLS ends here, ALPN says who takes the connection. */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http'
import { constants } from 'node:crypto'
import {
  createServer as createTcpServer,
  type AddressInfo,
  type BlockList,
  type Socket,
} from 'node:net'
import { createServer, TLSSocket, type Server as TlsServer } from 'node:tls'
import { plainAddress } from '../facts.ts'
import { isIn } from '../networks.ts'
import { Admission, DEFAULT_ADMISSION, MAX_CONNECTIONS } from './admission.ts'
import { hearBalancer, type Announced } from './balancer.ts'
import { Quiet } from './quiet.ts'

const TUNNEL_PROTOCOL = 'sallyport/1'

export interface EdgeCertificate {
  /** PEM: leaf and the CAs a client may not know. */
  readonly chain: string
  readonly key: string | Buffer
  /** PEM of the issuing CAs whose clients may present a certificate; people hold none, so none is prompted. */
  readonly clientAuthorities: readonly string[]
}

export interface EdgeOptions {
  readonly certificate: EdgeCertificate
  readonly onTunnel: (socket: TLSSocket) => void
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  readonly onUpgrade: (request: IncomingMessage, socket: TLSSocket, head: Buffer) => void
  /** Told of connections that were refused or failed, the first of a kind and minute, with how many were not told since. */
  readonly onFault: (code: string, from: string, suppressed: number) => void
  readonly admission?: Admission
  /** Balancers, each of whose connections begins with whom it is of. */
  readonly balancers?: BlockList | undefined
}

export interface Edge extends AsyncDisposable {
  listen(host: string, port: number): Promise<AddressInfo>
  /** Takes a renewed certificate for connections from now on. */
  renew(certificate: EdgeCertificate): void
  /** Stops accepting; connections that are open go on until the edge is disposed. */
  stop(): void
}

/** Slow handshakes, heads and bodies end here (RFC 7030 has no say in it; ca brief, section 2). */
const LIMITS = {
  handshakeTimeout: 10_000,
  headersTimeout: 10_000,
  requestTimeout: 60_000,
  connectionsCheckingInterval: 1_000,
  maxHeaderSize: 16_384,
} as const
/** docs/decisions/0006-keepalive.md: there is no TCP user timeout in Node. */
const TCP = { keepAlive: true, keepAliveInitialDelay: 30_000, noDelay: true } as const

function tlsOptions({ chain, key, clientAuthorities }: EdgeCertificate) {
  return {
    cert: chain,
    key,
    ca: [...clientAuthorities],
    minVersion: 'TLSv1.2' as const,
    ALPNProtocols: [TUNNEL_PROTOCOL, 'http/1.1'],
    requestCert: true,
    // Who a client is, is decided on our own terms (ca/path.ts): OpenSSL reports one error only.
    rejectUnauthorized: false,
    // A resumed session would replay an identity that was never shown again.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    sessionTimeout: 1,
    handshakeTimeout: LIMITS.handshakeTimeout,
  }
}

export function createEdge(options: EdgeOptions): Edge {
  const http = createHttp(options)
  const faults = quietly(options.onFault)
  const passedOn = new PassedOn()
  const secure: TlsServer = createServer(tlsOptions(options.certificate), (socket) => {
    passedOn.name(socket)
    const from = addressOf(socket)
    socket.on('error', (error: NodeJS.ErrnoException) => faults(error.code ?? 'socket', from))
    socket.setNoDelay(true)
    if (socket.alpnProtocol === TUNNEL_PROTOCOL) options.onTunnel(socket)
    else http.emit('connection', socket)
  })
  const receive = receiving(options, passedOn, faults, (socket) =>
    secure.emit('connection', socket),
  )
  const open = new Set<Socket>()
  const server = createTcpServer(TCP, (socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    receive(socket)
  })
  server.maxConnections = MAX_CONNECTIONS
  secure.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
    passedOn.name(socket)
    faults(error.code ?? 'tls', addressOf(socket))
    socket.destroy()
  })
  return {
    async listen(host, port) {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, host, () => {
          server.off('error', reject)
          resolve()
        })
      })
      const address = server.address()
      if (address === null || typeof address === 'string')
        throw new Error('the port is not a TCP port')
      return address
    },
    renew(certificate) {
      secure.setSecureContext(tlsOptions(certificate))
    },
    stop() {
      server.close()
    },
    async [Symbol.asyncDispose]() {
      server.close()
      // Whatever was to be said has been said; a peer that does not close must not keep the node.
      const closed = [...open].map((socket) => new Promise((done) => socket.once('close', done)))
      for (const socket of open) socket.destroy()
      await Promise.all(closed)
    },
  }
}

/** What becomes of a TCP connection: whose it is, whether they may, and on to TLS with it. */
function receiving(
  { admission = new Admission(DEFAULT_ADMISSION, performance.now()), balancers }: EdgeOptions,
  passedOn: PassedOn,
  faults: (code: string, from: string) => void,
  onward: (socket: Socket) => void,
): (socket: Socket) => void {
  const refuse = (socket: Socket, code: string, from: string): void => {
    // Reset, not closed: no state is left of it here, and its sender knows at once.
    socket.on('error', () => {})
    socket.resetAndDestroy()
    faults(code, from)
  }
  const enter = (socket: Socket, from: string): void => {
    const entered = admission.enter(from, performance.now())
    if (typeof entered === 'string') return refuse(socket, entered, from)
    socket.once('close', () => admission.leave(entered, performance.now()))
    onward(socket)
  }
  return (socket) => {
    const from = addressOf(socket)
    const deaf = () => {}
    if (from === '') {
      // Gone before it was looked at; whose it was nobody can say.
      socket.on('error', deaf)
      socket.destroy()
    } else if (balancers === undefined || !isIn(balancers, from)) enter(socket, from)
    else {
      socket.on('error', deaf)
      hearBalancer(socket, (said) => {
        socket.off('error', deaf)
        if (said === 'broken' || socket.destroyed) return refuse(socket, 'balancer.header', from)
        if (said !== 'own') passedOn.add(socket, said)
        enter(socket, said === 'own' ? from : said.address)
      })
    }
  }
}

function createHttp(options: EdgeOptions): HttpServer {
  const http = createHttpServer(
    {
      headersTimeout: LIMITS.headersTimeout,
      requestTimeout: LIMITS.requestTimeout,
      connectionsCheckingInterval: LIMITS.connectionsCheckingInterval,
      maxHeaderSize: LIMITS.maxHeaderSize,
      keepAliveTimeout: 30_000,
      requireHostHeader: true,
      // Node joins what is duplicated; a forwarder must see what was sent.
      insecureHTTPParser: false,
    },
    options.onRequest,
  )
  // Only what came through TLS is ever given to this server. Where an upgrade has a body, Node hands out a
  // stream around the socket instead: nobody here takes such a request.
  http.on('upgrade', (request, socket, head) => {
    if (socket instanceof TLSSocket) options.onUpgrade(request, socket, head)
    else request.socket.end(answerTo(undefined), () => request.socket.destroy())
  })
  http.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (socket.writable && error.code !== 'ECONNRESET') socket.end(answerTo(error.code))
    else socket.destroy()
  })
  // The timers that end slow requests run only in a server that believes it listens.
  http.emit('listening')
  return http
}

/** What a request that is not HTTP gets, by Node's parser code. */
function answerTo(code: string | undefined): string {
  const line =
    code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request'
  return `HTTP/1.1 ${line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`
}

/** Connections that a balancer has passed on, and whose they are. */
class PassedOn {
  readonly #sources = new Map<string, Announced>()

  add(socket: Socket, source: Announced): void {
    const key = keyOf(socket)
    this.#sources.set(key, source)
    socket.once('close', () => {
      // A port is given out again before the end of who had it is told.
      if (this.#sources.get(key) === source) this.#sources.delete(key)
    })
  }

  /** From here on the TLS socket over such a connection says whose it is, to all who ask it. */
  name(socket: TLSSocket): void {
    const source = this.#sources.get(keyOf(socket))
    if (source === undefined) return
    Object.defineProperty(socket, 'remoteAddress', { value: source.address })
    Object.defineProperty(socket, 'remotePort', { value: source.port })
  }
}

/** Both ends: no two connections that are open have the same, on whichever of the addresses listened on. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return [remoteAddress, remotePort, localAddress, localPort].join(' ')
}

/** Where it comes from; empty for what is gone already. */
function addressOf({ remoteAddress }: Socket): string {
  return plainAddress(remoteAddress ?? '')
}

/** A stranger who knocks all night fills no log: one line a minute for each kind of fault and source. */
function quietly(report: EdgeOptions['onFault']): (code: string, from: string) => void {
  const quiet = new Quiet()
  return (code, from) => {
    const suppressed = quiet.tell(`${code} ${from}`, performance.now())
    if (suppressed !== undefined) report(code, from, suppressed)
  }
}
