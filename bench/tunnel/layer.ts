/**
 * The tunnel layer alone, core to core over TLS, beside plain TLS and node:http2 on the same machine:
 * no gateway, no agent. Both ends are in this process, so that what they cost is one number. Started by
 * the bench, answers over IPC.
 */
import { once } from 'node:events'
import { connect as connectHttp2, createSecureServer } from 'node:http2'
import type { ClientHttp2Session, ServerHttp2Stream } from 'node:http2'
import { connect as connectTls, createServer, type TLSSocket } from 'node:tls'
import { ALPN, dialTls, driveTunnel, type Tunnel, type TunnelStream } from '#tunnel'
import { listenOn, type Certificate } from './hop.ts'
import { bulk } from './line.ts'
import { readInto } from './reads.ts'
import { answerWith } from './rpc.ts'

type Kind = 'tunnel' | 'tls'

/** What arrived so far at this end, by who sent it. */
const received: Record<Kind, number> = { tunnel: 0, tls: 0 }
const CHUNK = 64 * 1024
/** First octet of OPEN's metadata: the other end takes nothing of this stream. */
const STALLS = 1
/** A bench opens as fast as it can; floods are what the limits are for. */
const UNLIMITED = { opensPerSecond: 1e9, maxStreams: 1 << 20 }

/** Takes tunnels and plain connections on one port, told apart by ALPN. */
async function serve(certificate: Certificate): Promise<number> {
  const server = createServer({ ...certificate, ALPNProtocols: [ALPN, 'plain'] }, (socket) => {
    socket.on('error', () => socket.destroy())
    socket.setNoDelay(true)
    if (socket.alpnProtocol === ALPN) void acceptTunnel(socket)
    else readInto(socket, (chunk) => void (received.tls += chunk.length))
  })
  return await listenOn(server)
}

async function acceptTunnel(socket: TLSSocket): Promise<void> {
  const options = { role: 'gateway', side: 'acceptor', instance: 'far', epoch: 0 } as const
  const tunnel = await driveTunnel(socket, { ...options, limits: UNLIMITED })
  tunnel.onOpen = (offer) => {
    const stalls = offer.metadata[0] === STALLS
    const stream = offer.accept(new Uint8Array(0))
    stream.onData = (chunk) => {
      if (stalls) return
      received.tunnel += chunk.length
      stream.consumed(chunk.length)
    }
    stream.onEnd = () => stream.end()
  }
}

let certificate: Certificate | undefined
let tunnel: Tunnel | undefined
let stream: TunnelStream | undefined
let plain: TLSSocket | undefined
export type Crowd = 'alone' | 'beside'
const crowds = { alone: [] as TunnelStream[], beside: [] as TunnelStream[], lost: 0 }
const chunk = bulk(CHUNK)

function fill(kind: Kind): void {
  const to = kind === 'tunnel' ? stream : plain
  while (to !== undefined && to.write(chunk));
}

async function dialTunnel(port: number): Promise<Tunnel> {
  const connection = { host: '127.0.0.1', port, ca: certificate?.cert ?? '' }
  return await dialTls(connection, { role: 'agent', instance: 'near', epoch: 0, limits: UNLIMITED })
}

const asks = {
  async listen(given: Certificate): Promise<number> {
    certificate = given
    return await serve(given)
  },
  /** A bulk stream and a plain connection, both through `port`. */
  async dial(port: number): Promise<void> {
    tunnel = await dialTunnel(port)
    stream = await tunnel.open('tcp', new Uint8Array(0))
    stream.onDrain = () => fill('tunnel')
    plain = connectTls({
      host: '127.0.0.1',
      port,
      ca: certificate?.cert ?? '',
      ALPNProtocols: ['plain'],
    })
    await once(plain, 'secureConnect')
    plain.setNoDelay(true)
    plain.on('drain', () => fill('tls'))
  },
  /** From now on both send all they can. */
  start(): void {
    for (const kind of ['tunnel', 'tls'] as const) fill(kind)
  },
  /** Octets per second that arrive from each, in the same window of time. */
  async rates(ms: number): Promise<Record<Kind, number>> {
    const [from, began] = [{ ...received }, performance.now()]
    await pause(ms)
    const seconds = (performance.now() - began) / 1000
    return {
      tunnel: (received.tunnel - from.tunnel) / seconds,
      tls: (received.tls - from.tls) / seconds,
    }
  },
  hangUp(): void {
    tunnel?.close('bench.done')
    plain?.destroy()
    stream = plain = undefined
  },
  /** Streams opened, accepted and ended both ways per second, `atOnce` at any time. */
  async opens({ port, ms, atOnce }: { port: number; ms: number; atOnce: number }): Promise<number> {
    const own = await dialTunnel(port)
    const rate = await perSecond(ms, atOnce, async () => {
      const opened = await own.open('tcp', new Uint8Array(0))
      const { promise, resolve } = Promise.withResolvers<void>()
      opened.onClose = () => resolve()
      opened.onEnd = () => undefined
      opened.end()
      await promise
    })
    own.close('bench.done')
    return rate
  },
  /** Requests answered and ended both ways per second, `atOnce` at any time. */
  async requests({ ms, atOnce }: { ms: number; atOnce: number }): Promise<number> {
    const server = createSecureServer({
      ...certificate,
      settings: { maxConcurrentStreams: 8192 },
    })
    server.on('stream', (answer: ServerHttp2Stream) => {
      answer.respond({ ':status': 200 }, { endStream: true })
      answer.resume()
    })
    const port = await listenOn(server)
    const session = connectHttp2(`https://127.0.0.1:${port}`, { ca: certificate?.cert ?? '' })
    await once(session, 'connect')
    const rate = await perSecond(ms, atOnce, () => request(session))
    session.destroy()
    server.close()
    return rate
  },
  /**
   * Two tunnels with so many readers each, and on the second also streams whose reader takes nothing
   * while their sender writes all it may. Gives the octets that these made both ends grow by, without
   * what waits at the sender.
   */
  async stall({ port, readers, stalled }: StallAsk): Promise<number> {
    for (const which of ['alone', 'beside'] as const) {
      const own = await dialTunnel(port)
      crowds[which] = await Promise.all(
        Array.from({ length: readers }, () => own.open('tcp', new Uint8Array(0))),
      )
      if (which === 'alone') continue
      const before = await inUse()
      const flood = async (): Promise<void> => {
        const one = await own.open('tcp', Uint8Array.of(STALLS))
        one.onDrain = () => writeOn(one, () => true)
        one.onClose = () => crowds.lost++
        writeOn(one, () => true)
      }
      await Promise.all(Array.from({ length: stalled }, flood))
      await pause(500)
      return (await inUse()) - before - own.stats().pendingBytes
    }
    return Number.NaN
  },
  /** Octets per second of the readers of one of the two, and how many stalled streams are gone. */
  async crowd({
    which,
    ms,
  }: {
    which: Crowd
    ms: number
  }): Promise<{ rate: number; lost: number }> {
    let sending = true
    for (const stream of crowds[which]) {
      stream.onDrain = () => writeOn(stream, () => sending)
      writeOn(stream, () => sending)
    }
    await pause(ms / 3)
    const [from, began] = [received.tunnel, performance.now()]
    await pause(ms)
    const rate = (received.tunnel - from) / ((performance.now() - began) / 1000)
    sending = false
    for (let last = -1; last !== received.tunnel; await pause(60)) last = received.tunnel
    return { rate, lost: crowds.lost }
  },
  /** Octets that one idle stream holds at one end: half of what both ends grew by, without garbage. */
  async idle({ port, streams }: { port: number; streams: number }): Promise<number> {
    const own = await dialTunnel(port)
    const held: TunnelStream[] = []
    for (let warm = 0; warm < 64; warm++) held.push(await own.open('tcp', new Uint8Array(0)))
    const before = await inUse()
    for (let at = 0; at < streams; at++) held.push(await own.open('tcp', new Uint8Array(0)))
    const grown = (await inUse()) - before
    if (held.length !== streams + 64) throw new Error('a stream is missing')
    own.close('bench.done')
    return grown / streams / 2
  },
}
export type Layer = typeof asks

export interface StallAsk {
  readonly port: number
  readonly readers: number
  readonly stalled: number
}

function writeOn(stream: TunnelStream, wanted: () => boolean): void {
  while (wanted() && stream.write(chunk));
}

async function pause(ms: number): Promise<void> {
  await new Promise((wake) => setTimeout(wake, ms))
}

async function request(session: ClientHttp2Session): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const stream = session.request({ ':path': '/' }, { endStream: true })
  stream.on('close', resolve)
  stream.on('error', reject)
  stream.resume()
  await promise
}

async function perSecond(ms: number, atOnce: number, work: () => Promise<void>): Promise<number> {
  const began = performance.now()
  let done = 0
  const worker = async (): Promise<void> => {
    while (performance.now() - began < ms) {
      await work()
      done++
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return done / ((performance.now() - began) / 1000)
}

/** Heap and what hangs on it, after garbage collection. */
async function inUse(): Promise<number> {
  if (globalThis.gc === undefined) throw new Error('this process needs --expose-gc')
  for (let turn = 0; turn < 3; turn++) {
    globalThis.gc()
    await pause(20)
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

answerWith(asks)
