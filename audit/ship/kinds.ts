/**
 * How each HTTPS receiver wants a batch, and what its answer means for every item of it. Pure: bytes out, a judgement
 * in. design: audit.md section 3.
 */
import { createHmac } from 'node:crypto'
import { gzipSync } from 'node:zlib'

/** One event or signed head on its way out. */
export interface Item {
  /** Index of the event; null for a signed head. */
  readonly idx: number | null
  /** A receiver drops what it has already by this. */
  readonly uid: string
  /** The event code. */
  readonly code: string
  /** The leaf's bytes as text, unchanged. */
  readonly body: string
  readonly leaf: string
  readonly cp: string
  /** Epoch ms. */
  readonly time: number
  /** OCSF severity_id. */
  readonly severity: number
}

export interface Outgoing {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

/**
 * - `taken`: all but `dead` are the receiver's now; `again` are to be sent anew, after a pause.
 * - `later`: none is; try the same again, not before `afterMs` if that is given.
 * - `smaller`: the batch as a whole was refused; half of it may pass. What still fails alone is dead where others of
 *   its batch were taken; where none was, the fault is not the events', and the sink takes it for `refused`.
 * - `refused`: the receiver wants something else of us (token, address, index, right): a person must look, and nothing
 *   is lost.
 */
export type Judgement =
  | {
      readonly kind: 'taken'
      readonly dead: readonly { readonly at: number; readonly why: string }[]
      readonly again: readonly number[]
      /** OTLP: `dead` are all, because the receiver took some and does not say which. */
      readonly inDoubt?: boolean
      /** Splunk: what to ask for until the indexer has it. */
      readonly ack?: number
    }
  | { readonly kind: 'later'; readonly why: string; readonly afterMs?: number }
  | { readonly kind: 'smaller'; readonly why: string }
  | { readonly kind: 'refused'; readonly why: string }

export interface Envelope {
  readonly origin: string
  readonly host: string
  /** Epoch ms, for signatures. */
  readonly now: number
}

export interface Kind {
  /** Whether an answer says that the receiver will not lose the batch; without one the cursor trails. */
  readonly acknowledges: boolean
  readonly encode: (items: readonly Item[], envelope: Envelope) => Outgoing
  readonly judge: (answer: Answer, items: readonly Item[]) => Judgement
}

const all: Judgement = { kind: 'taken', dead: [], again: [] }

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

/** Retry-After in seconds, or as a date, bounded to five minutes. RFC 9110 10.2.3. */
function retryAfter({ headers }: Answer): { readonly afterMs?: number } {
  const given = headers['retry-after']
  const text = Array.isArray(given) ? given[0] : given
  if (text === undefined || !/^\d{1,6}$/.test(text)) return {}
  return { afterMs: Math.min(300_000, Number(text) * 1_000) }
}

function said(answer: Answer): string {
  return `${answer.status} ${answer.body.slice(0, 200)}`.trim()
}

/** What an HTTP status means where the receiver's own rules say nothing else. */
function byStatus(answer: Answer): Judgement {
  const { status } = answer
  if (status >= 200 && status < 300) return all
  if (status === 408 || status === 429 || status >= 500)
    return { kind: 'later', why: said(answer), ...retryAfter(answer) }
  if (status === 400 || status === 413 || status === 422)
    return { kind: 'smaller', why: said(answer) }
  return { kind: 'refused', why: said(answer) }
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

export interface SplunkOptions {
  readonly token: string
  readonly sourcetype?: string
  readonly index?: string
  /** The channel (a UUID) of indexer acknowledgement; without one, 200 means parsed and no more. */
  readonly channel?: string
}

/**
 * Splunk's codes that speak of one event and of nothing else: no data, invalid data format, event field required, event
 * field blank, indexed fields in error. All others (token, index, channel) speak of the sink. "Possible error codes" in
 * Splunk's "Troubleshoot HTTP Event Collector".
 */
const splunkEventCodes: readonly unknown[] = [5, 6, 12, 13, 15]
/** Server error, busy, acknowledgements or queues at their limit: the same again, later. */
const splunkLaterCodes: readonly unknown[] = [8, 9]

/** Splunk's HTTP Event Collector: `event` is the leaf as a string, so that `_raw` is the leaf's bytes. */
export function splunk(options: SplunkOptions): Kind {
  const { token, sourcetype = 'sallyport:ocsf', index, channel } = options
  return {
    acknowledges: channel !== undefined,
    encode: (items, { origin, host }) => ({
      path: '/services/collector/event',
      headers: {
        authorization: `Splunk ${token}`,
        'content-type': 'application/json',
        ...(channel === undefined ? {} : { 'x-splunk-request-channel': channel }),
      },
      body: Buffer.concat(
        items.map(({ idx, uid, body, leaf, cp, time }) =>
          json({
            time: time / 1_000,
            host,
            source: origin,
            sourcetype,
            ...(index === undefined ? {} : { index }),
            event: body,
            fields: { origin, idx: idx === null ? '' : String(idx), uid, leaf, cp },
          }),
        ),
      ),
    }),
    judge: (answer, items) => {
      const { code, ackId, 'invalid-event-number': at } = parsed(answer.body)
      if (answer.status === 200 && code === 0) {
        if (channel === undefined) return all
        if (typeof ackId === 'number') return { ...all, ack: ackId }
        return { kind: 'refused', why: 'no ackId: the token has no indexer acknowledgement' }
      }
      if (answer.status === 400 && splunkEventCodes.includes(code)) {
        // What stood before the bad event was not taken either, so all others go again.
        if (typeof at === 'number' && at >= 0 && at < items.length)
          return {
            kind: 'taken',
            dead: [{ at, why: said(answer) }],
            again: items.map((_, i) => i).filter((i) => i !== at),
          }
        return { kind: 'smaller', why: said(answer) }
      }
      if (splunkLaterCodes.includes(code) || (answer.status === 200 && code === undefined))
        return { kind: 'later', why: said(answer), ...retryAfter(answer) }
      const judged = byStatus(answer)
      // A code that speaks of the sink, whatever the status says.
      const ours = judged.kind === 'taken' || (judged.kind === 'smaller' && answer.status !== 413)
      return ours ? { kind: 'refused', why: said(answer) } : judged
    },
  }
}

/** The question whether acknowledged batches are indexed, and its answer. */
export function splunkAck(options: SplunkOptions, id: number): Outgoing {
  return {
    path: `/services/collector/ack?channel=${encodeURIComponent(options.channel ?? '')}`,
    headers: { authorization: `Splunk ${options.token}`, 'content-type': 'application/json' },
    body: json({ acks: [id] }),
  }
}
export function isIndexed(answer: Answer, id: number): boolean {
  const acks = parsed(answer.body)['acks'] as Record<string, unknown> | undefined
  return answer.status === 200 && acks?.[String(id)] === true
}

export interface ElasticOptions {
  /** `ApiKey …` or `Basic …`. */
  readonly authorization: string
  readonly index: string
}

/** What the bulk API says of one item. */
interface Told {
  readonly status?: number
  readonly error?: { readonly type?: string }
}

/** Elastic's words for a document that will never do, whatever is changed about rights, index or mapping limits. */
const documentErrors =
  /^(mapper_parsing|document_parsing|strict_dynamic_mapping|mapper|illegal_argument|parsing|x_content_parse)_exception$/

/** Elasticsearch's bulk API with `create`: sent twice, an event is there once. */
export function elastic({ authorization, index }: ElasticOptions): Kind {
  return {
    acknowledges: true,
    encode: (items, { origin, host }) => ({
      path: `/${encodeURIComponent(index)}/_bulk`,
      headers: { authorization, 'content-type': 'application/x-ndjson' },
      body: Buffer.from(
        items
          .map(({ idx, uid, body, leaf, cp, time }) => {
            const doc = {
              '@timestamp': new Date(time).toISOString(),
              event: { original: body },
              host: { name: host },
              sallyport: { origin, ...(idx === null ? {} : { idx }), uid, leaf, cp },
            }
            return `${JSON.stringify({ create: { _id: uid } })}\n${JSON.stringify(doc)}\n`
          })
          .join(''),
      ),
    }),
    judge: (answer, items) => {
      if (answer.status !== 200) return byStatus(answer)
      const told = parsed(answer.body)['items']
      if (!Array.isArray(told) || told.length !== items.length)
        return { kind: 'later', why: `an answer about ${items.length} items that names others` }
      const dead: { at: number; why: string }[] = []
      const again: number[] = []
      for (const [at, one] of told.entries()) {
        const { status = 0, error } = (one as { create?: Told }).create ?? {}
        if (status === 201 || status === 200 || status === 409) continue
        const why = `${status} ${JSON.stringify(error ?? '').slice(0, 200)}`
        if (status === 429 || status >= 500 || status === 0) again.push(at)
        else if (status === 400 && documentErrors.test(error?.type ?? '')) dead.push({ at, why })
        // A right, an index or a limit that is not there: the same for every event that is to come.
        else return { kind: 'refused', why }
      }
      return { kind: 'taken', dead, again }
    },
  }
}

export interface WebhookOptions {
  readonly path: string
  readonly secret: string
}

/** The signature of a webhook: HMAC-SHA256 over the time, a point, and the body as sent. */
export function signWebhook(secret: string, seconds: string, body: Uint8Array): string {
  return `v1=${createHmac('sha256', secret).update(`${seconds}.`).update(body).digest('hex')}`
}

/** Any receiver of NDJSON: gzip, signed, with a key by which the same batch is known again. */
export function webhook({ path, secret }: WebhookOptions): Kind {
  return {
    acknowledges: true,
    encode: (items, { origin, now }) => {
      const lines = items.map(({ idx, uid, body, leaf, cp }) =>
        JSON.stringify({ origin, ...(idx === null ? {} : { idx }), uid, leaf, cp, event: body }),
      )
      const body = gzipSync(Buffer.from(`${lines.join('\n')}\n`))
      const seconds = String(Math.floor(now / 1_000))
      return {
        path,
        headers: {
          'content-type': 'application/x-ndjson',
          'content-encoding': 'gzip',
          'idempotency-key': `${items[0]?.uid ?? ''}/${items.at(-1)?.uid ?? ''}/${items.length}`,
          'x-sallyport-timestamp': seconds,
          'x-sallyport-signature': signWebhook(secret, seconds, body),
        },
        body,
      }
    },
    judge: byStatus,
  }
}

export interface OtlpOptions {
  readonly headers?: Readonly<Record<string, string>>
}

/** OpenTelemetry SeverityNumber of OCSF severity_id 1..6. */
const severityNumbers = [9, 9, 10, 13, 17, 21, 24] as const

/** What a 200 of OTLP means; it may still reject some records, and does not say which. */
function ofPartial({ body }: Answer, items: readonly Item[]): Judgement {
  const partial = parsed(body)['partialSuccess'] as
    | { readonly rejectedLogRecords?: string | number; readonly errorMessage?: string }
    | undefined
  const rejected = Number(partial?.rejectedLogRecords ?? 0)
  if (rejected === 0) return all
  const why = `${rejected} of ${items.length} rejected: ${partial?.errorMessage ?? ''}`
  if (rejected >= items.length) return { kind: 'refused', why }
  // All of the batch are in doubt, none may be sent again.
  return { kind: 'taken', dead: items.map((_, at) => ({ at, why })), again: [], inDoubt: true }
}

/** OTLP/HTTP logs as JSON. A filled `partialSuccess` is final, so what it rejects is never sent again. */
export function otlp({ headers = {} }: OtlpOptions): Kind {
  return {
    acknowledges: true,
    encode: (items, { origin, host }) => {
      const text = (key: string, value: string) => ({ key, value: { stringValue: value } })
      const records = items.map(({ idx, uid, body, leaf, cp, time, severity }) => ({
        timeUnixNano: `${time}000000`,
        severityNumber: severityNumbers[severity] ?? 9,
        body: { stringValue: body },
        attributes: [
          text('log.record.uid', uid),
          text('sallyport.leaf', leaf),
          text('sallyport.cp', cp),
          ...(idx === null ? [] : [{ key: 'sallyport.idx', value: { intValue: String(idx) } }]),
        ],
      }))
      const resource = {
        attributes: [
          text('service.name', 'sallyport'),
          text('host.name', host),
          text('sallyport.origin', origin),
        ],
      }
      return {
        path: '/v1/logs',
        headers: { ...headers, 'content-type': 'application/json' },
        body: json({
          resourceLogs: [
            { resource, scopeLogs: [{ scope: { name: 'sallyport.audit' }, logRecords: records }] },
          ],
        }),
      }
    },
    judge: (answer, items) => {
      const { status } = answer
      if (status === 200) return ofPartial(answer, items)
      if ([429, 502, 503, 504].includes(status))
        return { kind: 'later', why: said(answer), ...retryAfter(answer) }
      return status === 400 || status === 413
        ? { kind: 'smaller', why: said(answer) }
        : { kind: 'refused', why: said(answer) }
    },
  }
}
