/**
 * One session used from here: one tunnel to the gateway, one stream per connection of a local port, or
 * one for the two ends that a program was given.
 * Half-close and back-pressure go through both ways. What happens is told as news; who asked decides
 * how it is printed. Wire: docs/protocol.md; proof per stream: HMAC over the tunnel's TLS exporter.
 */
import { createHmac } from 'node:crypto'
import type { Socket } from 'node:net'
import {
  flush,
  readInto,
  SlabWriter,
  systemClock,
  TunnelRefused,
  type CloseReason,
  type Tunnel,
  type TunnelStream,
} from '#tunnel'
import { AWAITED, onceAnswered } from './awaited.ts'
import { DatagramPort } from './datagrams.ts'
import { Countdown } from './countdown.ts'
import { CliError } from './exit.ts'
import { dialGateway, shakeHands, type GatewayPlace } from './gateway-tunnel.ts'
import type { LocalPort } from './local-port.ts'
import { Pace, turn } from './pace.ts'
import {
  programEnd,
  readObject,
  reasonOf,
  refusal,
  text,
  type ProgramEnd,
  type Reason,
} from './reason.ts'
import { carry, type Ends } from './stdio.ts'
import type { PersonTerminal } from './terminal.ts'

export interface ForwardOptions {
  readonly gateway: GatewayPlace
  /** PEM of the gateway's root: nothing else is trusted. */
  readonly anchor: string
  readonly session: { readonly id: string; readonly secret: string; readonly remaining_ms: number }
  /** What carries the connections of the session; default tcp. Of udp the local port is one too. */
  readonly kind?: 'tcp' | 'udp' | 'spawn'
  /** The local port, held since before the session; absent where none is wanted, but `carry`. */
  readonly listen?: LocalPort
  /** This run's name in HELLO. */
  readonly instance: string
  readonly news: (news: News) => void
  /** Between two attempts of a connection that the people at the device are asked about; default: a pause in real time. */
  readonly pause?: (ms: number, signal: AbortSignal) => Promise<void>
}

/** How a carried connection ended; `program` is there where it was a program that did. */
export interface Carried extends Reason {
  readonly program?: ProgramEnd | undefined
}

export type News =
  | { readonly event: 'listening'; readonly host: string; readonly port: number }
  | { readonly event: 'connected'; readonly from: string }
  | { readonly event: 'refused'; readonly from: string; readonly reason: Reason }
  | {
      readonly event: 'closed'
      readonly from: string
      readonly reason: Reason
      readonly sent: number
      readonly received: number
    }
  | { readonly event: 'countdown'; readonly remaining_ms: number }
  /** Its grant was extended: so much is left of it now. */
  | { readonly event: 'extended'; readonly remaining_ms: number }
  /** The plant holds the session, or lets it go on; what was sent meanwhile waits. */
  | { readonly event: 'paused' | 'resumed'; readonly message: string }
  | { readonly event: 'ending'; readonly reason: Reason }
  /** The people at the device have been asked first, and have not answered; connections wait for them. Told once. */
  | { readonly event: 'awaited'; readonly message: string }

/** Two ends so close are one that was told twice. */
const SAME_END_MS = 500
/** From the announced end to the end of whatever is still open. */
const ENDING_MS = 500
/** A gateway that takes no more streams this second is asked again after one, so often in all. */
const TRIES = 5
const RETRY_MS = 1000
/** Refusals that nobody decided: something is not there, or does not answer. */
const NOT_POLICY = /^(?:client|device|node|target|tunnel)\./
const EXPORTER_LABEL = 'EXPORTER-sallyport-session'

export interface Forward {
  /** Resolves once, when the session or the tunnel has ended by itself. */
  readonly ended: Promise<Reason>
  /** Whether an end was announced by the gateway, and not merely a connection lost. */
  readonly announced: () => boolean
  /** The gateway says elsewhere that the session is over: ends here too, with that reason. */
  end(reason: Reason): void
  /**
   * Carries one connection between the session and `ends`; resolves when it is over, with `done` or why
   * not. With `terminal` a spawned program is offered it. Throws CliError with the code of the refusal
   * where it was not opened.
   */
  carry(ends: Ends, terminal?: PersonTerminal): Promise<Carried>
  /** Takes no more connections, ends those there are, leaves. */
  close(): Promise<void>
}

/**
 * Dials, proves itself, then serves the port where one is wanted: nobody who waits at it is heard before. Resolves when
 * it can be used. Throws CliError `gateway.unreachable`, `gateway.untrusted`, `listen.failed`, `tunnel.refused`.
 */
export async function openForward(options: ForwardOptions): Promise<Forward> {
  const socket = await dialGateway(options.gateway, options.anchor)
  const proof = createHmac('sha256', Buffer.from(options.session.secret, 'base64url'))
    .update(socket.exportKeyingMaterial(32, EXPORTER_LABEL, Buffer.alloc(0)))
    .digest('base64url')
  const metadata = { v: 1, session: options.session.id, proof }
  const tunnel = await shakeHands(socket, options)
  const forwarding = new Forwarding(tunnel, metadata, options)
  try {
    await forwarding.watch()
    if (options.listen !== undefined) forwarding.serve(options.listen)
  } catch (error) {
    await forwarding.close()
    throw error
  }
  return forwarding
}

class Forwarding implements Forward {
  readonly ended: Promise<Reason>
  readonly #tunnel: Tunnel
  readonly #metadata: object
  readonly #options: ForwardOptions
  readonly #kind: 'tcp' | 'udp' | 'spawn'
  #datagrams: DatagramPort | undefined
  readonly #local = new Set<Socket>()
  readonly #countdown: Countdown
  /** When the session ends by the last extension that was heard of; monotonic milliseconds. */
  #extended = -Infinity
  #held = ''
  #awaited = false
  #closing: NodeJS.Timeout | undefined
  readonly #pace = new Pace()
  #ending: Reason | undefined
  #over = false

  constructor(tunnel: Tunnel, metadata: object, options: ForwardOptions) {
    this.#tunnel = tunnel
    this.#metadata = metadata
    this.#options = options
    this.#kind = options.kind ?? 'tcp'
    this.ended = tunnel.closed.then((closed) => this.#finish(closed))
    const over: Reason = { code: 'window_end', message: 'the time of the session is over' }
    this.#countdown = new Countdown(options.session.remaining_ms, {
      left: (remaining_ms) => options.news({ event: 'countdown', remaining_ms }),
      over: () => this.end(over),
    })
  }

  readonly announced = (): boolean => this.#ending !== undefined

  /** A stream of its own for the end of the session, which may come while no connection is open. */
  async watch(): Promise<void> {
    try {
      const metadata = Buffer.from(JSON.stringify(this.#metadata))
      const stream = await this.#tunnel.open('control', metadata)
      stream.onSignal = (payload) => this.#hear(payload)
      stream.onClose = (closed) => {
        if (!this.#over) this.end(reasonOf(closed.code, closed.message))
      }
    } catch (cause) {
      const { code, message, next, id } = refusal(cause)
      const why = message === '' ? undefined : message
      throw new CliError(
        'the gateway did not take the session',
        { code, exit: 'ended', why, next, id },
        { cause },
      )
    }
  }

  serve(local: LocalPort): void {
    // Over before it began: the reason is told by `ended`.
    if (this.#over || this.#ending !== undefined) return
    const port =
      this.#kind === 'udp' ? this.#hearDatagrams(local) : local.serveTcp((one) => this.#take(one))
    this.#options.news({ event: 'listening', host: local.host, port })
  }

  #hearDatagrams(local: LocalPort): number {
    const { news } = this.#options
    const socket = local.serveUdp()
    this.#datagrams = new DatagramPort(socket, {
      open: (signal) => this.#stream(signal),
      opened: (from, stream) => {
        stream.onSignal = (payload) => this.#hear(payload)
        news({ event: 'connected', from })
      },
      refused: (from, error) => news({ event: 'refused', from, reason: refusal(error) }),
      closed: (from, stream, closed) => this.#tellClosed(from, stream, closed),
    })
    return socket.address().port
  }

  /** Takes no more connections. */
  #deaf(): void {
    this.#options.listen?.close()
    this.#datagrams?.close()
  }

  #tellClosed(from: string, stream: TunnelStream, closed: CloseReason): void {
    const reason = this.#ending ?? reasonOf(closed.code, closed.message)
    const { bytesOut: sent, bytesIn: received } = stream
    this.#options.news({ event: 'closed', from, reason, sent, received })
  }

  end(reason: Reason): void {
    if (this.#ending !== undefined) return
    this.#ending = reason
    this.#options.news({ event: 'ending', reason })
    this.#options.listen?.close()
    // The gateway cuts the streams itself, each with its reason; what it does not cut ends with the tunnel.
    this.#closing = setTimeout(() => this.#tunnel.close('client.done'), ENDING_MS)
  }

  async carry(ends: Ends, terminal?: PersonTerminal): Promise<Carried> {
    const gone = new AbortController()
    const leave = (): void => gone.abort()
    ends.writer.once('error', leave)
    let stream: TunnelStream
    try {
      const told =
        terminal === undefined ? {} : { terminal: { ...terminal.size(), term: terminal.term } }
      stream = await this.#stream(gone.signal, told)
    } catch (cause) {
      const { code, message, next, id } = refusal(cause)
      const why = message === '' ? undefined : message
      const exit = NOT_POLICY.test(code) ? 'failed' : 'denied'
      throw new CliError('the connection was not opened', { code, exit, why, next, id }, { cause })
    }
    ends.writer.off('error', leave)
    let program: ProgramEnd | undefined
    stream.onSignal = (payload) => {
      this.#hear(payload)
      const end = programEnd(payload)
      if (end === undefined) return
      program = end
      // Nobody is there any more who could be told something.
      ends.reader.destroy()
      stream.end()
    }
    if (terminal !== undefined && readObject(stream.answer)['terminal'] === true) {
      terminal.onResize((size) =>
        stream.signal(Buffer.from(JSON.stringify({ t: 'winsize', ...size }))),
      )
      terminal.begin()
    }
    const closed = await carry(stream, ends)
    return { ...reasonOf(closed.code, closed.message), program }
  }

  async close(): Promise<void> {
    this.#over = true
    this.#deaf()
    for (const socket of this.#local) socket.destroy()
    this.#tunnel.close('client.done')
    await this.#tunnel.closed
  }

  #finish(closed: CloseReason): Reason {
    this.#over = true
    this.#countdown.stop()
    clearTimeout(this.#closing)
    this.#deaf()
    for (const socket of this.#local) socket.resetAndDestroy()
    return this.#ending ?? reasonOf(closed.code, closed.message)
  }

  #take(local: Socket): void {
    const from = `${local.remoteAddress ?? '?'}:${local.remotePort ?? 0}`
    this.#local.add(local)
    local.on('error', () => local.destroy())
    local.on('close', () => this.#local.delete(local))
    this.#open(local, from).catch((error: unknown) => {
      this.#options.news({ event: 'refused', from, reason: refusal(error) })
      // A reset, not an end: the tool must not take it for an empty answer.
      local.resetAndDestroy()
    })
  }

  async #open(local: Socket, from: string): Promise<void> {
    const gone = new AbortController()
    const leave = (): void => gone.abort()
    local.once('close', leave)
    const stream = await this.#stream(gone.signal)
    local.off('close', leave)
    if (local.destroyed) {
      stream.reset('client.gone')
      return
    }
    this.#options.news({ event: 'connected', from })
    this.#join(local, stream, from)
  }

  /** Waits for the people at the device where they are asked about it; no longer than whoever connects, and the session. */
  async #stream(signal: AbortSignal, told: object = {}): Promise<TunnelStream> {
    const { pause = turn } = this.#options
    return await onceAnswered(() => this.#tried(signal, told), {
      codeOf: (error) => refusal(error).code,
      told: () => this.#await(),
      pause: (ms) => pause(ms, signal),
      now: () => performance.now(),
    })
  }

  /** However many connections wait, their person reads it once. */
  #await(): void {
    if (this.#awaited) return
    this.#awaited = true
    this.#options.news({ event: 'awaited', message: AWAITED })
  }

  /** Waits its turn. A gateway that finds this too fast all the same is asked again, a few times. */
  async #tried(signal: AbortSignal, told: object): Promise<TunnelStream> {
    const metadata = Buffer.from(JSON.stringify({ ...this.#metadata, ...told }))
    for (let left = TRIES; ; left--) {
      const waits = this.#pace.next(performance.now())
      if (waits === undefined)
        throw new TunnelRefused('client.pace', 'too many connections wait for their turn here')
      await turn(waits, signal)
      try {
        return await this.#tunnel.open(this.#kind, metadata, { signal })
      } catch (error) {
        const fast = error instanceof TunnelRefused && error.code === 'tunnel.pace'
        if (!fast || left <= 1) throw error
        await turn(RETRY_MS, signal)
      }
    }
  }

  /** Bytes both ways. Credit goes back when the tool's own socket has taken them: a slow tool slows the device. */
  #join(local: Socket, stream: TunnelStream, from: string): void {
    const writer = new SlabWriter(local, (bytes) => stream.consumed(bytes))
    stream.onSignal = (payload) => this.#hear(payload)
    stream.onDrain = () => void local.resume()
    stream.onEnd = () => writer.end()
    stream.onClose = (closed) => {
      this.#tellClosed(from, stream, closed)
      if (closed.code !== 'done') local.resetAndDestroy()
      else flush(local, systemClock)
    }
    stream.onData = (chunk) => writer.write(chunk)
    readInto(local, (chunk) => {
      if (!stream.write(chunk)) local.pause()
    })
    local.on('end', () => stream.end())
    // After FIN both ways this is too late to matter; before, the tool has left in the middle.
    local.on('close', () => stream.reset('client.gone'))
    local.resume()
  }

  /** Told on every stream of the session: the first to hear it says so. */
  #extend(remaining_ms: number): void {
    const ends = performance.now() + remaining_ms
    if (this.#over || ends - this.#extended < SAME_END_MS) return
    this.#extended = ends
    this.#countdown.restart(remaining_ms)
    this.#options.news({ event: 'extended', remaining_ms })
  }

  /** Told on every stream of the session: once is enough. */
  #hold(event: 'paused' | 'resumed', message: string): void {
    if (this.#held === event + message) return
    this.#held = event + message
    this.#options.news({ event, message })
  }

  #hear(payload: Uint8Array): void {
    const signal = readObject(payload)
    if (signal['t'] === 'countdown' && typeof signal['remaining_ms'] === 'number')
      this.#options.news({ event: 'countdown', remaining_ms: signal['remaining_ms'] })
    if (signal['t'] === 'extended' && typeof signal['remaining_ms'] === 'number')
      this.#extend(signal['remaining_ms'])
    if (signal['t'] === 'paused' || signal['t'] === 'resumed')
      this.#hold(signal['t'], text(signal['msg']) ?? 'the session goes on')
    if (signal['t'] === 'ending')
      this.end({
        code: text(signal['code']) ?? 'session.ended',
        message: text(signal['msg']) ?? '',
        next: text(signal['next_step']),
        id: text(signal['decision_id']),
      })
  }
}
