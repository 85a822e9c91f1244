/**
 * The process behind every path: takes lines, counts what comes on the bulk ones, sends on them when
 * told to, and gives back what comes on the others. Started by the bench, answers over IPC.
 */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { bulk, decodeName, isBulk, NAME_BYTES, type Name, type Reading } from './line.ts'
import { readInto } from './reads.ts'
import { answerWith } from './rpc.ts'
import { cpuSeconds } from './usage.ts'

interface Taken {
  readonly socket: Socket
  received: number
  pumping: Buffer | undefined
  /** Octets that may still be sent. */
  left: number
  /** False once something arrived, while it was looked at, that was not sent. */
  intact: boolean
}

/** Off where time is measured: looking at every octet takes longer than carrying it. */
let looking = false

const paths = new Map<number, Taken[]>()

function linesOf(path: number): Taken[] {
  const lines = paths.get(path) ?? []
  paths.set(path, lines)
  return lines
}

function take(socket: Socket): void {
  let held = Buffer.alloc(0)
  let sink: ((chunk: Uint8Array) => void) | undefined
  socket.on('error', () => socket.destroy())
  readInto(socket, (chunk) => {
    if (sink !== undefined) {
      sink(chunk)
      return
    }
    held = Buffer.concat([held, chunk])
    if (held.length < NAME_BYTES) return
    sink = serve(socket, decodeName(held))
    const rest = held.subarray(NAME_BYTES)
    socket.write(Buffer.of(1))
    if (rest.length > 0) sink(rest)
  })
}

function serve(socket: Socket, name: Name): (chunk: Uint8Array) => void {
  if (name.purpose === 'echo') return (chunk) => void socket.write(Uint8Array.from(chunk))
  const line: Taken = { socket, received: 0, pumping: undefined, left: 0, intact: true }
  linesOf(name.path)[name.index] = line
  socket.on('drain', () => pump(line))
  return (chunk) => {
    if (looking && !isBulk(chunk, line.received)) line.intact = false
    line.received += chunk.length
  }
}

function pump(line: Taken): void {
  let more = !line.socket.destroyed
  while (more && line.pumping !== undefined && line.left > 0) {
    line.left -= line.pumping.length
    more = line.socket.write(line.pumping)
  }
}

export interface PumpAsk {
  readonly path: number
  /** The first so many lines. */
  readonly count: number
  /** Octets per write; 0 ends it. */
  readonly size: number
  /** Octets per line, a multiple of `size`; without an end where absent. */
  readonly bytes?: number
}

export interface StallAsk {
  readonly path: number
  /** Lines `from` up to, not with, `count`. */
  readonly from: number
  readonly count: number
}

export interface FloodAsk extends StallAsk {
  /** Octets per line; Infinity without an end. */
  readonly bytes: number
}

const asks = {
  async listen(port: number): Promise<number> {
    const server = createServer({ noDelay: true }, take)
    server.listen({ port, host: '127.0.0.1', backlog: 4096 })
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
  pump({ path, count, size, bytes = Infinity }: PumpAsk): void {
    const chunk = size === 0 ? undefined : bulk(size)
    for (const line of linesOf(path).slice(0, count)) {
      line.pumping = chunk
      line.left = bytes
      pump(line)
    }
  },
  /** Sends so much on each of these lines; a later `pump` of others leaves them at it. */
  flood({ path, from, count, bytes }: FloodAsk): void {
    const chunk = bulk(64 * 1024)
    for (const line of linesOf(path).slice(from, count)) {
      line.pumping = chunk
      line.left = bytes
      pump(line)
    }
  },
  read({ path, pids }: { readonly path: number; readonly pids: readonly number[] }): Reading {
    const bytes = linesOf(path).map((line) => line?.received ?? 0)
    return { at: performance.now(), bytes, cpu: cpuSeconds(pids) }
  },
  /** From now on every octet is looked at. */
  look(): void {
    looking = true
  },
  /** Per line: what arrived, and whether it was what was sent. */
  seen(path: number): { received: number; intact: boolean }[] {
    return linesOf(path).map(({ received, intact }) => ({ received, intact }))
  },
  close(path: number): void {
    for (const line of linesOf(path)) line?.socket.destroy()
    paths.delete(path)
  },
}
export type Target = typeof asks

answerWith(asks)
