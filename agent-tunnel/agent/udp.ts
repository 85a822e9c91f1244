/**
 * A UDP target: a connected socket, so that only the target's own datagrams come back and the network's
 * refusals are heard. Boundaries are kept. Nothing is queued for long: what cannot go now is dropped and
 * counted. A datagram passes only while the sockets that get it are those whose owners were looked at.
 */
import { createSocket } from 'node:dgram'
import type { Socket } from 'node:dgram'
import { once } from 'node:events'
import type { Clock, TunnelStream } from '#tunnel'
import { Refused } from './ask.ts'
import { messageOf, systemCode } from './errors.ts'
import type { Kind, LineRoom, Session } from './line.ts'
import { assertBeside, endsOf, observe } from './observe.ts'
import { printEndpoint } from './scope/address.ts'
import type { Endpoint } from './scope/address.ts'
import type { ProcessScope, Sighting } from './scope/owner.ts'
import { isBeside } from './target.ts'

const CONNECT_TIMEOUT_MS = 5000
/** No datagram passes on a look at the kernel's table that is older than this. */
const GLANCE_MS = 10
/** What the kernel has not taken yet; as what waits for the wire (docs/protocol.md section 8). */
const MAX_UNSENT_BYTES = 256 * 1024

export const udp: Kind = {
  stream: 'udp',
  async open(target, { process }, room, cancelled) {
    assertBeside(process, target)
    const socket = await dial(target.endpoint, cancelled)
    try {
      const dialled = endsOf(socket.address(), socket.remoteAddress())
      if (dialled === undefined)
        throw new Refused('target.unreachable', 'the target is no address to send to')
      const sighting = isBeside(target)
        ? undefined
        : await observe(room, { ...dialled, transport: 'udp' }, cancelled)
      return new DatagramLine(socket, target.endpoint, room, sighting)
    } catch (error) {
      socket.close()
      throw error
    }
  },
}

async function dial({ address, port }: Endpoint, cancelled: AbortSignal): Promise<Socket> {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' })
  socket.on('error', () => {})
  try {
    const signal = AbortSignal.any([cancelled, AbortSignal.timeout(CONNECT_TIMEOUT_MS)])
    const connected = once(socket, 'connect', { signal })
    socket.connect(port, address)
    await connected
    return socket
  } catch (error) {
    socket.close()
    const end = printEndpoint({ address, port })
    throw new Refused('target.unreachable', `${end} cannot be sent to: ${messageOf(error)}`)
  }
}

/** What the network, or this machine's firewall, says of datagrams that were sent. */
const REFUSALS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing is bound to that port (ICMP port unreachable)',
  EHOSTUNREACH: 'the network has no way to that address (ICMP host unreachable)',
  ENETUNREACH: 'this machine has no way to that network (network unreachable)',
  EPERM: 'a firewall of this machine does not let it pass (EPERM)',
  EACCES: 'a firewall of this machine does not let it pass (EACCES)',
}

class DatagramLine {
  readonly observed
  sighting: Sighting | undefined
  readonly #socket: Socket
  readonly #end: string
  readonly #room: LineRoom
  readonly #guard: Guard | undefined
  #dropped = 0
  #closed = false

  constructor(socket: Socket, end: Endpoint, room: LineRoom, sighting: Sighting | undefined) {
    this.#socket = socket
    this.#end = printEndpoint(end)
    this.#room = room
    this.sighting = sighting
    this.observed = sighting?.observed ?? null
    this.#guard = sighting && new Guard(room.scope, room.clock, sighting)
  }

  flow(session: Session): void {
    const { stream, over } = session
    const socket = this.#socket
    stream.onClose = (reason) => {
      this.destroy()
      const dropped = this.#dropped + stream.dropped
      if (dropped > 0) this.#room.log('info', 'datagrams.dropped', { target: this.#end, dropped })
      over(reason)
    }
    stream.onSignal = () => {}
    // A datagram socket has no half-close: whoever has said all has heard all.
    stream.onEnd = () => {
      stream.end()
      this.destroy()
    }
    stream.onData = (datagram) => {
      stream.consumed(datagram.length)
      if (this.#passes(session)) this.#send(stream, datagram)
    }
    socket.on('message', (datagram) => {
      if (this.#passes(session)) stream.write(datagram)
    })
    socket.on('error', (error) => this.#failed(stream, error))
  }

  resighted(sighting: Sighting): void {
    this.#guard?.saw(sighting)
  }

  destroy(): void {
    if (this.#closed) return
    this.#closed = true
    this.#socket.close()
  }

  #passes(session: Session): boolean {
    if (this.#closed) return false
    if (this.#guard === undefined || this.#guard.passes()) return true
    this.#dropped++
    session.lookNow()
    return false
  }

  #send(stream: TunnelStream, datagram: Uint8Array): void {
    if (this.#socket.getSendQueueSize() > MAX_UNSENT_BYTES) {
      this.#dropped++
      return
    }
    // It is lent for this call, and the kernel may take it later.
    this.#socket.send(Uint8Array.from(datagram), (error) => {
      if (error !== null) this.#failed(stream, error)
    })
  }

  /** The network's refusals end the stream; what only this datagram could not do is its loss. */
  #failed(stream: TunnelStream, error: Error): void {
    if (this.#closed) return
    const says = REFUSALS[systemCode(error)]
    if (says === undefined) this.#dropped++
    else stream.reset('target.unreachable', `${this.#end}: ${says}`)
  }
}

/** Whether the sockets that get the datagrams still are those that were looked at. */
class Guard {
  readonly #scope: ProcessScope
  readonly #clock: Clock
  #sighting: Sighting
  #lookedAt = -Infinity
  #same = true

  constructor(scope: ProcessScope, clock: Clock, sighting: Sighting) {
    this.#scope = scope
    this.#clock = clock
    this.#sighting = sighting
  }

  saw(sighting: Sighting): void {
    this.#sighting = sighting
    this.#lookedAt = -Infinity
  }

  passes(): boolean {
    const now = this.#clock.now()
    if (now - this.#lookedAt < GLANCE_MS) return this.#same
    this.#lookedAt = now
    try {
      // In another network namespace it is the look of each second that tells.
      this.#same = this.#scope.glance(this.#sighting) ?? true
    } catch {
      this.#same = false
    }
    return this.#same
  }
}
