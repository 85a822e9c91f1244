/**
 * What a SIEM's export shows: events, found in whatever the SIEM put around them, and whose they say they are. Pure; nothing
 * of it is proven. docs/audit.md section "Reconciling".
 */
import { joinOf } from './format/ocsf.ts'

/** One event as an export shows it. `body` is null where the sink was sent no verbatim body (CEF, a stub). */
export interface Found {
  /** The log that it says it is of. */
  readonly origin: string
  readonly idx: number
  readonly body: Uint8Array | null
  /** Leaf hash the export carries beside it, 64 hex digits; null when it carries none. */
  readonly leaf: string | null
  /** Line of the export, from 1. */
  readonly line: number
}

/** Where an OCSF body begins in a line: our bodies begin so and no other part of a message does. */
const bodyBegin = Buffer.from('{"class_uid":')
const stubBegin = Buffer.from('{"severity_id":')

/** An event in one line of an export; null when there is none. */
export function findEvent(bytes: Uint8Array, line: number): Found | null {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  return findVerbatim(text, line) ?? findWrapped(text, line) ?? findFields(text, line)
}

/** Inside a body a quote that belongs to a text is escaped, so that this stands in no text. */
const nameForm = /"log_name":"([^"\\]{1,255})"/

/** The body as it was sent, perhaps behind a header: from its beginning to the end that joins it. */
function findVerbatim(text: Buffer, line: number): Found | null {
  const end = text.lastIndexOf('}')
  const first = text.indexOf(bodyBegin)
  const last = text.lastIndexOf(bodyBegin)
  if (first < 0) return null
  // A receiver that was killed leaves half a line, and the next message behind it.
  const at = first === last || isJson(text.subarray(first, end + 1)) ? first : last
  const body = text.subarray(at, end + 1)
  const join = joinOf(body)
  const origin = nameForm.exec(body.toString())?.[1]
  if (join === null || origin === undefined) return null
  return { origin, idx: join.sequence, body, leaf: leafIn(text.subarray(0, at)), line }
}

function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}

/** The body as a string inside JSON: Splunk's `_raw` or `event`, Elastic's `event.original`, OTLP's `stringValue`. */
function findWrapped(text: Buffer, line: number): Found | null {
  const at = text.indexOf('"{\\"class_uid\\":')
  if (at < 0) return null
  let end = at + 1
  while (end < text.length && text[end] !== 0x22) end += text[end] === 0x5c ? 2 : 1
  let body: unknown
  try {
    body = JSON.parse(text.toString('utf8', at, end + 1))
  } catch {
    return null
  }
  if (typeof body !== 'string') return null
  return findVerbatim(Buffer.from(body), line)
}

const fieldForms = {
  origin: /(?:^|[\s[{,"|])(?:origin|cs6)(?:"?\s*[:=]\s*"?)([^\s"\],]+)/,
  idx: /(?:^|[\s[{,"|])(?:idx|cn1)(?:"?\s*[:=]\s*"?)(\d{1,16})/,
}

/** What is left where no body was sent: the fields that join it. */
function findFields(text: Buffer, line: number): Found | null {
  const stub = text.indexOf(stubBegin)
  const head = text.toString('latin1', 0, Math.min(text.length, 4_096))
  if (stub < 0 && !head.includes('CEF:0|Sallyport|')) return null
  const origin = fieldForms.origin.exec(head)?.[1]
  const idx = fieldForms.idx.exec(head)?.[1]
  if (origin === undefined || idx === undefined) return null
  return { origin, idx: Number(idx), body: null, leaf: leafIn(text), line }
}

/** The last leaf hash named in front of a body, or anywhere in a line without one. */
function leafIn(text: Buffer): string | null {
  const near = text.toString('latin1', Math.max(0, text.length - 8_192))
  return [...near.matchAll(/(?:leaf|cs4)(?:"?\s*[:=]\s*"?)([0-9a-f]{64})/g)].at(-1)?.[1] ?? null
}

/** A signed head that a sink was sent between events. */
export function isCheckpoint(line: Uint8Array): boolean {
  return Buffer.from(line.buffer, line.byteOffset, line.length).includes('audit.checkpoint')
}

/** Lines of a file's chunks, without their line ends; a line of over 1 MiB is given in pieces. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let held: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    held = Buffer.concat([held, chunk])
    let at = 0
    for (let end = held.indexOf(10); end >= 0; end = held.indexOf(10, at)) {
      yield held.subarray(at, held[end - 1] === 13 ? end - 1 : end)
      at = end + 1
    }
    held = held.subarray(at)
    if (held.length > 1024 * 1024) {
      yield held
      held = Buffer.alloc(0)
    }
  }
  if (held.length > 0) yield held
}
