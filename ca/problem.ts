/** The one place where a code of this room becomes HTTP (RFC 7030 4.2.3: plain text a person can read). */
import { CaError, type CaCode } from './errors.ts'
import type { EstResponse } from './est.ts'
import type { Random } from './time.ts'

interface Row {
  readonly status: number
  /** What to do next. */
  readonly next: string
  readonly headers?: Readonly<Record<string, string>>
  /** The connection ends with this answer. */
  readonly close?: true
}

const CHALLENGE = { 'www-authenticate': 'Basic realm="est", charset="UTF-8"' }
const OWN_KEY = 'make a new key on the device'
const NEW_CSR = 'make a new request with a current tool'
const NEW_TOKEN = 'ask an operator for a new token'
const RE_ENROL = 'enrol again with a new token from an operator'
const LATER = 'try again after the time in Retry-After'
const OPERATOR = 'show the request id to the operator of this gateway'

const badRequest = (next: string): Row => ({ status: 400, next })
const forbidden = (next: string): Row => ({ status: 403, next })
const unavailable = { status: 503, next: LATER } as const
const broken = { status: 500, next: OPERATOR } as const

const rows = {
  'path.unknown': { status: 404, next: 'see RFC 7030 section 3.2.2 for the paths' },
  'label.unknown': { status: 404, next: 'leave the label out, or use `device`' },
  'operation.off': { status: 404, next: 'use simpleenroll with a key made on the device' },
  'operation.unsupported': { status: 501, next: 'use simpleenroll or simplereenroll' },
  method: { status: 405, next: 'use the method in Allow' },
  media_type: { status: 415, next: 'send Content-Type: application/pkcs10' },
  'body.length': { status: 413, next: 'send one PKCS#10 request', close: true },
  'body.base64': badRequest('send the DER of one PKCS#10 request in base64'),
  rate: { status: 429, next: LATER, close: true },
  der: badRequest(NEW_CSR),
  'csr.structure': badRequest(NEW_CSR),
  'csr.attribute': badRequest(NEW_CSR),
  'csr.algorithm': badRequest('sign with SHA-256, SHA-384, SHA-512 or Ed25519'),
  'csr.signature': badRequest('sign the request with the key inside it'),
  'key.algorithm': badRequest(OWN_KEY),
  'key.weak': badRequest(OWN_KEY),
  'key.bound': forbidden(OWN_KEY),
  'key.compromised': forbidden(OWN_KEY),
  'name.subject': badRequest('correct the subject, or leave it empty when enrolling'),
  'name.san': badRequest('correct the SAN'),
  'name.change': badRequest('leave the attribute out'),
  'binding.required': badRequest('put the base64 of tls-exporter (TLS 1.2: tls-unique) there'),
  'binding.mismatch': badRequest('make the request anew on each connection, or leave it out'),
  credential: { status: 401, next: NEW_TOKEN, headers: CHALLENGE },
  'token.bound': forbidden(
    'use the first key, or have an operator rebind the token or make a new one',
  ),
  'token.label': forbidden('post to the label the token was made for'),
  'certificate.required': forbidden('present it, or enrol with a token at simpleenroll'),
  'operation.swapped': forbidden('post to simplereenroll'),
  'device.unknown': forbidden('have an operator add the device'),
  'device.state': forbidden('have an operator replace the device'),
  'device.claimed': forbidden(
    'enrol with a token, or have an operator free the claim: sallyport device tokens, then rebind-token',
  ),
  'idevid.serial': forbidden('have an operator add the serial number to the list of its maker'),
  'peer.none': forbidden('present the device certificate'),
  'peer.malformed': forbidden(RE_ENROL),
  'peer.issuer': forbidden(RE_ENROL),
  'peer.signature': forbidden(RE_ENROL),
  'peer.ca': forbidden(RE_ENROL),
  'peer.purpose': forbidden(RE_ENROL),
  'peer.extension': forbidden(RE_ENROL),
  'peer.name': forbidden(RE_ENROL),
  'peer.early': forbidden('correct the clocks'),
  'peer.expired': forbidden(RE_ENROL),
  'peer.unknown': forbidden(RE_ENROL),
  'peer.revoked': forbidden(RE_ENROL),
  'peer.superseded': forbidden(
    'use the newer certificate; if it is lost, enrol again with a new token',
  ),
  'policy.denied': forbidden('ask the operator of this gateway'),
  'policy.pending': { status: 202, next: LATER },
  'approval.rejected': forbidden('ask the operator of this gateway'),
  profile: broken,
  lint: broken,
  'draft.spent': broken,
  'issuer.mismatch': unavailable,
  'issuer.expired': unavailable,
  'issuer.revoked': unavailable,
  'signer.algorithm': broken,
  'signer.unavailable': unavailable,
  'store.unavailable': unavailable,
  'log.unavailable': unavailable,
  'decision.unavailable': unavailable,
  internal: broken,
} as const satisfies Record<CaCode, Row>

/** A CaError as it is; anything else is `internal`, with its cause. */
export function asCaError(error: unknown): CaError {
  if (error instanceof CaError) return error
  return new CaError('internal', 'local', 'something unexpected failed', { cause: error })
}

/** One line: code, sentence, next step, decision and request id. */
export function problem(error: unknown, requestId: string, random: Random): EstResponse {
  const known = asCaError(error)
  const row: Row = rows[known.code]
  const decision = known.decisionId === null ? '' : `decision ${known.decisionId}, `
  const said = known.message.replace(/[\s\p{Cc}]+/gu, ' ')
  const body = `${known.code}: ${said}; ${row.next} (${decision}request ${requestId})\n`
  return {
    status: row.status,
    headers: {
      'content-type': 'text/plain; charset=utf-8',
      'content-length': String(Buffer.byteLength(body)),
      'cache-control': 'no-store',
      ...row.headers,
      ...(known.allow === null ? {} : { allow: known.allow }),
      ...retry(known, row, random),
    },
    body,
    close: row.close ?? false,
  }
}

/** Spread over a quarter more, so that a plant of waiting devices does not return in one second. */
function retry(error: CaError, row: Row, random: Random): Readonly<Record<string, string>> {
  const least = error.retryAfterSeconds ?? (row.status === 503 ? 10 : null)
  if (least === null) return {}
  const spread = ((random(1)[0] ?? 0) / 256) * Math.max(least / 4, 5)
  return { 'retry-after': String(Math.ceil(least + spread)) }
}
