/**
 * The policy of a node over its life: what it starts with, what waits to be activated, what is in
 * force. Verified at every step and at every start; a failure keeps what decides.
 */
import { PolicyEngine, PolicyError, loadBundle } from '#policy'
import type { Bundle, Decision, EngineStatus, Input, Partially, PublicKeys } from '#policy'
import type { AuditLog } from '#audit'
import type { Decisions } from '../decisions.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import type { CutSession, WouldEnd, Withdrawal } from '../sessions/reevaluate.ts'
import { cutPreview, replay, type CutPreview, type Replay } from './impact.ts'
import type { DecisionJournal } from './journal.ts'
import type { BundleSlots } from './slots.ts'

export interface PolicyParts {
  readonly engine: PolicyEngine
  readonly slots: BundleSlots
  /** Keys whose bundles this node takes; none: only what it came with. */
  readonly trust: PublicKeys
  /** The archive this release was built with. */
  readonly builtin: Uint8Array<ArrayBuffer>
  readonly log: Pick<AuditLog, 'append'>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** What live sessions answer to; known once the node can have any. */
export interface Live {
  readonly decisions: Pick<Decisions, 'question'>
  readonly journal: Pick<DecisionJournal, 'since'>
  preview(decide: (facts: Partially<Input>) => Decision): Promise<readonly WouldEnd[]>
  withdraw(withdrawal: Withdrawal): Promise<readonly CutSession[]>
}

export interface Impact {
  readonly revision: string
  readonly seq: number
  readonly digest: string
  readonly live: { readonly sessions: number; readonly cut: readonly CutPreview[] }
  readonly past: Replay | null
}

export interface Activated {
  readonly revision: string
  readonly digest: string
  readonly cut: readonly CutSession[]
}

/** A bundle is good after it has decided so long without an error. */
const GOOD_AFTER_MS = 10 * 60_000

type Source = 'active' | 'last-good' | 'built-in'

export class PolicyService implements Disposable {
  readonly #parts: PolicyParts
  #live: Live | undefined
  #archive: Uint8Array<ArrayBuffer>
  #bundle: Bundle | undefined
  #source: Source | 'none' = 'none'
  #activatedAt = 0
  #good: NodeJS.Timeout | undefined
  readonly #failures: { readonly slot: Source; readonly code: string; readonly detail: string }[] =
    []

  private constructor(parts: PolicyParts) {
    this.#parts = parts
    this.#archive = parts.builtin
  }

  /**
   * Brings the best bundle that verifies into force: active, last-good, and the built-in one only while
   * no signed bundle has ever been. Where none verifies every decision is `policy.unavailable`. Logged.
   */
  static async boot(parts: PolicyParts): Promise<PolicyService> {
    const service = new PolicyService(parts)
    const { state } = parts.slots
    const active = parts.slots.read('active')
    // Going back was somebody's decision, and is remembered; else a lower sequence is an attack.
    const highWater = state.back_to === null ? state.high_water : null
    const tries: [Source, Uint8Array<ArrayBuffer> | undefined, () => Promise<Bundle>][] = [
      ['active', active, () => service.#load(active, highWater)],
      [
        'last-good',
        parts.slots.read('last-good'),
        () => service.#load(parts.slots.read('last-good'), null),
      ],
      [
        'built-in',
        state.high_water === null ? parts.builtin : undefined,
        () => loadBundle(parts.builtin, { trust: 'builtin', highWater: null }),
      ],
    ]
    for (const [source, bytes, load] of tries) {
      if (bytes === undefined) continue
      const bundle = await service.#try(source, load)
      if (bundle === undefined) continue
      await service.#started(source, bundle, bytes)
      return service
    }
    await parts.log.append({
      code: 'policy.activate',
      message: 'no policy could be verified: everything is denied',
      status: 'failure',
      reason: service.#failures.at(-1)?.code,
      data: { revision: 'none' },
    })
    return service
  }

  /** From here on sessions can be asked about and cut. */
  serve(live: Live): void {
    this.#live = live
  }

  status(): EngineStatus & {
    readonly source: string
    readonly activated_at: number
    readonly high_water: number
    readonly candidate: { readonly digest: string; readonly by: string; readonly at: number } | null
    readonly last_good: boolean
    readonly trusted_keys: readonly string[]
    readonly boot_failures: readonly { slot: string; code: string; detail: string }[]
  } {
    const { engine, slots, trust } = this.#parts
    return {
      ...engine.status(),
      source: this.#source,
      activated_at: Math.floor(this.#activatedAt / 1000),
      high_water: slots.highWater?.seq ?? 0,
      candidate: slots.state.candidate,
      last_good: slots.read('last-good') !== undefined,
      trusted_keys: [...trust.keys()],
      boot_failures: this.#failures,
    }
  }

  /** The archive in force. */
  archive(): Uint8Array<ArrayBuffer> {
    return this.#archive
  }

  /**
   * Verifies an archive and keeps it as the candidate. Gives what it would do. Throws Refusal
   * `policy.bundle` with the bundle's own code.
   */
  async upload(
    archive: Uint8Array<ArrayBuffer>,
    by: string,
    since: number | null,
  ): Promise<Impact> {
    const { slots, now, log } = this.#parts
    const { bundle, engine } = await this.#candidate(archive)
    const impact = await this.#impact(bundle, engine, since)
    await log.append(
      this.#event('policy.upload', bundle, `policy ${bundle.revision} uploaded`, [by]),
    )
    slots.write('candidate', archive)
    slots.remember({
      candidate: { digest: bundle.digest, by, at: Math.floor(now() / 1000) },
    })
    return impact
  }

  /** What an archive would do; nothing is kept. Throws Refusal `policy.bundle`. */
  async impact(archive: Uint8Array<ArrayBuffer>, since: number | null): Promise<Impact> {
    const { bundle, engine } = await this.#candidate(archive)
    return this.#impact(bundle, engine, since)
  }

  /** Who uploaded the candidate with this digest. Throws Refusal `policy.candidate`. */
  uploader(digest: string): string {
    const { candidate } = this.#parts.slots.state
    if (candidate?.digest === digest) return candidate.by
    throw new Refusal('policy.candidate', 'no uploaded policy has this digest', {
      nextStep: 'see what waits: sallyport policy status',
    })
  }

  /**
   * Brings the candidate with this digest into force and decides every live session again. Throws
   * Refusal `policy.candidate`, `policy.bundle`; then what was in force stays.
   */
  async activate(digest: string, by: string): Promise<Activated> {
    const { slots } = this.#parts
    const uploader = this.uploader(digest)
    const archive = slots.read('candidate')
    if (archive === undefined) throw new Refusal('policy.candidate', 'the uploaded policy is gone')
    const { bundle } = await this.#candidate(archive)
    const done = await this.#enforce(bundle, archive, 'policy.activate', [uploader, by])
    slots.remember({
      high_water: { seq: bundle.seq, digest: bundle.digest },
      back_to: null,
      candidate: null,
    })
    slots.empty('candidate')
    return done
  }

  /**
   * A bundle that came by itself: brought into force, or kept as the candidate where a second person has
   * to agree. One that is in force or waits already changes nothing. Throws Refusal `policy.bundle`.
   */
  async take(archive: Uint8Array<ArrayBuffer>, from: string): Promise<void> {
    const { slots, engine } = this.#parts
    const { bundle } = await this.#candidate(archive)
    const { digest } = bundle
    if (digest === engine.status().bundle_digest || digest === slots.state.candidate?.digest) return
    await this.upload(archive, from, null)
    if (!this.#needsSecondPerson()) await this.activate(digest, from)
  }

  /** Whether the site data in force asks for two people to activate a policy. */
  #needsSecondPerson(): boolean {
    const { data } = this.#bundle ?? {}
    const site = (data as { site?: { settings?: { second_person?: unknown } } } | undefined)?.site
    const named = site?.settings?.second_person
    return !Array.isArray(named) || named.includes('policy:push')
  }

  /**
   * Goes back to the last bundle that proved good here. Throws Refusal `policy.candidate` where there is
   * none, `policy.bundle` where it does not verify any more.
   */
  async rollback(by: string): Promise<Activated> {
    const { slots } = this.#parts
    const archive = slots.read('last-good')
    if (archive === undefined)
      throw new Refusal('policy.candidate', 'no earlier policy has proved good on this node', {
        nextStep: 'sign the rules you want with a higher --seq, and push them',
      })
    const bundle = await this.#load(archive, null).catch((error: unknown) => {
      throw refused(error)
    })
    if (bundle.digest === this.#parts.engine.status().bundle_digest)
      throw new Refusal('policy.candidate', 'the last good policy is the one in force')
    const done = await this.#enforce(bundle, archive, 'policy.rollback', [by])
    slots.remember({ back_to: bundle.digest })
    return done
  }

  /** Verified like any upload, and in an engine of its own: it has compiled and passed its own vectors. */
  async #candidate(
    archive: Uint8Array<ArrayBuffer>,
  ): Promise<{ readonly bundle: Bundle; readonly engine: PolicyEngine }> {
    try {
      const bundle = await this.#load(archive, this.#parts.slots.highWater)
      const engine = PolicyEngine.unavailable()
      await engine.activate(bundle)
      return { bundle, engine }
    } catch (error) {
      throw refused(error)
    }
  }

  async #load(
    archive: Uint8Array<ArrayBuffer> | undefined,
    highWater: BundleSlots['highWater'],
  ): Promise<Bundle> {
    if (archive === undefined) throw new PolicyError('bundle.missing', 'the archive is gone')
    return loadBundle(archive, { trust: this.#parts.trust, highWater })
  }

  async #impact(bundle: Bundle, engine: PolicyEngine, since: number | null): Promise<Impact> {
    const { revision, seq, digest } = bundle
    const live = this.#live
    if (live === undefined)
      return { revision, seq, digest, live: { sessions: 0, cut: [] }, past: null }
    let asked = 0
    const at = this.#parts.now()
    const found = await live.preview((facts) => {
      asked++
      const input = live.decisions.question('session.reevaluate', facts, at)
      return engine.decide('session.reevaluate', input, { decisionId: newId('d') })
    })
    const past =
      since === null ? null : await replay(live.journal.since(since), this.#parts.engine, engine)
    return { revision, seq, digest, live: { sessions: asked, cut: cutPreview(found) }, past }
  }

  /** Logs, then swaps, then keeps, then cuts what is no longer allowed. */
  async #enforce(
    bundle: Bundle,
    archive: Uint8Array<ArrayBuffer>,
    code: 'policy.activate' | 'policy.rollback',
    approvers: readonly string[],
  ): Promise<Activated> {
    const { engine, slots, log, now } = this.#parts
    const words = code === 'policy.activate' ? 'activated' : 'brought back'
    await log.append(this.#event(code, bundle, `policy ${bundle.revision} ${words}`, approvers))
    const at = performance.now()
    slots.write('active', archive)
    try {
      await engine.activate(bundle)
    } catch (error) {
      slots.write('active', this.#archive)
      throw refused(error)
    }
    this.#archive = archive
    this.#bundle = bundle
    this.#source = 'active'
    this.#activatedAt = now()
    this.#watch(bundle, archive)
    const cut = (await this.#live?.withdraw({ trigger: 'policy', at })) ?? []
    return { revision: bundle.revision, digest: bundle.digest, cut }
  }

  /** After ten minutes without an error, the bundle is what a later one may be taken back to. */
  #watch({ digest }: Bundle, archive: Uint8Array<ArrayBuffer>): void {
    clearTimeout(this.#good)
    const { engine, slots, report } = this.#parts
    const { errors } = engine.status()
    this.#good = setTimeout(() => {
      const now = engine.status()
      if (now.bundle_digest !== digest || now.errors !== errors) return
      try {
        slots.write('last-good', archive)
      } catch (error) {
        report(error, 'the policy in force could not be kept as the last good one')
      }
    }, GOOD_AFTER_MS).unref()
  }

  async #try(source: Source, load: () => Promise<Bundle>): Promise<Bundle | undefined> {
    try {
      const bundle = await load()
      await this.#parts.engine.activate(bundle)
      return bundle
    } catch (error) {
      const { code, detail } =
        error instanceof PolicyError ? error : { code: 'module.invalid', detail: String(error) }
      this.#failures.push({ slot: source, code, detail })
      this.#parts.report(error, `the ${source} policy cannot be used`)
      return undefined
    }
  }

  async #started(source: Source, bundle: Bundle, archive: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#source = source
    this.#archive = archive
    this.#bundle = bundle
    this.#activatedAt = this.#parts.now()
    const words = source === 'built-in' ? 'built-in policy active' : `${source} policy active`
    await this.#parts.log.append(this.#event('policy.activate', bundle, words, []))
    if (source !== 'built-in') this.#watch(bundle, archive)
  }

  #event(
    code: 'policy.upload' | 'policy.activate' | 'policy.rollback',
    { revision, digest }: Bundle,
    message: string,
    approvers: readonly string[],
  ): Parameters<AuditLog['append']>[0] {
    const previous = this.#parts.engine.status().revision
    return {
      code,
      message,
      status: 'success',
      data: {
        revision,
        bundle_sha256: digest,
        ...(previous === null || previous === revision ? {} : { previous }),
        approvers: [...approvers],
      },
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#good)
  }
}

function refused(error: unknown): unknown {
  if (!(error instanceof PolicyError)) return error
  return new Refusal('policy.bundle', `the bundle was refused: ${error.code} ${error.detail}`, {
    cause: error,
    denials: [{ code: error.code, msg: error.detail }],
    nextStep: 'docs/policy.md lists the codes; what was in force still decides',
  })
}
