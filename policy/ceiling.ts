/**
 * The last layer: what Rego handed out is read, completed with strict defaults and held under the
 * host's maxima. Anything not understood is a denial; nothing here can turn a denial into an allow.
 */
import type { DenialCode } from './catalogue.ts'
import type { Denial, Effect, Reason, Remedy } from './decision.ts'
import type { Input, Point } from './envelope.ts'
import { OBLIGATIONS } from './obligations.ts'
import type { Obligations, ObligedWindow } from './obligations.ts'
import { POINTS } from './points.ts'
import { compile, decisionSchema } from './schema.ts'

/** A decision document in the form the library promises. */
export interface Document {
  readonly effect: Effect
  readonly allow: boolean
  readonly reasons: readonly Reason[]
  readonly denials: readonly (Denial & { readonly remedy?: Remedy })[]
  readonly obligations: Readonly<Record<string, unknown>>
}

/** Either a value, or the code and the place to deny with. */
export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly code: DenialCode; readonly at: string }

const checkDocument = compile(decisionSchema)

function refused(code: DenialCode, at: string): { ok: false; code: DenialCode; at: string } {
  return { ok: false, code, at }
}

/** Whether effect, allow, reasons and denials tell one story; where not, which part. */
function contradiction(document: Document): string | undefined {
  const { effect, allow, reasons, denials } = document
  if (allow !== (effect === 'allow')) return 'allow and effect differ'
  if (effect === 'allow') {
    if (reasons.length === 0) return 'an allow without a reason'
    return denials.length > 0 ? 'an allow with denials' : undefined
  }
  if (denials.length === 0) return 'a denial without a code'
  const answerable = denials.every((denial) => denial.remedy !== undefined)
  return effect === 'challenge' && !answerable ? 'a challenge that nothing answers' : undefined
}

/** `policy.no_match` explains nothing, so it comes last; the others stay sorted by code. */
function specificFirst(document: Document): Document {
  const general = document.denials.filter(({ code }) => code === 'policy.no_match')
  if (general.length === 0) return document
  const specific = document.denials.filter(({ code }) => code !== 'policy.no_match')
  return { ...document, denials: [...specific, ...general] }
}

/** Reads what the entry point returned. Refuses: policy.error. */
export function readDocument(raw: unknown): Read<Document> {
  if (raw === undefined) return refused('policy.error', 'the decision is undefined')
  const problem = checkDocument(raw)
  if (problem !== undefined) return refused('policy.error', `decision${problem}`)
  const document = specificFirst(raw as Document)
  const story = contradiction(document)
  return story === undefined ? { ok: true, value: document } : refused('policy.error', story)
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function count(key: string, value: unknown): Read<number> {
  return isCount(value) ? { ok: true, value } : refused('policy.error', `obligations.${key}`)
}

function flag(key: string, value: unknown): Read<boolean> {
  return typeof value === 'boolean'
    ? { ok: true, value }
    : refused('policy.error', `obligations.${key}`)
}

function names(key: string, value: unknown): Read<readonly string[]> {
  const good = Array.isArray(value) && value.every((name) => typeof name === 'string')
  return good
    ? { ok: true, value: [...new Set(value as readonly string[])].toSorted() }
    : refused('policy.error', `obligations.${key}`)
}

function isWindow(value: unknown): value is ObligedWindow {
  if (typeof value !== 'object' || value === null) return false
  const { unit, from, to } = value as Partial<Record<keyof ObligedWindow, unknown>>
  return [unit, from, to].every((part) => Number.isSafeInteger(part) && Number(part) >= 0)
}

function windows(key: string, value: unknown): Read<Obligations['ot_windows']> {
  const good =
    Array.isArray(value) && value.every((list) => Array.isArray(list) && list.every(isWindow))
  return good ? { ok: true, value } : refused('policy.error', `obligations.${key}`)
}

const READERS = { count, flag, names, windows } as const

const KINDS: ReadonlyMap<string, keyof typeof READERS> = new Map(
  Object.entries(OBLIGATIONS).map(([key, { kind }]) => [key, kind]),
)

function readEach(given: Readonly<Record<string, unknown>>): Read<Partial<Obligations>> {
  let read = given
  for (const key of Object.keys(given)) {
    const kind = KINDS.get(key)
    if (kind === undefined) return refused('obligation.unsupported', key)
    const value = given[key]
    // The common kinds without a detour: they are most of every decision.
    if (kind === 'flag' ? typeof value === 'boolean' : kind === 'count' && isCount(value)) continue
    const one = READERS[kind](key, value)
    if (!one.ok) return one
    read = { ...read, [key]: one.value }
  }
  return { ok: true, value: read as Partial<Obligations> }
}

/** A number under its ceiling. */
function lowest(
  said: number | undefined,
  { absent, ceiling = Infinity }: { readonly absent: number; readonly ceiling?: number },
): number {
  return Math.min(said ?? absent, ceiling)
}

function reachable(
  point: Point,
  input: Input | undefined,
  given: readonly string[] | null | undefined,
): readonly string[] | null {
  if (point === 'tunnel.connect') return given ?? null
  const id = input?.process?.id ?? null
  if (id === null) return given ?? []
  return given === undefined || given === null || given.includes(id) ? [id] : []
}

/**
 * Fills what the policy left unsaid with the strict default and clamps to the ceilings of the point.
 * `not_after` never exceeds decision time + max_duration_s; writing takes windows to write in.
 */
export function complete(
  point: Point,
  input: Input | undefined,
  given: Partial<Obligations>,
): Obligations {
  const { max_duration_s, ot_level, record, justification, supervise, notify, ot_each } =
    OBLIGATIONS
  const longest = lowest(given.max_duration_s, max_duration_s)
  const duration = Math.min(longest, POINTS[point].maxDurationSeconds)
  const windowed = given.ot_windows ?? []
  const level = lowest(given.ot_level, ot_level)
  return {
    max_duration_s: duration,
    not_after: Math.min(given.not_after ?? Infinity, (input?.time.epoch_s ?? 0) + duration),
    idle_timeout_s: lowest(given.idle_timeout_s, OBLIGATIONS.idle_timeout_s),
    reeval_after_s: lowest(given.reeval_after_s, OBLIGATIONS.reeval_after_s),
    max_bandwidth_bps: lowest(given.max_bandwidth_bps, OBLIGATIONS.max_bandwidth_bps),
    max_bytes: lowest(given.max_bytes, OBLIGATIONS.max_bytes),
    max_streams: lowest(given.max_streams, OBLIGATIONS.max_streams),
    ot_level: windowed.length === 0 ? Math.min(level, 1) : level,
    approvals: lowest(given.approvals, OBLIGATIONS.approvals),
    record: given.record ?? record.absent,
    justification: given.justification ?? justification.absent,
    supervise: given.supervise ?? supervise.absent,
    notify: given.notify ?? notify.absent,
    ot_each: given.ot_each ?? ot_each.absent,
    processes: reachable(point, input, given.processes),
    methods: given.methods ?? OBLIGATIONS.methods.absent,
    ot_windows: windowed,
  }
}

/** Reads and completes the obligations of a document. Refuses: obligation.unsupported, policy.error. */
export function readObligations(
  point: Point,
  input: Input,
  given: Readonly<Record<string, unknown>>,
): Read<Obligations> {
  const read = readEach(given)
  if (!read.ok) return read
  const obligations = complete(point, input, read.value)
  const id = input.process?.id ?? null
  const excluded = id !== null && obligations.processes?.includes(id) === false
  // An allow that reaches nothing is a contradiction only where a process was asked for.
  return excluded && point !== 'grant.request' && point !== 'tunnel.connect'
    ? refused('policy.error', 'an allow that excludes the process asked for')
    : { ok: true, value: obligations }
}
