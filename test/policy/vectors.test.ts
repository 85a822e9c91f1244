/** Every decision vector through the module in Node; the same rows run in OPA's engine (vectors_test.rego). */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { CATALOGUE, PolicyEngine, REASONS } from '#policy'
import { CompiledPolicy } from '../../policy/module.ts'
import type { PolicyInstance } from '../../policy/module.ts'
import { ENTRYPOINTS, POINTS } from '../../policy/points.ts'
import { BASE } from '../../policy/toolchain/sources.ts'
import { readVectors, vectorData } from '../../policy/toolchain/vectors.ts'
import { builtin, opa, withData } from './fixture.ts'

const vectors = await readVectors()
const engines = new Map<string, Promise<PolicyEngine>>()

function engineFor(data: unknown): Promise<PolicyEngine> {
  const key = JSON.stringify(data)
  const made = engines.get(key) ?? activated(data)
  engines.set(key, made)
  return made
}

async function activated(data: unknown): Promise<PolicyEngine> {
  const engine = PolicyEngine.unavailable()
  await engine.activate(withData(data))
  return engine
}

test('there are vectors for every point, allowed and denied', () => {
  for (const point of Object.keys(POINTS)) {
    const effects = vectors.filter((vector) => vector.point === point).map(({ effect }) => effect)
    expect(effects, point).toContain('allow')
    expect(
      effects.some((effect) => effect !== 'allow'),
      point,
    ).toBe(true)
  }
})

test('every code of the catalogue that Rego gives has a vector', () => {
  const seen = new Set(vectors.flatMap(({ codes }) => codes))
  const host = /^(?:host|input|obligation)\.|^policy\.(?:error|stale|unavailable)$/
  const codes = [...Object.keys(CATALOGUE), ...Object.keys(REASONS)].filter(
    (code) => !host.test(code),
  )
  expect(codes.filter((code) => !seen.has(code))).toEqual([])
})

test.for(vectors)(
  '$topic: $name',
  async ({ point, input, data, effect, codes, obligations = {} }) => {
    const engine = await engineFor(data)
    const decision = engine.decide(point, input, { decisionId: 'd_1' })
    const found = (decision.allow ? decision.reasons : decision.denials).map(({ code }) => code)
    expect({ effect: decision.effect, codes: found.toSorted() }).toEqual({ effect, codes })
    expect(decision.allow).toBe(effect === 'allow')
    expect(decision.layer).toBe('rego')
    if (decision.allow) expect(decision.obligations).toMatchObject(obligations)
    for (const denial of decision.denials) {
      const row = CATALOGUE[denial.code as keyof typeof CATALOGUE]
      expect(denial.msg).toBe(row.msg)
    }
  },
)

describe.skipIf(opa === undefined)('OPA’s own engine and the module', () => {
  test('give the same document for every vector', { timeout: 120_000 }, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'sallyport-vectors-'))
    try {
      const file = join(directory, 'vectors.json')
      await writeFile(file, JSON.stringify(await vectorData()))
      const ignore = ['lock.json', 'manifest.json', 'site.json', 'vectors', '*.tar']
      const args = [
        'eval',
        '--format',
        'raw',
        ...ignore.flatMap((name) => ['--ignore', name]),
        ...['policy/sallyport', 'policy/default', file].flatMap((path) => ['--data', path]),
        'data.sallyport.vectors_test.results',
      ]
      const { stdout } = await promisify(execFile)(opa?.path ?? '', args, {
        cwd: BASE,
        maxBuffer: 64 * 1024 * 1024,
      })
      const theirs = JSON.parse(stdout) as Record<string, unknown>
      const compiled = await CompiledPolicy.compile(builtin.wasm, builtin.dataText, ENTRYPOINTS)
      const instances = new Map<string, PolicyInstance>()
      for (const { topic, name, point, input, data } of vectors) {
        const key = JSON.stringify(data)
        const instance = instances.get(key) ?? compiled.withData(key).instance()
        instances.set(key, instance)
        const ours = instance.evaluate(POINTS[point].entrypoint, JSON.stringify(input))
        expect(ours, `${topic}: ${name}`).toEqual(theirs[`${topic}: ${name}`])
      }
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  })
})
