/**
 * The requests of a web session, one OCSF 1.8.0 HTTP Activity (4002) a line. What was asked and what came back, never
 * what was said: no value of a query, no cookie, no authorization, no body.
 */
import { classes, httpActivities } from '../event-row.ts'
import { ocsfVersion } from '../format/ocsf.ts'

export interface WebRequest {
  /** Epoch milliseconds: when it was asked, and when its answer had been passed on. */
  readonly at: number
  readonly endedAt: number
  readonly session: string
  readonly device: string
  readonly process: string
  readonly method: string
  readonly host: string
  /** As it was asked, with its query. */
  readonly target: string
  readonly ip: string | null
  readonly user: string
  /** Undefined where no answer came. */
  readonly status: number | undefined
  readonly requestType: string | undefined
  readonly responseType: string | undefined
  /** Octets of the bodies; of an upgraded connection, of all that passed. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** Set where the connection became one of another protocol. */
  readonly upgraded: string | undefined
  readonly decision: string | undefined
  /** Why there is no answer, or why it was refused: a closed code. */
  readonly code: string | undefined
}

const MAX_PATH = 2_048
const MAX_NAMES = 64

/** The names of a query, each without its value. */
export function queryNames(query: string): string {
  return query
    .split('&')
    .slice(0, MAX_NAMES)
    .map((pair) => {
      const at = pair.indexOf('=')
      return at < 0 ? (pair === '' ? '' : '=') : `${pair.slice(0, Math.min(at, 128))}=`
    })
    .join('&')
}

/** One line. A media type is kept without its parameters, which may hold anything. */
export function webLine(request: WebRequest): Uint8Array {
  const [path, query] = splitOnce(request.target.split('#')[0] ?? '', '?')
  const activity = httpActivities[request.method] ?? 99
  const media = (type: string | undefined) => type?.split(';')[0]?.trim().slice(0, 128)
  const line = {
    activity_id: activity,
    ...(activity === 99 ? { activity_name: request.method } : {}),
    category_uid: classes.http.category,
    class_uid: classes.http.uid,
    type_uid: classes.http.uid * 100 + activity,
    severity_id: 1,
    time: Math.round(request.at),
    end_time: Math.round(request.endedAt),
    duration: Math.max(0, Math.round(request.endedAt - request.at)),
    status_id: request.code === undefined ? 1 : 2,
    ...(request.code === undefined ? {} : { status_code: request.code }),
    actor: { user: { uid: request.user } },
    ...(request.ip === null ? {} : { src_endpoint: { ip: request.ip } }),
    http_request: {
      http_method: request.method,
      url: {
        hostname: request.host,
        path: path.slice(0, MAX_PATH),
        ...(query === undefined ? {} : { query_string: queryNames(query) }),
      },
      ...typed(media(request.requestType)),
    },
    ...(request.status === undefined
      ? {}
      : { http_response: { code: request.status, ...typed(media(request.responseType)) } }),
    traffic: { bytes_in: request.bytesIn, bytes_out: request.bytesOut },
    unmapped: {
      sallyport: {
        device: request.device,
        process: request.process,
        ...(request.decision === undefined ? {} : { decision: request.decision }),
        ...(request.upgraded === undefined ? {} : { upgraded: request.upgraded }),
      },
    },
    metadata: {
      version: ocsfVersion,
      product: { name: 'Sallyport' },
      correlation_uid: request.session,
    },
  }
  return new TextEncoder().encode(`${JSON.stringify(line)}\n`)
}

function typed(type: string | undefined): { readonly content_type?: string } {
  return type === undefined || type === '' ? {} : { content_type: type }
}

function splitOnce(text: string, at: string): [string, string | undefined] {
  const found = text.indexOf(at)
  return found < 0 ? [text, undefined] : [text.slice(0, found), text.slice(found + 1)]
}
