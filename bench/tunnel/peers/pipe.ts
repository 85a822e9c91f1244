/** What a Node programmer writes first: a connection per line on both hops, `pipe()` between them, no mux. */
import { connect as connectTcp } from 'node:net'
import { connect as connectTls, createServer } from 'node:tls'
import { join, listenOn, type Certificate } from '../hop.ts'
import type { Peer } from '../path.ts'
import { answerWith, Remote } from '../rpc.ts'

const asks = {
  /** Takes lines over TLS; each goes on over a TLS connection of its own. Gives the port. */
  async gateway({ certificate, far }: { certificate: Certificate; far: number }): Promise<number> {
    const server = createServer({ ...certificate, noDelay: true }, (line) => {
      const next = connectTls({ host: '127.0.0.1', port: far, ca: certificate.cert })
      next.setNoDelay(true)
      join(line, next)
    })
    return await listenOn(server)
  },
  async agent({ certificate, target }: { certificate: Certificate; target: number }) {
    const server = createServer({ ...certificate, noDelay: true }, (line) =>
      join(line, connectTcp({ host: '127.0.0.1', port: target, noDelay: true })),
    )
    return await listenOn(server)
  },
}

export const pipe: Peer = {
  name: 'pipe',
  says: 'node:tls pipe() chain, a connection per line',
  async start({ certificate, target, uplink }) {
    await using starting = new AsyncDisposableStack()
    const gateway = starting.use(new Remote<typeof asks>(import.meta.filename))
    const agent = starting.use(new Remote<typeof asks>(import.meta.filename))
    const far = await uplink(await agent.call('agent', { certificate, target }))
    const port = await gateway.call('gateway', { certificate, far })
    const running = starting.move()
    return {
      entry: { kind: 'tls', port, ca: certificate.cert },
      hops: { gateway: [gateway.pid], agent: [agent.pid] },
      [Symbol.asyncDispose]: () => running.disposeAsync(),
    }
  },
}

if (import.meta.main) answerWith(asks)
