/**
 * The two processes between load generator and target where a peer is a Node library: the gateway
 * takes lines over TLS and one connection that the agent dials, also over TLS; what carries lines over
 * that one is the peer's. Ends destroy each other: a bench has no half-closed lines.
 */
import { once } from 'node:events'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, createServer, type TLSSocket } from 'node:tls'
import type { Path, Site } from './path.ts'
import { answerWith, Remote } from './rpc.ts'

export interface Certificate {
  readonly key: string
  readonly cert: string
}

/** How a library carries lines over one connection. */
export interface Carriage {
  /** At the gateway, over what the agent dialled: gives what is done with each line. */
  gateway(uplink: TLSSocket): (line: TLSSocket) => void
  /** At the agent: each line goes on to `toTarget()`. */
  agent(uplink: TLSSocket, toTarget: () => Socket): void
}

const hopAsks = (carriage: Carriage) => ({
  /** Listens for lines and for the agent; gives both ports. */
  async gateway(certificate: Certificate): Promise<{ near: number; far: number }> {
    let carry: ((line: TLSSocket) => void) | undefined
    const far = createServer(certificate, (uplink) => {
      uplink.setNoDelay(true)
      carry = carriage.gateway(uplink)
    })
    const near = createServer(certificate, (line) => {
      line.setNoDelay(true)
      line.on('error', () => line.destroy())
      if (carry === undefined) line.destroy()
      else carry(line)
    })
    return { near: await listenOn(near), far: await listenOn(far) }
  },
  /** Dials the gateway; resolves once TLS stands. */
  async agent({ ca, far, target }: AgentAsk): Promise<void> {
    const uplink = connectTls({ host: '127.0.0.1', port: far, ca })
    await once(uplink, 'secureConnect')
    uplink.setNoDelay(true)
    carriage.agent(uplink, () => connectTcp({ host: '127.0.0.1', port: target, noDelay: true }))
  },
})
export type Hop = ReturnType<typeof hopAsks>

interface AgentAsk {
  readonly ca: string
  readonly far: number
  readonly target: number
}

/** In the child. */
export function answerAsHop(carriage: Carriage): void {
  answerWith(hopAsks(carriage))
}

export async function listenOn(server: ReturnType<typeof createServer>): Promise<number> {
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** Both ends of a line as one, with back-pressure; one that fails takes the other with it. */
export function join(a: Duplex, b: Duplex): void {
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.on('error', () => one.destroy())
    one.on('close', () => other.destroy())
    one.pipe(other)
  }
}

/** In the bench: two processes of `file`, one as gateway, one as agent. */
export async function startHops(file: string, site: Site): Promise<Path> {
  await using starting = new AsyncDisposableStack()
  const gateway = starting.use(new Remote<Hop>(file))
  const agent = starting.use(new Remote<Hop>(file))
  const { near, far } = await gateway.call('gateway', site.certificate)
  const { cert: ca } = site.certificate
  await agent.call('agent', { ca, far: await site.uplink(far), target: site.target })
  const running = starting.move()
  return {
    entry: { kind: 'tls', port: near, ca },
    hops: { gateway: [gateway.pid], agent: [agent.pid] },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  }
}
