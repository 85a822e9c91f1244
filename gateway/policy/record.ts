/**
 * A decision as it is kept: OPA's decision log names (policy brief, section 11), the whole input, and
 * the hash of the line before. Pure: what it is made of comes as arguments.
 */
import { createHash } from 'node:crypto'
import type { Decision, Input, Point } from '#policy'
import type { Place } from '../facts.ts'

/** One line of the decision log. */
export interface DecisionRecord {
  readonly labels: { readonly id: string; readonly site: string; readonly tenant: string }
  readonly decision_id: string
  readonly req_id: string | null
  readonly bundles: { readonly sallyport: { readonly revision: string | null } }
  /** As OPA names a decision: `sallyport/session/open/decision`. */
  readonly path: string
  readonly input: Input
  readonly result: Pick<Decision, 'effect' | 'allow' | 'reasons' | 'denials' | 'obligations'>
  /** Address that the request came from, where there is one. */
  readonly requested_by: string | null
  /** RFC 3339, UTC. */
  readonly timestamp: string
  readonly custom: {
    readonly point: Point
    readonly data_digest: string | null
    readonly layer: Decision['layer']
    readonly arm: string
    readonly eval_us: number | null
    readonly subject: string | null
    readonly session: string | null
  }
  /** How many lines of this chain came before. */
  readonly seq: number
  /** SHA-256, hex, of the line before; 64 zeros in the first line of a chain. Always the last field. */
  readonly prev: string
}

export const FIRST_PREV = '0'.repeat(64)

/** A decision and what it was asked, before it is a line. */
export interface Decided {
  readonly point: Point
  readonly input: Input
  readonly decision: Decision
  /** Epoch milliseconds. */
  readonly at: number
}

/** The line of a decision, without its line feed; `seq` and `prev` say where it stands in its chain. */
export function lineOf(
  { point, input, decision, at }: Decided,
  place: Place,
  { seq, prev }: Pick<DecisionRecord, 'seq' | 'prev'>,
): string {
  const { effect, allow, reasons, denials, obligations } = decision
  const record: DecisionRecord = {
    labels: { id: place.gateway, site: place.site, tenant: place.tenant },
    decision_id: decision.decision_id,
    req_id: input.request_id,
    bundles: { sallyport: { revision: decision.revision } },
    path: `sallyport/${point.replace('.', '/')}/decision`,
    input,
    result: { effect, allow, reasons, denials, obligations },
    requested_by: input.client?.ip ?? null,
    timestamp: new Date(at).toISOString(),
    custom: {
      point,
      data_digest: decision.data_digest,
      layer: decision.layer,
      arm: decision.arm,
      eval_us: decision.eval_us,
      subject: input.subject.id,
      session: input.session?.id ?? null,
    },
    seq,
    prev,
  }
  return JSON.stringify(record)
}

/** SHA-256, hex, of a line: what the next one names. */
export function hashOf(line: string | Uint8Array): string {
  return createHash('sha256').update(line).digest('hex')
}

/** A line read back; undefined where it is none. */
export function readLine(line: string): DecisionRecord | undefined {
  try {
    const value: unknown = JSON.parse(line)
    const known = typeof value === 'object' && value !== null && 'decision_id' in value
    return known && 'input' in value && 'custom' in value ? (value as DecisionRecord) : undefined
  } catch {
    return undefined
  }
}

const ID = Buffer.from('"decision_id":"')
const END = /,(?:"seq":(\d{1,15}),)?"prev":"([0-9a-f]{64})"\}$/
/** So many octets at the end of a line hold its number. */
export const END_BYTES = 128
const TIME = Buffer.from('"timestamp":"')
const TIME_CHARACTERS = 24

/** The number of a line in its chain, from its end alone; undefined where an earlier release wrote none. */
export function seqOf(line: Buffer): number | undefined {
  const end = END.exec(line.toString('latin1', Math.max(0, line.length - END_BYTES)))
  return end?.[1] === undefined ? undefined : Number(end[1])
}

/** When a line was written, epoch milliseconds, without decoding its input; NaN where it does not say. */
export function timeOf(line: Buffer): number {
  // Within a value the quotes would be escaped, and behind it no key is the customer's own.
  const at = line.lastIndexOf(TIME)
  if (at < 0) return Number.NaN
  const begin = at + TIME.length
  return Date.parse(line.toString('latin1', begin, begin + TIME_CHARACTERS))
}

/** Names and numbers of a line without decoding its input: nothing before the first id is the customer's own. */
function linkOf(line: Buffer): { id: string; seq: number | undefined; prev: string } | undefined {
  const at = line.indexOf(ID) + ID.length
  const end = END.exec(line.toString('latin1', Math.max(0, line.length - END_BYTES)))
  if (at < ID.length || end === null) return undefined
  const [, seq, prev = ''] = end
  const id = line.toString('latin1', at, line.indexOf('"', at))
  return { id, seq: seq === undefined ? undefined : Number(seq), prev }
}

/** Where a chain stands: what its next line names. */
export interface Standing {
  readonly seq: number
  /** undefined where the line before is not kept any more: then the next is believed. */
  readonly head: string | undefined
}

/** What a walk along a chain found. */
export interface Walked extends Standing {
  /** Offset of each record by its id. */
  readonly ids: Map<string, number>
  /** First line, counted from 0, that does not name the one before. */
  readonly broken: number | undefined
}

/** Lines of earlier releases have no place of their own. */
function follows(link: ReturnType<typeof linkOf>, { seq, head }: Standing): boolean {
  if (link === undefined || head === undefined) return link !== undefined
  return link.prev === head && (link.seq === undefined || link.seq === seq)
}

/** Walks along whole lines (octets of a segment), checking that each names the one before it. */
export function walk(bytes: Buffer, from: Standing): Walked {
  let { seq, head } = from
  let broken: number | undefined
  const ids = new Map<string, number>()
  let count = 0
  for (let begin = 0; begin < bytes.length; count++) {
    const found = bytes.indexOf(0x0a, begin)
    const end = found < 0 ? bytes.length : found
    const line = bytes.subarray(begin, end)
    const link = linkOf(line)
    if (!follows(link, { seq, head })) broken ??= count
    if (link !== undefined) ids.set(link.id, begin)
    seq = (link?.seq ?? seq) + 1
    head = hashOf(line)
    begin = end + 1
  }
  return { seq, head, ids, broken }
}
