/**
 * A candidate beside the policy in force. In its shadow form it is asked after the answer is out, and
 * only what it would have said otherwise is counted. As a canary it answers for a part of the people or
 * devices, and ends by itself when it denies more than was agreed, or fails once.
 */
import { createHash } from 'node:crypto'
import type { Decision, Input, Point, PolicyEngine } from '#policy'
import { describeTurn, turn, type Turned } from './impact.ts'

/** What the canary answers for; a shadow answers for nobody. */
export interface Share {
  /** 0 to 100: of people and devices, by a hash that stays the same for each. */
  readonly percent: number
  /** Or the devices that carry this label. */
  readonly label: { readonly name: string; readonly value: string } | null
}

export interface TrialOptions {
  readonly digest: string
  readonly revision: string
  readonly candidate: Pick<PolicyEngine, 'decide'>
  readonly mode: 'shadow' | 'canary'
  readonly share: Share
  /** Epoch milliseconds. */
  readonly since: number
  /** Told once, when a canary ends by itself; `reason` is a sentence. */
  readonly ended: (reason: string) => void
  readonly report: (error: unknown, what: string) => void
}

export interface TrialStatus {
  readonly mode: 'shadow' | 'canary'
  readonly digest: string
  readonly revision: string
  readonly percent: number
  readonly label: string | null
  /** Epoch seconds. */
  readonly since: number
  readonly state: 'running' | 'ended'
  readonly reason: string | null
  /** Decisions looked at, and those that the trial did not get to. */
  readonly decisions: number
  readonly passed_over: number
  readonly newly_denied: number
  readonly newly_allowed: number
  readonly obligations: number
  readonly errors: number
}

/** A canary that newly denies more than this share of those who ask at one point ends by itself. */
const DENIED_BOUND = 0.05
/** So many decisions at a point say something about a share, */
const LEAST_DECISIONS = 40
/** and so many who are denied: one that tries again and again is one. */
const LEAST_DENIED = 2
/** The most who are told apart at one point. */
const MAX_ASKERS = 10_000

/** Who asked at one point, and who of them was newly denied. */
interface Asked {
  decisions: number
  readonly askers: Set<string>
  readonly denied: Set<string>
}
/** The most kinds of difference that are kept apart. */
const MAX_KINDS = 500
/** The most decisions that wait for a shadow: beyond, they are counted and passed over. */
const MAX_WAITING = 2_000
const SLICE_MS = 4

export class Trial {
  readonly #options: TrialOptions
  readonly #kinds = new Map<string, Turned>()
  #waiting: { point: Point; input: Input; decision: Decision }[] = []
  #turning: NodeJS.Immediate | undefined
  #state: TrialStatus['state'] = 'running'
  #reason: string | null = null
  #decisions = 0
  #passedOver = 0
  #errors = 0
  readonly #points = new Map<Point, Asked>()
  readonly #changes = { newly_denied: 0, newly_allowed: 0, obligations: 0 }

  constructor(options: TrialOptions) {
    this.#options = options
  }

  status(): TrialStatus {
    const { mode, digest, revision, share, since } = this.#options
    return {
      mode,
      digest,
      revision,
      percent: share.percent,
      state: this.#state,
      label: share.label === null ? null : `${share.label.name}=${share.label.value}`,
      since: Math.floor(since / 1000),
      reason: this.#reason,
      decisions: this.#decisions,
      passed_over: this.#passedOver,
      ...this.#changes,
      errors: this.#errors,
    }
  }

  /** What came out otherwise, by kind, most often first. */
  differences(): readonly Turned[] {
    return [...this.#kinds.values()].toSorted((a, b) => b.count - a.count)
  }

  end(reason: string): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#reason = reason
    this.#waiting = []
    if (this.#turning !== undefined) clearImmediate(this.#turning)
  }

  /**
   * The answer as it goes out: the canary's where the question is one of its share, else the one that
   * was given. A candidate that fails changes nothing and ends the trial.
   */
  answer(point: Point, input: Input, given: Decision): Decision {
    if (this.#state === 'ended') return given
    const { mode, candidate, share } = this.#options
    if (mode === 'shadow') {
      this.#later(point, input, given)
      return given
    }
    if (!answersFor(share, input)) return given
    const theirs = candidate.decide(point, input, { decisionId: given.decision_id })
    this.#compare(point, input, given, theirs)
    return this.#state === 'running' ? { ...theirs, arm: 'canary' } : given
  }

  #later(point: Point, input: Input, decision: Decision): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#passedOver++
      return
    }
    this.#waiting.push({ point, input, decision })
    this.#turning ??= setImmediate(() => this.#shadow())
  }

  #shadow(): void {
    this.#turning = undefined
    const began = performance.now()
    while (this.#state === 'running' && performance.now() - began < SLICE_MS) {
      const one = this.#waiting.shift()
      if (one === undefined) return
      const { point, input, decision } = one
      const options = { decisionId: decision.decision_id }
      this.#compare(point, input, decision, this.#options.candidate.decide(point, input, options))
    }
    if (this.#waiting.length > 0) this.#turning = setImmediate(() => this.#shadow())
  }

  #compare(point: Point, input: Input, ours: Decision, theirs: Decision): void {
    this.#decisions++
    if (theirs.denials.some(({ code }) => code === 'policy.error')) {
      this.#errors++
      this.#stop('the candidate could not decide')
      return
    }
    const change = turn(ours, theirs)
    if (change !== undefined) {
      this.#changes[change.change]++
      this.#keep(describeTurn({ point, input, example: ours.decision_id }, change))
    }
    this.#judge(point, input, change?.change === 'newly_denied')
  }

  /** Counted apart for each point, and each asker once: what is asked often must not drown what is asked seldom. */
  #judge(point: Point, { subject, device }: Input, newlyDenied: boolean): void {
    const at = this.#points.get(point) ?? { decisions: 0, askers: new Set(), denied: new Set() }
    this.#points.set(point, at)
    const asker = subject.id ?? device?.id ?? ''
    at.decisions++
    if (at.askers.size < MAX_ASKERS) at.askers.add(asker)
    if (newlyDenied && at.askers.has(asker)) at.denied.add(asker)
    const [all, denied] = [at.askers.size, at.denied.size]
    const everybody = denied === all && denied > 0
    if (at.decisions < LEAST_DECISIONS || (denied < LEAST_DENIED && !everybody)) return
    if (denied > DENIED_BOUND * all)
      this.#stop(`at ${point}, ${denied} of ${all} who asked were newly denied`)
  }

  #keep(one: Turned): void {
    const key = JSON.stringify([one.point, one.change, one.person, one.zone, one.codes])
    const seen = this.#kinds.get(key)
    if (seen === undefined && this.#kinds.size >= MAX_KINDS) return
    this.#kinds.set(key, { ...one, count: (seen?.count ?? 0) + 1 })
  }

  /** A shadow harms nobody and goes on counting; a canary ends. */
  #stop(reason: string): void {
    const { mode, ended } = this.#options
    if (mode === 'shadow' || this.#state === 'ended') return
    this.end(reason)
    ended(reason)
  }
}

/** The same people and devices each time, whatever they ask: the first octets of a hash, as a share of all. */
function answersFor({ percent, label }: Share, { subject, device }: Input): boolean {
  if (label !== null) return device?.labels[label.name] === label.value
  const name = `${subject.id ?? ''}|${device?.id ?? ''}`
  const place = createHash('sha256').update(name).digest().readUInt32BE(0)
  return place < (percent / 100) * 2 ** 32
}
