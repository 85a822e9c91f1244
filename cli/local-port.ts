/**
 * The local port of a session, held before there is one: a grant counts from its first use, and a port that is
 * taken must not use it up. Who connects meanwhile waits, unread; what arrives by UDP is dropped, as UDP does.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { CliError } from './exit.ts'
import type { ListenAddress } from './input.ts'

type Transport = 'tcp' | 'udp'

/** So many connections wait for the session; further ones are closed at once. */
const MAX_WAITING = 64

/**
 * Takes the address by every transport that was not ruled out: only the gateway knows which one the process has.
 * Throws CliError `listen.failed` where there is none.
 */
export async function holdPort(address: ListenAddress): Promise<LocalPort> {
  const wanted: readonly Transport[] =
    address.transport === undefined ? ['tcp', 'udp'] : [address.transport]
  const held = new LocalPort(address)
  for (const transport of wanted) await held.take(transport)
  if (held.transports.length > 0) return held
  throw held.failure ?? new Error('no transport was asked for')
}

export class LocalPort {
  readonly host: string
  /** The first transport that could not be had, where there is one. */
  failure: CliError | undefined
  readonly #port: number
  readonly #waiting = new Set<Socket>()
  #server: Server | undefined
  #udp: UdpSocket | undefined
  #accept = (socket: Socket): void => this.#wait(socket)

  constructor({ host, port }: ListenAddress) {
    this.host = host
    this.#port = port
  }

  /** By which the port is held: a session is of use by these alone. */
  get transports(): readonly Transport[] {
    return [
      ...(this.#server === undefined ? [] : (['tcp'] as const)),
      ...(this.#udp === undefined ? [] : (['udp'] as const)),
    ]
  }

  /** Holds the port by this transport; what stands against it becomes `failure`. */
  async take(transport: Transport): Promise<void> {
    try {
      if (transport === 'tcp') this.#server = await this.#listening()
      else this.#udp = await this.#bound()
    } catch (cause) {
      this.failure ??= failed(`${this.host}:${this.#port}`, cause)
    }
  }

  /** Connections go to `accept` from now on, those that wait first; gives the port. UDP is given back. */
  serveTcp(accept: (socket: Socket) => void): number {
    const server = this.#server
    if (server === undefined) throw this.failure ?? notHeld('tcp')
    this.#udp?.close()
    this.#udp = undefined
    server.maxConnections = Infinity
    this.#accept = accept
    for (const socket of this.#waiting) accept(socket)
    this.#waiting.clear()
    const at = server.address()
    return typeof at === 'object' && at !== null ? at.port : this.#port
  }

  /** The bound socket, which is the caller's from now on; TCP is given back. */
  serveUdp(): UdpSocket {
    const socket = this.#udp
    if (socket === undefined) throw this.failure ?? notHeld('udp')
    this.#udp = undefined
    this.close()
    return socket
  }

  /** Gives back whatever it still holds: takes no more connections, and resets those that wait. */
  close(): void {
    this.#server?.close()
    this.#udp?.close()
    this.#udp = undefined
    for (const socket of this.#waiting) socket.resetAndDestroy()
  }

  async #listening(): Promise<Server> {
    // Half-open: a client that has said all it has to say still hears the answer.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
    server.maxConnections = MAX_WAITING
    server.on('connection', (socket) => this.#accept(socket))
    server.listen(this.#port, this.host)
    await once(server, 'listening')
    return server
  }

  #wait(socket: Socket): void {
    this.#waiting.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#waiting.delete(socket))
  }

  async #bound(): Promise<UdpSocket> {
    const socket = createSocket(this.host.includes(':') ? 'udp6' : 'udp4')
    const listening = once(socket, 'listening')
    try {
      socket.bind({ address: this.host, port: this.#port, exclusive: true })
      await listening
    } catch (error) {
      socket.close()
      throw error
    }
    return socket.on('error', () => {})
  }
}

function failed(place: string, cause: unknown): CliError {
  const why = cause instanceof Error ? cause.message : String(cause)
  const next = 'choose another port with --listen, or port 0 for a free one'
  return new CliError(
    `cannot listen on ${place}`,
    { code: 'listen.failed', exit: 'failed', why, next },
    { cause },
  )
}

function notHeld(transport: Transport): Error {
  return new Error(`the local port is not held by ${transport}`)
}
