/** Every carrier a tunnel has, as one way to get two connected tunnels. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import {
  acceptWebSocket,
  ALPN,
  dialTls,
  dialUnix,
  dialWebSocket,
  driveTunnel,
  listenUnix,
  memoryPair,
} from '#tunnel'
import type { Tunnel, TunnelOptions } from '#tunnel'
import { selfSigned } from './certificate.ts'

type Tuning = Partial<Pick<TunnelOptions, 'limits' | 'plainReads'>>
/** Two ends of one tunnel, and how to put away what carried it. */
export interface Joined {
  readonly dialler: Tunnel
  readonly acceptor: Tunnel
  dispose(): Promise<void>
}
export interface Carrier {
  readonly name: string
  join(dialler?: Tuning, acceptor?: Tuning): Promise<Joined>
}

const dials = (tuning: Tuning = {}) =>
  ({ role: 'agent', instance: 'dialler', epoch: 7, ...tuning }) as const
const accepts = (tuning: Tuning = {}) =>
  ({ role: 'gateway', instance: 'acceptor', epoch: 8, ...tuning }) as const

export function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}

async function closed(server: Server): Promise<void> {
  server.close()
  await once(server, 'close')
}

let credentials: Promise<{ key: string; cert: string }> | undefined
/** One certificate for the whole run. */
export async function certificate(): Promise<{ key: string; cert: string }> {
  return (credentials ??= selfSigned())
}

/** A TLS server that speaks the tunnel's ALPN, on a free loopback port. */
export async function tlsServer(onSocket: (socket: tls.TLSSocket) => void): Promise<tls.Server> {
  const { key, cert } = await certificate()
  const server = tls.createServer({ key, cert, ALPNProtocols: [ALPN] }, onSocket)
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

async function joinTls(dialler: Tuning = {}, acceptor: Tuning = {}): Promise<Joined> {
  const { cert } = await certificate()
  const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
  const server = await tlsServer((socket) => {
    driveTunnel(socket, { ...accepts(acceptor), side: 'acceptor' }).then(resolve, reject)
  })
  const connection = { host: '127.0.0.1', port: portOf(server), ca: cert }
  const [one, two] = await Promise.all([dialTls(connection, dials(dialler)), promise])
  return { dialler: one, acceptor: two, dispose: () => closed(server) }
}

export const carriers: readonly Carrier[] = [
  {
    name: 'memory',
    async join(dialler, acceptor) {
      const [a, b] = memoryPair()
      const [one, two] = await Promise.all([
        driveTunnel(a, { ...dials(dialler), side: 'dialler' }),
        driveTunnel(b, { ...accepts(acceptor), side: 'acceptor' }),
      ])
      return { dialler: one, acceptor: two, dispose: async () => undefined }
    },
  },
  { name: 'TLS, reused read buffer', join: joinTls },
  {
    name: 'TLS, plain reads',
    join: (dialler, acceptor) =>
      joinTls({ plainReads: true, ...dialler }, { plainReads: true, ...acceptor }),
  },
  {
    name: 'WebSocket',
    async join(dialler, acceptor) {
      const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
      const server = http.createServer()
      server.on('upgrade', (request, socket, head) => {
        acceptWebSocket({ request, socket, head }, accepts(acceptor)).then(resolve, reject)
      })
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      const url = `ws://127.0.0.1:${portOf(server)}/`
      const [one, two] = await Promise.all([dialWebSocket(url, {}, dials(dialler)), promise])
      return { dialler: one, acceptor: two, dispose: () => closed(server) }
    },
  },
  {
    name: 'Unix socket',
    async join(dialler, acceptor) {
      const folder = await mkdtemp(join(tmpdir(), 'sallyport-'))
      const path = join(folder, 'tunnel')
      const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
      const server = await listenUnix(path, accepts(acceptor), resolve, reject)
      const [one, two] = await Promise.all([dialUnix(path, dials(dialler)), promise])
      const dispose = async (): Promise<void> => {
        await closed(server)
        await rm(folder, { recursive: true, force: true })
      }
      return { dialler: one, acceptor: two, dispose }
    },
  },
]
