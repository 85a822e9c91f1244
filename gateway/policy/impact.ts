/**
 * What another policy would do: which live sessions it would cut, and which past decisions it would
 * turn. Past ones count only where the policy in force still says what it said then.
 */
import { setImmediate } from 'node:timers/promises'
import type { Decision, Input, Obligations, Point, PolicyEngine, Tightened } from '#policy'
import type { WouldEnd, WouldNarrow } from '../sessions/foresee.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { DecisionRecord } from './record.ts'

export interface SessionPreview {
  readonly session: string
  readonly device: string
  readonly process: string
  readonly person: string
  readonly vendor: string | null
}

export interface CutPreview extends SessionPreview {
  readonly code: string
  readonly message: string
}

/** A session that goes on with less. */
export interface NarrowPreview extends SessionPreview {
  readonly tightened: readonly Tightened[]
  /** Connections that are cut because they might do more. */
  readonly connections: number
}

/** Decisions that come out alike in these respects, counted. */
export interface Turned {
  readonly point: Point
  readonly change: 'newly_denied' | 'newly_allowed' | 'obligations'
  readonly person: string
  readonly vendor: string | null
  readonly zone: string | null
  /** Codes of the new denial, of the old one where it is lifted, or the obligations that changed. */
  readonly codes: readonly string[]
  readonly count: number
  /** One of them, to look at with `policy explain`. */
  readonly example: string
}

export interface Replay {
  readonly decisions: number
  readonly replayed: number
  /** The policy in force does not say today what was logged: nothing can be concluded. */
  readonly not_replayable: number
  readonly turned: readonly Turned[]
  /** Time of the oldest decision looked at, RFC 3339; null where there is none: nothing before it is kept. */
  readonly from: string | null
  /** More kinds of turned decisions than are listed. */
  readonly truncated: boolean
}

/** The most kinds of change a report lists. */
const MAX_TURNED = 500
const SLICE_MS = 8

export function cutPreview(ended: readonly WouldEnd[]): CutPreview[] {
  return ended.map(({ session, cause }) => ({
    ...sessionPreview(session),
    code: cause.code,
    message: cause.message,
  }))
}

export function narrowPreview(narrowed: readonly WouldNarrow[]): NarrowPreview[] {
  return narrowed.map(({ session, tightened, connections }) => ({
    ...sessionPreview(session),
    tightened,
    connections,
  }))
}

export function sessionPreview({ id, device, process, subject }: LiveSession): SessionPreview {
  const { email, vendor } = subject
  return { session: id, device, process, person: email ?? subject.id, vendor }
}

type Said = Pick<Decision, 'effect' | 'allow' | 'reasons' | 'denials' | 'obligations'>

const codesOf = ({ allow, reasons, denials }: Said): string[] =>
  (allow ? reasons : denials).map(({ code }) => code).toSorted()

function alike(a: Said, b: Said): boolean {
  return a.effect === b.effect && codesOf(a).join() === codesOf(b).join()
}

function changedObligations(before: Obligations, after: Obligations): string[] {
  const names = Object.keys(before) as (keyof Obligations)[]
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]))
}

/** How the candidate turns a decision, or undefined where it leaves it. */
export function turn(before: Said, after: Said): Pick<Turned, 'change' | 'codes'> | undefined {
  if (before.allow && !after.allow) return { change: 'newly_denied', codes: codesOf(after) }
  if (!before.allow && after.allow) return { change: 'newly_allowed', codes: codesOf(before) }
  if (!before.allow) return undefined
  const codes = changedObligations(before.obligations, after.obligations)
  return codes.length === 0 ? undefined : { change: 'obligations', codes }
}

/**
 * Replays records against a candidate. Takes the records oldest first, the engine in force and the
 * candidate's. Lets the loop turn every 8 ms. Looks at all of them: what a node keeps is bounded.
 * `asking` is told before each that is asked about, with how many came before.
 */
export async function replay(
  records: AsyncIterable<DecisionRecord>,
  inForce: Pick<PolicyEngine, 'decide'>,
  candidate: Pick<PolicyEngine, 'decide'>,
  asking: (before: number) => void = () => undefined,
): Promise<Replay> {
  const turned = new Map<string, Turned>()
  let from: string | null = null
  let decisions = 0
  let notReplayable = 0
  let truncated = false
  let began = performance.now()
  for await (const record of records) {
    asking(decisions++)
    from ??= record.timestamp
    if (performance.now() - began > SLICE_MS) {
      await setImmediate()
      began = performance.now()
    }
    const { point } = record.custom
    const options = { decisionId: record.decision_id }
    const today = inForce.decide(point, record.input, options)
    if (!alike(today, record.result)) {
      notReplayable++
      continue
    }
    const change = turn(today, candidate.decide(point, record.input, options))
    if (change === undefined) continue
    const one = describeTurn({ point, input: record.input, example: record.decision_id }, change)
    const key = JSON.stringify([one.point, one.change, one.person, one.zone, one.codes])
    const seen = turned.get(key)
    if (seen === undefined && turned.size >= MAX_TURNED) truncated = true
    else turned.set(key, { ...one, count: (seen?.count ?? 0) + 1 })
  }
  const listed = [...turned.values()].toSorted((a, b) => b.count - a.count)
  const replayed = decisions - notReplayable
  return { decisions, replayed, not_replayable: notReplayable, turned: listed, from, truncated }
}

/** Whose decision it is, in the words of a report. */
export function describeTurn(
  {
    point,
    input,
    example,
  }: { readonly point: Point; readonly input: Input; readonly example: string },
  change: Pick<Turned, 'change' | 'codes'>,
): Turned {
  const { subject, device }: Pick<Input, 'subject' | 'device'> = input
  return {
    ...change,
    point,
    person: subject.email ?? subject.id ?? device?.id ?? '',
    vendor: subject.vendor,
    zone: device?.zone ?? null,
    count: 1,
    example,
  }
}
