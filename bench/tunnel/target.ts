/**
 * The process behind every path: takes lines, counts what comes on the bulk ones, sends on them when
 * told to, and gives back what comes on the others. Started by the bench, answers over IPC.
 */
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { bulk, decodeName, NAME_BYTES, type Name, type Reading } from './line.ts'
import { readInto } from './reads.ts'
import { answerWith } from './rpc.ts'
import { cpuSeconds } from './usage.ts'

interface Taken {
  readonly socket: Socket
  received: number
  pumping: Buffer | undefined
  stalled: boolean
}

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
  const line: Taken = { socket, received: 0, pumping: undefined, stalled: false }
  linesOf(name.path)[name.index] = line
  socket.on('drain', () => pump(line))
  return (chunk) => {
    line.received += chunk.length
  }
}

function pump(line: Taken): void {
  while (line.pumping !== undefined && !line.socket.destroyed && line.socket.write(line.pumping));
}

export interface PumpAsk {
  readonly path: number
  /** The first so many lines. */
  readonly count: number
  /** Octets per write; 0 ends it. */
  readonly size: number
}

const asks = {
  async listen(port: number): Promise<number> {
    const server = createServer({ noDelay: true }, take)
    server.listen({ port, host: '127.0.0.1', backlog: 4096 })
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
  pump({ path, count, size }: PumpAsk): void {
    const chunk = size === 0 ? undefined : bulk(size)
    for (const line of linesOf(path).slice(0, count)) {
      line.pumping = chunk
      pump(line)
    }
  },
  read({ path, pids }: { readonly path: number; readonly pids: readonly number[] }): Reading {
    const bytes = linesOf(path).map((line) => line?.received ?? 0)
    return { at: performance.now(), bytes, cpu: cpuSeconds(pids) }
  },
  close(path: number): void {
    for (const line of linesOf(path)) line?.socket.destroy()
    paths.delete(path)
  },
}
export type Target = typeof asks

answerWith(asks)
