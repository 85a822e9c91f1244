/** How lines are opened on each kind of path: a TCP or TLS connection, or a stream of a client tunnel. */
import { createHmac, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { driveTunnel, type Tunnel, type TunnelStream } from '#tunnel'
import { dialGateway } from '../../cli/gateway-tunnel.ts'
import type { Entry, Session } from './line.ts'
import { readInto } from './reads.ts'

/** A line as the load generator uses it; the handlers are its own to set. */
export interface Line {
  /** Takes all of it; false: wait for `drained`. */
  write(chunk: Uint8Array): boolean
  end(): void
  /** Takes nothing any more. */
  stall(): void
  /** The memory is used again once it returns. */
  bytes: (chunk: Uint8Array) => void
  drained: () => void
  closed: (why: string) => void
}

export interface Opener {
  /** The line with that number; it may not reach the target yet. */
  open(index: number): Promise<Line>
  close(): Promise<void>
}

const nothing = () => undefined

export function openerOf(entry: Entry): Opener {
  if (entry.kind === 'sallyport') return new ClientTunnel(entry)
  return {
    open: async () =>
      socketLine(
        entry.kind === 'tcp'
          ? await dialled(connectTcp(entry.port, '127.0.0.1'), 'connect')
          : await dialled(
              connectTls({ port: entry.port, host: '127.0.0.1', ca: entry.ca }),
              'secureConnect',
            ),
      ),
    close: () => Promise.resolve(),
  }
}

async function dialled(socket: Socket, event: string): Promise<Socket> {
  socket.setNoDelay(true)
  await once(socket, event)
  return socket
}

function socketLine(socket: Socket): Line {
  const line: Line = {
    write: (chunk) => !socket.destroyed && socket.write(chunk),
    end: () => socket.destroy(),
    stall: () => void socket.pause(),
    bytes: nothing,
    drained: nothing,
    closed: nothing,
  }
  socket.on('drain', () => line.drained())
  let failure = 'closed'
  socket.on('error', (error) => (failure = error.message))
  socket.on('close', () => line.closed(failure))
  readInto(socket, (chunk) => line.bytes(chunk))
  return line
}

/** A vendor's program pipes a socket into a stream; a chunk of its socket is this long. */
const PIECE = 64 * 1024

function streamLine(stream: TunnelStream): Line {
  let open = true
  let stalled = false
  const line: Line = {
    write(chunk) {
      let more = open
      for (let at = 0; at < chunk.length && open; at += PIECE)
        more = stream.write(chunk.subarray(at, at + PIECE)) && more
      return more
    },
    end: () => stream.reset('client.done'),
    stall: () => (stalled = true),
    bytes: nothing,
    drained: nothing,
    closed: nothing,
  }
  stream.onData = (chunk) => {
    if (stalled) return
    line.bytes(chunk)
    stream.consumed(chunk.length)
  }
  stream.onDrain = () => line.drained()
  stream.onClose = ({ code, message }) => {
    open = false
    line.closed(`${code} ${message}`)
  }
  return line
}

type Gateway = Extract<Entry, { kind: 'sallyport' }>
const EXPORTER_LABEL = 'EXPORTER-sallyport-session'

/** What `sallyport connect` does (cli/forward.ts), without its local port. */
class ClientTunnel implements Opener {
  readonly #sessions: readonly Session[]
  readonly #dialled: Promise<{ readonly tunnel: Tunnel; readonly exporter: Buffer }>

  constructor(entry: Gateway) {
    this.#sessions = entry.sessions
    this.#dialled = dial(entry)
    this.#dialled.catch(nothing)
  }

  async open(index: number): Promise<Line> {
    const { tunnel, exporter } = await this.#dialled
    const { id, secret } = this.#sessionOf(index)
    const proof = createHmac('sha256', Buffer.from(secret, 'base64url'))
      .update(exporter)
      .digest('base64url')
    const metadata = Buffer.from(JSON.stringify({ v: 1, session: id, proof }))
    return streamLine(await tunnel.open('tcp', metadata))
  }

  async close(): Promise<void> {
    const { tunnel } = await this.#dialled
    tunnel.close('client.done')
    await tunnel.closed
  }

  /** What is beyond the others is in the last. */
  #sessionOf(index: number): Session {
    let first = 0
    for (const session of this.#sessions) {
      if (index < first + session.streams) return session
      first += session.streams
    }
    const last = this.#sessions.at(-1)
    if (last === undefined) throw new Error('no session to open a stream in')
    return last
  }
}

async function dial({ port, anchor }: Gateway) {
  const socket = await dialGateway({ host: 'localhost', port }, anchor)
  const exporter = socket.exportKeyingMaterial(32, EXPORTER_LABEL, Buffer.alloc(0))
  const tunnel = await driveTunnel(socket, {
    role: 'client',
    side: 'dialler',
    instance: randomUUID(),
    epoch: 0,
  })
  return { tunnel, exporter }
}
