/** HTTPS receivers that refuse what the real ones refuse, and keep the bytes that they took. */
import type { IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Socket } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { createHmac } from 'node:crypto'
import { freePort } from '../support/port.ts'
import type { Certificates } from './receiver.ts'

export interface Reply {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Record<string, string>
}
export interface Asked {
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}
/** What comes before the receiver's own rules: an answer, or an end without one. */
export type Fault = (asked: Asked, count: number) => Reply | 'reset' | null

export class Fake {
  port = 0
  /** Bodies taken, by uid, as the receiver would give them back; and how often each came. */
  readonly taken = new Map<string, string>()
  readonly times = new Map<string, number>()
  count = 0
  fault: Fault = () => null
  readonly #certificates: Certificates
  readonly #rules: (asked: Asked, fake: Fake) => Reply
  readonly #sockets = new Set<Socket>()
  #server: Server | null = null

  constructor(certificates: Certificates, rules: (asked: Asked, fake: Fake) => Reply) {
    this.#certificates = certificates
    this.#rules = rules
  }

  keep(uid: string, body: string): void {
    this.taken.set(uid, body)
    this.times.set(uid, (this.times.get(uid) ?? 0) + 1)
  }

  async start(): Promise<void> {
    const server = createServer(this.#certificates.server, (request, response) => {
      const chunks: Buffer[] = []
      request.on('error', () => undefined)
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const asked = {
          path: request.url ?? '',
          headers: request.headers,
          body: Buffer.concat(chunks),
        }
        const fault = request.method === 'POST' ? this.fault(asked, ++this.count) : { status: 405 }
        if (fault === 'reset') return void request.socket.destroy()
        const { status, body = {}, headers = {} } = fault ?? this.#rules(asked, this)
        response.writeHead(status, { 'content-type': 'application/json', ...headers })
        response.end(JSON.stringify(body))
      })
    })
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    server.on('tlsClientError', () => undefined)
    // It comes back to the port that it had.
    if (this.port === 0) this.port = await freePort()
    await new Promise<void>((resolve) => server.listen(this.port, '127.0.0.1', resolve))
    this.#server = server
  }

  async kill(): Promise<void> {
    const server = this.#server
    this.#server = null
    for (const socket of this.#sockets) socket.resetAndDestroy()
    await new Promise<void>((resolve) =>
      server === null ? resolve() : server.close(() => resolve()),
    )
  }
}

/** JSON objects one behind the other, as HEC takes them; null when they are not that. */
function concatenated(text: string): unknown[] | null {
  const found: unknown[] = []
  let [depth, start, quoted] = [0, 0, false]
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (quoted) {
      if (char === '\\') at++
      else if (char === '"') quoted = false
    } else if (char === '"') quoted = true
    else if (char === '{' && depth++ === 0) start = at
    else if (char === '}' && --depth === 0) {
      try {
        found.push(JSON.parse(text.slice(start, at + 1)))
      } catch {
        return null
      }
    }
  }
  return depth === 0 ? found : null
}

export const token = 'b3c1d6f0-0000-4000-8000-000000000001'
export const channel = 'fe0ecfad-13d5-401b-847d-77833bd77131'

/** Splunk's answers, with their codes (HTTP Event Collector, "possible error codes"). */
export function hec(acknowledging: boolean): (asked: Asked, fake: Fake) => Reply {
  let next = 0
  return ({ path, headers, body }, fake) => {
    if (headers.authorization === undefined)
      return { status: 401, body: { text: 'Token is required', code: 2 } }
    if (headers.authorization !== `Splunk ${token}`)
      return { status: 403, body: { text: 'Invalid token', code: 4 } }
    if (path.startsWith('/services/collector/ack')) {
      const { acks } = JSON.parse(body.toString()) as { acks: number[] }
      if (!path.endsWith(`channel=${channel}`)) return { status: 400, body: { code: 10 } }
      return { status: 200, body: { acks: Object.fromEntries(acks.map((id) => [id, id < next])) } }
    }
    if (path !== '/services/collector/event') return { status: 404 }
    if (acknowledging && headers['x-splunk-request-channel'] !== channel)
      return { status: 400, body: { text: 'Data channel is missing', code: 10 } }
    const events = concatenated(body.toString())
    if (events === null || events.length === 0)
      return {
        status: 400,
        body: { text: 'Invalid data format', code: 6, 'invalid-event-number': 0 },
      }
    const kept: [string, string][] = []
    for (const [at, one] of events.entries()) {
      const { event, fields, time } = one as {
        event?: unknown
        fields?: Record<string, unknown>
        time?: unknown
      }
      const bad = (code: number, text: string): Reply => ({
        status: 400,
        body: { text, code, 'invalid-event-number': at },
      })
      if (event === undefined || event === '') return bad(12, 'Event field is required')
      if (typeof time !== 'number' || typeof event !== 'string')
        return bad(6, 'Invalid data format')
      if (event.includes('poison')) return bad(6, 'Invalid data format')
      if (fields === undefined || Object.values(fields).some((value) => typeof value !== 'string'))
        return bad(15, 'Error in handling indexed fields')
      kept.push([String(fields['uid']), event])
    }
    for (const [uid, event] of kept) fake.keep(uid, event)
    return {
      status: 200,
      body: { text: 'Success', code: 0, ...(acknowledging ? { ackId: next++ } : {}) },
    }
  }
}

/** Elasticsearch's bulk API upon a data stream: `create` and nothing else. */
export function bulk({ path, headers, body }: Asked, fake: Fake): Reply {
  if (headers.authorization !== 'ApiKey abc') return { status: 401 }
  if (headers['content-type'] !== 'application/x-ndjson') return { status: 406 }
  if (path !== '/logs-sallyport/_bulk') return { status: 404 }
  const text = body.toString()
  if (!text.endsWith('\n'))
    return { status: 400, body: { error: 'The bulk request must be terminated by a newline' } }
  const lines = text.slice(0, -1).split('\n')
  const items = []
  for (let at = 0; at < lines.length; at += 2) {
    const action = JSON.parse(lines[at] ?? '') as Record<string, { _id?: string }>
    const { _id: id } = action['create'] ?? {}
    if (Object.keys(action).join() !== 'create')
      return {
        status: 400,
        body: { error: 'only write ops with an op_type of create are allowed in data streams' },
      }
    const doc = JSON.parse(lines[at + 1] ?? '') as {
      '@timestamp'?: string
      event: { original: string }
    }
    if (id === undefined || Number.isNaN(Date.parse(doc['@timestamp'] ?? '')))
      items.push({ create: { status: 400, error: { type: 'mapper_parsing_exception' } } })
    else if (doc.event.original.includes('poison'))
      items.push({ create: { status: 400, error: { type: 'document_parsing_exception' } } })
    else if (fake.taken.has(id)) items.push({ create: { status: 409 } })
    else if (fake.count % 3 === 1 && at % 10 === 4) items.push({ create: { status: 429 } })
    else {
      fake.keep(id, doc.event.original)
      items.push({ create: { status: 201 } })
    }
  }
  return { status: 200, body: { errors: items.some((one) => one.create.status > 299), items } }
}

export const secret = 'a secret of two parties'

/** A webhook that checks what ours promises: time, signature, encoding, key. */
export function hook({ headers, body }: Asked, fake: Fake): Reply {
  const seconds = String(headers['x-sallyport-timestamp'])
  const signature = createHmac('sha256', secret).update(`${seconds}.`).update(body).digest('hex')
  if (headers['x-sallyport-signature'] !== `v1=${signature}`) return { status: 401 }
  if (Math.abs(Number(seconds) * 1_000 - Date.now()) > 300_000) return { status: 401 }
  if (headers['content-encoding'] !== 'gzip' || headers['idempotency-key'] === undefined)
    return { status: 415 }
  const rows = gunzipSync(body)
    .toString()
    .split('\n')
    .slice(0, -1)
    .map((row) => JSON.parse(row) as { uid: string; event: string })
  if (rows.some(({ event }) => event.includes('poison'))) return { status: 422 }
  for (const { uid, event } of rows) fake.keep(uid, event)
  return { status: 204 }
}

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: string }
}
interface LogRecord {
  readonly timeUnixNano: unknown
  readonly severityNumber: unknown
  readonly body: { readonly stringValue: string }
  readonly attributes: readonly Attribute[]
}

/** An OpenTelemetry collector's OTLP/HTTP receiver, JSON encoding. */
export function collector({ path, headers, body }: Asked, fake: Fake): Reply {
  if (path !== '/v1/logs') return { status: 404 }
  if (headers['content-type'] !== 'application/json') return { status: 415 }
  const { resourceLogs } = JSON.parse(body.toString()) as {
    resourceLogs: { scopeLogs: { logRecords: LogRecord[] }[] }[]
  }
  const records = resourceLogs.flatMap(({ scopeLogs }) =>
    scopeLogs.flatMap(({ logRecords }) => logRecords),
  )
  for (const { timeUnixNano, severityNumber, body: said, attributes } of records) {
    if (!/^\d{19}$/.test(String(timeUnixNano)) || typeof timeUnixNano !== 'string')
      return { status: 400 }
    if (typeof severityNumber !== 'number' || severityNumber < 1 || severityNumber > 24)
      return { status: 400 }
    if (said.stringValue.includes('poison')) return { status: 400 }
    const uid = attributes.find(({ key }) => key === 'log.record.uid')?.value.stringValue
    if (uid === undefined) return { status: 400 }
    fake.keep(uid, said.stringValue)
  }
  return { status: 200, body: { partialSuccess: {} } }
}
