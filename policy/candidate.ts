/**
 * A bundle looked at from every side before it is let near a request: verified, compiled, its data held
 * to the schema, its own vectors decided. It can be done in any thread; adopting the outcome is a copy.
 */
import { loadBundle } from './bundle.ts'
import type { Bundle, LoadOptions } from './bundle.ts'
import { PolicyError } from './errors.ts'
import { inputFor } from './input.ts'
import { judge, rulesOf } from './judge.ts'
import { CompiledPolicy } from './module.ts'
import type { Image } from './module.ts'
import { ENTRYPOINTS } from './points.ts'
import { placesWell } from './proof.ts'
import { compile, siteSchema } from './schema.ts'
import type { Schema } from './schema.ts'

/** What of a bundle is of use once it decides. */
export type Identity = Omit<Bundle, 'wasm' | 'data' | 'dataText' | 'vectors'> & {
  /** The zones that its site data describe, in order; at most 256. */
  readonly zones: readonly string[]
}

/** Ready to decide. Survives being posted from one thread to another. */
export interface Candidate {
  readonly identity: Identity
  readonly module: WebAssembly.Module
  readonly image: Image
}

/**
 * Keys of a zone that came after bundles were signed which a node may still stand on. Rules that read them deny
 * where they are absent, and the toolchain builds no bundle without them: only rules that never ask go without.
 */
const LATER: ReadonlySet<string> = new Set(['signed_approvals', 'session_bytes', 'recorded'])

/** The schema of site data, without the demand for what came later. */
function lenient(schema: Schema): Schema {
  const zones = schema.properties?.['zones']
  const zone = zones?.additionalProperties
  if (zones === undefined || typeof zone !== 'object')
    throw new Error('the schema of site data has no zones')
  const required = zone.required?.filter((name) => !LATER.has(name)) ?? []
  return {
    ...schema,
    properties: {
      ...schema.properties,
      zones: { ...zones, additionalProperties: { ...zone, required } },
    },
  }
}

const checkSite = compile({
  type: 'object',
  required: ['site'],
  additionalProperties: false,
  properties: { site: lenient(siteSchema) },
})

/** The vectors of a bundle, with null and [] for the facts that inputs have only had since it was signed. */
function vectorsOf({ vectors }: Bundle): Bundle['vectors'] {
  return vectors.map((vector) => {
    const { point, input } = vector
    return { ...vector, input: { ...inputFor(point, input), action: input.action } }
  })
}

/** The most vectors that a refusal tells of. */
const MAX_TOLD = 8

/** Decides the vectors a bundle carries. Errors: smoke.failed, which names those that come out otherwise; module.eval. */
function decideVectors(bundle: Bundle, compiled: CompiledPolicy): void {
  const rules = rulesOf(compiled.instance(), bundle.reads, compiled.image.shape)
  const otherwise: string[] = []
  for (const { name, point, input, effect, codes } of bundle.vectors) {
    const got = judge(rules, point, input)
    const found = (got.allow ? got.reasons : got.denials).map(({ code }) => code)
    if (got.effect === effect && found.toSorted().join() === codes.toSorted().join()) continue
    const [wanted, came] = [codes.join(', '), found.join(', ')]
    otherwise.push(
      `${name}: ${effect} (${wanted}) was to come out, and ${got.effect} (${came}) did`,
    )
  }
  if (otherwise.length > 0)
    throw new PolicyError('smoke.failed', otherwise.slice(0, MAX_TOLD).join('; '))
}

/**
 * Looks at a verified bundle.
 * Errors (PolicyError): module.* (cannot run here), data.schema, smoke.failed (a vector of its own comes
 * out otherwise).
 */
export async function examineBundle(signed: Bundle): Promise<Candidate> {
  const bundle = { ...signed, vectors: vectorsOf(signed) }
  const problem = checkSite(bundle.data)?.slice(1)
  if (problem !== undefined) throw new PolicyError('data.schema', problem)
  const made = await CompiledPolicy.compile(bundle.wasm, bundle.dataText, ENTRYPOINTS, bundle.reads)
  const compiled = placesWell(made, bundle.reads, bundle.vectors) ? made : made.withoutShape()
  decideVectors(bundle, compiled)
  const { wasm: _, data: __, dataText: ___, vectors: ____, ...identity } = bundle
  const zones = zonesOf(bundle.data)
  return { identity: { ...identity, zones }, module: compiled.module, image: compiled.image }
}

/** Of data that hold to the schema. */
function zonesOf(data: unknown): readonly string[] {
  const { site } = data as { readonly site: { readonly zones: object } }
  return Object.keys(site.zones).toSorted()
}

/** Verifies an archive and looks at it. Errors: those of `loadBundle` and `examineBundle`. */
export async function examine(bytes: Uint8Array, options: LoadOptions): Promise<Candidate> {
  return examineBundle(await loadBundle(bytes, options))
}
