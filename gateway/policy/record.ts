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
  /** SHA-256, hex, of the line before; 64 zeros in the first line of a node's log. */
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

/** The line of a decision, without its line feed. `prev` is the hash of the line before. */
export function lineOf(
  { point, input, decision, at }: Decided,
  place: Place,
  prev: string,
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
    prev,
  }
  return JSON.stringify(record)
}

/** SHA-256, hex, of a line: what the next one names. */
export function hashOf(line: string): string {
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

/** Where a chain of lines breaks: the index of the first line that does not name the one before, or undefined. */
export function brokenAt(lines: readonly string[], prev: string): number | undefined {
  let before = prev
  for (const [at, line] of lines.entries()) {
    if (readLine(line)?.prev !== before) return at
    before = hashOf(line)
  }
  return undefined
}
