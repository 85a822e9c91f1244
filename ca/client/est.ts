/** EST requests and answers as values (RFC 7030); the agent brings the connection. */
import { encodeUtf8 } from '../der/text.ts'
import { encodeEstBody, parseCertsOnly } from './body.ts'
import { parseCsrAttributes, type CsrWishes } from './csrattrs.ts'
import { EstError } from './errors.ts'

export interface EstCall {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Empty for GET. */
  readonly body: string
}
/** `pending`: ask again with the same key after so many seconds (202). */
export type EstAnswer =
  | { readonly kind: 'certificates'; readonly certificates: readonly Uint8Array[] }
  | { readonly kind: 'pending'; readonly retryAfterSeconds: number }

/** An answer as HTTP gave it; header names in lower case. */
interface Response {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: string
}

/** A server that says nothing useful in Retry-After is asked again after this. */
const DEFAULT_RETRY_SECONDS = 300
const LONGEST_RETRY_SECONDS = 86_400

function pathOf(operation: string, label: string | undefined): string {
  return ['/.well-known/est', ...(label === undefined ? [] : [label]), operation].join('/')
}

function post(operation: string, csr: Uint8Array, label: string | undefined): EstCall {
  const body = encodeEstBody(csr)
  return {
    method: 'POST',
    path: pathOf(operation, label),
    headers: {
      'content-type': 'application/pkcs10',
      'content-transfer-encoding': 'base64',
      'content-length': String(body.length),
    },
    body,
  }
}

/** The CA certificates (RFC 7030 4.1). */
export function cacertsRequest(label?: string): EstCall {
  return { method: 'GET', path: pathOf('cacerts', label), headers: {}, body: '' }
}

/** What the server wants a CSR to hold (4.5). */
export function csrattrsRequest(label?: string): EstCall {
  return { method: 'GET', path: pathOf('csrattrs', label), headers: {}, body: '' }
}

/** A first certificate; `token` goes as the Basic password, the user name stays empty (3.2.3, 4.2.1). */
export function enrollRequest(options: {
  readonly csr: Uint8Array
  readonly token: string
  /** For servers that know their clients by name; ours takes the device id or nothing. */
  readonly user?: string
  readonly label?: string
}): EstCall {
  const call = post('simpleenroll', options.csr, options.label)
  const basic = encodeUtf8(`${options.user ?? ''}:${options.token}`).toBase64()
  return { ...call, headers: { ...call.headers, authorization: `Basic ${basic}` } }
}

/** A first certificate on the word of the certificate that the connection presents (3.3.2). */
export function introduceRequest(options: {
  readonly csr: Uint8Array
  readonly label?: string
}): EstCall {
  return post('simpleenroll', options.csr, options.label)
}

/** A renewal, on a connection that presents the certificate being renewed (4.2.2). */
export function reenrollRequest(options: {
  readonly csr: Uint8Array
  readonly label?: string
}): EstCall {
  return post('simplereenroll', options.csr, options.label)
}

const SENTENCE = /^([a-z0-9_]+(?:\.[a-z0-9_]+)*): (.+)/

/**
 * Reads an answer to any of the three. Header names in lower case.
 * Throws EstError: `server` (4xx/5xx; `serverCode` and message are the server's own),
 * `response.status`, `response.type`, `response.body`.
 */
export function readCertificates(response: Response): EstAnswer {
  const { status, headers, body } = response
  if (status === 202) return { kind: 'pending', retryAfterSeconds: retrySeconds(headers) }
  if (status >= 400) throw refusal(status, headers, body)
  if (status !== 200)
    throw new EstError('response.status', `the server answered ${status}`, { status })
  const type = (headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
  if (type !== 'application/pkcs7-mime')
    throw new EstError('response.type', `the server answered with ${type ?? 'nothing'}`, { status })
  return { kind: 'certificates', certificates: parseCertsOnly(body) }
}

/**
 * Reads an answer to csrattrs; undefined where the server has nothing to ask for (204) or does not
 * answer this at all (404, 501). Throws EstError as `readCertificates`, and `response.body`.
 */
export function readCsrAttributes(response: Response): CsrWishes | undefined {
  const { status, headers, body } = response
  if (status === 204 || status === 404 || status === 501) return undefined
  if (status >= 400) throw refusal(status, headers, body)
  if (status !== 200)
    throw new EstError('response.status', `the server answered ${status}`, { status })
  return parseCsrAttributes(body)
}

function refusal(status: number, headers: Response['headers'], body: string): EstError {
  const line =
    body
      .slice(0, 2_000)
      .split('\n', 1)[0]
      ?.replace(/\p{Cc}/gu, ' ')
      .trim() ?? ''
  const match = SENTENCE.exec(line)
  const message = match?.[2] ?? (line === '' ? `the server answered ${status}` : line)
  const serverCode = match?.[1]
  return new EstError('server', message, {
    status,
    ...(serverCode === undefined ? {} : { serverCode }),
    ...(headers['retry-after'] === undefined ? {} : { retryAfterSeconds: retrySeconds(headers) }),
  })
}

function retrySeconds(headers: Readonly<Record<string, string | undefined>>): number {
  const text = headers['retry-after'] ?? ''
  // RFC 9110 10.2.3 also allows a date; a device without a clock cannot use one.
  const seconds = /^\d{1,9}$/.test(text) ? Number(text) : DEFAULT_RETRY_SECONDS
  return Math.max(1, Math.min(seconds, LONGEST_RETRY_SECONDS))
}
