/**
 * Syslog messages (RFC 5424) in octet-counted frames (RFC 5425 4.3, RFC 6587 3.4.1): written for a SIEM, and read
 * back as a receiver would. design: audit.md section 3.
 */
import { AuditError } from '../errors.ts'

/** Stock rsyslog cuts messages at 8,096 bytes, so none of ours is longer. */
export const messageLimit = 8_000
/** Facility 13, log audit, times 8. */
const facility = 104

export type Elements = Readonly<Record<string, string | undefined>>

export interface SyslogMessage {
  /** OCSF severity_id, 1 to 6. */
  readonly severity: number
  /** Epoch ms. */
  readonly time: number
  readonly host: string
  readonly app: string
  /** MSGID: the event code. */
  readonly id: string
  /** The one structured-data element's id, with its enterprise number: `sallyport@32473`. */
  readonly elementId: string
  readonly elements: Elements
  readonly body: Uint8Array
}

/** RFC 5424 6.3.3: within a value `"`, `\` and `]` are escaped, and nothing else is. */
function escape(value: string): string {
  return value.replace(/["\\\]]/g, '\\$&')
}

/** A header field: printable ASCII without blanks, `-` when nothing is left. */
function field(value: string, limit: number): string {
  const kept = value.replace(/[^\u0021-\u007e]/g, '').slice(0, limit)
  return kept === '' ? '-' : kept
}

/** OCSF 1 informational … 6 fatal -> syslog 6 … 1. */
function priority(severity: number): number {
  return facility + Math.min(6, Math.max(1, 7 - severity))
}

/** The message's bytes, without its frame. */
export function formatMessage(message: SyslogMessage): Uint8Array {
  const elements = Object.entries(message.elements)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}="${escape(value ?? '')}"`)
    .join('')
  const header = [
    `<${priority(message.severity)}>1`,
    new Date(message.time).toISOString(),
    field(message.host, 255),
    field(message.app, 48),
    '-',
    field(message.id, 32),
    `[${message.elementId}${elements}]`,
    '',
  ].join(' ')
  return Buffer.concat([Buffer.from(header), message.body])
}

/** `<octets> <message>`: the count is of bytes, not of characters. */
export function frameMessage(message: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${message.length} `), message])
}

/**
 * Takes whole frames off the front of what a connection brought. `rest` is what to put before the next chunk.
 * Errors: frame.length (no count, a leading zero, or more than `limit` bytes).
 */
export function parseFrames(
  bytes: Uint8Array,
  limit = 64 * 1024,
): { readonly frames: Uint8Array[]; readonly rest: Uint8Array } {
  const frames: Uint8Array[] = []
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  let at = 0
  while (at < view.length) {
    const blank = view.indexOf(0x20, at)
    const digits = view.toString('latin1', at, blank === -1 ? Math.min(view.length, at + 9) : blank)
    if (!/^[1-9]\d{0,7}$/.test(digits))
      throw new AuditError('frame.length', 'a frame begins with its length')
    if (Number(digits) > limit)
      throw new AuditError('frame.length', `a frame of ${digits} bytes, the limit is ${limit}`)
    const end = blank + 1 + Number(digits)
    if (blank === -1 || end > view.length) break
    frames.push(view.subarray(blank + 1, end))
    at = end
  }
  return { frames, rest: view.subarray(at) }
}

export interface ParsedMessage {
  readonly priority: number
  readonly timestamp: string
  readonly host: string
  readonly app: string
  readonly process: string
  readonly id: string
  /** Structured data: element id -> name -> value, unescaped. */
  readonly elements: Readonly<Record<string, Readonly<Record<string, string>>>>
  readonly body: Uint8Array
}

const headerForm =
  /^<(\d{1,3})>1 (-|[0-9T:.+Z-]{10,40}) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) (?=[-[])/
const elementForm = /\[([^\s=\]"]{1,32})((?: [^\s=\]"]{1,32}="(?:[^"\\\]]|\\.)*")*)\]/y
const parameterForm = / ([^\s=\]"]{1,32})="((?:[^"\\\]]|\\.)*)"/g

type Structured = Record<string, Readonly<Record<string, string>>>

/** Reads the structured data that begins at `from`; gives it and where it ends. */
function readElements(text: string, from: number): { elements: Structured; end: number } {
  const elements: Structured = {}
  if (text[from] === '-') return { elements, end: from + 1 }
  let end = from
  while (text[end] === '[') {
    elementForm.lastIndex = end
    const element = elementForm.exec(text)
    if (element === null) throw new AuditError('frame.syntax', 'structured data is malformed')
    const parameters = [...(element[2] as string).matchAll(parameterForm)]
    elements[element[1] as string] = Object.fromEntries(
      parameters.map(([, name = '', value = '']) => [name, unescape(value)]),
    )
    end = elementForm.lastIndex
  }
  return { elements, end }
}

function unescape(value: string): string {
  return Buffer.from(value, 'latin1')
    .toString('utf8')
    .replace(/\\(["\\\]])/g, '$1')
}

/** Reads one RFC 5424 message. Errors: frame.syntax. */
export function parseMessage(bytes: Uint8Array): ParsedMessage {
  // Latin-1 keeps one character per byte, so offsets in the text are offsets in the bytes.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  const header = headerForm.exec(text)
  if (header === null) throw new AuditError('frame.syntax', 'not an RFC 5424 header')
  const { elements, end } = readElements(text, header[0].length)
  if (end < text.length && text[end] !== ' ')
    throw new AuditError('frame.syntax', 'no blank before the message')
  // The form has six groups, and none of them is optional.
  const groups = header as unknown as [string, string, string, string, string, string, string]
  const [, priority, timestamp, host, app, process, id] = groups
  const body = bytes.subarray(end + 1)
  return { priority: Number(priority), timestamp, host, app, process, id, elements, body }
}
