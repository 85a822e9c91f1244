/** decide never throws; a swap makes new instances and never touches a live one. docs/policy.md. */
import type { Bundle } from './bundle.ts'
import { CATALOGUE, catalogueRow } from './catalogue.ts'
import type { DenialCode, HostCode } from './catalogue.ts'
import { complete, readDocument, readObligations } from './ceiling.ts'
import type { Decision, Denial, Layer } from './decision.ts'
import type { Input, Point } from './envelope.ts'
import { PolicyError } from './errors.ts'
import type { Encode } from './encode.ts'
import { encodeInput, prepare } from './input.ts'
import type { Prepared } from './input.ts'
import { brokenInvariant } from './invariant.ts'
import { CompiledPolicy } from './module.ts'
import type { PolicyInstance } from './module.ts'
import type { Obligations } from './obligations.ts'
import { ENTRYPOINTS, POINTS } from './points.ts'
import { compile, siteSchema } from './schema.ts'

export interface EngineStatus {
  readonly state: 'unavailable' | 'active'
  readonly revision: string | null
  readonly data_digest: string | null
  readonly bundle_digest: string | null
  readonly seq: number | null
  readonly decisions: number
  readonly errors: number
  readonly rebuilds: number
  /** Why the last activation was refused, until one succeeds. */
  readonly last_failure: { readonly code: string; readonly detail: string } | null
}

export interface EngineOptions {
  /**
   * Milliseconds of any steady clock, fractions wanted (`() => performance.now()`). It measures
   * `eval_us` and decides nothing; without it `eval_us` is null.
   */
  readonly now?: () => number
}

type Verdict = Pick<Decision, 'effect' | 'allow' | 'reasons' | 'denials' | 'obligations' | 'layer'>

const checkSite = compile({
  type: 'object',
  required: ['site'],
  additionalProperties: false,
  properties: { site: siteSchema },
})

/** A bundle in force: two instances, one decides, the other stands by for when it fails. */
class Live {
  readonly bundle: Bundle
  readonly encode: Encode
  readonly #compiled: CompiledPolicy
  #deciding: PolicyInstance
  #spare: PolicyInstance | undefined
  rebuilds = 0

  constructor(bundle: Bundle, compiled: CompiledPolicy) {
    this.bundle = bundle
    this.encode = encodeInput(bundle.reads)
    this.#compiled = compiled
    this.#deciding = compiled.instance()
    this.#spare = compiled.instance()
  }

  evaluate(entrypoint: string, input: Uint8Array): unknown {
    return this.#deciding.evaluate(entrypoint, input)
  }

  /** After a failed evaluation: the spare takes over, and a new one is made. */
  replace(): void {
    this.rebuilds++
    this.#deciding = this.#spare ?? this.#compiled.instance()
    this.#spare = undefined
    this.#spare = this.#compiled.instance()
  }
}

function identity(
  bundle: Bundle | undefined,
): Pick<EngineStatus, 'state' | 'revision' | 'data_digest' | 'bundle_digest' | 'seq'> {
  if (bundle === undefined)
    return {
      state: 'unavailable',
      revision: null,
      data_digest: null,
      bundle_digest: null,
      seq: null,
    }
  const { revision, dataDigest, digest, seq } = bundle
  return { state: 'active', revision, data_digest: dataDigest, bundle_digest: digest, seq }
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

function denied(
  layer: Layer,
  code: DenialCode,
  obligations: Obligations,
  at: string | undefined,
): Verdict {
  const denials = [denialOf(code, at)]
  return { effect: 'deny', allow: false, reasons: [], denials, obligations, layer }
}

/** What a decision of no known point binds to: the strict defaults of the shortest ceiling. */
const STRICT = complete('admin.api', undefined, {})

export class PolicyEngine {
  readonly #now: (() => number) | undefined
  #live: Live | undefined
  #decisions = 0
  #errors = 0
  #rebuilds = 0
  #lastFailure: EngineStatus['last_failure'] = null

  private constructor(options: EngineOptions) {
    this.#now = options.now
  }

  /** An engine without a policy: until one is activated every decision is `policy.unavailable`. */
  static unavailable(options: EngineOptions = {}): PolicyEngine {
    return new PolicyEngine(options)
  }

  /**
   * Makes a verified bundle the deciding one, between two decisions.
   * Errors (PolicyError): module.* (cannot run here), data.schema, smoke.failed (a vector of its own
   * comes out otherwise). On any of them the bundle in force stays, and `status` says what failed.
   */
  async activate(bundle: Bundle): Promise<void> {
    try {
      const problem = checkSite(bundle.data)?.slice(1)
      if (problem !== undefined) throw new PolicyError('data.schema', problem)
      const compiled = await CompiledPolicy.compile(bundle.wasm, bundle.dataText, ENTRYPOINTS)
      const live = new Live(bundle, compiled)
      for (const { name, point, input, effect, codes } of bundle.vectors) {
        const got = judge(live, point, input)
        const found = (got.allow ? got.reasons : got.denials).map(({ code }) => code)
        if (got.effect !== effect || found.toSorted().join() !== codes.toSorted().join())
          throw new PolicyError('smoke.failed', `${name}: ${got.effect} ${found.join(', ')}`)
      }
      this.#rebuilds += this.#live?.rebuilds ?? 0
      this.#live = live
      this.#lastFailure = null
    } catch (error) {
      const failure =
        error instanceof PolicyError
          ? error
          : new PolicyError('module.invalid', String(error), { cause: error })
      this.#lastFailure = { code: failure.code, detail: failure.detail }
      throw failure
    }
  }

  /**
   * Decides. Never throws: unknown, absent, broken and late are denials with a code.
   * Takes: the point, a complete input (`inputFor`), the decision's id as the log will know it.
   * Gives: a Decision; only `allow: true` lets anything happen, and only within its obligations.
   */
  decide(point: Point, input: Input, options: { decisionId: string }): Decision {
    const started = this.#now?.()
    this.#decisions++
    const live = this.#live
    const verdict =
      live === undefined ? withoutPolicy(point, input) : this.#guarded(live, point, input)
    return this.#sealed(verdict, options.decisionId, started)
  }

  /**
   * The decision for an invariant the gateway itself found broken (a revoked certificate, an unknown
   * process, another tenant). Rego is not asked. `ref` names the thing at fault, at most 256 characters.
   */
  refuse(code: HostCode, options: { decisionId: string; ref?: string }): Decision {
    const started = this.#now?.()
    this.#decisions++
    return this.#sealed(denied('host', code, STRICT, options.ref), options.decisionId, started)
  }

  /** What is in force and how it fares. */
  status(): EngineStatus {
    return {
      ...identity(this.#live?.bundle),
      decisions: this.#decisions,
      errors: this.#errors,
      rebuilds: this.#rebuilds + (this.#live?.rebuilds ?? 0),
      last_failure: this.#lastFailure,
    }
  }

  #guarded(live: Live, point: Point, input: Input): Verdict {
    try {
      return judge(live, point, input)
    } catch (error) {
      this.#errors++
      try {
        live.replace()
      } catch {
        // No instance can be made any more: nothing is left to decide with.
        if (this.#live === live) this.#live = undefined
      }
      return denied(
        'host',
        'policy.error',
        STRICT,
        error instanceof PolicyError ? error.code : undefined,
      )
    }
  }

  #sealed(verdict: Verdict, decisionId: string, started: number | undefined): Decision {
    const bundle = this.#live?.bundle
    const ended = this.#now?.()
    return {
      v: 1,
      effect: verdict.effect,
      allow: verdict.allow,
      reasons: verdict.reasons,
      denials: verdict.denials,
      obligations: verdict.obligations,
      decision_id: decisionId,
      revision: bundle?.revision ?? null,
      data_digest: bundle?.dataDigest ?? null,
      layer: verdict.layer,
      arm: 'active',
      eval_us:
        ended === undefined ? null : Math.max(0, Math.round((ended - (started ?? ended)) * 1000)),
    }
  }
}

function withoutPolicy(point: Point, input: Input): Verdict {
  try {
    return denied('host', 'policy.unavailable', complete(point, input, {}), undefined)
  } catch {
    return denied('host', 'policy.unavailable', STRICT, undefined)
  }
}

/** `prepare`, with what a hostile object throws turned into the refusal it deserves. */
function attempt(point: Point, given: Input, encode: Encode): Prepared {
  try {
    return prepare(point, given, encode)
  } catch {
    return { ok: false, at: 'cannot be read' }
  }
}

/** One decision by one live bundle; throws only what `evaluate` throws. */
function judge(live: Live, point: Point, given: Input): Verdict {
  if (!Object.hasOwn(POINTS, point)) return denied('host', 'input.invalid', STRICT, 'no such point')
  const prepared = attempt(point, given, live.encode)
  if (!prepared.ok) return denied('host', 'input.invalid', STRICT, prepared.at)
  const { input, bytes } = prepared
  const strict = (): Obligations => complete(point, input, {})
  const read = readDocument(live.evaluate(POINTS[point].entrypoint, bytes))
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
