/** Event -> OCSF 1.8.0 JSON, pure. design: audit.md section 1. */
import { AuditError } from '../errors.ts'
import { classes, rowOf } from '../event.ts'
import type { Disposition, EntityRow, EventInput, Json, OcsfClass, Row } from '../event.ts'
import { bodyLimit } from '../segment.ts'

export const ocsfVersion = '1.8.0'
const messageLimit = 1_000

/** What every event of one log has in common. */
export interface Source {
  readonly origin: string
  readonly node: string
  readonly version: string
  readonly tenant?: string | undefined
}

/** An event written down but for its index, which only the writer knows. */
export interface Rendered {
  /** The body without its last digits: `head` + idx + `}}`. */
  readonly head: string
  readonly uid: string
  /** Bytes of the body at most. */
  readonly bytes: number
}

type Fields = Record<string, Json | undefined>
/** An event seen without its code's own types: the row says what `data` may hold. */
type Loose = EventInput & { readonly data?: Readonly<Record<string, unknown>> | undefined }

const activities: Readonly<Record<'verb' | 'method' | 'how', Readonly<Record<string, number>>>> = {
  verb: { create: 1, read: 2, update: 3, delete: 4 },
  method: {
    CONNECT: 1,
    DELETE: 2,
    GET: 3,
    HEAD: 4,
    OPTIONS: 5,
    POST: 6,
    PUT: 7,
    TRACE: 8,
    PATCH: 9,
  },
  how: { close: 2, reset: 3, failed: 4 },
}
const dispositions: Readonly<Record<Disposition, { readonly id: number; readonly action: 1 | 2 }>> =
  {
    allowed: { id: 1, action: 1 },
    blocked: { id: 2, action: 2 },
    approved: { id: 8, action: 1 },
    revoked: { id: 24, action: 2 },
    rejected: { id: 25, action: 2 },
    unauthorized: { id: 26, action: 2 },
  }

/** UUID version 7 (RFC 9562 5.7) from epoch ms and 10 random bytes. */
export function uuid7(nowMs: number, random: Uint8Array): string {
  const time = Math.max(0, Math.floor(nowMs)).toString(16).padStart(12, '0').slice(-12)
  const tail = Buffer.from(random.subarray(0, 10))
  tail[0] = ((tail[0] ?? 0) & 0x0f) | 0x70
  tail[2] = ((tail[2] ?? 0) & 0x3f) | 0x80
  const hex = tail.toString('hex')
  return `${time.slice(0, 8)}-${time.slice(8)}-${hex.slice(0, 4)}-${hex.slice(4, 8)}-${hex.slice(8, 20)}`
}

/** The object, or nothing when all of it is absent. */
function some(fields: Fields): Fields | undefined {
  return Object.values(fields).some((value) => value !== undefined) ? fields : undefined
}

function refuse(event: Loose, what: string): never {
  throw new AuditError('event.field', `${event.code}: ${what}`)
}

function isKind(kind: string, value: unknown): boolean {
  switch (kind) {
    case 'text':
      return typeof value === 'string'
    case 'integer':
      return Number.isSafeInteger(value)
    case 'flag':
      return typeof value === 'boolean'
    case 'texts':
      return Array.isArray(value) && value.every((item) => typeof item === 'string')
    default:
      return true
  }
}

/** The event's own fields, checked against its row; secret ones never leave this function. */
function checkedData(event: Loose, row: Row): Fields {
  const given = event.data ?? {}
  const kept: Fields = {}
  for (const name of Object.keys(given))
    if (!Object.hasOwn(row.data, name)) refuse(event, `it has no field ${name}`)
  for (const [name, type] of Object.entries(row.data)) {
    const value = given[name]
    const optional = type.endsWith('?')
    if (value === undefined) {
      if (!optional) refuse(event, `${name} is missing`)
      continue
    }
    const [privacy, kind] = (optional ? type.slice(0, -1) : type).split(' ') as [string, string]
    if (!isKind(kind, value)) refuse(event, `${name} is not of type ${kind}`)
    if (privacy !== 'secret') kept[name] = value as Json
  }
  return kept
}

function checkFacts(event: Loose, row: Row): void {
  for (const fact of row.needs)
    if (event[fact] === undefined || event[fact] === '') refuse(event, `${fact} is missing`)
  if (event.status !== 'success' && event.status !== 'failure') refuse(event, 'status is neither')
  if (typeof event.message !== 'string' || event.message === '') refuse(event, 'message is missing')
}

function activityOf(event: Loose, row: Row, data: Fields): number {
  if (typeof row.activity === 'number') return row.activity
  const value = data[row.activity]
  if (value === undefined && row.activity === 'how') return 2
  const name = typeof value === 'string' ? value : ''
  return activities[row.activity][name] ?? refuse(event, `${row.activity} ${name} is unknown`)
}

function entityOf(event: Loose, entity: EntityRow, data: Fields): Fields {
  const uid = typeof entity.from === 'string' ? event[entity.from] : data[entity.from.field]
  return {
    uid: typeof uid === 'string' ? uid : 'unknown',
    type_id: entity.typeId,
    type: entity.type,
  }
}

function actorOf(event: Loose): Fields {
  const { actor } = event
  if (actor === undefined) return { app_name: 'sallyport' }
  return {
    user: userOf(event),
    session: some({ uid: event.session, issuer: actor.issuer, is_mfa: actor.authn?.mfa }),
    authorizations: event.decisions?.map((decision) => ({
      decision: decision.id,
      policy: { uid: 'sallyport', version: decision.revision },
    })),
  }
}

function userOf(event: Loose): Fields | undefined {
  const { actor } = event
  if (actor === undefined) return undefined
  return {
    uid: actor.uid,
    name: actor.name,
    org: actor.org === undefined ? undefined : { name: actor.org },
  }
}

function destinationOf(event: Loose): Fields | undefined {
  if (event.dst === undefined && event.device === undefined) return undefined
  return {
    ip: event.dst?.ip,
    hostname: event.dst?.host,
    port: event.dst?.port,
    uid: event.device,
    svc_name: event.process,
  }
}

/** What each class adds to the base event. */
const additions: Readonly<
  Record<OcsfClass, (event: Loose, data: Fields, row: Row, source: Source) => Fields>
> = {
  entity: (event, data, row) => ({
    entity: row.entity === undefined ? undefined : entityOf(event, row.entity, data),
  }),
  authentication: (event, _data, _row, source) => ({
    user: userOf(event),
    service: { name: 'sallyport', uid: source.origin },
    is_mfa: event.actor?.authn?.mfa,
  }),
  authorizeSession: (event) => ({
    user: userOf(event),
    privileges: [event.process ?? 'use'],
    session: { uid: event.session ?? event.grant },
  }),
  network: (event, data, _row, source) => ({
    dst_endpoint: destinationOf(event),
    src_endpoint: event.src ?? (event.device === undefined ? { name: source.node } : undefined),
    // OCSF direction_id 1: inbound, towards the device.
    connection_info: { direction_id: 1 },
    traffic:
      data['bytes_in'] === undefined
        ? undefined
        : { bytes_in: data['bytes_in'], bytes_out: data['bytes_out'] },
  }),
  http: (event, data) => ({
    http_request: {
      http_method: data['method'],
      url: some({ hostname: data['host'], path: data['path'] }),
    },
    http_response:
      data['response_code'] === undefined ? undefined : { code: data['response_code'] },
    dst_endpoint: destinationOf(event),
  }),
  tunnel: (_event, data) => ({
    session: { uid: data['tunnel'] },
    tls:
      data['tls_version'] === undefined
        ? undefined
        : { version: data['tls_version'], cipher: data['cipher'] },
  }),
  inventory: () => ({}),
  application: (_event, data) => ({
    app: { name: 'Sallyport', vendor_name: 'Sallyport', version: data['version'] },
  }),
  api: (event, data, _row, source) => ({
    api: {
      operation: data['operation'],
      response: data['response_code'] === undefined ? undefined : { code: data['response_code'] },
    },
    src_endpoint: event.src ?? { name: source.node },
  }),
  eventLog: (_event, _data, _row, source) => ({ log_name: source.origin }),
  finding: (_event, data) => ({
    finding_info: { uid: data['finding'], title: data['title'] },
  }),
}

/** The facts OCSF has no place for. */
function unmapped(event: Loose, data: Fields, source: Source): Fields {
  return {
    node: source.node,
    party: event.actor?.party,
    authn:
      event.actor?.authn === undefined
        ? undefined
        : {
            methods: event.actor.authn.methods,
            acr: event.actor.authn.acr,
            at: event.actor.authn.at,
          },
    device: event.device,
    process: event.process,
    grant: event.grant,
    session: event.session,
    ticket: event.ticket,
    reason: event.reason,
    decisions: event.decisions,
    ...data,
  }
}

function span(time: number, duration: Json | undefined): Fields {
  if (typeof duration !== 'number') return {}
  return { start_time: time - duration, end_time: time, duration }
}

function base(event: Loose, row: Row, data: Fields, time: number): Fields {
  const { uid, category } = classes[row.class]
  const activity = activityOf(event, row, data)
  const disposition = event.disposition === undefined ? undefined : dispositions[event.disposition]
  const ok = event.status === 'success'
  return {
    class_uid: uid,
    category_uid: category,
    activity_id: activity,
    activity_name: activity === 99 ? row.activityName : undefined,
    type_uid: uid * 100 + activity,
    time,
    ...span(time, data['duration_ms']),
    severity_id: row.severity,
    status_id: ok ? 1 : 2,
    status: ok ? 'Success' : 'Failure',
    status_code: event.reason,
    action_id: disposition?.action ?? (ok ? 1 : 2),
    disposition_id: disposition?.id ?? 0,
    message: event.message.slice(0, messageLimit),
    actor: actorOf(event),
    src_endpoint: event.src,
    device: event.device === undefined ? undefined : { uid: event.device, type_id: 7 },
  }
}

/**
 * Writes an event as one OCSF object, save its index. `nowMs` is epoch ms, `random` gives 10 bytes for the uid.
 * Errors: event.code, event.field (missing, unknown or mistyped), event.too_large (over 32 KiB of UTF-8).
 */
export function render(
  given: EventInput,
  source: Source,
  nowMs: number,
  random: Uint8Array,
): Rendered {
  const event: Loose = given
  const row = rowOf(event.code)
  checkFacts(event, row)
  const data = checkedData(event, row)
  const time = Math.floor(event.time ?? nowMs)
  const uid = uuid7(nowMs, random)
  const text = JSON.stringify({
    ...base(event, row, data, time),
    ...additions[row.class](event, data, row, source),
    unmapped: { sallyport: unmapped(event, data, source) },
    // Last, and within it the sequence last: the writer completes the text by a number.
    metadata: {
      version: ocsfVersion,
      product: { name: 'Sallyport', vendor_name: 'Sallyport', version: source.version },
      profiles: ['host', 'security_control'],
      log_name: source.origin,
      tenant_uid: event.tenant ?? source.tenant,
      correlation_uid: event.session,
      uid,
      event_code: event.code,
    },
  })
  const head = `${text.slice(0, -2)},"sequence":`
  const bytes = Buffer.byteLength(head) + 18
  if (bytes > bodyLimit)
    throw new AuditError(
      'event.too_large',
      `${event.code}: ${bytes} bytes, the limit is ${bodyLimit}`,
    )
  return { head, uid, bytes }
}

/** The body's bytes once its index is known. */
export function complete(head: string, idx: number): Uint8Array {
  return Buffer.from(`${head}${idx}}}`)
}

/** What joins an exported event to this log, read from a body's end without parsing the rest. */
export interface Join {
  readonly uid: string
  readonly code: string
  readonly sequence: number
}
const joinForm = /"uid":"([0-9a-f-]{36})","event_code":"([a-z_.]{1,32})","sequence":(\d{1,16})\}\}$/

/** Null for a body that this room did not write. */
export function joinOf(body: Uint8Array): Join | null {
  const from = Math.max(0, body.length - 160)
  const tail = Buffer.from(body.buffer, body.byteOffset + from, body.length - from)
  const match = joinForm.exec(tail.toString('latin1'))
  if (match === null) return null
  return { uid: match[1] as string, code: match[2] as string, sequence: Number(match[3]) }
}

const always = [
  'activity_id',
  'category_uid',
  'class_uid',
  'type_uid',
  'time',
  'severity_id',
  'metadata.version',
  'metadata.product.name',
  'metadata.uid',
  'metadata.sequence',
]
/** OCSF's required attributes per class; an inner list means: at least one of these. */
const required: Readonly<Record<number, readonly (string | readonly string[])[]>> = {
  3002: ['user', ['service', 'dst_endpoint']],
  3003: ['user', 'privileges'],
  3004: ['entity.uid', 'entity.type_id'],
  4001: [['src_endpoint', 'dst_endpoint'], 'connection_info.direction_id'],
  4002: [['http_request', 'http_response']],
  4014: ['session.uid'],
  5001: ['device.type_id'],
  6002: ['app.name'],
  6003: ['api.operation', 'actor', 'src_endpoint'],
  1008: ['log_name'],
  2004: ['finding_info.uid'],
}

function has(body: unknown, path: string): boolean {
  let value = body
  for (const part of path.split('.')) {
    if (typeof value !== 'object' || value === null) return false
    value = (value as Record<string, unknown>)[part]
  }
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0
  return value !== undefined && value !== null
}

/** Every rule of OCSF 1.8.0 this log relies on that `body` breaks, in words; empty when it is a valid event. */
export function faults(body: unknown): string[] {
  const found: string[] = []
  const own = body as Record<string, unknown>
  const rules = required[Number(own['class_uid'])]
  if (rules === undefined) return [`class ${String(own['class_uid'])} is not one we write`]
  for (const rule of [...always, ...rules]) {
    const any = typeof rule === 'string' ? [rule] : rule
    if (!any.some((path) => has(body, path))) found.push(`${any.join(' or ')} is missing`)
  }
  if (own['type_uid'] !== Number(own['class_uid']) * 100 + Number(own['activity_id']))
    found.push('type_uid is not class_uid * 100 + activity_id')
  if (own['activity_id'] === 99 && !has(body, 'activity_name'))
    found.push('activity 99 has no name')
  if (has(body, 'group') && own['class_uid'] === 3003)
    found.push('privileges and group exclude each other')
  return found
}
