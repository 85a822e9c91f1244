/**
 * Event -> one OCSF 1.8.0 object as text, pure. Each row of the catalogue is compiled once; an event is then written
 * member by member, because building an object to have it written takes twice as long. design: audit.md section 1.
 */
import { AuditError } from '../errors.ts'
import { classes, httpActivities } from '../event-row.ts'
import type { OcsfClass, Row } from '../event-row.ts'
import { rowOf } from '../event.ts'
import type { Disposition, EventInput } from '../event.ts'
import { bodyLimit } from '../segment.ts'
import { ocsfVersion } from './ocsf.ts'

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

type Data = Readonly<Record<string, unknown>>
/** An event seen without its code's own types: the row says what `data` may hold. */
type Loose = EventInput & { readonly data?: Data | undefined }

const activities: Readonly<Record<'verb' | 'method' | 'how', Readonly<Record<string, number>>>> = {
  verb: { create: 1, read: 2, update: 3, delete: 4 },
  method: httpActivities,
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
  return `${time.slice(0, 8)}-${time.slice(8)}-${uuidTail(random)}`
}

const hexOf = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
function uuidTail(random: Uint8Array): string {
  const hex = (at: number): string => hexOf[random[at] ?? 0] as string
  const version = hexOf[((random[0] ?? 0) & 0x0f) | 0x70] as string
  const variant = hexOf[((random[2] ?? 0) & 0x3f) | 0x80] as string
  return `${version}${hex(1)}-${variant}${hex(3)}-${hex(4)}${hex(5)}${hex(6)}${hex(7)}${hex(8)}${hex(9)}`
}

// What JSON.stringify would write otherwise than as it stands.
// oxlint-disable-next-line no-control-regex -- JSON escapes control characters
const escaped = /["\\\u0000-\u001f\ud800-\udfff]/

function text(value: string): string {
  return escaped.test(value) ? JSON.stringify(value) : `"${value}"`
}

/** `,"name":"value"`, or nothing when there is no value. `name` needs no escape. */
function member(name: string, value: string | undefined): string {
  return value === undefined ? '' : `,"${name}":${text(value)}`
}
function number(name: string, value: number | undefined): string {
  // JSON knows no NaN and no infinity: JSON.stringify writes null for both.
  return value === undefined ? '' : `,"${name}":${Number.isFinite(value) ? value : 'null'}`
}
function flag(name: string, value: boolean | undefined): string {
  return value === undefined ? '' : `,"${name}":${value}`
}
function json(name: string, value: unknown): string {
  const written = value === undefined ? undefined : JSON.stringify(value)
  return written === undefined ? '' : `,"${name}":${written}`
}
/** `,"name":{…}` of members that each begin with a comma; nothing when there is none. */
function object(name: string, members: string): string {
  return members === '' ? '' : `,"${name}":{${members.slice(1)}}`
}

function refuse(event: Loose, what: string): never {
  throw new AuditError('event.field', `${event.code}: ${what}`)
}

type Write = (name: string, value: unknown) => string | null
/** How each kind of field is written; null when the value is not of the kind. */
const kinds: Readonly<Record<string, Write>> = {
  text: (name, value) => (typeof value === 'string' ? member(name, value) : null),
  integer: (name, value) => (Number.isSafeInteger(value) ? `,"${name}":${String(value)}` : null),
  flag: (name, value) => (typeof value === 'boolean' ? `,"${name}":${value}` : null),
  texts: (name, value) =>
    Array.isArray(value) && value.every((item) => typeof item === 'string')
      ? `,"${name}":[${value.map(text).join(',')}]`
      : null,
  json,
}

interface Field {
  readonly name: string
  readonly kind: string
  readonly optional: boolean
  readonly secret: boolean
  readonly write: Write
}

/** A row of the catalogue made ready to write with. */
interface Plan {
  readonly row: Row
  readonly fields: readonly Field[]
  readonly known: ReadonlySet<string>
  /** `{"class_uid":…` up to the value of `time`, where the activity is the row's own. */
  readonly opening: string | null
  readonly adds: Adds
}

const plans = new Map<string, Plan>()

function planOf(code: string): Plan {
  let plan = plans.get(code)
  if (plan === undefined) {
    plan = compile(rowOf(code))
    plans.set(code, plan)
  }
  return plan
}

function compile(row: Row): Plan {
  const fields = Object.entries(row.data).map(([name, type]): Field => {
    const optional = type.endsWith('?')
    const [privacy = '', kind = ''] = (optional ? type.slice(0, -1) : type).split(' ')
    return { name, kind, optional, secret: privacy === 'secret', write: kinds[kind] ?? json }
  })
  return {
    row,
    fields,
    known: new Set(fields.map(({ name }) => name)),
    opening: typeof row.activity === 'number' ? openingOf(row, row.activity) : null,
    adds: additions[row.class],
  }
}

function openingOf(row: Row, activity: number): string {
  const { uid, category } = classes[row.class]
  const name = activity === 99 ? member('activity_name', row.activityName) : ''
  return `{"class_uid":${uid},"category_uid":${category},"activity_id":${activity}${name},"type_uid":${uid * 100 + activity},"severity_id":${row.severity},"time":`
}

/** The event's own fields, checked against its row and written; secret ones never leave this function. */
function writeData(event: Loose, plan: Plan, data: Data): string {
  for (const name of Object.keys(data))
    if (!plan.known.has(name)) refuse(event, `it has no field ${name}`)
  let written = ''
  for (const { name, kind, optional, secret, write } of plan.fields) {
    const value = Object.hasOwn(data, name) ? data[name] : undefined
    if (value === undefined) {
      if (!optional) refuse(event, `${name} is missing`)
      continue
    }
    const one = write(name, value)
    if (one === null) refuse(event, `${name} is not of type ${kind}`)
    if (!secret) written += one
  }
  return written
}

function checkFacts(event: Loose, row: Row): void {
  for (const fact of row.needs)
    if (event[fact] === undefined || event[fact] === '') refuse(event, `${fact} is missing`)
  if (event.status !== 'success' && event.status !== 'failure') refuse(event, 'status is neither')
  if (typeof event.message !== 'string' || event.message === '') refuse(event, 'message is missing')
}

function activityOf(event: Loose, row: Row, data: Data): number {
  if (typeof row.activity === 'number') return row.activity
  const value = data[row.activity]
  if (value === undefined && row.activity === 'how') return 2
  const name = typeof value === 'string' ? value : ''
  const known = activities[row.activity]
  const activity = Object.hasOwn(known, name) ? known[name] : undefined
  return activity ?? refuse(event, `${row.activity} ${name} is unknown`)
}

function userOf(event: Loose): string {
  const { actor } = event
  if (actor === undefined) return ''
  const org = actor.org === undefined ? '' : object('org', member('name', actor.org))
  return object('user', `${member('uid', actor.uid)}${member('name', actor.name)}${org}`)
}

function actorOf(event: Loose, user: string): string {
  const { actor, decisions } = event
  if (actor === undefined) return ',"actor":{"app_name":"sallyport"}'
  const session = object(
    'session',
    `${member('uid', event.session)}${member('issuer', actor.issuer)}${flag('is_mfa', actor.authn?.mfa)}`,
  )
  const authorizations = json(
    'authorizations',
    decisions?.map((decision) => ({
      decision: decision.id,
      policy: { uid: 'sallyport', version: decision.revision },
    })),
  )
  return object('actor', `${user}${session}${authorizations}`)
}

function sourceOf({ src }: Loose): string {
  return src === undefined
    ? ''
    : object('src_endpoint', `${member('ip', src.ip)}${number('port', src.port)}`)
}

function destinationOf({ dst, device, process }: Loose): string {
  if (dst === undefined && device === undefined) return ''
  const address = `${member('ip', dst?.ip)}${member('hostname', dst?.host)}${number('port', dst?.port)}`
  return object('dst_endpoint', `${address}${member('uid', device)}${member('svc_name', process)}`)
}

const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' ? value : undefined
const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : undefined

/** What a class adds to the base event. `src` and `user` are those members as already written. */
type Adds = (event: Loose, data: Data, row: Row, source: Source, user: string) => string

const additions: Readonly<Record<OcsfClass, Adds>> = {
  entity: (event, data, { entity }) => {
    if (entity === undefined) return ''
    const uid = typeof entity.from === 'string' ? event[entity.from] : data[entity.from.field]
    return `,"entity":{"uid":${text(textOf(uid) ?? 'unknown')},"type_id":${entity.typeId},"type":${text(entity.type)}}`
  },
  authentication: (event, _data, _row, { origin }, user) =>
    `${user},"service":{"name":"sallyport","uid":${text(origin)}}${flag('is_mfa', event.actor?.authn?.mfa)}`,
  authorizeSession: (event, _data, _row, _source, user) =>
    `${user},"privileges":[${text(event.process ?? 'use')}]${object('session', member('uid', event.session ?? event.grant))}`,
  network: (event, data, _row, { node }) => {
    const src =
      event.src === undefined && event.device === undefined
        ? object('src_endpoint', member('name', node))
        : ''
    const traffic = `${number('bytes_in', numberOf(data['bytes_in']))}${number('bytes_out', numberOf(data['bytes_out']))}`
    const both = data['bytes_in'] === undefined ? '' : object('traffic', traffic)
    // OCSF direction_id 1: inbound, towards the device.
    return `${src}${destinationOf(event)},"connection_info":{"direction_id":1}${both}`
  },
  http: (event, data) => {
    const url = `${member('hostname', textOf(data['host']))}${member('path', textOf(data['path']))}`
    const request = `${member('http_method', textOf(data['method']))}${object('url', url)}`
    const response = object('http_response', number('code', numberOf(data['response_code'])))
    return `${object('http_request', request)}${response}${destinationOf(event)}`
  },
  tunnel: (_event, data) => {
    const tls = `${member('version', textOf(data['tls_version']))}${member('cipher', textOf(data['cipher']))}`
    const used = data['tls_version'] === undefined ? '' : object('tls', tls)
    return `${object('session', member('uid', textOf(data['tunnel'])))}${used}`
  },
  inventory: () => '',
  application: (_event, data) =>
    `,"app":{"name":"Sallyport","vendor_name":"Sallyport"${member('version', textOf(data['version']))}}`,
  api: (event, data, _row, { node }) => {
    const response = object('response', number('code', numberOf(data['response_code'])))
    const src = event.src === undefined ? object('src_endpoint', member('name', node)) : ''
    return `${object('api', `${member('operation', textOf(data['operation']))}${response}`)}${src}`
  },
  eventLog: (_event, _data, _row, { origin }) => member('log_name', origin),
  finding: (_event, data) =>
    object(
      'finding_info',
      `${member('uid', textOf(data['finding']))}${member('title', textOf(data['title']))}`,
    ),
}

/** The facts OCSF has no place for; the event's own fields win over facts of the same name. */
function unmapped(event: Loose, data: Data, written: string, source: Source): string {
  const { actor } = event
  const authn =
    actor?.authn === undefined
      ? ''
      : json('authn', { methods: actor.authn.methods, acr: actor.authn.acr, at: actor.authn.at })
  const fact = (name: string, value: string | undefined): string =>
    data[name] === undefined ? member(name, value) : ''
  const ids = `${fact('device', event.device)}${fact('process', event.process)}${fact('grant', event.grant)}${fact('session', event.session)}`
  const why = `${fact('ticket', event.ticket)}${fact('reason', event.reason)}${json('decisions', event.decisions)}`
  return `,"unmapped":{"sallyport":{"node":${text(source.node)}${fact('party', actor?.party)}${authn}${ids}${why}${written}}}`
}

function outcomeOf(event: Loose): string {
  const disposition = event.disposition === undefined ? undefined : dispositions[event.disposition]
  const ok = event.status === 'success'
  const status = ok ? ',"status_id":1,"status":"Success"' : ',"status_id":2,"status":"Failure"'
  const action = `,"action_id":${disposition?.action ?? (ok ? 1 : 2)},"disposition_id":${disposition?.id ?? 0}`
  return `${status}${member('status_code', event.reason)}${action}`
}

function timesOf(time: number, duration: unknown): string {
  if (typeof duration !== 'number') return String(time)
  return `${time},"start_time":${time - duration},"end_time":${time},"duration":${duration}`
}

/** The metadata of a log's events up to what differs: written once per log. */
const commons = new WeakMap<Source, string>()
function commonOf(source: Source): string {
  let common = commons.get(source)
  if (common === undefined) {
    const product = `,"product":{"name":"Sallyport","vendor_name":"Sallyport"${member('version', source.version)}}`
    common = `,"metadata":{"version":"${ocsfVersion}"${product},"profiles":["host","security_control"]${member('log_name', source.origin)}`
    commons.set(source, common)
  }
  return common
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
  return renderAs(given, source, nowMs, uuid7(nowMs, random))
}

/** The same under a uid that is made already. */
export function renderAs(given: EventInput, source: Source, nowMs: number, uid: string): Rendered {
  const event: Loose = given
  const plan = planOf(event.code)
  const { row } = plan
  checkFacts(event, row)
  const data = event.data ?? {}
  const own = writeData(event, plan, data)
  const time = Math.floor(event.time ?? nowMs)
  const user = userOf(event)
  const device =
    event.device === undefined ? '' : `,"device":{"uid":${text(event.device)},"type_id":7}`
  const opening = plan.opening ?? openingOf(row, activityOf(event, row, data))
  const said = `,"message":${text(event.message.slice(0, messageLimit))}`
  const base = `${opening}${timesOf(time, data['duration_ms'])}${outcomeOf(event)}${said}${actorOf(event, user)}${sourceOf(event)}${device}`
  const tenant = member('tenant_uid', event.tenant ?? source.tenant)
  // Last, and within it the sequence last: the writer completes the text by a number.
  const last = `${commonOf(source)}${tenant}${member('correlation_uid', event.session)},"uid":"${uid}","event_code":"${event.code}","sequence":`
  const head = `${base}${plan.adds(event, data, row, source, user)}${unmapped(event, data, own, source)}${last}`
  const bytes = Buffer.byteLength(head) + 18
  if (bytes > bodyLimit)
    throw new AuditError(
      'event.too_large',
      `${event.code}: ${bytes} bytes, the limit is ${bodyLimit}`,
    )
  return { head, uid, bytes }
}
