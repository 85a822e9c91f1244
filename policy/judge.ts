/** One decision by one set of rules: the input made ready, the rules asked, the answer held to. docs/policy.md. */
import { CATALOGUE, catalogueRow } from './catalogue.ts'
import type { DenialCode } from './catalogue.ts'
import { complete, readDocument, readObligations } from './ceiling.ts'
import type { Decision, Denial, Layer } from './decision.ts'
import type { Encode } from './encode.ts'
import type { Input, Point } from './envelope.ts'
import { PolicyError } from './errors.ts'
import { encodeInput, prepare } from './input.ts'
import type { Prepared } from './input.ts'
import { brokenInvariant } from './invariant.ts'
import type { PolicyInstance } from './module.ts'
import type { Obligations } from './obligations.ts'
import { Placer } from './place.ts'
import { POINTS } from './points.ts'
import type { Reads } from './reads.ts'
import { inputSchema } from './schema.ts'
import type { Shape } from './shape.ts'

/** What a decision says before it has a number and a revision. */
export type Verdict = Pick<
  Decision,
  'effect' | 'allow' | 'reasons' | 'denials' | 'obligations' | 'layer'
>

/** What decides: how its input is made ready, and the module's evaluation of it, which may throw PolicyError. */
export interface Rules {
  readonly encode: Encode
  /** `text` is what `encode` wrote, where it writes text and does not place values. */
  evaluate(entrypoint: string, text: Uint8Array): unknown
}

/**
 * Rules asked of one instance, on inputs of which these parts are read: placed in its memory where its
 * shape is known, written as text where it is not.
 */
export function rulesOf(instance: PolicyInstance, reads: Reads, shape: Shape | undefined): Rules {
  if (shape === undefined)
    return {
      encode: encodeInput(reads),
      evaluate: (entrypoint, text) => instance.evaluate(entrypoint, text),
    }
  const placer = new Placer(inputSchema, reads, shape, instance.ground)
  return {
    encode: placer.encode,
    evaluate: (entrypoint) => instance.evaluatePlaced(entrypoint, placer.take()),
  }
}

function denialOf(code: DenialCode, ref: string | undefined): Denial {
  const row = catalogueRow(code)
  const { msg } = CATALOGUE[code]
  const remedy = row?.remedy
  return {
    code,
    msg,
    ...(remedy === undefined ? {} : { remedy }),
    ...(ref === undefined ? {} : { ref: ref.slice(0, 256).toWellFormed() }),
  }
}

/** A refusal by the host or the ceiling. */
export function denied(
  layer: Layer,
  code: DenialCode,
  obligations: Obligations,
  at: string | undefined,
): Verdict {
  const denials = [denialOf(code, at)]
  return { effect: 'deny', allow: false, reasons: [], denials, obligations, layer }
}

/** What a decision of no known point binds to: the strict defaults of the shortest ceiling. */
export const STRICT = complete('admin.api', undefined, {})

/** `prepare`, with what a hostile object throws turned into the refusal it deserves. What the module throws while an input is placed in it is not the input's. */
function attempt(point: Point, given: Input, encode: Encode): Prepared {
  try {
    return prepare(point, given, encode)
  } catch (error) {
    if (error instanceof PolicyError || error instanceof WebAssembly.RuntimeError) throw error
    return { ok: false, at: 'cannot be read' }
  }
}

/** One decision by one set of rules; throws only what `evaluate` throws. */
export function judge(rules: Rules, point: Point, given: Input): Verdict {
  if (!Object.hasOwn(POINTS, point)) return denied('host', 'input.invalid', STRICT, 'no such point')
  const prepared = attempt(point, given, rules.encode)
  if (!prepared.ok) return denied('host', 'input.invalid', STRICT, prepared.at)
  const { input, bytes } = prepared
  const strict = (): Obligations => complete(point, input, {})
  const read = readDocument(rules.evaluate(POINTS[point].entrypoint, bytes))
  if (!read.ok) return denied('ceiling', read.code, strict(), read.at)
  const { effect, reasons, denials } = read.value
  const obligations = readObligations(point, input, read.value.obligations)
  if (!obligations.ok) {
    // A denial stays the policy's own; only an allow has to bind to something readable.
    return effect === 'allow'
      ? denied('ceiling', obligations.code, strict(), obligations.at)
      : { effect, allow: false, reasons, denials, obligations: strict(), layer: 'rego' }
  }
  if (effect !== 'allow')
    return { effect, allow: false, reasons, denials, obligations: obligations.value, layer: 'rego' }
  const broken = brokenInvariant(point, input)
  if (broken !== undefined) return denied('host', broken, strict(), undefined)
  return { effect, allow: true, reasons, denials, obligations: obligations.value, layer: 'rego' }
}
