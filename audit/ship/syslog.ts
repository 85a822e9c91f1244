/**
 * The log to a SIEM, as syslog over TLS (RFC 5425). There is no acknowledgement, so what was sent lately is sent again
 * after every new connection, and the receiver drops what it knows by uid. Of a log that has ended no more bytes follow
 * that would push out the last: there the receiver's closing in answer to ours says that it read them. design: audit.md
 * section 3.
 */
import type { TLSSocket } from 'node:tls'
import type { ShippedLog } from '../contract.ts'
import { closedInAnswer, dial, endSocket } from './connection.ts'
import { SyslogFrames, type FrameOptions } from './frames.ts'
import { backoffLimitMs, Sink } from './sink.ts'
import type { Shipper, SinkHealth } from './sink.ts'

export interface SyslogOptions extends FrameOptions {
  readonly host: string
  readonly port: number
  /** PEM: whom the receiver's certificate must chain to. */
  readonly ca: string | Buffer
  /** PEM: our own, where the receiver asks who sends. */
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
  /** The name its certificate must bear; default `host`. */
  readonly servername?: string
  /** The sink's name, in health and in its cursor's. */
  readonly name: string
  /** Default: `ship/<name>.cur` in the log's directory. */
  readonly cursorFile?: string
  /**
   * The durable cursor trails by at least this many bytes and this many ms. Default 16 MiB and 60,000 ms: Linux may
   * hold 4 MiB on the sending side and 6 MiB on the receiving one that no receiver has read.
   */
  readonly trailBytes?: number
  readonly trailMs?: number
  /** First pause before a new connection; doubles to 30 s, with jitter. Default 250 ms. */
  readonly backoffMs?: number
  /** A connection not up by then is given up. Default 10,000 ms. */
  readonly connectMs?: number
}

const trailDefaultMs = 60_000
/** A receiver that has not read to the end of a log by then, once we have closed, is dialled anew. */
const answerLimitMs = 600_000
/** So long an ended log is out before we close, at least: a receiver's closing that crosses ours says nothing. */
const crossingMs = 1_000
const batchEvents = 1_000
const batchBytes = 1024 * 1024

interface Sent {
  readonly idx: number
  readonly bytes: number
  readonly at: number
}

class SyslogShipper implements Shipper {
  readonly #sink: Sink
  readonly #options: SyslogOptions
  readonly #frames: SyslogFrames
  readonly #done: Promise<void>
  #socket: TLSSocket | null = null
  #sentBytes = 0
  /** Marks of what was sent on this connection and is not yet old enough to be believed. */
  #trail: Sent[] = []
  /** Since when all of a log that has ended is out; and how long it is to be before we close. */
  #outSince: number | null = null
  #standMs: number
  /** We have closed, and nothing is wrong. */
  #ending = false

  constructor(log: ShippedLog, options: SyslogOptions) {
    this.#sink = new Sink(log, options.name, options.cursorFile)
    this.#options = options
    this.#frames = new SyslogFrames(log.origin, options)
    this.#standMs = options.trailMs ?? trailDefaultMs
    this.#done = this.#run()
  }

  /** Connect, send until it breaks, pause, begin again at the durable cursor; until a log that has ended is taken. */
  async #run(): Promise<void> {
    const { backoffMs = 250 } = this.#options
    let pause = backoffMs
    while (!this.#sink.closing && !this.#sink.finished) {
      const before = this.#sink.counts.sent
      try {
        await this.#connection()
      } catch (error) {
        this.#sink.lastError = error instanceof Error ? error.message : String(error)
      }
      this.#socket = null
      this.#ending = false
      if (this.#sink.closing || this.#sink.finished) break
      this.#standLess()
      pause = this.#sink.counts.sent > before ? backoffMs : Math.min(backoffLimitMs, pause * 2)
      await this.#sink.rest(pause * (0.5 + Math.random() / 2), true)
    }
    if (this.#sink.finished) this.#sink.finish()
  }

  async #connection(): Promise<void> {
    const broken: { error: Error | null } = { error: null }
    const socket = await dial(this.#options, (dialled) => {
      this.#socket = dialled
    })
    const fail = (error?: Error): void => {
      broken.error ??= error ?? new Error('the receiver closed the connection')
      this.#sink.rouse()
    }
    socket.on('error', fail)
    socket.on('close', () => fail())
    socket.on('end', () => fail())
    // A syslog receiver says nothing; reading is how its closing is noticed.
    socket.resume()
    socket.on('drain', () => this.#sink.rouse())
    this.#socket = socket
    this.#sink.counts.connects++
    if (this.#sink.counts.connects > 1 && this.#sink.next > this.#sink.cursor.idx)
      this.#sink.counts.rewinds++
    this.#sink.next = this.#sink.cursor.idx
    this.#trail = []
    this.#outSince = null
    this.#sink.lastError = null
    try {
      while (broken.error === null && !this.#sink.closing) {
        if (this.#isOver(socket)) return await this.#conclude(socket)
        if (socket.writableNeedDrain) await this.#sink.rest()
        else if (!this.#sendBatch(socket)) {
          this.#settleFlushes(socket)
          await this.#sink.rest(1_000)
        }
        await this.#believe(socket)
        this.#settleFlushes(socket)
      }
    } finally {
      if (this.#sink.closing && broken.error === null) await endSocket(socket)
      else socket.destroy()
    }
    if (broken.error !== null && !this.#sink.closing) throw broken.error
  }

  /** Sends the next covered events; false when there are none. */
  #sendBatch(socket: TLSSocket): boolean {
    const entries = this.#sink.reader.entries(
      this.#sink.next,
      this.#sink.log.signed.size,
      batchEvents,
      batchBytes,
    )
    const frames: Uint8Array[] = []
    let [sent, next] = [0, this.#sink.next]
    for (const entry of entries) {
      if (entry.cp === null) break
      const { frame, whole } = this.#frames.event(entry)
      frames.push(frame)
      if (!whole) this.#sink.counts.stubs++
      sent++
      next = entry.idx + 1
      const checkpoint = this.#sink.reader.notes.covering(entry.idx)
      if (checkpoint !== null && entry.idx === checkpoint.size - 1)
        frames.push(this.#frames.checkpoint(checkpoint))
    }
    if (sent === 0) return false
    const block = Buffer.concat(frames)
    // Once it is out, whoever waits for that is told, and an epoch that ended may be over.
    socket.write(block, () => this.#sink.rouse())
    this.#sink.next = next
    this.#sink.counts.sent += sent
    this.#sentBytes += block.length
    this.#trail.push({ idx: this.#sink.next, bytes: this.#sentBytes, at: performance.now() })
    return true
  }

  /** Moves the durable cursor to what is both old enough and far enough behind. */
  async #believe(socket: TLSSocket): Promise<void> {
    const { trailBytes = 16 * 1024 * 1024, trailMs = trailDefaultMs } = this.#options
    const now = performance.now()
    const out = this.#sentBytes - socket.writableLength
    let idx = 0
    while (this.#trail.length > 0) {
      const [oldest] = this.#trail
      if (oldest === undefined || out - oldest.bytes < trailBytes || now - oldest.at < trailMs)
        break
      idx = oldest.idx
      this.#trail.shift()
    }
    if (idx > 0) await this.#sink.cursor.advance(idx)
  }

  /** True once all of a log that has ended is out for so long that it is time to close. */
  #isOver(socket: TLSSocket): boolean {
    const { taken, size } = this.#sink.log
    if (taken === undefined || this.#sink.next < size || socket.writableLength > 0) return false
    this.#outSince ??= performance.now()
    return performance.now() - this.#outSince >= this.#standMs
  }

  /**
   * Behind a connection that broke with all of an ended log sent: the receiver may close what is idle sooner than we do,
   * and would be sent the rest for ever.
   */
  #standLess(): void {
    const { log, next } = this.#sink
    if (log.taken === undefined || next < log.size) return
    const { trailMs = trailDefaultMs } = this.#options
    this.#standMs = Math.max(Math.min(crossingMs, trailMs), this.#standMs / 2)
  }

  /** Closes first. Where the receiver read to the end and closes too, it has the whole log; else all is as it was. */
  async #conclude(socket: TLSSocket): Promise<void> {
    const until = performance.now() + answerLimitMs
    const answer: { clean: boolean | null } = { clean: null }
    this.#ending = true
    void closedInAnswer(socket).then((clean) => {
      answer.clean = clean
      this.#sink.rouse()
    })
    while (answer.clean === null && !this.#sink.closing && performance.now() < until) {
      this.#sink.settleFlushes()
      await this.#sink.rest(1_000)
    }
    if (answer.clean === true) await this.#sink.cursor.advance(this.#sink.log.size)
    else if (!this.#sink.closing)
      throw new Error('the receiver did not read to the end of a log that has ended')
  }

  #settleFlushes(socket: TLSSocket): void {
    if (socket.writableLength === 0) this.#sink.settleFlushes()
  }

  health(): SinkHealth {
    const open = this.#socket !== null && this.#socket.readyState === 'open'
    return this.#sink.health((open || this.#ending) && this.#sink.lastError === null)
  }

  lag(): { readonly events: number } {
    return this.#sink.lag()
  }

  flush(timeoutMs: number): Promise<boolean> {
    return this.#sink.flush(timeoutMs)
  }

  async close(): Promise<void> {
    await this.#sink.close(this.#done, () => {
      // A dial under way has nothing to finish.
      if (this.#socket?.connecting === true) this.#socket.destroy()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/**
 * Ships every covered event, in order, to a syslog receiver over TLS 1.2 or newer, from the sink's cursor on, until
 * closed, or until a log that has ended is taken. Never throws for want of a receiver: `health` tells.
 */
export function shipSyslog(log: ShippedLog, options: SyslogOptions): Shipper {
  return new SyslogShipper(log, options)
}
