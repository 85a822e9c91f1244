/**
 * One decision, rule by rule: which denials fired, which held, and at which expressions, read from the
 * compiler's own trace over the very sources and data that decided.
 */
import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Point } from '../envelope.ts'
import type { Opa } from './opa.ts'
import { ROOM } from './sources.ts'

interface Term {
  readonly type: string
  readonly value: unknown
}
interface Place {
  readonly file: string
  readonly row: number
}
interface Event {
  readonly Op: string
  readonly Node: unknown
  readonly Location: Place | null
  readonly QueryID: number
  readonly ParentID: number
  readonly Locals: readonly {
    readonly name: string
    readonly type: string
    readonly value: unknown
  }[]
  readonly LocalMetadata: Readonly<Record<string, { readonly name: string }>>
}

export interface FailedExpression extends Place {
  /** The line as it was written. */
  readonly source: string
  /** Names and values where it failed, those that are one value. */
  readonly where: Readonly<Record<string, string | number | boolean | null>>
}

export interface ExplainedRule extends Place {
  readonly kind: 'allow' | 'deny'
  /** Fired: it is why. Held: it was looked at and did not apply. */
  readonly fired: boolean
  readonly code: string
  /** For what fired by a `not`, and for an allow that did not: the expressions that failed. */
  readonly failed: readonly FailedExpression[]
}

const MAX_OUTPUT = 256 * 1024 * 1024

/**
 * Takes the Rego of the bundle by name, the data document, the point and the input.
 * Gives each `allow` and `deny` rule that was looked at, those that fired first. Errors: opa's own message.
 */
export async function explain(
  opa: Opa,
  asked: {
    readonly rego: ReadonlyMap<string, string>
    readonly data: unknown
    readonly point: Point
    readonly input: unknown
  },
): Promise<ExplainedRule[]> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-explain-'))
  try {
    for (const [name, text] of asked.rego) {
      await mkdir(join(directory, 'rego', dirname(name)), { recursive: true })
      await writeFile(join(directory, 'rego', name), text)
    }
    await writeFile(join(directory, 'data.json'), JSON.stringify(asked.data))
    // The Rego may be another machine's: it gets no network, no environment, no clock of this one.
    await copyFile(join(ROOM, 'capabilities.json'), join(directory, 'capabilities.json'))
    await writeFile(join(directory, 'input.json'), JSON.stringify(asked.input))
    const query = `[data.policy.${asked.point}.allow, data.policy.${asked.point}.deny]`
    const { stdout } = await promisify(execFile)(
      opa.path,
      'eval --format json --explain full --input input.json --data rego --data data.json --capabilities capabilities.json'
        .split(' ')
        .concat(query),
      { cwd: directory, maxBuffer: MAX_OUTPUT },
    )
    const { explanation = [] } = JSON.parse(stdout) as { explanation?: readonly Event[] }
    return readTrace(explanation, (file) => asked.rego.get(file.replace(/^rego\//, '')) ?? '')
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** `allow` or `deny`, where the node is a rule that adds to that set. */
function setOf(node: unknown): 'allow' | 'deny' | undefined {
  if (typeof node !== 'object' || node === null || !('head' in node)) return undefined
  const head = node.head as { name?: string; ref?: readonly Term[]; key?: Term }
  if (head.key === undefined) return undefined
  const last = head.ref?.at(-1)?.value ?? head.name
  return last === 'allow' || last === 'deny' ? last : undefined
}

/** The rule as it was written, from its first line to the end of what it adds. */
function written(source: string, row: number): string {
  return source
    .split('\n')
    .slice(row - 1, row + 8)
    .join('\n')
}

/** The code a rule adds: its literal, else the name of what computes it. */
function codeOf(text: string): string {
  const [line = ''] = text.split('\n')
  const computed = /contains ([a-z_.]+) if /.exec(line)?.[1]
  return computed ?? /^[^}]*"code":\s*"([^"]+)"/.exec(text)?.[1] ?? line.trim()
}

/** `deny contains x if some x in other.deny`: what is handed on is explained where it was written. */
function handsOn(text: string): boolean {
  return /^\S+ contains (\w+) if (?:\{\s*)?some \1 in /.test(text)
}

interface Seen extends Place {
  readonly query: number
  readonly name: 'allow' | 'deny'
  readonly code: string
  fired: boolean
  /** Its body is through: what fails from here on only words the denial. */
  through: boolean
  readonly failed: Map<string, FailedExpression>
}

function readTrace(events: readonly Event[], source: (file: string) => string): ExplainedRule[] {
  const parents = new Map<number, number>()
  const rules = new Map<number, Seen>()
  for (const event of events) {
    if (!parents.has(event.QueryID)) parents.set(event.QueryID, event.ParentID)
    if (event.Op === 'Enter') enter(rules, event, source)
    const rule = rules.get(event.QueryID)
    if (event.Op === 'Exit' && rule !== undefined) rule.fired = true
    if (event.Op === 'Fail') fail(nearest(event.QueryID, parents, rules), event, source)
  }
  return [...rules.values()]
    .filter(({ file }) => !file.includes('sallyport/'))
    .map((seen) => ({
      kind: seen.name,
      fired: seen.fired,
      code: seen.code,
      file: seen.file.replace(/^rego\//, ''),
      row: seen.row,
      failed: shown(seen) ? [...seen.failed.values()] : [],
    }))
    .toSorted((a, b) => Number(b.fired) - Number(a.fired))
}

/** A denial fires because something failed; an allow stays away because something did. */
function shown({ name, fired }: Seen): boolean {
  return name === 'deny' ? fired : !fired
}

function enter(
  rules: Map<number, Seen>,
  { Node, Location, QueryID }: Event,
  source: (file: string) => string,
): void {
  const name = setOf(Node)
  if (name === undefined || Location === null || rules.has(QueryID)) return
  const text = written(source(Location.file), Location.row)
  if (handsOn(text)) return
  const { file, row } = Location
  rules.set(QueryID, {
    file,
    row,
    query: QueryID,
    name,
    code: codeOf(text),
    fired: false,
    through: false,
    failed: new Map(),
  })
}

function nearest(
  query: number,
  parents: ReadonlyMap<number, number>,
  rules: ReadonlyMap<number, Seen>,
): Seen | undefined {
  let at = query
  for (let steps = 0; steps < 10_000; steps++) {
    const rule = rules.get(at)
    if (rule !== undefined) return rule
    const up = parents.get(at)
    if (up === undefined || up === at) return undefined
    at = up
  }
  return undefined
}

function fail(rule: Seen | undefined, event: Event, source: (file: string) => string): void {
  const { Location: place } = event
  if (rule === undefined || place === null || place.file === '') return
  // The rule's own `not x` fails when it holds; what is of interest lies below it.
  if (event.QueryID === rule.query && rule.name === 'deny') return
  if (rule.name === 'deny' && place.file === rule.file && place.row === rule.row)
    rule.through = true
  const key = `${place.file}:${place.row}`
  if (rule.through || rule.failed.has(key)) return
  const line = source(place.file).split('\n')[place.row - 1]?.trim() ?? ''
  const file = place.file.replace(/^rego\//, '')
  rule.failed.set(key, { file, row: place.row, source: line, where: values(event) })
}

function values({ Locals, LocalMetadata }: Event): FailedExpression['where'] {
  const found: Record<string, string | number | boolean | null> = {}
  for (const { name, type, value } of Locals) {
    const known = LocalMetadata[name]?.name
    if (known === undefined || known.startsWith('__')) continue
    if (type === 'string' || type === 'number' || type === 'boolean' || type === 'null')
      found[known] = value as string | number | boolean | null
  }
  return Object.fromEntries(Object.entries(found).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
