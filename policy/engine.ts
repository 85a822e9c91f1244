/** decide never throws; a swap makes new instances and never touches a live one. docs/policy.md. */
import type { Bundle } from './bundle.ts'
import { examineBundle } from './candidate.ts'
import type { Candidate, Identity } from './candidate.ts'
import type { HostCode } from './catalogue.ts'
import { complete } from './ceiling.ts'
import type { Decision, Denial } from './decision.ts'
import type { Input, Point } from './envelope.ts'
import { PolicyError } from './errors.ts'
import { denied, judge, rulesOf, STRICT } from './judge.ts'
import type { Rules, Verdict } from './judge.ts'
import { CompiledPolicy } from './module.ts'
import type { PolicyInstance } from './module.ts'
import type { Shape } from './shape.ts'
import { deniesStale, staleAt } from './staleness.ts'
import type { Staleness } from './staleness.ts'

export interface EngineStatus {
  readonly state: 'unavailable' | 'active'
  readonly revision: string | null
  readonly data_digest: string | null
  readonly bundle_digest: string | null
  readonly seq: number | null
  /** Epoch seconds from which the bundle counts as stale; null where it never does. */
  readonly stale_at: number | null
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
  /** What a bundle past its max_age_s still decides; without it `deny_new`. */
  readonly staleness?: Staleness
  /** Told before and after every evaluation; a watchdog in another thread looks at what it leaves behind. */
  readonly guard?: { enter(): void; leave(): void }
}

/** A bundle in force: two instances, one decides, the other stands by for when it fails. */
class Live {
  readonly identity: Identity
  /** Of the instance that decides. */
  rules: Rules
  readonly #compiled: CompiledPolicy
  readonly #shape: Shape | undefined
  #deciding: PolicyInstance
  #spare: PolicyInstance | undefined
  rebuilds = 0

  constructor({ identity, module, image }: Candidate) {
    this.identity = identity
    this.#compiled = CompiledPolicy.from(module, image)
    this.#deciding = this.#compiled.instance()
    this.#spare = this.#compiled.instance()
    this.#shape = image.shape
    this.rules = rulesOf(this.#deciding, identity.reads, image.shape)
  }

  /** After a failed evaluation: the spare takes over, and a new one is made. */
  replace(): void {
    this.rebuilds++
    this.#deciding = this.#spare ?? this.#compiled.instance()
    this.rules = rulesOf(this.#deciding, this.identity.reads, this.#shape)
    this.#spare = undefined
    this.#spare = this.#compiled.instance()
  }
}

function identity(
  bundle: Identity | undefined,
): Pick<EngineStatus, 'state' | 'revision' | 'data_digest' | 'bundle_digest' | 'seq' | 'stale_at'> {
  if (bundle === undefined)
    return {
      state: 'unavailable',
      revision: null,
      data_digest: null,
      bundle_digest: null,
      seq: null,
      stale_at: null,
    }
  const { revision, dataDigest, digest, seq } = bundle
  const stale_at = staleAt(bundle)
  return {
    state: 'active',
    revision,
    data_digest: dataDigest,
    bundle_digest: digest,
    seq,
    stale_at,
  }
}

export class PolicyEngine {
  readonly #now: (() => number) | undefined
  readonly #staleness: Staleness
  readonly #guard: EngineOptions['guard']
  #live: Live | undefined
  #decisions = 0
  #errors = 0
  #rebuilds = 0
  #lastFailure: EngineStatus['last_failure'] = null

  private constructor(options: EngineOptions) {
    this.#now = options.now
    this.#staleness = options.staleness ?? 'deny_new'
    this.#guard = options.guard
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
      this.adopt(await examineBundle(bundle))
    } catch (error) {
      throw this.#failed(error)
    }
  }

  /**
   * Makes what has been examined, here or in another thread, the deciding one. It copies the module's
   * memory twice and does nothing else. Errors (PolicyError): module.* where memory has run out.
   */
  adopt(candidate: Candidate): void {
    this.ready(candidate)()
  }

  /**
   * The same in two steps, for whoever does something between that must not be done in vain: the first may fail as
   * `adopt` does, and what it gives swaps, and does not.
   */
  ready(candidate: Candidate): () => void {
    let live: Live
    try {
      live = new Live(candidate)
    } catch (error) {
      throw this.#failed(error)
    }
    return () => {
      this.#rebuilds += this.#live?.rebuilds ?? 0
      this.#live = live
      this.#lastFailure = null
    }
  }

  /** Notes why a bundle was not activated: `status` shows it until one is. */
  refused(code: string, detail: string): void {
    this.#lastFailure = { code, detail }
  }

  #failed(error: unknown): PolicyError {
    const failure =
      error instanceof PolicyError
        ? error
        : new PolicyError('module.invalid', String(error), { cause: error })
    this.refused(failure.code, failure.detail)
    return failure
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

  /** The zones that the site data in force describe, in order; undefined where no policy is in force. */
  zones(): readonly string[] | undefined {
    return this.#live?.identity.zones
  }

  /** What the bundle in force tells people to do about a code; undefined where it says nothing of its own. */
  nextStep(code: string): string | undefined {
    return this.#live?.identity.next.get(code)
  }

  /** What is in force and how it fares. */
  status(): EngineStatus {
    return {
      ...identity(this.#live?.identity),
      decisions: this.#decisions,
      errors: this.#errors,
      rebuilds: this.#rebuilds + (this.#live?.rebuilds ?? 0),
      last_failure: this.#lastFailure,
    }
  }

  #guarded(live: Live, point: Point, input: Input): Verdict {
    this.#guard?.enter()
    try {
      const verdict = judge(live.rules, point, input)
      const stale = verdict.allow && deniesStale(this.#staleness, live.identity, point, input)
      return stale ? denied('host', 'policy.stale', verdict.obligations, undefined) : verdict
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
    } finally {
      this.#guard?.leave()
    }
  }

  #sealed(verdict: Verdict, decisionId: string, started: number | undefined): Decision {
    const bundle = this.#live?.identity
    const ended = this.#now?.()
    return {
      v: 1,
      effect: verdict.effect,
      allow: verdict.allow,
      reasons: verdict.reasons,
      denials: withNext(causeFirst(verdict.denials), bundle?.next),
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

/** In a zone without rules everything its rules say is denied too: why comes before what follows from it. */
function causeFirst(denials: readonly Denial[]): readonly Denial[] {
  const at = denials.findIndex(({ code }) => code === 'zone.unknown')
  const cause = denials[at]
  return cause === undefined ? denials : [cause, ...denials.toSpliced(at, 1)]
}

/** Denials with what the bundle in force tells people to do about them. */
function withNext(
  denials: readonly Denial[],
  sentences: Identity['next'] | undefined,
): readonly Denial[] {
  if (sentences === undefined || sentences.size === 0) return denials
  return denials.map((denial) => {
    const next = sentences.get(denial.code)
    return next === undefined ? denial : { ...denial, next }
  })
}

function withoutPolicy(point: Point, input: Input): Verdict {
  try {
    return denied('host', 'policy.unavailable', complete(point, input, {}), undefined)
  } catch {
    return denied('host', 'policy.unavailable', STRICT, undefined)
  }
}
