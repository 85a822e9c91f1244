/**
 * The log to a receiver over HTTPS: one batch in flight, answered before the next. What the receiver has taken for good
 * moves the durable cursor; what it will never take goes to a dead-letter file and into the log; everything else is sent
 * again. Nothing of it holds up the log or another sink. docs/audit.md section "Shipping to a SIEM".
 */
import { request, Agent } from 'node:https'
import { join } from 'node:path'
import { shortName, type Checkpoint } from '../checkpoint.ts'
import { formatHead, headCode } from '../format/head.ts'
import type { ShippedLog } from '../contract.ts'
import type { Entry } from '../read.ts'
import { bury } from './dead.ts'
import { isIndexed, splunkAck } from './kinds.ts'
import type { Answer, Item, Judgement, Kind, Outgoing, SplunkOptions } from './kinds.ts'
import { backoffLimitMs, Sink } from './sink.ts'
import type { Shipper, SinkHealth } from './sink.ts'

export interface HttpsOptions {
  /** The sink's name, in health, in its cursor's and in its dead-letter file. */
  readonly name: string
  readonly host: string
  readonly port: number
  readonly ca: string | Buffer
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
  readonly servername?: string
  readonly kind: Kind
  /** Splunk with a channel: how to ask whether a batch is indexed. */
  readonly ack?: SplunkOptions
  /** Events of one request. Default 1,000; bytes 1 MiB. */
  readonly batchEvents?: number
  readonly batchBytes?: number
  /** A request not answered by then is sent anew. Default 30,000 ms. */
  readonly answerMs?: number
  /** First pause after a failure; doubles to 30 s, with jitter. Default 250 ms. */
  readonly backoffMs?: number
  /** Where no answer says that a batch is safe, the cursor trails by this. Default 60,000 ms. */
  readonly trailMs?: number
  /** How long an indexer may take before a batch is sent anew. Default 300,000 ms. */
  readonly ackMs?: number
  readonly clock?: { now(): number }
}

const answerLimit = 4 * 1024 * 1024

/** So many events one behind the other of which none will do are no longer the events' fault. */
const deadRunLimit = 64
const rejectedCode = 'sink.rejected'

/** An event that a receiver will never take, and what it said. */
interface Rejected {
  readonly item: Item
  readonly why: string
}

interface Batch {
  readonly items: Item[]
  /** The index after its last event. */
  readonly next: number
}

class HttpsShipper implements Shipper {
  readonly #sink: Sink
  readonly #options: HttpsOptions
  readonly #agent: Agent
  readonly #deadFile: string
  readonly #done: Promise<void>
  #batchEvents: number
  /** Batches taken and, for want of an acknowledgement, not yet believed. */
  #trail: { readonly next: number; readonly at: number }[] = []
  #dead = 0
  #taken = false

  constructor(log: ShippedLog, options: HttpsOptions) {
    this.#sink = new Sink(log, options.name)
    this.#options = options
    this.#deadFile = join(log.directory, 'ship', `${options.name}.dead`)
    this.#batchEvents = options.batchEvents ?? 1_000
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: 1,
      ca: options.ca,
      minVersion: 'TLSv1.2',
      servername: options.servername ?? options.host,
      ...(options.cert === undefined ? {} : { cert: options.cert }),
      ...(options.key === undefined ? {} : { key: options.key }),
    })
    this.#done = this.#run()
  }

  async #run(): Promise<void> {
    const { backoffMs = 250 } = this.#options
    let pause = backoffMs
    while (!this.#sink.closing && !this.#sink.finished) {
      const failed = await this.#turn().catch((error: unknown) => this.#own(error))
      if (failed === null) {
        pause = backoffMs
        continue
      }
      if (this.#sink.closing) return
      await this.#sink.rest(failed.afterMs ?? pause * (0.5 + Math.random() / 2), true)
      pause = Math.min(backoffLimitMs, pause * 2)
    }
    if (this.#sink.finished) this.#sink.finish()
  }

  /** One batch, or a rest where there is none. Null when that went well, else how long to wait before trying anew. */
  async #turn(): Promise<{ readonly afterMs?: number } | null> {
    const batch = this.#nextBatch()
    if (batch === null) {
      this.#sink.settleFlushes()
      if (this.#sink.finished) return null
      await this.#sink.rest(1_000)
      await this.#believe()
      return null
    }
    const failed = await this.#deliver(batch)
    if (failed === null)
      this.#batchEvents = Math.min(this.#options.batchEvents ?? 1_000, this.#batchEvents * 2)
    return failed
  }

  /** What failed is on this side: the log's own files, the cursor, the dead letters. The sink says so and lives. */
  #own(error: unknown): Record<string, never> {
    this.#sink.lastError = error instanceof Error ? error.message : String(error)
    this.#taken = false
    return {}
  }

  /** The next covered events, each head behind the last event it covers; null when there are none. */
  #nextBatch(): Batch | null {
    const { batchBytes = 1024 * 1024 } = this.#options
    const { signed } = this.#sink.log
    const entries = this.#sink.reader.entries(
      this.#sink.next,
      signed.size,
      this.#batchEvents,
      batchBytes,
    )
    const items: Item[] = []
    let next = this.#sink.next
    for (const entry of entries) {
      if (entry.cp === null) break
      items.push(itemOf(entry))
      next = entry.idx + 1
      const head = this.#sink.reader.notes.covering(entry.idx)
      if (head !== null && head.size === next) items.push(headItem(head, items.at(-1)?.time ?? 0))
    }
    return items.length === 0 ? null : { items, next }
  }

  /**
   * Sends a batch until every item is taken or dead; null when so, else how long to wait before trying anew. An event is
   * dead only where the receiver took another of its batch: one that takes nothing at all is set up otherwise than we
   * believe, and every event keeps its place.
   */
  async #deliver({ items, next }: Batch): Promise<{ readonly afterMs?: number } | null> {
    const groups: (readonly Item[])[] = [items]
    const dead: Rejected[] = []
    let tookAny = false
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
      const judged = await this.#send(group)
      if (judged.kind === 'smaller' && group.length > 1) {
        // What made it too large or malformed stands alone in the end.
        const half = Math.ceil(group.length / 2)
        groups.unshift(group.slice(0, half), group.slice(half))
        this.#batchEvents = Math.max(1, Math.floor(Math.min(this.#batchEvents, half)))
      } else if (judged.kind === 'smaller')
        dead.push(...group.map((item) => ({ item, why: judged.why })))
      else if (judged.kind !== 'taken') {
        this.#fail(judged.why)
        return judged.kind === 'later' && judged.afterMs !== undefined
          ? { afterMs: judged.afterMs }
          : {}
      } else {
        dead.push(...rejectedOf(group, judged))
        tookAny ||= judged.inDoubt ?? group.length > judged.dead.length + judged.again.length
        const again = await this.#took(group, judged)
        if (again === null) return {}
        if (again.length > 0) groups.unshift(again)
      }
      if (!tookAny && (dead.length >= deadRunLimit || (dead.length > 0 && groups.length === 0)))
        return this.#tookNone(items, dead)
    }
    await this.#giveUp(dead)
    await this.#accepted(next, items, dead.filter(({ item }) => item.idx !== null).length)
    return null
  }

  /** Nothing of a batch would do. Ever more events are tried together, until one shows that the receiver takes any. */
  #tookNone({ length }: readonly Item[], dead: readonly Rejected[]): Record<string, never> {
    this.#fail(`it takes no event: ${dead[0]?.why ?? ''}`)
    const { batchEvents = 1_000 } = this.#options
    this.#batchEvents = length > deadRunLimit ? 2 : Math.max(2, Math.min(batchEvents, 2 * length))
    return {}
  }

  /** What of a group that was answered is to be sent again; null when the sink must begin anew. */
  async #took(
    group: readonly Item[],
    judged: Extract<Judgement, { kind: 'taken' }>,
  ): Promise<readonly Item[] | null> {
    if (judged.ack !== undefined && !(await this.#indexed(judged.ack))) {
      this.#fail('the indexer did not acknowledge in time')
      return null
    }
    const again = judged.again.flatMap((at) => group[at] ?? [])
    if (again.length > 0 && judged.dead.length === 0)
      await this.#sink.rest(this.#options.backoffMs ?? 250, true)
    return this.#sink.closing && again.length > 0 ? null : again
  }

  #fail(why: string): void {
    this.#sink.lastError = why
    this.#taken = false
    if (this.#options.kind.acknowledges || this.#sink.next === this.#sink.cursor.idx) return
    // What was taken and never acknowledged may have been lost with the receiver.
    this.#sink.next = this.#sink.cursor.idx
    this.#trail = []
    this.#sink.counts.rewinds++
  }

  async #accepted(next: number, items: readonly Item[], dead: number): Promise<void> {
    this.#sink.next = next
    this.#sink.counts.sent += items.filter(({ idx }) => idx !== null).length - dead
    this.#sink.lastError = null
    this.#taken = true
    if (this.#options.kind.acknowledges) await this.#sink.cursor.advance(next)
    else {
      this.#trail.push({ next, at: performance.now() })
      await this.#believe()
    }
    this.#sink.settleFlushes()
  }

  async #believe(): Promise<void> {
    const { trailMs = 60_000 } = this.#options
    const now = performance.now()
    let idx = 0
    while (this.#trail[0] !== undefined && now - this.#trail[0].at >= trailMs)
      idx = this.#trail.shift()?.next ?? idx
    if (idx > 0) await this.#sink.cursor.advance(idx)
  }

  /**
   * Durable in the file, and an event of the log, before the sink goes on without them. Of such an event that is itself
   * rejected there is no further event: the log would be shipping its own complaints for ever.
   */
  async #giveUp(dead: readonly Rejected[]): Promise<void> {
    // A signed head that a receiver will not have is in the log's own directory all the same.
    const events = dead.flatMap(({ item, why }) =>
      item.idx === null ? [] : [{ idx: item.idx, uid: item.uid, leaf: item.leaf, why }],
    )
    if (events.length === 0) return
    bury(this.#deadFile, events)
    this.#dead += events.length
    const complaints = dead.filter(({ item }) => item.code !== rejectedCode && item.idx !== null)
    const [first] = complaints
    if (first === undefined) return
    const ended = this.#sink.log.taken !== undefined
    const told = this.#sink.log.append({
      code: rejectedCode,
      message: `${complaints.length} events will never be taken by ${this.#options.name}`,
      status: 'failure',
      data: {
        sink: this.#options.name,
        idx: first.item.idx ?? undefined,
        detail: {
          count: complaints.length,
          why: first.why,
          // The log that is told of it is another, with an event of its own at that index.
          ...(ended ? { origin: this.#sink.log.origin } : {}),
        },
      },
    })
    // A log that cannot be written says so itself; the file above has what was lost.
    await told.catch(() => undefined)
  }

  async #indexed(id: number): Promise<boolean> {
    const { ack, ackMs = 300_000, backoffMs = 250 } = this.#options
    if (ack === undefined) return true
    const until = performance.now() + ackMs
    while (performance.now() < until && !this.#sink.closing) {
      const answer = await this.#ask(splunkAck(ack, id)).catch(() => null)
      if (answer !== null && isIndexed(answer, id)) return true
      await this.#sink.rest(backoffMs, true)
    }
    return false
  }

  async #send(items: readonly Item[]): Promise<Judgement> {
    const { kind, clock } = this.#options
    const now = clock?.now() ?? Date.now()
    const host = this.#sink.log.origin.split('/').at(-2) ?? this.#sink.log.origin
    try {
      const answer = await this.#ask(
        kind.encode(items, { origin: this.#sink.log.origin, host, now }),
      )
      return kind.judge(answer, items)
    } catch (error) {
      return { kind: 'later', why: error instanceof Error ? error.message : String(error) }
    }
  }

  #ask({ path, headers, body }: Outgoing): Promise<Answer> {
    const { host, port, answerMs = 30_000 } = this.#options
    return new Promise((resolve, reject) => {
      const asked = request({
        agent: this.#agent,
        host,
        port,
        path,
        method: 'POST',
        headers: { ...headers, 'content-length': String(body.length) },
        signal: this.#sink.signal,
      })
      const timer = setTimeout(() => asked.destroy(new Error('no answer in time')), answerMs)
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        act()
      }
      asked.on('error', (error) => settle(() => reject(error)))
      asked.on('socket', (socket) => {
        if (socket.connecting) this.#sink.counts.connects++
      })
      asked.on('response', (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size > answerLimit) asked.destroy(new Error('an answer without an end'))
          else chunks.push(chunk)
        })
        response.on('error', (error) => settle(() => reject(error)))
        response.on('end', () =>
          settle(() => {
            const text = Buffer.concat(chunks).toString()
            resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text })
          }),
        )
      })
      asked.end(body)
    })
  }

  health(): SinkHealth & { readonly dead: number } {
    const { lastError, next, log } = this.#sink
    const up = lastError === null && (this.#taken || next >= log.signed.size)
    return { ...this.#sink.health(up), dead: this.#dead }
  }

  lag(): { readonly events: number } {
    return this.#sink.lag()
  }

  flush(timeoutMs: number): Promise<boolean> {
    return this.#sink.flush(timeoutMs)
  }

  async close(): Promise<void> {
    if (await this.#sink.close(this.#done, () => undefined)) this.#agent.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function itemOf({ idx, uid, leaf, body, cp }: Entry): Item {
  const text = Buffer.from(body.buffer, body.byteOffset, body.length).toString()
  const parsed = JSON.parse(text) as {
    readonly time?: number
    readonly severity_id?: number
    readonly metadata?: { readonly event_code?: string }
  }
  const { time = 0, severity_id: severity = 1, metadata } = parsed
  const code = metadata?.event_code ?? ''
  return { idx, uid, code, body: text, leaf, cp: cp ?? '', time, severity }
}

function rejectedOf(
  group: readonly Item[],
  { dead }: Extract<Judgement, { kind: 'taken' }>,
): Rejected[] {
  return dead.flatMap(({ at, why }) => {
    const item = group[at]
    return item === undefined ? [] : [{ item, why }]
  })
}

/** A signed head in the stream, behind the last event it covers. */
function headItem(head: Checkpoint, time: number): Item {
  return {
    idx: null,
    uid: `cp-${shortName(head)}`,
    code: headCode,
    body: formatHead(head, time),
    leaf: '',
    cp: shortName(head),
    time,
    severity: 1,
  }
}

/**
 * Ships every covered event, in order, from the sink's cursor on, until closed, or until a log that has ended is taken.
 * Never throws for want of a receiver: `health` tells. The kind says how a batch is written and what an answer means.
 */
export function shipHttps(log: ShippedLog, options: HttpsOptions): Shipper {
  return new HttpsShipper(log, options)
}
