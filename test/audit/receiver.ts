/** A syslog receiver over TLS that can be killed and started again on the same port, and its certificates. */
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import * as x509 from '@peculiar/x509'
import { parseFrames, parseMessage, type ParsedMessage } from '#audit'
import { freePort } from '../support/port.ts'

export interface Pem {
  readonly cert: string
  readonly key: string
}
export interface Certificates {
  readonly ca: string
  readonly server: Pem
  readonly client: Pem
  readonly expired: Pem
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** A root, a server named `siem.test`, a client named `client.test`, and a client whose time is over. */
export async function makeCertificates(): Promise<Certificates> {
  const { subtle } = webcrypto
  const root = await subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const hour = 3_600_000
  const issue = async (name: string, from: number, to: number, isRoot = false): Promise<Pem> => {
    const keys = isRoot ? root : await subtle.generateKey(algorithm, true, ['sign', 'verify'])
    const certificate = await x509.X509CertificateGenerator.create(
      {
        serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(8)))
          .toString('hex')
          .replace(/^./, '1'),
        subject: `CN=${name}`,
        issuer: 'CN=test root',
        notBefore: new Date(Date.now() + from * hour),
        notAfter: new Date(Date.now() + to * hour),
        publicKey: keys.publicKey,
        signingKey: root.privateKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.BasicConstraintsExtension(isRoot, undefined, true),
          new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: name }]),
        ],
      },
      webcrypto as never,
    )
    const pkcs8 = Buffer.from(await subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
    const body = pkcs8.match(/.{1,64}/g)?.join('\n') ?? ''
    return {
      cert: certificate.toString('pem'),
      key: `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`,
    }
  }
  return {
    ca: (await issue('test root', -1, 24, true)).cert,
    server: await issue('siem.test', -1, 24),
    client: await issue('client.test', -1, 24),
    expired: await issue('client.test', -48, -24),
  }
}

export class Receiver {
  readonly messages: ParsedMessage[] = []
  readonly sizes: number[] = []
  /** Indexes of the events received, each once. */
  readonly indexes = new Set<number>()
  port = 0
  /** Called after each message; what a test waits on. */
  onMessage: () => void = () => undefined
  /** While true, connections are accepted and nothing is read from them. */
  deaf = false
  readonly #certificates: Certificates
  readonly #sockets = new Set<Socket>()
  readonly #served = new Set<TLSSocket>()
  #server: Server | null = null

  constructor(certificates: Certificates) {
    this.#certificates = certificates
  }

  async start(): Promise<void> {
    const { ca, server } = this.#certificates
    this.#server = createServer(
      { ca, ...server, requestCert: true, rejectUnauthorized: true },
      (socket) => this.#serve(socket),
    )
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    this.#server.on('tlsClientError', () => undefined)
    // It comes back to the port that it had.
    if (this.port === 0) this.port = await freePort()
    await new Promise<void>((resolve) => this.#server?.listen(this.port, '127.0.0.1', resolve))
  }

  #serve(socket: TLSSocket): void {
    let held = Buffer.alloc(0)
    this.#served.add(socket)
    socket.on('close', () => this.#served.delete(socket))
    if (this.deaf) socket.pause()
    else
      socket.on('data', (chunk: Buffer) => {
        const { frames, rest } = parseFrames(Buffer.concat([held, chunk]))
        held = Buffer.from(rest)
        for (const frame of frames) {
          const message = parseMessage(Uint8Array.from(frame))
          this.messages.push(message)
          if (message.id !== 'audit.checkpoint')
            this.indexes.add(Number(message.elements['sallyport@32473']?.['idx']))
          this.sizes.push(frame.length)
          this.onMessage()
        }
      })
    socket.on('error', () => undefined)
  }

  /** Connections that stand. */
  get connections(): number {
    return this.#sockets.size
  }

  /** As one does that closes what is idle: in order, with everything read. */
  hangUp(): void {
    for (const socket of this.#served) socket.end()
  }

  /** As kill -9 does: every connection is reset, what was read and not stored is gone. */
  async kill(): Promise<void> {
    for (const socket of this.#sockets) socket.resetAndDestroy()
    await new Promise<void>((resolve) => {
      if (this.#server === null) return resolve()
      this.#server.close(() => resolve())
    })
    this.#server = null
  }

  events(): ParsedMessage[] {
    return this.messages.filter(({ id }) => id !== 'audit.checkpoint')
  }
}
