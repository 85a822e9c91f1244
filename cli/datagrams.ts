/**
 * A local UDP port of a session: each program that sends to it has a stream of its own, for as long as
 * something passes. Boundaries are kept; what cannot go on at once is dropped, as UDP does.
 */
import type { RemoteInfo, Socket } from 'node:dgram'
import { systemClock, type Clock, type CloseReason, type TunnelStream } from '#tunnel'

export interface DatagramPortOptions {
  /** A stream of kind udp; rejects with why there is none. */
  readonly open: (signal: AbortSignal) => Promise<TunnelStream>
  readonly opened: (from: string, stream: TunnelStream) => void
  readonly refused: (from: string, error: unknown) => void
  readonly closed: (from: string, stream: TunnelStream, reason: CloseReason) => void
  readonly clock?: Clock
}

/** So many programs at once; a further one is not heard until one of them has been silent for long. */
const MAX_PEERS = 64
/** Nothing either way for so long: the stream is given back. As NATs do. */
const IDLE_MS = 60_000
/** A refusal is not asked for again with every datagram. */
const REFUSED_MS = 1000
/** What one program sends before its stream is there. */
const MAX_EARLY_BYTES = 64 * 1024
const MAX_EARLY = 64
/** What the kernel has not taken yet, for all of them. */
const MAX_UNSENT_BYTES = 1024 * 1024

interface Peer {
  readonly address: string
  readonly port: number
  readonly gone: AbortController
  early: Buffer[]
  earlyBytes: number
  stream: TunnelStream | undefined
  cancelIdle: () => void
  lastAt: number
}

export class DatagramPort {
  readonly #options: DatagramPortOptions
  readonly #clock: Clock
  readonly #socket: Socket
  readonly #peers = new Map<string, Peer>()
  #closed = false

  /** `socket` is bound, and belongs to this port from now on. */
  constructor(socket: Socket, options: DatagramPortOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#socket = socket
    // A program that is gone is told to whoever sends to it next; that is no failure of the port.
    socket.on('error', () => {})
    socket.on('message', (datagram, from) => this.#take(datagram, from))
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const peer of this.#peers.values()) this.#forget(peer, 'client.done')
    this.#socket.close()
  }

  #take(datagram: Buffer, { address, port }: RemoteInfo): void {
    const from = nameOf(address, port)
    const peer = this.#peers.get(from) ?? this.#meet(address, port, from)
    if (peer === undefined) return
    peer.lastAt = this.#clock.now()
    if (peer.stream !== undefined) peer.stream.write(datagram)
    else if (
      peer.early.length < MAX_EARLY &&
      peer.earlyBytes + datagram.length <= MAX_EARLY_BYTES
    ) {
      peer.early.push(datagram)
      peer.earlyBytes += datagram.length
    }
  }

  #meet(address: string, port: number, from: string): Peer | undefined {
    if (this.#peers.size >= MAX_PEERS || this.#closed) return undefined
    const peer: Peer = {
      address,
      port,
      gone: new AbortController(),
      early: [],
      earlyBytes: 0,
      stream: undefined,
      cancelIdle: () => {},
      lastAt: this.#clock.now(),
    }
    this.#peers.set(from, peer)
    this.#options.open(peer.gone.signal).then(
      (stream) => this.#join(peer, from, stream),
      (error: unknown) => {
        if (this.#closed) return
        this.#options.refused(from, error)
        peer.early = []
        peer.cancelIdle = this.#clock.after(REFUSED_MS, () => this.#peers.delete(from))
      },
    )
    return peer
  }

  #join(peer: Peer, from: string, stream: TunnelStream): void {
    peer.stream = stream
    stream.onClose = (reason) => {
      peer.cancelIdle()
      this.#peers.delete(from)
      this.#options.closed(from, stream, reason)
    }
    stream.onEnd = () => stream.end()
    stream.onData = (datagram) => {
      stream.consumed(datagram.length)
      peer.lastAt = this.#clock.now()
      if (this.#closed || this.#socket.getSendQueueSize() > MAX_UNSENT_BYTES) return
      // It is lent for this call, and the kernel may take it later.
      this.#socket.send(Uint8Array.from(datagram), peer.port, peer.address, () => {})
    }
    this.#options.opened(from, stream)
    if (this.#closed) return this.#forget(peer, 'client.done')
    for (const datagram of peer.early) stream.write(datagram)
    peer.early = []
    this.#watch(peer, IDLE_MS)
  }

  #watch(peer: Peer, ms: number): void {
    peer.cancelIdle = this.#clock.after(ms, () => {
      const left = peer.lastAt + IDLE_MS - this.#clock.now()
      if (left > 0) this.#watch(peer, left)
      else peer.stream?.end()
    })
  }

  #forget(peer: Peer, code: string): void {
    peer.cancelIdle()
    peer.gone.abort()
    peer.stream?.reset(code)
  }
}

function nameOf(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}
