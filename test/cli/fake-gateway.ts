/**
 * A gateway as the CLI meets it: real TLS under a root of its own, answers that a test gives, and a
 * real tunnel acceptor. One port, told apart by ALPN, as the real one.
 */
import { once } from 'node:events'
import { createServer as createHttp, type IncomingMessage } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer, type TLSSocket } from 'node:tls'
import { driveTunnel, type Tunnel } from '#tunnel'
import { saveCredentials } from '../../cli/login/index.ts'
import { keyPem, makeRoot, makeServer } from '../demo/certificates.ts'

export interface Call {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: unknown
}

export interface Answer {
  readonly status?: number
  readonly body: unknown
  /** In place of `body`, where that is not JSON. */
  readonly bytes?: Uint8Array
}

export interface FakeGateway extends AsyncDisposable {
  readonly port: number
  readonly origin: string
  /** PEM of the root. */
  readonly anchor: string
  /** A SALLYPORT_HOME of its own, in which somebody is signed in. */
  readonly home: string
  readonly calls: readonly Call[]
  /** What `METHOD /path` answers from now on. */
  answer(what: string, answer: Answer | ((call: Call) => Answer)): void
  /** The next tunnel's first stream is refused with this code. */
  refuseTunnel(code: string): void
  /** Resolves with the next tunnel and the socket under it. */
  tunnel(): Promise<{ readonly tunnel: Tunnel; readonly socket: TLSSocket }>
}

export async function startFakeGateway(): Promise<FakeGateway> {
  const root = await makeRoot('fake root')
  const server = await makeServer(root, ['localhost', '127.0.0.1'])
  const anchor = `${root.certificate.toString('pem')}\n`
  const answers = new Map<string, Answer | ((call: Call) => Answer)>()
  const calls: Call[] = []
  const waiting: ((found: { tunnel: Tunnel; socket: TLSSocket }) => void)[] = []
  const refusals: string[] = []
  const http = createHttp((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const body: unknown = text === '' ? undefined : JSON.parse(text)
      const call = {
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        body,
      }
      calls.push(call)
      // Which page of a list is asked for is the test's business where it says so.
      const [plain = ''] = call.path.split('?')
      const found =
        answers.get(`${call.method} ${call.path}`) ?? answers.get(`${call.method} ${plain}`)
      const answer = typeof found === 'function' ? found(call) : found
      response.writeHead(answer === undefined ? 404 : (answer.status ?? 200), {
        'content-type': 'application/json',
      })
      response.end(answer?.bytes ?? JSON.stringify(answer?.body ?? null))
    })
  })
  const sockets = new Set<TLSSocket>()
  const tls = createServer(
    {
      key: await keyPem(server.keys.privateKey),
      cert: server.certificate.toString('pem'),
      ALPNProtocols: ['sallyport/1', 'http/1.1'],
    },
    (socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => sockets.delete(socket))
      if (socket.alpnProtocol !== 'sallyport/1') {
        http.emit('connection', socket)
        return
      }
      driveTunnel(socket, { role: 'gateway', side: 'acceptor', instance: 'fake', epoch: 1 }).then(
        (tunnel) => {
          // The first stream waits for the end of the session; those after it are the test's.
          tunnel.onOpen = (offer) => {
            tunnel.onOpen = undefined
            const refused = refusals.shift()
            if (refused !== undefined) return offer.refuse(refused, 'refused')
            offer.accept(new TextEncoder().encode('{"v":1}'))
            waiting.shift()?.({ tunnel, socket })
          }
        },
        () => socket.destroy(),
      )
    },
  )
  tls.on('tlsClientError', () => {})
  tls.listen(0, '127.0.0.1')
  await once(tls, 'listening')
  const address = tls.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const origin = `https://localhost:${port}`
  const home = mkdtempSync(join(tmpdir(), 'sallyport-cli-'))
  await signIn(home, origin, anchor)
  return {
    port,
    origin,
    anchor,
    home,
    calls,
    answer: (what, answer) => void answers.set(what, answer),
    refuseTunnel: (code) => void refusals.push(code),
    async tunnel() {
      const { promise, resolve } = Promise.withResolvers<{ tunnel: Tunnel; socket: TLSSocket }>()
      waiting.push(resolve)
      return promise
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await tls[Symbol.asyncDispose]()
      rmSync(home, { recursive: true })
    },
  }
}

/** What a device flow leaves behind; the fake takes any token. */
async function signIn(home: string, gateway: string, anchor: string): Promise<void> {
  const { subtle } = globalThis.crypto
  const pair = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])
  const { x = '', y = '', d = '' } = await subtle.exportKey('jwk', pair.privateKey)
  await saveCredentials(join(home, 'credentials'), {
    v: 1,
    gateway,
    issuer: `${gateway}/oidc`,
    clientId: 'sallyport-cli',
    resource: `${gateway}/api`,
    anchor,
    accessToken: 'an-access-token',
    refreshToken: 'a-refresh-token',
    expiresAt: Date.now() + 3_600_000,
    subject: 'somebody',
    clockSkew: 0,
    key: { kty: 'EC', crv: 'P-256', x, y, d },
  })
}
