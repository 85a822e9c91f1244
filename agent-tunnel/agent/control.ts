/** The control stream of a tunnel: newline-delimited JSON both ways, bounded both ways. */
import type { CloseReason, TunnelStream } from '#tunnel'
import { readRecord, writeRecord } from './json.ts'
import type { JsonRecord } from './json.ts'
import type { TargetsReport } from './reports.ts'
import type { Observed } from './scope/observed.ts'
import type { UpdateReport } from './update/report.ts'

/** What the agent tells the gateway of its own accord. */
export type Told =
  | ({ readonly type: 'targets' } & TargetsReport)
  | { readonly type: 'owner_changed'; readonly session: string; readonly observed: Observed }
  /** Show the log; a head of this size was shown before. */
  | { readonly type: 'log'; readonly size: number; readonly held?: string }
  /** This head was shown before, and what is shown now does not go on from it. */
  | { readonly type: 'log_conflict'; readonly note: string }
  /** Asked to look who listens, it has; what differed was told before. */
  | { readonly type: 'looked'; readonly id: number }
  | UpdateReport

/** What shows a log over four rotations that were missed has this much, and nothing else comes near it. */
const MAX_LINE_BYTES = 128 * 1024
/** Messages kept while the gateway does not read; more, and the two are no longer in step. */
const MAX_WAITING = 512
const NEWLINE = 0x0a

export interface ControlHandlers {
  /** The gateway asks for a renewal of the certificate. */
  readonly renew: () => void
  /** The gateway shows its log. */
  readonly shown: (log: JsonRecord) => void
  /** The gateway has an update, takes one back, or has heard what became of one. */
  readonly update: (message: JsonRecord) => void
  /** The gateway asks who listens now: to look, and then say so under this number. */
  readonly look: (id: number) => void
  /** The gateway broke the form, or stopped reading: the tunnel is of no use. */
  readonly broken: (code: string, says: string) => void
  readonly closed: (reason: CloseReason) => void
}

export class Control {
  readonly #stream: TunnelStream
  readonly #handlers: ControlHandlers
  #line: Uint8Array[] = []
  #lineBytes = 0
  #full = false
  #waiting: Uint8Array[] = []

  constructor(stream: TunnelStream, handlers: ControlHandlers) {
    this.#stream = stream
    this.#handlers = handlers
    stream.onDrain = () => this.#drain()
    stream.onEnd = () => stream.end()
    stream.onClose = (reason) => handlers.closed(reason)
    stream.onData = (chunk) => {
      this.#receive(chunk)
      stream.consumed(chunk.length)
    }
  }

  /** Sends a message, or keeps it until the gateway reads on. */
  tell(message: Told): void {
    const line = Buffer.concat([writeRecord({ ...message }), Buffer.of(NEWLINE)])
    if (!this.#full) this.#full = !this.#stream.write(line)
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(line)
    else
      this.#handlers.broken('control.unread', 'the gateway does not read what this device reports')
  }

  #drain(): void {
    this.#full = false
    while (!this.#full && this.#waiting.length > 0) {
      const [line] = this.#waiting.splice(0, 1)
      if (line !== undefined) this.#full = !this.#stream.write(line)
    }
  }

  #receive(chunk: Uint8Array): void {
    let rest = chunk
    for (let at = rest.indexOf(NEWLINE); at >= 0; at = rest.indexOf(NEWLINE)) {
      this.#keep(rest.subarray(0, at))
      const line = Buffer.concat(this.#line)
      this.#line = []
      this.#lineBytes = 0
      if (line.length > MAX_LINE_BYTES) return this.#tooLong()
      this.#read(line)
      rest = rest.subarray(at + 1)
    }
    this.#keep(rest)
    if (this.#lineBytes > MAX_LINE_BYTES) this.#tooLong()
  }

  #keep(part: Uint8Array): void {
    if (part.length === 0 || this.#lineBytes > MAX_LINE_BYTES) return
    // Copied: the chunk's memory is used again once it was given back.
    this.#line.push(Uint8Array.from(part))
    this.#lineBytes += part.length
  }

  #tooLong(): void {
    this.#handlers.broken('control.limit', 'a message on the control stream is too long')
  }

  #read(line: Uint8Array): void {
    const message = readRecord(line)
    if (message === undefined || typeof message['type'] !== 'string') {
      this.#handlers.broken(
        'control.message',
        'a message on the control stream is not of the protocol',
      )
    } else if (message['type'] === 'renew') this.#handlers.renew()
    else if (message['type'] === 'log') this.#handlers.shown(message)
    else if (message['type'] === 'update') this.#handlers.update(message)
    else if (message['type'] === 'look' && typeof message['id'] === 'number')
      this.#handlers.look(message['id'])
    // `ping` needs no answer here (the tunnel has its own), and what a later version says is skipped.
  }
}
