/** Events and signed heads as the frames that a syslog receiver is sent (RFC 5424 in RFC 5425): bytes, and nothing sent. */
import { shortName, type Checkpoint } from '../checkpoint.ts'
import { formatCef } from '../format/cef.ts'
import { formatHead, headCode } from '../format/head.ts'
import { joinOf } from '../format/ocsf.ts'
import { formatMessage, frameMessage, messageLimit } from '../format/rfc5424.ts'
import type { Entry } from '../read.ts'

interface Facts {
  readonly severity: number
  readonly time: number
  readonly session: string | undefined
  readonly grant: string | undefined
}

interface Body {
  readonly severity_id?: number
  readonly time?: number
  readonly class_uid?: number
  readonly category_uid?: number
  readonly activity_id?: number
  readonly type_uid?: number
  readonly metadata?: Readonly<Record<string, unknown>>
  readonly unmapped?: {
    readonly sallyport?: { readonly session?: string; readonly grant?: string }
  }
}

function factsOf(body: Body): Facts {
  const own = body.unmapped?.sallyport
  return {
    severity: body.severity_id ?? 1,
    time: body.time ?? 0,
    session: own?.session,
    grant: own?.grant,
  }
}

/** What goes in place of a body over the limit: enough to find it in the log. */
function stubOf(body: Body): Uint8Array {
  const { severity_id, time, class_uid, category_uid, activity_id, type_uid, metadata } = body
  const join = { severity_id, time, class_uid, category_uid, activity_id, type_uid }
  return Buffer.from(JSON.stringify({ ...join, metadata: { ...metadata, is_truncated: true } }))
}

export interface FrameOptions {
  /** HOSTNAME of the messages; default the node in the log's origin. */
  readonly hostname?: string
  /** IANA private enterprise number in the structured data; 32473 (the documentation's) is for tests only. */
  readonly enterpriseNumber: number
  /** What MSG holds: the leaf itself, or CEF with the leaf's hash, which proves that it is there and not what it says. */
  readonly format?: 'ocsf' | 'cef'
}

export class SyslogFrames {
  readonly #origin: string
  readonly #host: string
  readonly #element: string
  readonly #format: FrameOptions['format'] | undefined
  #lastTime = 0

  constructor(origin: string, { hostname, enterpriseNumber, format }: FrameOptions) {
    this.#origin = origin
    this.#host = hostname ?? origin.split('/').at(-2) ?? '-'
    this.#element = `sallyport@${enterpriseNumber}`
    this.#format = format
  }

  /** One event; `whole` is false where its body was over the limit, and enough to find it in the log goes in its place. */
  event(entry: Entry): { readonly frame: Uint8Array; readonly whole: boolean } {
    const body = JSON.parse(Buffer.from(entry.body).toString()) as Body
    const { severity, time, session, grant } = factsOf(body)
    this.#lastTime = time
    const message = {
      severity,
      time,
      host: this.#host,
      app: 'sallyport',
      id: joinOf(entry.body)?.code ?? '-',
      elementId: this.#element,
      elements: {
        origin: this.#origin,
        idx: String(entry.idx),
        uid: entry.uid,
        leaf: entry.leaf,
        cp: entry.cp ?? undefined,
        ses: session,
        grant,
      },
      body:
        this.#format === 'cef'
          ? Buffer.from(
              formatCef(entry.body, {
                origin: this.#origin,
                leaf: entry.leaf,
                cp: entry.cp,
              }),
            )
          : entry.body,
    }
    const whole = formatMessage(message)
    if (whole.length <= messageLimit) return { frame: frameMessage(whole), whole: true }
    const stub = formatMessage({ ...message, body: stubOf(body) })
    return { frame: frameMessage(stub), whole: false }
  }

  /** A signed head, at the time of the last event before it. */
  checkpoint(checkpoint: Checkpoint): Uint8Array {
    return frameMessage(
      formatMessage({
        severity: 1,
        time: this.#lastTime,
        host: this.#host,
        app: 'sallyport',
        id: headCode,
        elementId: this.#element,
        elements: { origin: checkpoint.origin, cp: shortName(checkpoint) },
        body: Buffer.from(formatHead(checkpoint, this.#lastTime)),
      }),
    )
  }
}
