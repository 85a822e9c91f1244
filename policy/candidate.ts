/**
 * A bundle looked at from every side before it is let near a request: verified, compiled, its data held
 * to the schema, its own vectors decided. It can be done in any thread; adopting the outcome is a copy.
 */
import { loadBundle } from './bundle.ts'
import type { Bundle, LoadOptions } from './bundle.ts'
import { PolicyError } from './errors.ts'
import { judge, rulesOf } from './judge.ts'
import { CompiledPolicy } from './module.ts'
import type { Image } from './module.ts'
import { ENTRYPOINTS } from './points.ts'
import { placesWell } from './proof.ts'
import { compile, siteSchema } from './schema.ts'

/** What of a bundle is of use once it decides. */
export type Identity = Omit<Bundle, 'wasm' | 'data' | 'dataText' | 'vectors'>

/** Ready to decide. Survives being posted from one thread to another. */
export interface Candidate {
  readonly identity: Identity
  readonly module: WebAssembly.Module
  readonly image: Image
}

const checkSite = compile({
  type: 'object',
  required: ['site'],
  additionalProperties: false,
  properties: { site: siteSchema },
})

/** Decides the vectors a bundle carries. Errors: smoke.failed, module.eval. */
function decideVectors(bundle: Bundle, compiled: CompiledPolicy): void {
  const rules = rulesOf(compiled.instance(), bundle.reads, compiled.image.shape)
  for (const { name, point, input, effect, codes } of bundle.vectors) {
    const got = judge(rules, point, input)
    const found = (got.allow ? got.reasons : got.denials).map(({ code }) => code)
    if (got.effect !== effect || found.toSorted().join() !== codes.toSorted().join())
      throw new PolicyError('smoke.failed', `${name}: ${got.effect} ${found.join(', ')}`)
  }
}

/**
 * Looks at a verified bundle.
 * Errors (PolicyError): module.* (cannot run here), data.schema, smoke.failed (a vector of its own comes
 * out otherwise).
 */
export async function examineBundle(bundle: Bundle): Promise<Candidate> {
  const problem = checkSite(bundle.data)?.slice(1)
  if (problem !== undefined) throw new PolicyError('data.schema', problem)
  const made = await CompiledPolicy.compile(bundle.wasm, bundle.dataText, ENTRYPOINTS, bundle.reads)
  const compiled = placesWell(made, bundle.reads, bundle.vectors) ? made : made.withoutShape()
  decideVectors(bundle, compiled)
  const { wasm: _, data: __, dataText: ___, vectors: ____, ...identity } = bundle
  return { identity, module: compiled.module, image: compiled.image }
}

/** Verifies an archive and looks at it. Errors: those of `loadBundle` and `examineBundle`. */
export async function examine(bytes: Uint8Array, options: LoadOptions): Promise<Candidate> {
  return examineBundle(await loadBundle(bytes, options))
}
