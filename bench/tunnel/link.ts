/**
 * A long line in user space, for machines whose kernel has no netem: whatever connects to it is carried
 * on to a port, both ways, each octet so many milliseconds later and not faster than the line. Loses
 * nothing. It ends TCP on both sides, so it is the far end's patience that is tested, not TCP's.
 */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { answerWith } from './rpc.ts'

export interface LinkAsk {
  /** Where it leads to on 127.0.0.1. */
  readonly port: number
  /** There and back. */
  readonly rttMs: number
  readonly bytesPerSecond: number
}

/** How much may wait to be put on the line, as in a router's buffer: time of the line, ms. */
const BUFFER_MS = 10

/** One direction of one connection. */
function carry(from: Socket, to: Socket, { rttMs, bytesPerSecond }: LinkAsk): void {
  const delay = rttMs / 2
  const perMs = bytesPerSecond / 1000
  const queue: { readonly at: number; readonly chunk: Buffer }[] = []
  let free = 0
  let timer: NodeJS.Timeout | undefined
  const deliver = (): void => {
    timer = undefined
    const now = performance.now()
    while ((queue[0]?.at ?? Infinity) <= now) {
      const next = queue.shift()
      if (next !== undefined && !to.destroyed) to.write(next.chunk)
    }
    if (from.isPaused() && free - now < BUFFER_MS) from.resume()
    arm(now)
  }
  const arm = (now: number): void => {
    const first = queue[0]
    if (timer !== undefined || (first === undefined && !from.isPaused())) return
    // While its sender is held back it looks again soon, when the line has room.
    const due = from.isPaused() ? Math.min(first?.at ?? Infinity, now + 1) : (first?.at ?? now)
    timer = setTimeout(deliver, Math.max(0, due - now))
  }
  from.on('data', (chunk: Buffer) => {
    const now = performance.now()
    free = Math.max(free, now) + chunk.length / perMs
    queue.push({ at: free + delay, chunk })
    if (free - now > BUFFER_MS) from.pause()
    arm(now)
  })
  from.on('error', () => from.destroy())
  from.on('close', () => setTimeout(() => to.destroy(), delay))
}

const asks = {
  /** Gives the port to dial instead. */
  async open(ask: LinkAsk): Promise<number> {
    const server = createServer({ noDelay: true }, (near) => {
      const far = connect({ port: ask.port, host: '127.0.0.1', noDelay: true })
      carry(near, far, ask)
      carry(far, near, ask)
    })
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 })
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  },
}
export type Link = typeof asks

answerWith(asks)
