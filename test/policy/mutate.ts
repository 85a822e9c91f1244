/** Inputs and data with something wrong in them, and what may never come of it. mutation.test.ts, test/fuzz/policy.ts. */
import { readDocument, readObligations } from '../../policy/ceiling.ts'
import type { Input, Point } from '../../policy/envelope.ts'
import { CompiledPolicy } from '../../policy/module.ts'
import type { PolicyInstance } from '../../policy/module.ts'
import { OBLIGATIONS } from '../../policy/obligations.ts'
import type { Obligations } from '../../policy/obligations.ts'
import { ENTRYPOINTS, POINTS } from '../../policy/points.ts'
import { readVectors } from '../../policy/toolchain/vectors.ts'
import type { Vector } from '../../policy/toolchain/vectors.ts'
import { builtin } from './fixture.ts'

type Path = readonly (string | number)[]
export type Mutation = readonly [how: string, path: Path, value: unknown]

const DELETE = Symbol('delete')
export const vectors = await readVectors()

/**
 * Where null has a meaning of its own: the grant states no byte limit, so the host's default binds.
 */
export const MEANINGFUL_NULL = /^grants\.\d+\.max_bytes$/

/** Paths of every object field, and of every element of lists (elements are never removed: fewer locks is a fact). */
export function paths(value: unknown, at: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, part]) => {
    const here = [...at, Array.isArray(value) ? Number(name) : name]
    return [here, ...paths(part, here)]
  })
}

export function get(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((now, step) => (now as Record<string, unknown>)[step], value)
}

export function mutated<T>(value: T, path: Path, to: unknown): T {
  const copy = structuredClone(value)
  const holder = get(copy, path.slice(0, -1)) as Record<string | number, unknown>
  const last = path.at(-1) ?? ''
  if (to === DELETE) delete holder[last]
  else holder[last] = to
  return copy
}

function retyped(value: unknown): unknown {
  if (typeof value === 'string') return 7
  if (typeof value === 'number') return String(value)
  if (typeof value === 'boolean') return String(value)
  if (Array.isArray(value)) return {}
  return []
}

export function mutations(value: unknown): Mutation[] {
  return paths(value).flatMap((path): Mutation[] => {
    const now = get(value, path)
    const element = typeof path.at(-1) === 'number'
    const each: Mutation[] = [['retyped', path, retyped(now)]]
    if (now !== null) each.push(['nulled', path, null])
    if (!element) each.push(['deleted', path, DELETE])
    if (
      typeof now === 'number' &&
      /(?:_at|^at|opened_at)$/.test(String(path.at(-1))) &&
      isEvent(path)
    )
      each.push(['in the future', path, 4_000_000_000])
    return each
  })
}

/** What has happened, as opposed to what will end. */
function isEvent(path: Path): boolean {
  return !['expires_at'].includes(String(path.at(-1)))
}

const compiled = await CompiledPolicy.compile(builtin.wasm, builtin.dataText, ENTRYPOINTS)

export function instanceOf(data: unknown): PolicyInstance {
  return compiled.withData(JSON.stringify(data)).instance()
}

/** Obligations of an allow, or nothing for anything else. */
export function allowed(
  instance: PolicyInstance,
  point: Point,
  input: unknown,
  real: Input,
): Obligations | undefined {
  const read = readDocument(instance.evaluate(POINTS[point].entrypoint, JSON.stringify(input)))
  if (!read.ok || !read.value.allow) return undefined
  const obligations = readObligations(point, real, read.value.obligations)
  return obligations.ok ? obligations.value : undefined
}

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
export function unelevated(input: Input): Input {
  const grants = input.grants.map((grant) => ({
    ...grant,
    ot_level: grant.ot_level === 2 ? 1 : grant.ot_level,
  }))
  return { ...input, grants: grants as Input['grants'] }
}

/** The obligations that `after` loosens against every reading of the original input. */
export function loosened(
  readings: readonly (Obligations | undefined)[],
  after: Obligations,
): string[] {
  const each = readings.filter((one) => one !== undefined).map((one) => looser(one, after))
  return each.find((keys) => keys.length === 0) ?? each[0] ?? []
}

export function groups(): Map<string, Vector[]> {
  const found = new Map<string, Vector[]>()
  for (const vector of vectors) {
    const key = JSON.stringify(vector.data)
    found.set(key, [...(found.get(key) ?? []), vector])
  }
  return found
}

/** What was found, and how much was tried. */
export interface Findings {
  readonly bad: readonly string[]
  readonly tried: number
}

/** One mutation at a time of every vector's input; every `stride`th, a different share for each vector. */
export function inputFindings(stride: number): Findings {
  const bad: string[] = []
  let tried = 0
  let offset = 0
  for (const [data, group] of groups()) {
    const instance = instanceOf(JSON.parse(data))
    for (const { topic, name, point, input, effect } of group) {
      const before = allowed(instance, point, input, input)
      if ((before !== undefined) !== (effect === 'allow')) bad.push(`${name}: not ${effect}`)
      const lowered = allowed(instance, point, unelevated(input), input)
      offset++
      for (const [at, [how, path, value]] of mutations(input).entries()) {
        if ((at + offset) % stride !== 0) continue
        tried++
        const after = allowed(instance, point, mutated(input, path, value), input)
        if (after === undefined) continue
        const where = path.join('.')
        if (before === undefined) bad.push(`${topic}: ${name}: ${where} ${how} allows`)
        else if (!MEANINGFUL_NULL.test(where))
          bad.push(
            ...loosened([before, lowered], after).map(
              (key) => `${topic}: ${name}: ${where} ${how} loosens ${key}`,
            ),
          )
      }
    }
  }
  return { bad, tried }
}

/** What of the site data the vectors' own decisions stand on. */
const USED =
  /^site\.(?:zones\.default(?:\.|$)|settings|http|roles(?:$|\.(?:operator|auditor)(?:$|\.device:quarantine)))/

/** One mutation at a time of every data document, decided for each vector that has it. */
export function dataFindings(stride: number): Findings {
  const bad: string[] = []
  let tried = 0
  let offset = 0
  for (const [text, group] of groups()) {
    const data: unknown = JSON.parse(text)
    const original = instanceOf(data)
    const fields = mutations(data).filter(([, path]) => USED.test(path.join('.')))
    const before = group.map(({ point, input }) => [
      allowed(original, point, input, input),
      allowed(original, point, unelevated(input), input),
    ])
    offset++
    for (const [number, [how, path, value]] of fields.entries()) {
      if ((number + offset) % stride !== 0) continue
      const instance = instanceOf(mutated(data, path, value))
      for (const [at, { topic, name, point, input }] of group.entries()) {
        tried++
        const after = allowed(instance, point, input, input)
        const was = before[at] ?? []
        if (after === undefined) continue
        const where = `${topic}: ${name}: ${path.join('.')} ${how}`
        if (was[0] === undefined) bad.push(`${where} allows`)
        else bad.push(...loosened(was, after).map((key) => `${where} loosens ${key}`))
      }
    }
  }
  return { bad, tried }
}
