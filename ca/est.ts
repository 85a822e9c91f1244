/** EST as values (RFC 7030): a request in, a response out; sockets and limits on reading are the caller's. */
import type { KeyAlgorithm } from './algorithm.ts'
import { readApplicant } from './applicant.ts'
import { csrAttributes } from './attributes.ts'
import { encodeBody } from './der/base64.ts'
import { writeCertsOnly } from './der/cms.ts'
import { enroll } from './enroll.ts'
import { CaError, refuse, relying, type Denial } from './errors.ts'
import type { CaLog } from './event.ts'
import type { IssuedRow } from './issue.ts'
import { authorityCertificates, type Issuers } from './issuer.ts'
import { asCaError, problem } from './problem.ts'
import { DEVICE_LABEL, type EstLabel } from './label.ts'
import type { Manufacturer } from './manufacturer.ts'
import type { PendingStore } from './pending.ts'
import { lifetimeWithin, profiles, type EstProfileName } from './profile.ts'
import { renew } from './renew.ts'
import { linkingOf, type Errand } from './registrar.ts'
import type { CaStore } from './store.ts'
import { Throttle } from './throttle.ts'
import type { Instant, Random } from './time.ts'

/** Largest body the caller reads before it answers 413 itself (`bodyTooLarge`). */
export const EST_BODY_LIMIT = 16_384

export interface EstConnection {
  /** `TLSv1.2` or `TLSv1.3`. */
  readonly tlsVersion: string
  /** tls-exporter or tls-unique bytes, see `channelBinding`; null when there is none. */
  readonly channelBinding: Uint8Array | null
  /** What the client presented, DER, leaf first; empty without one. Nothing has checked it yet. */
  readonly clientChain: readonly Uint8Array[]
  readonly remoteAddress: string
  readonly requestId: string
}
export interface EstRequest {
  readonly method: string
  /** As on the request line, query included. */
  readonly path: string
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: Uint8Array
  readonly connection: EstConnection
}
export interface EstResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** The connection must not carry another request. */
  readonly close: boolean
}

export type DeviceState = 'pending' | 'active' | 'quarantined' | 'revoked' | 'retired'
/** What this room needs of the inventory. */
export interface DeviceRecord {
  readonly id: string
  readonly zone: string
  readonly state: DeviceState
  /** X520 serialNumber, PrintableString characters, at most 64; issued into the subject if set. */
  readonly serialNumber?: string | undefined
  /** For policy alone. */
  readonly labels?: Readonly<Record<string, string>> | undefined
}
export interface Devices {
  find(id: string): Promise<DeviceRecord | undefined>
}

/** The parts of the policy input that only the CA knows; names and units are the envelope's. */
export interface CaFacts {
  readonly request_id: string
  readonly remote_address: string
  readonly tls_version: string
  readonly device: DeviceRecord
  readonly enroll: {
    readonly token: {
      readonly id: string
      readonly zone: string
      readonly uses_left: number
      readonly expires_at: number
    }
    readonly key: { readonly alg: KeyAlgorithm; readonly hardware: boolean }
    readonly claimed_serial: string | null
  } | null
  readonly renew: {
    readonly device_id: string
    readonly serial: string
    readonly not_after: number
    readonly expired_s: number
    readonly chain_ok: boolean
    readonly same_key: boolean
    readonly late_used: boolean
  } | null
}
export interface CaDecision {
  readonly allow: boolean
  readonly denials: readonly Denial[]
  readonly decision_id: string
  /** Of the policy that decided; null where none could. */
  readonly revision?: string | null
  /** Codes of what allowed it. */
  readonly reasons?: readonly string[]
  /** Can only shorten what the profile says. */
  readonly obligations: { readonly lifetimeSeconds?: number; readonly notAfter?: Instant }
}
/** A rejection is answered 503 `decision.unavailable`: no answer, no certificate. */
export type Decide = (
  point: 'device.enroll' | 'device.renew',
  facts: CaFacts,
) => Promise<CaDecision>

export interface EstOptions {
  readonly tenant: string
  readonly store: CaStore
  /** Read once per request, so that a rollover needs no restart. */
  readonly issuers: () => Issuers
  readonly devices: Devices
  readonly decide: Decide
  readonly log: CaLog
  readonly now: () => Instant
  readonly random: Random
  /** 24 h to 7 d; default 72 h. */
  readonly deviceLifetimeSeconds?: number
  /** `required`: every CSR must carry the connection's binding. Default `optional`: checked if present. */
  readonly linking?: 'required' | 'optional'
  /** What is served under which path segment; default: `device` alone. */
  readonly labels?: readonly EstLabel[]
  /** Where requests wait for a person. Without it they are told to wait, and nobody can answer. */
  readonly pending?: PendingStore
  /** Makers whose devices may introduce themselves; read once per request. */
  readonly manufacturers?: () => readonly Manufacturer[]
  /** Requests with a body from one address within a minute; beyond it, 429. Default: any number. */
  readonly requestsPerMinute?: number
  /** Hears of every failure that is ours, with its cause: for the operational log. Must not throw. */
  readonly failed?: (error: CaError, requestId: string) => void
  /** Called once the certificate is stored and before the answer; may be called again for the same serial. */
  readonly issued?: (issued: Issued) => Promise<void>
}
export interface Issued {
  readonly operation: 'enroll' | 'renew'
  readonly device: string
  readonly serial: string
  readonly spkiSha256: string
  readonly notAfter: Instant
}

type Operation =
  | 'cacerts'
  | 'csrattrs'
  | 'simpleenroll'
  | 'simplereenroll'
  | 'serverkeygen'
  | 'fullcmc'

/** RFC 7030 3.2.2 and the method of 4.1.2, 4.2, 4.3, 4.4, 4.5.1. */
const operations: Readonly<Record<Operation, 'GET' | 'POST'>> = {
  cacerts: 'GET',
  csrattrs: 'GET',
  simpleenroll: 'POST',
  simplereenroll: 'POST',
  serverkeygen: 'POST',
  fullcmc: 'POST',
}
const WELL_KNOWN = '/.well-known/est/'

/**
 * An EST server over these stores. The function it gives never throws and never rejects: every
 * failure is a response. Throws CaError `profile` itself for a life the device profile forbids, and for
 * labels that no path can name.
 */
export function est(options: EstOptions): (request: EstRequest) => Promise<EstResponse> {
  const desk: Desk = {
    options,
    labels: checkLabels(options.labels ?? [DEVICE_LABEL]),
    lifetimeSeconds: {
      device: lifetimeWithin(profiles.device, options.deviceLifetimeSeconds),
      ra: profiles.ra.lifetimeSeconds.usual,
    },
    guesses: new Throttle(),
    flood: new Throttle(options.requestsPerMinute ?? Infinity),
  }
  return async (request) => {
    try {
      return await answer(request, desk)
    } catch (error) {
      const failure = asCaError(error)
      if (failure.fault === 'local') options.failed?.(failure, request.connection.requestId)
      return problem(failure, request.connection.requestId, options.random)
    }
  }
}

/** The answer to a body that passed EST_BODY_LIMIT while it was being read; ends the connection. */
export function bodyTooLarge(requestId: string): EstResponse {
  const message = `a request is at most ${EST_BODY_LIMIT} bytes`
  return problem(refuse('body.length', message), requestId, () => new Uint8Array(1))
}

/** What lives as long as the server. */
interface Desk {
  readonly options: EstOptions
  readonly labels: ReadonlyMap<string, EstLabel>
  readonly lifetimeSeconds: Readonly<Record<EstProfileName, number>>
  /** Wrong credentials, and requests with a body, by source. */
  readonly guesses: Throttle
  readonly flood: Throttle
}

interface Target {
  readonly operation: Operation
  readonly label: EstLabel
}

/** RFC 7030 3.2.2: a label is one path segment and never the name of an operation. Throws CaError `profile`. */
function checkLabels(labels: readonly EstLabel[]): ReadonlyMap<string, EstLabel> {
  const named = new Map(labels.map((label) => [label.name, label]))
  const wrong = labels.find(({ name }) => !/^[a-z0-9-]{1,40}$/.test(name) || isOperation(name))
  if (wrong !== undefined || named.size !== labels.length)
    throw new CaError(
      'profile',
      'local',
      wrong === undefined ? 'two labels have one name' : `${wrong.name} cannot be a label`,
    )
  return named
}

async function answer(request: EstRequest, desk: Desk): Promise<EstResponse> {
  const { options } = desk
  const target = route(request, desk.labels)
  const { label } = target
  switch (target.operation) {
    case 'cacerts':
      return certificates(authorityCertificates(options.issuers()), 'application/pkcs7-mime', label)
    case 'csrattrs': {
      const der = csrAttributes(label.csrattrs ?? 'list', linkingOf({ label, options }))
      return der === undefined ? NOTHING_TO_SAY : base64(der, 'application/csrattrs', label)
    }
    case 'simpleenroll':
    case 'simplereenroll':
      return await issueFor(request, target, desk)
    case 'serverkeygen':
      throw refuse('operation.off', 'keys are made on the device, never here')
    case 'fullcmc':
      throw refuse('operation.unsupported', 'Full CMC is not served; enrol with simpleenroll')
  }
}

/** Label, method, media type, length: in that order, before the body is looked at. */
function route(
  { method, path, headers, body }: EstRequest,
  labels: ReadonlyMap<string, EstLabel>,
): Target {
  const target = locate(path, labels)
  if (target.operation === 'serverkeygen' || target.operation === 'fullcmc') return target
  const allowed = operations[target.operation]
  if (method !== allowed)
    throw refuse('method', `${target.operation} is a ${allowed} request`, { allow: allowed })
  if (allowed === 'GET') return target
  const type = (headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
  if (type !== 'application/pkcs10') throw refuse('media_type', 'the body is application/pkcs10')
  if (body.length > EST_BODY_LIMIT)
    throw refuse('body.length', `a request is at most ${EST_BODY_LIMIT} bytes`)
  return target
}

function locate(path: string, labels: ReadonlyMap<string, EstLabel>): Target {
  const [name = ''] = path.split('?', 1)
  const parts = name.startsWith(WELL_KNOWN) ? name.slice(WELL_KNOWN.length).split('/') : []
  const [segment, operation] = parts.length === 2 ? parts : [DEVICE_LABEL.name, parts[0]]
  if (parts.length === 0 || parts.length > 2 || !isOperation(operation))
    throw refuse('path.unknown', 'there is no such EST operation')
  const label = labels.get(segment ?? '')
  if (label === undefined) throw refuse('label.unknown', 'there is no such label')
  return { operation, label }
}

function isOperation(text: string | undefined): text is Operation {
  return text !== undefined && Object.hasOwn(operations, text)
}

/** Throws CaError `rate` for a source that has guessed, or asked, too much. */
function pace(source: string, now: Instant, { guesses, flood }: Desk): void {
  const guessed = guesses.waitSeconds(source, now)
  if (guessed > 0)
    throw refuse('rate', 'too many wrong credentials from this address', {
      retryAfterSeconds: guessed,
    })
  const asked = flood.waitSeconds(source, now)
  if (asked > 0)
    throw refuse('rate', 'too many requests from this address', { retryAfterSeconds: asked })
  flood.count(source, now)
}

async function issueFor(
  request: EstRequest,
  { operation, label }: Target,
  desk: Desk,
): Promise<EstResponse> {
  const { connection, headers } = request
  const { options } = desk
  pace(connection.remoteAddress, options.now(), desk)
  const lifetimeSeconds = desk.lifetimeSeconds[label.profile]
  const applicant = readApplicant(request.body)
  // Now, because it goes with the connection; only for who sent one, because OpenSSL has to derive it.
  const binding = applicant.challengePassword === null ? null : connection.channelBinding
  const errand: Errand = { applicant, binding, label, connection, options, lifetimeSeconds }
  const { authorization } = headers
  try {
    const renewing = operation === 'simplereenroll'
    const row = renewing ? await renew(errand) : await enroll(authorization, errand)
    await relying('store.unavailable', () => options.issued?.(describe(row, renewing)))
    // RFC 9266 4.1: a binding authenticates once; the next request needs another connection.
    return granted(row, applicant.challengePassword !== null, label)
  } catch (error) {
    const guess =
      error instanceof CaError && error.code === 'credential' && authorization !== undefined
    if (guess) desk.guesses.count(connection.remoteAddress, options.now())
    throw error
  }
}

function describe(row: IssuedRow, renewing: boolean): Issued {
  const { subject: device, serial, spkiSha256, notAfter } = row
  return { operation: renewing ? 'renew' : 'enroll', device, serial, spkiSha256, notAfter }
}

function granted(row: IssuedRow, close: boolean, label: EstLabel): EstResponse {
  const type = 'application/pkcs7-mime; smime-type=certs-only'
  return { ...certificates([row.certificate], type, label), close }
}

function certificates(list: readonly Uint8Array[], type: string, label: EstLabel): EstResponse {
  return base64(writeCertsOnly(list), type, label)
}

/** RFC 7030 4.5.2: there are no attributes to ask for. */
const NOTHING_TO_SAY: EstResponse = { status: 204, headers: {}, body: '', close: false }

function base64(der: Uint8Array, type: string, label: EstLabel): EstResponse {
  const body = label.wrap === 'none' ? der.toBase64() : encodeBody(der)
  return {
    status: 200,
    headers: {
      'content-type': type,
      'content-transfer-encoding': 'base64',
      'content-length': String(body.length),
      'cache-control': 'no-store',
    },
    body,
    close: false,
  }
}
