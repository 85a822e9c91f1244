/** Decision vectors: a base per point, and rows that say what is different and what must come out. */
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Input, Partially, Point } from '../envelope.ts'
import { inputFor } from '../input.ts'
import { DEFAULT_TREE } from './tree.ts'
import type { PolicyTree } from './tree.ts'

/** Dotted path -> value; a number in a path is an index. */
export type Changes = Readonly<Record<string, unknown>>

interface Row {
  readonly name: string
  readonly point: Point
  /** Changes to the base input of the point. */
  readonly set?: Changes
  /** Changes to the site data that rows stand on. */
  readonly site?: Changes
  readonly effect: 'allow' | 'deny' | 'challenge'
  /** Codes of all denials; for an allow, of all reasons. Sorted. */
  readonly codes: readonly string[]
  /** Obligations the library's document must hold, among others. */
  readonly obligations?: Readonly<Record<string, unknown>>
}

export interface Vector extends Row {
  readonly topic: string
  readonly input: Input
  readonly data: { readonly site: unknown }
}

/** A copy with one dotted path set; objects on the way are made where they are null or absent. */
function changed<T>(value: T, path: string, to: unknown): T {
  const copy = structuredClone(value)
  const steps = path.split('.')
  const last = steps.pop() ?? ''
  let at = copy as Record<string, unknown>
  for (const step of steps) {
    if (typeof at[step] !== 'object' || at[step] === null) at[step] = {}
    at = at[step] as Record<string, unknown>
  }
  at[last] = to
  return copy
}

function apply<T>(value: T, changes: Changes | undefined): T {
  return Object.entries(changes ?? {}).reduce((now, [path, to]) => changed(now, path, to), value)
}

async function json<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, 'utf8')) as T
}

interface Bases {
  readonly common: Partially<Input>
  readonly points: Readonly<Record<Point, Partially<Input>>>
}

/** The base input of every point: each is allowed by the default policy as it stands. */
export async function baseInputs({ rows }: PolicyTree = DEFAULT_TREE): Promise<
  Record<Point, Input>
> {
  const { common, points } = await json<Bases>(join(rows, 'base.json'))
  const pairs = Object.entries(points).map(([point, own]) => {
    const known = { ...common, ...own } as Partially<Input>
    return [point, inputFor(point as Point, known)] as const
  })
  return Object.fromEntries(pairs) as Record<Point, Input>
}

/** In the folder of rows, and no rows: the input of each point, and the site data the rows stand on. */
const NO_ROWS: ReadonlySet<string> = new Set(['base.json', 'site.json'])

/**
 * The site data that rows stand on: `site.json` beside them, so that a site which changes its own data
 * does not break rows that speak of other data; the tree's where there is none.
 */
export async function defaultSite({ site, rows }: PolicyTree = DEFAULT_TREE): Promise<unknown> {
  const own = join(rows, 'site.json')
  return json(existsSync(own) ? own : site)
}

/** Every vector, with its whole input and data. */
export async function readVectors(tree: PolicyTree = DEFAULT_TREE): Promise<Vector[]> {
  const bases = await baseInputs(tree)
  const site = await defaultSite(tree)
  const vectors: Vector[] = []
  for (const file of (await readdir(tree.rows)).toSorted()) {
    if (NO_ROWS.has(file) || !file.endsWith('.json')) continue
    for (const row of await json<readonly Row[]>(join(tree.rows, file))) {
      // What a row sets inside a part that the base leaves null is completed like a caller's.
      const input = inputFor(row.point, apply(bases[row.point], row.set))
      const data = { site: apply(site, row.site) }
      vectors.push({ ...row, topic: file.replace('.json', ''), input, data })
    }
  }
  return vectors
}

/** The vectors as data for the Rego tests. */
export async function vectorData(tree: PolicyTree = DEFAULT_TREE): Promise<unknown> {
  const vectors = await readVectors(tree)
  return {
    vectors: Object.fromEntries(
      vectors.map(({ topic, name, point, input, data, effect, codes, obligations = {} }) => [
        `${topic}: ${name}`,
        { point, input, site: data.site, effect, codes, obligations },
      ]),
    ),
  }
}
