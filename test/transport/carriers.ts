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
  answerRelay,
  ALPN,
  dialTls,
  dialUnix,
  dialWebSocket,
  driveTunnel,
  listenUnix,
  memoryPair,
  openRelay,
} from '#tunnel'
import type { Tunnel, TunnelOptions } from '#tunnel'
import { selfSigned } from './certificate.ts'

type Tuning = Partial<Pick<TunnelOptions, 'limits' | 'plainReads' | 'turns'>>
/** Two ends of one tunnel, and how to put away what carried it. */
export interface Joined {
  readonly dialler: Tunnel
  readonly acceptor: Tunnel
  dispose(): Promise<void>
}
export interface Carrier {
  readonly name: string
  /** Streams go over a second tunnel on their way. */
  readonly relayed?: true
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

/** A tunnel whose streams all go to `route` at the other end of `tunnel`. */
function towards(tunnel: Tunnel, route: string): Tunnel {
  return {
    get peer() {
      return tunnel.peer
    },
    get rttMs() {
      return tunnel.rttMs
    },
    get draining() {
      return tunnel.draining
    },
    closed: tunnel.closed,
    onOpen: undefined,
    onGoaway: undefined,
    open: async (kind, metadata, options) => openRelay(tunnel, { route, kind, metadata }, options),
    goaway: (...args) => tunnel.goaway(...args),
    close: (...args) => tunnel.close(...args),
    stats: () => tunnel.stats(),
  }
}

/** `first` from the opener to a gateway, `second` from there to who answers. */
function relay(first: Carrier, second: Carrier, name: string): Carrier {
  return {
    name,
    relayed: true,
    async join(dialler, acceptor) {
      const one = await first.join(dialler, acceptor)
      const two = await second.join(dialler, acceptor)
      one.acceptor.onOpen = (offer) =>
        void answerRelay(offer, (route) => (route === 'press-07' ? two.dialler : undefined))
      return {
        dialler: towards(one.dialler, 'press-07'),
        acceptor: two.acceptor,
        async dispose() {
          for (const end of [one.acceptor, two.dialler]) end.close('test.over')
          await Promise.all([one.acceptor.closed, two.dialler.closed])
          await one.dispose()
          await two.dispose()
        },
      }
    },
  }
}

const named = (name: string): Carrier => {
  const carrier = carriers.find((one) => one.name === name)
  if (carrier === undefined) throw new Error(name)
  return carrier
}

/** A gateway between the two: worker to worker of a node, and node to node. */
export const relays: readonly Carrier[] = [
  relay(named('Unix socket'), named('TLS, reused read buffer'), 'relay by a Unix socket'),
  relay(named('TLS, reused read buffer'), named('TLS, reused read buffer'), 'relay by TLS'),
]
