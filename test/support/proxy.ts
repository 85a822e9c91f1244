/** Proxies on free loopback ports, small enough to read: HTTP CONNECT and SOCKS5, each with or without a login. */
import { once } from 'node:events'
import { createServer as createHttp, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { keyPem, makeRoot, makeServer } from '../demo/certificates.ts'

export interface ProxyOptions {
  /** `user:password`; absent: everybody may. */
  readonly login?: string
  /** The whole head of the answer to every question, instead of doing it. */
  readonly says?: string
}

export interface TestProxy extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** What was asked for, `host:port` each. */
  readonly asked: readonly string[]
  /** Connections that are open through it. */
  readonly open: () => number
  /** Octets that went through, both ways. */
  readonly carried: () => number
  /** Ends every connection through it, without a word. */
  cut(): void
}

abstract class Relay implements TestProxy {
  readonly asked: string[] = []
  readonly #sockets = new Set<Socket>()
  #carried = 0
  protected abstract readonly server: Server
  protected abstract readonly scheme: string

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }
  get url(): string {
    return `${this.scheme}://127.0.0.1:${this.port}`
  }
  readonly open = () => this.#sockets.size
  readonly carried = () => this.#carried

  async listen(): Promise<this> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return this
  }

  /** Joins a client to the place it asked for; says what became of it. */
  protected async join(client: Socket, host: string, port: number): Promise<Socket> {
    this.asked.push(`${host}:${port}`)
    const server = connect({ host, port, noDelay: true })
    server.on('error', () => {})
    await once(server, 'connect')
    for (const socket of [client, server]) {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      socket.on('data', (chunk: Buffer) => (this.#carried += chunk.length))
    }
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    return server
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut()
    const closed = once(this.server, 'close')
    this.server.close()
    await closed
  }
}

class HttpProxy extends Relay {
  protected readonly scheme: string
  protected readonly server: Server

  constructor(
    { login, says }: ProxyOptions,
    tls?: { readonly key: string; readonly cert: string },
  ) {
    super()
    const nothing: RequestListener = (_request, response) => void response.writeHead(400).end()
    this.scheme = tls === undefined ? 'http' : 'https'
    this.server = tls === undefined ? createHttp(nothing) : createHttps(tls, nothing)
    this.server.on('connect', (request: IncomingMessage, client: Socket) => {
      client.on('error', () => client.destroy())
      const wanted = `Basic ${Buffer.from(login ?? '').toString('base64')}`
      if (says !== undefined) client.end(`${says}\r\n\r\n`)
      else if (login !== undefined && request.headers['proxy-authorization'] !== wanted)
        client.end(
          'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="plant"\r\n\r\n<p>no</p>',
        )
      else void this.#go(client, request.url ?? '')
    })
  }

  async #go(client: Socket, place: string): Promise<void> {
    const { hostname, port } = new URL(`http://${place}`)
    try {
      const server = await this.join(client, hostname.replace(/^\[|\]$/g, ''), Number(port || 80))
      client.write('HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n')
      client.pipe(server)
      server.pipe(client)
    } catch {
      client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
    }
  }
}

class SocksProxy extends Relay {
  protected readonly scheme = 'socks5'
  protected readonly server: Server

  constructor(options: ProxyOptions) {
    super()
    this.server = createServer((client) => {
      client.on('error', () => client.destroy())
      void this.#serve(client, options).catch(() => client.destroy())
    })
  }

  async #serve(client: Socket, { login, says }: ProxyOptions): Promise<void> {
    const take = async (length: number): Promise<Buffer> => {
      for (;;) {
        const got = client.read(length) as Buffer | null
        if (got !== null) return got
        await once(client, 'readable')
      }
    }
    const [, count = 0] = await take(2)
    const methods = await take(count)
    const wanted = login === undefined ? 0 : 2
    if (!methods.includes(wanted)) return void client.end(Buffer.of(5, 0xff))
    client.write(Buffer.of(5, wanted))
    if (login !== undefined) {
      const user = await take((await take(2))[1] ?? 0)
      const password = await take((await take(1))[0] ?? 0)
      const right = `${user.toString()}:${password.toString()}` === login
      client.write(Buffer.of(1, right ? 0 : 1))
      if (!right) return void client.end()
    }
    const kind = (await take(4))[3]
    const address =
      kind === 1 ? await take(4) : kind === 4 ? await take(16) : await take((await take(1))[0] ?? 0)
    const port = (await take(2)).readUInt16BE()
    if (says !== undefined)
      return void client.end(Buffer.of(5, Number(says), 0, 1, 0, 0, 0, 0, 0, 0))
    const host = kind === 1 ? address.join('.') : kind === 3 ? address.toString() : v6(address)
    try {
      const server = await this.join(client, host, port)
      client.write(Buffer.of(5, 0, 0, 1, 127, 0, 0, 1, 0, 0))
      client.pipe(server)
      server.pipe(client)
    } catch {
      client.end(Buffer.of(5, 5, 0, 1, 0, 0, 0, 0, 0, 0))
    }
  }
}

function v6(address: Buffer): string {
  return Array.from({ length: 8 }, (_, at) => address.readUInt16BE(at * 2).toString(16)).join(':')
}

/** An HTTP proxy that knows CONNECT only. */
export async function httpProxy(options: ProxyOptions = {}): Promise<TestProxy> {
  return await new HttpProxy(options).listen()
}

/**
 * The same behind TLS. `anchor`: PEM of the root that its certificate is of, for the address it listens at unless `names`
 * says otherwise.
 */
export async function httpsProxy({
  names = ['127.0.0.1'],
  ...options
}: ProxyOptions & { readonly names?: readonly string[] } = {}): Promise<
  TestProxy & { readonly anchor: string }
> {
  const root = await makeRoot('proxy root')
  const { keys, certificate } = await makeServer(root, names)
  const tls = { key: await keyPem(keys.privateKey), cert: certificate.toString('pem') }
  const proxy = await new HttpProxy(options, tls).listen()
  return Object.assign(proxy, { anchor: `${root.certificate.toString('pem')}\n` })
}

/** A SOCKS5 proxy; `says`: the number of its reply. */
export async function socksProxy(options: ProxyOptions = {}): Promise<TestProxy> {
  return await new SocksProxy(options).listen()
}
