/**
 * Fail-open mutation, on the raw module without the host's validation in front: each single field of each
 * vector's input and site data gone, null, retyped or in the future, and pairs null. No denial may become
 * an allow; no allow may bind to less than it did.
 */
import { readDocument, readObligations } from '../ceiling.ts'
import type { Input, Point } from '../envelope.ts'
import type { CompiledPolicy, PolicyInstance } from '../module.ts'
import { OBLIGATIONS } from '../obligations.ts'
import type { Obligations } from '../obligations.ts'
import { POINTS } from '../points.ts'
import type { Reads } from '../reads.ts'
import { mutated, mutations, nulledPairs, told } from './mutation.ts'
import type { Mutation } from './mutation.ts'
import type { Vector } from './vectors.ts'

/** Where null has a meaning of its own: the grant states no byte limit, so the host's default binds. */
const MEANINGFUL_NULL = /^grants\.\d+\.max_bytes$/

/** Obligations of an allow of an input, JSON; nothing for anything else. */
function allowed(
  instance: PolicyInstance,
  point: Point,
  text: string,
  real: Input,
): Obligations | undefined {
  const read = readDocument(instance.evaluate(POINTS[point].entrypoint, text))
  if (!read.ok || !read.value.allow) return undefined
  const obligations = readObligations(point, real, read.value.obligations)
  return obligations.ok ? obligations.value : undefined
}

/** The obligations that bind to less in `after`. */
export function looser(before: Obligations, after: Obligations): string[] {
  return Object.keys(OBLIGATIONS).filter((key) => {
    const name = key as keyof Obligations
    const [was, is] = [before[name], after[name]]
    if (typeof was === 'boolean') return was && is === false
    if (typeof was === 'number') return name === 'approvals' ? Number(is) < was : Number(is) > was
    if (name === 'ot_windows') {
      const kept = new Set(after.ot_windows.map((list) => JSON.stringify(list)))
      return before.ot_windows.some((list) => !kept.has(JSON.stringify(list)) && !kept.has('[]'))
    }
    if (was === null) return false
    return (
      is === null ||
      (is as readonly string[]).some((one) => !(was as readonly string[]).includes(one))
    )
  })
}

/** The same input without elevation: losing it narrows the verbs, and the base grant's own limits return. */
function unelevated(input: Input): Input {
  const grants = input.grants.map((grant) => ({
    ...grant,
    ot_level: grant.ot_level === 2 ? 1 : grant.ot_level,
  }))
  return { ...input, grants: grants as Input['grants'] }
}

/** The obligations that `after` loosens against every reading of the original input. */
function loosened(readings: Readings, after: Obligations): string[] {
  const each = readings.filter((one) => one !== undefined).map((one) => looser(one, after))
  return each.find((keys) => keys.length === 0) ?? each[0] ?? []
}

/** What a vector is allowed as it stands, and without its elevation. */
type Readings = readonly [Obligations | undefined, Obligations | undefined]

/** A policy, what its rules read of an input, and the vectors that are to hold under faults. */
export interface Trial {
  readonly compiled: CompiledPolicy
  /** The rest of an input never reaches the module: nothing in it is worth a fault. */
  readonly reads: Reads
  readonly vectors: readonly Vector[]
  /** Every `stride`th fault, another share for each vector; 1: all. */
  readonly stride?: number
  /** Told the share that is done, 0 to 1, after each vector or data document. */
  readonly progress?: (share: number) => void
}

/** A vector under trial. */
export interface Subject {
  readonly name: string
  readonly effect: Vector['effect']
  readonly readings: Readings
  /** Faults in the input, one row each. */
  readonly faults: readonly Mutation[]
  /** Pairs of parts nulled; none for an allow. */
  readonly pairs: readonly (readonly Mutation[])[]
  /** What is wrong with the decision under these faults, in another data's instance where one is given. */
  readonly check: (
    faults: readonly Mutation[],
    words?: string,
    elsewhere?: PolicyInstance,
  ) => string[]
}

/** A copy of what the rules read. */
function readPart(value: unknown, reads: Reads): unknown {
  if (reads === true || typeof value !== 'object' || value === null) return structuredClone(value)
  const parts = [...reads].filter(([name]) => Object.hasOwn(value, name))
  return Object.fromEntries(
    parts.map(([name, below]) => [name, readPart((value as Record<string, unknown>)[name], below)]),
  )
}

function subjectOf(vector: Vector, instance: PolicyInstance, reads: Reads): Subject {
  const { topic, name, point, effect } = vector
  const input = readPart(vector.input, reads)
  const whole = JSON.stringify(input)
  const real = vector.input
  const readings: Readings = [
    allowed(instance, point, whole, real),
    allowed(instance, point, JSON.stringify(unelevated(real)), real),
  ]
  const title = `${topic}: ${name}`
  return {
    name: title,
    effect,
    readings,
    faults: mutations(input),
    pairs: effect === 'allow' ? [] : nulledPairs(input),
    check: (faults, words = faults.map(told).join(', '), elsewhere = instance) => {
      const text = faults.length === 0 ? whole : mutated(input, faults, () => JSON.stringify(input))
      const after = allowed(elsewhere, point, text, real)
      if (after === undefined) return []
      if (readings[0] === undefined) return [`${title}: ${words} allows`]
      if (faults.some(([, path]) => MEANINGFUL_NULL.test(path.join('.')))) return []
      return loosened(readings, after).map((key) => `${title}: ${words} loosens ${key}`)
    },
  }
}

/** Vectors by the data they are decided with; an instance is made for each data once. */
function groups(vectors: readonly Vector[]): Map<string, Vector[]> {
  return Map.groupBy(vectors, ({ data }) => JSON.stringify(data))
}

/** Every vector, ready to have faults put in. */
export function subjects({ compiled, reads, vectors }: Trial): Subject[] {
  return [...groups(vectors)].flatMap(([data, group]) => {
    const instance = compiled.instanceWith(data)
    return group.map((vector) => subjectOf(vector, instance, reads))
  })
}

/** What was found, and how much was tried. */
export interface Findings {
  readonly bad: readonly string[]
  readonly tried: number
}

const none = (): void => undefined

/** One fault at a time in every vector's input, and pairs of parts nulled in those that are denied. */
export function inputFindings(trial: Trial): Findings {
  const { stride = 1, progress = none } = trial
  const bad: string[] = []
  let tried = 0
  const all = subjects(trial)
  for (const [number, { name, effect, readings, faults, pairs, check }] of all.entries()) {
    if ((readings[0] !== undefined) !== (effect === 'allow')) bad.push(`${name}: not ${effect}`)
    const sets = [...faults.map((one) => [one]), ...pairs]
    const chosen = sets.filter((_, at) => (at + number) % stride === 0)
    for (const set of chosen) bad.push(...check(set))
    tried += chosen.length
    progress((number + 1) / all.length)
  }
  return { bad, tried }
}

/** Maps of the site data whose keys are a site's own names; `path` is below `site`. */
const NAMED = new Set(['zones', 'roles', 'groups'])

/**
 * The names on the way to a place of the site data: the zone, the role and its operation. An entry counts
 * for the vectors whose input says its name somewhere.
 */
function namesOn(path: readonly (string | number)[]): string[] {
  const [, part, ...names] = path.map(String)
  if (part === undefined || !NAMED.has(part)) return []
  return names.slice(0, part === 'roles' ? 2 : 1)
}

/** Every string in a value. */
function strings(value: unknown, into = new Set<string>()): Set<string> {
  if (typeof value === 'string') into.add(value)
  else if (typeof value === 'object' && value !== null)
    for (const part of Object.values(value)) strings(part, into)
  return into
}

/** One fault at a time in every data document, decided for each vector that has it and names the place. */
export function dataFindings(trial: Trial): Findings {
  const { compiled, reads, vectors, stride = 1, progress = none } = trial
  const bad: string[] = []
  let tried = 0
  const all = [...groups(vectors)]
  for (const [number, [text, group]] of all.entries()) {
    const data: unknown = JSON.parse(text)
    const instance = compiled.instanceWith(text)
    const rows = group.map((vector) => ({
      subject: subjectOf(vector, instance, reads),
      said: strings(vector.input),
    }))
    for (const [at, fault] of mutations(data).entries()) {
      if ((at + number) % stride !== 0) continue
      const names = namesOn(fault[1])
      const touched = rows.filter(({ said }) => names.every((name) => said.has(name)))
      if (touched.length === 0) continue
      const other = mutated(data, [fault], () => compiled.instanceWith(JSON.stringify(data)))
      for (const { subject } of touched) bad.push(...subject.check([], told(fault), other))
      tried += touched.length
    }
    progress((number + 1) / all.length)
  }
  return { bad, tried }
}
