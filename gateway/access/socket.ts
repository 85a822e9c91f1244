/**
 * A WebSocket as the person's side of one connection (RFC 6455). Binary messages are its bytes; in a terminal, text
 * messages are what passes beside them, a JSON object each. docs/sockets.md.
 */
import type { WebSocket } from 'ws'
import type { CloseReason } from '#tunnel'
import { Allowance } from '../sessions/pace.ts'
import type { Side } from './splice.ts'

/** What a page speaks over its socket: bytes alone, or a terminal's bytes and signals. */
export const SUBPROTOCOLS = { stream: 'sallyport.stream.1', terminal: 'sallyport.terminal.1' }
export type Speech = keyof typeof SUBPROTOCOLS

/** Octets one way that wait with us: a reader who is behind holds up whoever writes, and nobody else. */
const HIGH = 256 * 1024
const LOW = 64 * 1024
/** The longest message a page may send; longer ones end the socket with 1009. */
export const MAX_MESSAGE = 256 * 1024
/** Beside the bytes, a page says little. */
const MAX_SIGNAL = 4096
/**
 * Messages a second, and at once. A hand and a mouse make a thousand; all sessions of a device share its tunnel's rate of
 * small frames, which a page must not reach.
 */
const MESSAGES_PER_S = 5_000
const MESSAGES_AT_ONCE = 10_000
/** How often a page is asked whether it is there still; one that is silent twice is gone. */
const PING_MS = 30_000
/** A page that is cut may hear why for this long; what it has not read by then is dropped. */
const CUT_GRACE_MS = 200

/** RFC 6455, section 7.4.1. */
const CLOSE = { done: 1000, unsupported: 1003, refused: 1008 } as const

export class SocketSide implements Side {
  readonly kind = 'tcp'
  onData: Side['onData']
  onEnd: Side['onEnd']
  onDrain: Side['onDrain']
  onSignal: Side['onSignal']
  readonly #ws: WebSocket
  readonly #speech: Speech
  readonly #pings: NodeJS.Timeout
  readonly #messages: Allowance
  #close: Side['onClose']
  #why: CloseReason | undefined
  /** Sent and not yet taken by the network; handed on and not yet taken by the device. */
  #sending = 0
  #owed = 0
  #full = false
  #ended = false
  #gone = false
  #silent = 0

  /** Nothing is read before `start`. `now` is monotonic milliseconds. */
  constructor(ws: WebSocket, speech: Speech, now = () => performance.now()) {
    this.#messages = new Allowance(MESSAGES_PER_S, MESSAGES_AT_ONCE, now())
    this.#ws = ws
    this.#speech = speech
    ws.binaryType = 'nodebuffer'
    ws.pause()
    ws.on('message', (data, binary) => {
      if (this.#why !== undefined || !(data instanceof Uint8Array)) return
      if (!this.#messages.take(now()))
        this.#refuse('client.pace', 'more messages than a page may send', CLOSE.refused)
      else if (binary) this.#take(data)
      else this.#hear(data)
    })
    // What failed is in the code of the close, which follows.
    ws.on('error', () => {})
    ws.on('close', () => {
      this.#why ??= { code: 'client.gone', message: 'the page was closed', fault: 'remote' }
      this.#gone = true
      clearInterval(this.#pings)
      this.#tell()
    })
    ws.on('pong', () => (this.#silent = 0))
    this.#pings = setInterval(() => this.#ping(), PING_MS)
    this.#pings.unref()
  }

  start(): void {
    this.#ws.resume()
  }

  write(chunk: Uint8Array): boolean {
    if (this.#why !== undefined) return false
    const { length } = chunk
    this.#sending += length
    // Lent for the call, and the network takes it later.
    this.#ws.send(Buffer.from(chunk), { binary: true }, () => this.#sent(length))
    this.#full ||= this.#sending > HIGH
    return !this.#full
  }

  /** The device has said all; a page cannot be half open, so this is its end too. It reads what was sent before. */
  end(): void {
    if (this.#why !== undefined) return
    this.#finish()
    this.#shut({ code: 'done', message: '', fault: 'local' }, CLOSE.done)
  }

  reset(code: string, message = ''): void {
    this.#shut({ code, message, fault: 'local' }, CLOSE.refused)
    const timer = setTimeout(() => this.#ws.terminate(), CUT_GRACE_MS)
    this.#ws.once('close', () => clearTimeout(timer))
  }

  signal(payload: Uint8Array): boolean {
    if (this.#why !== undefined) return false
    // A viewer of pictures takes every message for bytes.
    if (this.#speech === 'terminal') this.#ws.send(Buffer.from(payload), { binary: false })
    return true
  }

  consumed(bytes: number): void {
    this.#owed -= bytes
    if (this.#owed <= LOW && this.#ws.isPaused && this.#why === undefined) this.#ws.resume()
  }

  /** Called in a turn of its own, once, when no octet can pass any more. */
  set onClose(handler: Side['onClose']) {
    this.#close = handler
    if (this.#gone) this.#tell()
  }
  get onClose(): Side['onClose'] {
    return this.#close
  }

  #take(bytes: Uint8Array): void {
    if (this.#ended || bytes.length === 0) return
    this.#owed += bytes.length
    if (this.#owed > HIGH) this.#ws.pause()
    this.onData?.(bytes)
  }

  #hear(text: Uint8Array): void {
    if (this.#speech !== 'terminal' || text.length > MAX_SIGNAL) {
      this.#refuse('client.text', 'a text message that has no meaning here', CLOSE.unsupported)
      return
    }
    if (isEnd(text)) this.#finish()
    else this.onSignal?.(text)
  }

  #finish(): void {
    if (this.#ended) return
    this.#ended = true
    this.onEnd?.()
  }

  #sent(bytes: number): void {
    this.#sending -= bytes
    if (!this.#full || this.#sending > LOW || this.#why !== undefined) return
    this.#full = false
    this.onDrain?.()
  }

  #ping(): void {
    // Nothing is read of one that is held back, its answers neither; asking shows that its connection is there.
    if (this.#ws.isPaused) this.#silent = 0
    if (++this.#silent <= 2) this.#ws.ping()
    else {
      this.#why ??= { code: 'client.gone', message: 'the page does not answer', fault: 'remote' }
      this.#ws.terminate()
    }
  }

  #refuse(code: string, message: string, status: number): void {
    this.#shut({ code, message, fault: 'remote' }, status)
  }

  #shut(why: CloseReason, status: number): void {
    if (this.#why !== undefined) return
    this.#why = why
    // Its answer to this is to be read.
    this.#ws.resume()
    this.#ws.close(status, why.code)
  }

  #tell(): void {
    queueMicrotask(() => {
      const tell = this.#close
      this.#close = undefined
      if (this.#why !== undefined) tell?.(this.#why)
    })
  }
}

/** `{"t":"end"}`: the end of what the person types, in a program that reads to it. */
function isEnd(text: Uint8Array): boolean {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text))
    return typeof value === 'object' && value !== null && 't' in value && value.t === 'end'
  } catch {
    return false
  }
}
