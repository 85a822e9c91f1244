/** What OCSF 1.8.0 asks of an event, and what joins one to the log it stands in. design: audit.md section 1. */
export const ocsfVersion = '1.8.0'

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
