/**
 * What of a decision record does not leave the node, as `system/log/mask` of the policy in force says it for that record: OPA's
 * own form. A mask that cannot be read masks nothing, so nothing may leave then: it throws. docs/policy.md.
 */
import type { Candidate } from './candidate.ts'
import { PolicyError } from './errors.ts'
import { CompiledPolicy } from './module.ts'
import { LOG_MASK } from './points.ts'

interface MaskRule {
  readonly op: 'remove' | 'upsert'
  /** As the policy wrote it. */
  readonly path: string
  readonly steps: readonly string[]
  readonly value?: unknown
}

/** A record as it may leave, and which paths of it were taken out or replaced. */
export interface MaskedRecord<T> {
  readonly record: T
  readonly erased: readonly string[]
  readonly masked: readonly string[]
}

const MAX_RULES = 1024
const MAX_PATH = 1024

/** Masks records by the policy of a candidate. Throws PolicyError `mask.failed`; then it must not be asked again. */
export function masking(candidate: Candidate): <T extends object>(record: T) => MaskedRecord<T> {
  const instance = CompiledPolicy.from(candidate.module, candidate.image).instance()
  return (record) => {
    const text = JSON.stringify(record)
    let raw: unknown
    try {
      raw = instance.evaluate(LOG_MASK, text.toWellFormed())
    } catch (cause) {
      const why = cause instanceof PolicyError ? cause.detail : String(cause)
      throw new PolicyError('mask.failed', `the mask could not be evaluated: ${why}`, { cause })
    }
    return applyMask(JSON.parse(text) as typeof record, readMask(raw))
  }
}

/** Rules in the order in which they are to be applied. Throws PolicyError `mask.failed`. */
export function readMask(raw: unknown): readonly MaskRule[] {
  if (!Array.isArray(raw)) throw new PolicyError('mask.failed', 'the mask is no set of rules')
  if (raw.length > MAX_RULES) throw new PolicyError('mask.failed', 'the mask has too many rules')
  const rules = raw.map(ruleOf)
  // What one rule removes no other brings back; and of a list the later elements first, so that places stay what they were.
  const [first, last] = [rules.filter(isUpsert), rules.filter((rule) => !isUpsert(rule))]
  return [...first, ...last.toSorted((a, b) => backwards(a.steps, b.steps))]
}

const isUpsert = ({ op }: MaskRule): boolean => op === 'upsert'

function ruleOf(raw: unknown): MaskRule {
  if (typeof raw === 'string') return { op: 'remove', path: raw, steps: stepsOf(raw) }
  if (typeof raw !== 'object' || raw === null) throw invalid(raw)
  const { op, path, value } = raw as Partial<Record<'op' | 'path' | 'value', unknown>>
  if ((op !== 'remove' && op !== 'upsert') || typeof path !== 'string') throw invalid(raw)
  if (op === 'upsert' && value === undefined) throw invalid(raw)
  return { op, path, steps: stepsOf(path), value }
}

function invalid(raw: unknown): PolicyError {
  return new PolicyError('mask.failed', `no rule of a mask: ${JSON.stringify(raw).slice(0, 200)}`)
}

/** `/input/…` or `/result/…`, the steps percent-encoded where they hold a slash. */
function stepsOf(path: string): readonly string[] {
  const [empty, root = '', ...rest] = path.slice(0, MAX_PATH + 1).split('/')
  if (path.length > MAX_PATH || empty !== '' || !['input', 'result'].includes(root))
    throw invalid(path)
  try {
    return [root, ...rest.map((step) => decodeURIComponent(step))]
  } catch {
    throw invalid(path)
  }
}

function backwards(a: readonly string[], b: readonly string[]): number {
  for (const [at, step] of a.entries()) {
    const other = b[at]
    if (other === undefined) return -1
    if (step === other) continue
    const [one, two] = [Number(step), Number(other)]
    return Number.isNaN(one - two) ? (step < other ? 1 : -1) : two - one
  }
  return a.length === b.length ? 0 : 1
}

/** Applies rules to a record of its own, which it changes. */
export function applyMask<T extends object>(
  record: T,
  rules: readonly MaskRule[],
): MaskedRecord<T> {
  const erased: string[] = []
  const masked: string[] = []
  for (const rule of rules) {
    const last = rule.steps.at(-1)
    const holder = holderOf(record, rule.steps.slice(0, -1))
    if (holder === undefined || last === undefined || !put(holder, last, rule)) continue
    ;(rule.op === 'remove' ? erased : masked).push(rule.path)
  }
  return { record, erased: erased.toSorted(), masked: masked.toSorted() }
}

function holderOf(record: object, steps: readonly string[]): object | undefined {
  let at: unknown = record
  for (const step of steps) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, step)) return undefined
    at = (at as Record<string, unknown>)[step]
  }
  return typeof at === 'object' && at !== null ? at : undefined
}

/** False where there is nothing of that name, or no such place in a list. */
function put(holder: object, name: string, { op, value }: MaskRule): boolean {
  const there = Object.hasOwn(holder, name)
  if (Array.isArray(holder)) {
    if (!there || !/^\d+$/.test(name)) return false
    if (op === 'remove') holder.splice(Number(name), 1)
    else holder[Number(name)] = value
    return true
  }
  if (op === 'remove') return there && Reflect.deleteProperty(holder, name)
  return Reflect.defineProperty(holder, name, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  })
}
