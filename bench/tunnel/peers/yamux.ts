/** libp2p's yamux in JavaScript as the mux, over the TLS connection that the agent dialled. */
import { AbstractMultiaddrConnection } from '@libp2p/utils'
import { yamux as newYamux } from '@libp2p/yamux'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { answerAsHop, startHops, type Carriage } from '../hop.ts'
import type { Peer } from '../path.ts'

const WINDOW = 16 * 1024 * 1024

// The library's types by what it gives: its interfaces are a package of their own.
type StreamMuxer = ReturnType<ReturnType<ReturnType<typeof newYamux>>['createStreamMuxer']>
type Stream = Awaited<ReturnType<StreamMuxer['createStream']>>
type Logger = ConstructorParameters<typeof AbstractMultiaddrConnection>[0]['log']

const silent: Logger = Object.assign(() => undefined, {
  error: () => undefined,
  trace: () => undefined,
  enabled: false,
  newScope: () => silent,
})

/** A TLS socket as libp2p wants a connection. */
class Connection extends AbstractMultiaddrConnection {
  readonly #socket: TLSSocket

  constructor(socket: TLSSocket, direction: 'inbound' | 'outbound') {
    // Its address is told to nobody: there is no log.
    super({ direction, log: silent, remoteAddr: undefined as never, maxReadBufferLength: 1 << 30 })
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.onData(chunk))
    socket.on('drain', () => this.dispatchEvent(new Event('drain')))
    socket.on('error', (error) => this.abort(error))
    socket.on('close', () => this.onTransportClosed())
  }
  sendData(data: { readonly byteLength: number; [Symbol.iterator](): Iterator<Uint8Array> }) {
    let canSendMore = true
    this.#socket.cork()
    for (const piece of data) canSendMore = this.#socket.write(piece)
    this.#socket.uncork()
    return { sentBytes: data.byteLength, canSendMore }
  }
  sendReset(): void {
    this.#socket.destroy()
  }
  sendPause(): void {
    this.#socket.pause()
  }
  sendResume(): void {
    this.#socket.resume()
  }
  sendClose(): Promise<void> {
    this.#socket.end()
    return Promise.resolve()
  }
}

function muxer(socket: TLSSocket, direction: 'inbound' | 'outbound'): StreamMuxer {
  const streamOptions = { maxStreamWindowSize: WINDOW, maxReadBufferLength: 2 * WINDOW }
  const limits = { maxInboundStreams: 8192, maxOutboundStreams: 8192 }
  return newYamux({ ...limits, streamOptions, enableKeepAlive: false })().createStreamMuxer(
    new Connection(socket, direction),
  )
}

/** Both ends as one, with back-pressure. */
function splice(stream: Stream, socket: Socket): void {
  socket.on('data', (chunk: Buffer) => {
    if (!stream.send(chunk)) socket.pause()
  })
  stream.addEventListener('drain', () => socket.resume())
  stream.addEventListener('message', (event) => {
    let more = true
    for (const piece of pieces(event.data)) more = socket.write(piece)
    if (!more) stream.pause()
  })
  socket.on('drain', () => stream.resume())
  socket.on('error', () => socket.destroy())
  socket.on('close', () => stream.abort(new Error('the line has ended')))
  stream.addEventListener('close', () => socket.destroy())
  socket.resume()
}

function pieces(data: Uint8Array | Iterable<Uint8Array>): Iterable<Uint8Array> {
  return data instanceof Uint8Array ? [data] : data
}

const carriage: Carriage = {
  gateway(uplink) {
    const mux = muxer(uplink, 'inbound')
    return (line) => {
      line.pause()
      Promise.resolve(mux.createStream()).then(
        (stream) => splice(stream, line),
        () => line.destroy(),
      )
    }
  },
  agent(uplink, toTarget) {
    muxer(uplink, 'outbound').addEventListener('stream', ({ detail }) => splice(detail, toTarget()))
  },
}

export const yamux: Peer = {
  name: 'yamux',
  says: '@libp2p/yamux (JavaScript) between two Node processes, 16 MiB windows',
  start: (site) => startHops(import.meta.filename, site),
}

if (import.meta.main) answerAsHop(carriage)
