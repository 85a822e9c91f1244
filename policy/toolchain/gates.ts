/**
 * The gates a policy passes before anybody signs it, one after the other, each with what it saw:
 * format, types, writing rules, one catalogue of codes, tests, coverage, two engines, what fails open, speed.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual, promisify } from 'node:util'
import { CompiledPolicy } from '../module.ts'
import type { PolicyInstance } from '../module.ts'
import { examineBundle } from '../candidate.ts'
import type { Decision } from '../decision.ts'
import { PolicyError } from '../errors.ts'
import { masking } from '../mask.ts'
import { ENTRYPOINTS, POINTS } from '../points.ts'
import { readsOf } from '../reads.ts'
import type { Made } from './build.ts'
import {
  checkFormat,
  checkTypes,
  coverage,
  lintCatalogue,
  lintPolicy,
  runRegoTests,
} from './check.ts'
import type { Gate } from './check.ts'
import { dataFindings, inputFindings } from './fail-open.ts'
import type { Trial } from './fail-open.ts'
import type { Finding } from './lint.ts'
import type { Opa } from './opa.ts'
import { bundleHere } from './release.ts'
import { builtinPace, speed } from './speed.ts'
import { LIBRARY } from './sources.ts'
import type { PolicyTree } from './tree.ts'
import { readVectors, vectorData } from './vectors.ts'
import type { Vector } from './vectors.ts'

const COVERAGE_FLOOR_PERCENT = 95

const MAX_OUTPUT = 64 * 1024 * 1024
const NOT_DATA = ['lock.json', 'manifest.json', 'site.json', 'vectors', 'schema', '*.tar']

function found(gate: string, findings: readonly Finding[]): Gate {
  const lines = findings.map(({ rule, file, line, fix }) => `${file}:${line} ${rule}: ${fix}`)
  return { gate, ok: findings.length === 0, detail: lines.join('\n') }
}

/** Format, strict types by the schemas, the writing rules, the catalogue: what needs no test to be wrong. */
export async function* checkGates(tree: PolicyTree, opa: Opa): AsyncGenerator<Gate> {
  yield checkFormat(opa, tree)
  const types = await checkTypes(opa, tree)
  yield types
  if (!types.ok) return
  yield found('lint', await lintPolicy(opa, tree))
  yield found('catalogue', await lintCatalogue(tree))
}

/** Told what a gate is at, and the share of it that is done, 0 to 1. */
export type Progress = (what: string, share: number) => void

/**
 * The vectors that travel, tests, their coverage, every vector in both engines and with each single field wrong, and how long the
 * slowest takes.
 */
export async function* testGates(
  tree: PolicyTree,
  opa: Opa,
  made: Made,
  progress: Progress = () => undefined,
): AsyncGenerator<Gate> {
  const directory = await mkdtemp(join(tmpdir(), 'sallyport-vectors-'))
  const data = join(directory, 'vectors.json')
  try {
    yield await carried(made)
    const vectors = await readVectors(tree)
    await writeFile(data, JSON.stringify(await vectorData(tree)))
    const wasm = required(made, 'policy.wasm')
    const compiled = await CompiledPolicy.compile(
      wasm,
      new TextDecoder().decode(required(made, 'data.json')),
      ENTRYPOINTS,
    )
    const tests = await runRegoTests(opa, [data], tree)
    const detail = tests.ok
      ? (tests.detail.split('\n').at(-1) ?? '')
      : failures(tests, outcomes(compiled, vectors))
    yield { ...tests, detail }
    if (!tests.ok) return
    const { percent } = await coverage(opa, [data], tree)
    yield {
      gate: 'coverage',
      ok: percent >= COVERAGE_FLOOR_PERCENT,
      detail: `${percent.toFixed(1)} % of the lines, at least ${COVERAGE_FLOOR_PERCENT}`,
    }
    yield await engines(tree, opa, compiled, vectors, data)
    yield failOpen({ compiled, vectors, reads: readsOf(made.reads) }, progress)
    yield speed(vectors, instances(compiled), await builtinPace())
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

function required({ files }: Made, name: string): Uint8Array<ArrayBuffer> {
  const bytes = files.get(name)
  if (bytes === undefined) throw new Error(`the bundle lacks ${name}`)
  return new Uint8Array(bytes)
}

const MAX_FAILURES = 40

const CARRIED_NEXT =
  'a gateway decides these on site.json before it takes the bundle: mend the rule or the data, or write into vectors/ what is to come out now'

/** The vectors that travel, decided as a gateway decides them before it takes the bundle, and masked as it masks what leaves. */
async function carried({ files }: Made): Promise<Gate> {
  const gate = 'carried'
  try {
    const bundle = await bundleHere(files)
    const mask = masking(await examineBundle(bundle))
    for (const { input } of bundle.vectors) mask({ input, result: {} })
    const detail = `${bundle.vectors.length} vectors of vectors/ come out as they say, and can be masked`
    return { gate, ok: true, detail }
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error
    const otherwise = error.code === 'smoke.failed' ? `\n${CARRIED_NEXT}` : ''
    return { gate, ok: false, detail: `vectors/ (${error.code}):\n${error.detail}${otherwise}` }
  }
}

/** What a row says must come out, and what did, in one line: told where its test fails. */
function outcomes(
  compiled: CompiledPolicy,
  vectors: readonly Vector[],
): (test: string) => string | undefined {
  const instanceFor = instances(compiled)
  const byName = new Map(vectors.map((one) => [`${one.topic}: ${one.name}`, one]))
  return (test) => {
    const vector = byName.get(test)
    if (vector === undefined) return undefined
    const { point, input, data, effect, codes, obligations = {} } = vector
    const text = JSON.stringify(input)
    const got = instanceFor(data).evaluate(POINTS[point].entrypoint, text) as Partial<Decision>
    const found = (got.allow === true ? got.reasons : got.denials)?.map(({ code }) => code) ?? []
    const [wanted, came] = [said(effect, codes), said(got.effect, found)]
    if (wanted !== came)
      return `${test}: ${wanted} was to come out, and ${came} did${apart(codes, found)}`
    const bound = (got.obligations ?? {}) as Readonly<Record<string, unknown>>
    const other = Object.entries(obligations)
      .filter(([key, value]) => !isDeepStrictEqual(bound[key], value))
      .map(([key, value]) => `${key} ${JSON.stringify(bound[key])}, not ${JSON.stringify(value)}`)
    return `${test}: ${wanted} came out, with ${other.join('; ')}`
  }
}

/** What of two long lists is not the same, which nobody finds by looking; short ones speak for themselves. */
export function apart(wanted: readonly string[], found: readonly string[]): string {
  if (Math.max(wanted.length, found.length) < 4) return ''
  const more = found.filter((code) => !wanted.includes(code)).map((code) => `${code} came too`)
  const less = wanted.filter((code) => !found.includes(code)).map((code) => `${code} did not come`)
  return [...more, ...less].map((one) => `; ${one}`).join('')
}

const said = (effect: unknown, codes: readonly string[]): string =>
  `${String(effect)} (${codes.join(', ')})`

/** The tests that failed and what came out, or what the compiler complained of, without its traces. */
function failures({ detail }: Gate, outcome: (test: string) => string | undefined): string {
  const lines = detail.split('\n').map((line) => line.trim())
  const named = lines.filter((line) => /: (?:FAIL|ERROR)$|^(?:PASS|FAIL|ERROR): /.test(line))
  const worded = named.map((line) => outcome(line.replace(/: (?:FAIL|ERROR)$/, '')) ?? line)
  const told = [...new Set(worded.length === 0 ? lines : worded)]
  const more = told.length - MAX_FAILURES
  return [...told.slice(0, MAX_FAILURES), ...(more > 0 ? [`and ${more} more`] : [])].join('\n')
}

type Instances = (data: unknown) => PolicyInstance

function instances(compiled: CompiledPolicy): Instances {
  const made = new Map<string, PolicyInstance>()
  return (data) => {
    const key = JSON.stringify(data)
    const one = made.get(key) ?? compiled.withData(key).instance()
    made.set(key, one)
    return one
  }
}

/** Every vector: what OPA's own engine says is what the module says. */
async function engines(
  tree: PolicyTree,
  opa: Opa,
  compiled: CompiledPolicy,
  vectors: readonly Vector[],
  file: string,
): Promise<Gate> {
  const { base, prefix, rules } = tree
  const sources = [`${prefix}${LIBRARY}`, `${prefix}${rules}`, file]
  const args = [
    'eval',
    '--format',
    'raw',
    ...NOT_DATA.flatMap((name) => ['--ignore', name]),
    ...sources.flatMap((path) => ['--data', path]),
    'data.sallyport.vectors_test.results',
  ]
  const { stdout } = await promisify(execFile)(opa.path, args, { cwd: base, maxBuffer: MAX_OUTPUT })
  const theirs = JSON.parse(stdout) as Record<string, unknown>
  const instanceFor = instances(compiled)
  const differing = vectors.flatMap(({ topic, name, point, input, data }) => {
    const ours = instanceFor(data).evaluate(POINTS[point].entrypoint, JSON.stringify(input))
    const same = isDeepStrictEqual(ours, theirs[`${topic}: ${name}`])
    return same ? [] : [`${topic}: ${name}: opa and the module differ`]
  })
  const detail = differing.length === 0 ? `${vectors.length} vectors alike` : differing.join('\n')
  return { gate: 'engines', ok: differing.length === 0, detail }
}

/** Every vector with each single thing wrong in it: nothing turns to allow, nothing binds to less. */
function failOpen(trial: Trial, progress: Progress): Gate {
  const told = (what: string) => ({ progress: (share: number) => progress(what, share) })
  const inputs = inputFindings({ ...trial, ...told('inputs with a field wrong') })
  const data = dataFindings({ ...trial, ...told('site data with a field wrong') })
  const bad = [...inputs.bad, ...data.bad]
  const more = bad.length - MAX_FAILURES
  const lines = [...bad.slice(0, MAX_FAILURES), ...(more > 0 ? [`and ${more} more`] : [])]
  const tried = `${inputs.tried} inputs and ${data.tried} decisions under other data, none opens`
  return {
    gate: 'fail-open',
    ok: bad.length === 0,
    detail: bad.length === 0 ? tried : lines.join('\n'),
  }
}
