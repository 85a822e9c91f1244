/**
 * The mux core alone, both ends in one thread and memory for a wire, against plain TLS on loopback
 * with an end per thread, interleaved in the same run. A regression is found here without a network.
 */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import tls from 'node:tls'
import { Worker } from 'node:worker_threads'
import { defaultLimits, Session } from '#mux'
import type { Monotonic, MuxStream } from '#mux'
import { dialTls, driveTunnel } from '#tunnel'
import type { Tunnel } from '#tunnel'
import { selfSigned } from '../test/transport/certificate.ts'
import type { Row } from './row.ts'

const KiB = 1024
/** Plain TLS may keep as much in flight as the tunnel does: it is to be at its best. */
const IN_FLIGHT = 16
const now = (): Monotonic => performance.now() as Monotonic

interface Credentials {
  readonly key: string
  readonly cert: string
}

/** Two greeted sessions and one accepted stream between them. */
function corePair(): { one: Session; two: Session; stream: MuxStream } {
  const make = (side: 'dialler' | 'acceptor'): Session =>
    new Session(
      {
        side,
        role: 'gateway',
        instance: side,
        epoch: 0,
        limits: defaultLimits,
        random: Math.random,
      },
      now(),
    )
  const one = make('dialler')
  const two = make('acceptor')
  for (let turn = 0; turn < 4; turn++) cross(one, two)
  const stream = one.open('tcp', new Uint8Array(0), now())
  if (typeof stream === 'string') throw new Error(stream)
  cross(one, two)
  for (const offered of two.streams) two.accept(offered, new Uint8Array(0))
  cross(one, two)
  return { one, two, stream }
}

/** Carries what both have to say; the receiving applications consume at once. */
function cross(one: Session, two: Session): void {
  carry(one, two)
  carry(two, one)
}

function carry(from: Session, to: Session): void {
  for (let slab = from.output(now()); slab !== undefined; slab = from.output(now())) {
    const at = now()
    for (const effect of to.receive(slab, at)) {
      if (effect.type === 'data') to.consumed(effect.stream, effect.end - effect.start, at)
    }
    from.sent()
    from.poll()
  }
}

/** Gigabytes per second through two cores, written in pieces of `size` for `ms`. */
function coreRate(size: number, ms: number): { gigabytes: number; writes: number } {
  const { one, two, stream } = corePair()
  const chunk = new Uint8Array(size).fill(7)
  let bytes = 0
  const began = now()
  let elapsed = 0
  while (elapsed < ms) {
    for (let at = 0; at < 64; at++) {
      while (!stream.wantsDrain) {
        one.write(stream, chunk)
        bytes += size
      }
      cross(one, two)
    }
    elapsed = now() - began
  }
  return { gigabytes: stream.bytesOut / elapsed / 1e6, writes: bytes / size / (elapsed / 1000) }
}

const sinkSource = `
  const tls = require('node:tls')
  const { parentPort, workerData } = require('node:worker_threads')
  const server = tls.createServer(workerData, (socket) => {
    socket.on('error', () => {})
    socket.resume()
  })
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
`

/** Gigabytes per second into a TLS connection whose other end, in another thread, reads and drops. */
async function tlsRate(credentials: Credentials, ms: number): Promise<number> {
  const worker = new Worker(sinkSource, { eval: true, workerData: credentials })
  try {
    const [port] = (await once(worker, 'message')) as [number]
    const socket = tls.connect({
      host: '127.0.0.1',
      port,
      ca: credentials.cert,
    })
    await once(socket, 'secureConnect')
    const chunk = Buffer.alloc(64 * KiB, 7)
    const began = now()
    await new Promise<void>((resolve) => {
      let out = 0
      const written = (): void => {
        out--
        if (now() - began > ms) resolve()
        else while (out < IN_FLIGHT) send()
      }
      const send = (): void => {
        out++
        socket.write(chunk, written)
      }
      while (out < IN_FLIGHT) send()
    })
    const rate = (socket.bytesWritten - socket.writableLength) / (now() - began) / 1e6
    socket.destroy()
    return rate
  } finally {
    await worker.terminate()
  }
}

/** Gigabytes per second through a tunnel over TLS with both ends in this thread. */
async function tunnelRate(
  credentials: Credentials,
  ms: number,
  plainReads: boolean,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<Tunnel>()
  const server = tls.createServer({ ...credentials, ALPNProtocols: ['sallyport/1'] }, (socket) => {
    const options = {
      role: 'gateway',
      side: 'acceptor',
      instance: 'b',
      epoch: 0,
      plainReads,
    } as const
    driveTunnel(socket, options).then(resolve, reject)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const connection = {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    ca: credentials.cert,
  }
  const options = { role: 'agent', instance: 'a', epoch: 0, plainReads } as const
  const [dialler, acceptor] = await Promise.all([dialTls(connection, options), promise])
  let received = 0
  acceptor.onOpen = (offer) => {
    const stream = offer.accept(new Uint8Array(0))
    stream.onData = (chunk) => {
      received += chunk.length
      stream.consumed(chunk.length)
    }
  }
  const stream = await dialler.open('tcp', new Uint8Array(0))
  const chunk = Buffer.alloc(64 * KiB, 7)
  const began = now()
  const fill = (): void => {
    while (now() - began < ms && stream.write(chunk));
  }
  stream.onDrain = fill
  fill()
  await new Promise((wake) => setTimeout(wake, ms))
  const rate = received / (now() - began) / 1e6
  dialler.close('bench.done')
  await acceptor.closed
  server.close()
  return rate
}

interface Samples {
  readonly core: number[]
  readonly small: number[]
  readonly plain: number[]
  readonly ratio: number[]
  readonly reused: number[]
  readonly events: number[]
}

async function measure(rounds: number, ms: number): Promise<Samples> {
  const credentials = await selfSigned()
  const samples: Samples = { core: [], small: [], plain: [], ratio: [], reused: [], events: [] }
  coreRate(64 * KiB, ms / 4)
  for (let round = 0; round < rounds; round++) {
    const core = coreRate(64 * KiB, ms).gigabytes
    const plain = await tlsRate(credentials, ms)
    samples.core.push(core)
    samples.plain.push(plain)
    samples.ratio.push(core / plain)
    samples.small.push(coreRate(64, ms / 2).writes / 1e6)
    samples.reused.push(await tunnelRate(credentials, ms, false))
    samples.events.push(await tunnelRate(credentials, ms, true))
  }
  return samples
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const high = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? 0) + high) / 2
}

function row(metric: string, values: readonly number[], unit: string, reference: string): Row {
  const value = median(values)
  const apart = Math.max(...values.map((each) => Math.abs(each - value)))
  const spread = `±${Math.round((100 * apart) / value)} %`
  return { metric, value: Number(value.toPrecision(3)), unit, reference, spread }
}

export const bench = {
  name: 'mux',
  title: 'the mux core alone, and a tunnel over TLS, against plain TLS on loopback',
  async run({ quick }: { readonly quick: boolean }): Promise<Row[]> {
    const { core, small, plain, ratio, reused, events } = await measure(
      quick ? 5 : 9,
      quick ? 700 : 2000,
    )
    const tlsReference = 'plain TLS, an end per thread'
    return [
      row('core_vs_tls', ratio, 'x', `${tlsReference}; bar 8`),
      row('core, 64 KiB writes', core, 'GB/s', 'both ends in one thread'),
      row('core, 64 B writes', small, 'M writes/s', 'both ends in one thread'),
      row('plain TLS', plain, 'GB/s', 'an end per thread'),
      row('tunnel over TLS, reused reads', reused, 'GB/s', 'both ends in one thread'),
      row('tunnel over TLS, plain reads', events, 'GB/s', 'both ends in one thread'),
    ]
  },
}
