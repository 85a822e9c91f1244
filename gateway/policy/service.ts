/**
 * The policy of a node over its life: what it starts with, what waits to be activated, what is in
 * force. Verified at every step and at every start; a failure keeps what decides.
 */
import { PolicyError } from '#policy'
import type { Candidate } from '#policy'
import type { Actor } from '#audit'
import { Refusal } from '../problem.ts'
import type { CutConnection } from '../sessions/reevaluate.ts'
import { admit, lastGood, refused, shown } from './admission.ts'
import { Arrivals } from './arrivals.ts'
import { consents, needsSecondPerson, stands, uploaderOf } from './consent.ts'
import { cutTimes, type CutTimes } from './cuts.ts'
import { markData, policyEvent } from './event.ts'
import { lookBack, NO_PAST, preview } from './foresight.ts'
import { settleLater } from './open.ts'
import type { Activated, Impact, Live, Past, ServiceParts, Source } from './parts.ts'
import { archiveDigest, type Verdict } from './slots.ts'
import { serviceStatus, type ServiceStatus } from './status.ts'
import type { Share, TrialStatus } from './trial.ts'
import { Trials } from './trials.ts'
import { Turns } from './turns.ts'

export class PolicyService implements Disposable {
  readonly #parts: ServiceParts
  #live: Live | undefined
  #archive: Uint8Array<ArrayBuffer>
  #inForce: Candidate | null
  #source: Source
  #activatedAt: number
  #lastCuts: CutTimes | null = null
  #settling: Disposable | undefined
  readonly #trials: Trials
  /** Whom the last preview of a bundle named: they are decided first when it comes into force. */
  #named: { readonly digest: string; readonly sessions: ReadonlySet<string> } | undefined
  readonly #arrivals: Arrivals
  readonly #turns = new Turns()

  private constructor(parts: ServiceParts) {
    this.#parts = parts
    this.#trials = new Trials(parts)
    this.#arrivals = new Arrivals(parts, {
      keep: (archive, by) => this.#upload(archive, by),
      foresee: async (archive) => this.#preview(await admit(parts, archive)),
      activate: (digest, by) => this.#activate(digest, by),
      waits: () => this.needsSecondPerson(),
    })
    const { origin } = parts.boot
    this.#source = origin ?? 'none'
    this.#activatedAt = parts.now()
    const bytes = origin === null || origin === 'builtin' ? null : parts.slots.read(origin)
    this.#inForce = parts.boot.candidate
    this.#archive = bytes === null ? parts.builtin : new Uint8Array(bytes)
  }

  /** Records what a start brought into force, and what it passed over. Throws what the log throws. */
  static async start(parts: ServiceParts): Promise<PolicyService> {
    const service = new PolicyService(parts)
    const { boot, engine, log, report } = parts
    for (const { origin, code, detail } of boot.passed)
      report(new Error(`${code} ${detail}`), `the ${origin} policy cannot be used`)
    const { revision, bundle_digest: digest } = engine.status()
    const none = boot.origin === null
    await log.append({
      code: 'policy.activate',
      message: none
        ? 'no policy could be verified: everything is denied'
        : `${boot.origin} policy active`,
      status: none ? 'failure' : 'success',
      reason: none ? boot.passed.at(-1)?.code : undefined,
      data: {
        revision: revision ?? 'none',
        ...(digest === null ? {} : { bundle_sha256: digest, seq: engine.status().seq ?? 0 }),
        ...markData(boot.highWater),
      },
    })
    if (boot.candidate !== null && boot.origin === 'active') service.#settle(boot.candidate)
    return service
  }

  /**
   * Records what is in force in an epoch of the log that has just begun: the next start finds the mark there, and needs no
   * earlier one for it. Throws what the log throws.
   */
  async remember(): Promise<void> {
    await this.#turns.alone(async () => {
      const { engine, slots, log } = this.#parts
      const { revision, bundle_digest: digest, seq } = engine.status()
      const none = revision === null
      await log.append({
        code: 'policy.activate',
        message: none ? 'no policy is in force' : `policy ${revision} stays active`,
        status: none ? 'failure' : 'success',
        data: {
          revision: revision ?? 'none',
          ...(digest === null ? {} : { bundle_sha256: digest, seq: seq ?? 0 }),
          ...markData(slots.state.high_water),
        },
      })
    })
  }

  /** From here on sessions can be asked about and cut. */
  serve(live: Live): void {
    this.#live = live
    this.#trials.serve(live)
  }

  status(): ServiceStatus {
    const [source, activatedAt, lastCuts] = [this.#source, this.#activatedAt, this.#lastCuts]
    return serviceStatus(this.#parts, { source, activatedAt, lastCuts })
  }

  /** What decides; null where nothing does. */
  inForce(): Candidate | null {
    return this.#inForce
  }

  /** The archive in force. */
  archive(): Uint8Array<ArrayBuffer> {
    return this.#archive
  }

  /**
   * Verifies an archive and keeps it as the candidate; an older one takes a downgrade permit. Gives what it
   * would do. One that is in force is not kept: whatever waits goes on waiting. Throws Refusal `policy.bundle` with the bundle's own code.
   */
  async upload(
    archive: Uint8Array<ArrayBuffer>,
    by: Actor,
    since: number | null,
    permit?: string,
  ): Promise<Impact> {
    const look = async (): Promise<Past> =>
      this.#past(since, await admit(this.#parts, archive, shown(permit, this.#parts.now())))
    const past = since === null || this.#decides(archive) ? NO_PAST : await this.#turns.look(look)
    const impact = await this.#turns.alone(() => this.#upload(archive, by, permit))
    return { ...impact, ...past }
  }

  #decides(archive: Uint8Array): boolean {
    return this.#parts.engine.status().bundle_digest === archiveDigest(archive)
  }

  async #upload(
    archive: Uint8Array<ArrayBuffer>,
    by: Actor,
    permit?: string,
  ): Promise<Omit<Impact, keyof Past>> {
    if (this.#inForce !== null && this.#decides(archive)) return await this.#preview(this.#inForce)
    const { slots, now, log } = this.#parts
    const candidate = await admit(this.#parts, archive, shown(permit, this.#parts.now()))
    const impact = await this.#preview(candidate)
    await log.append(
      policyEvent(this.#parts, 'policy.upload', candidate, 'uploaded', by, [by.uid], permit),
    )
    try {
      slots.stage(archive, by.uid, Math.floor(now() / 1000), permit)
    } catch (error) {
      const failed = policyEvent(
        this.#parts,
        'policy.upload',
        candidate,
        'not kept',
        by,
        [by.uid],
        permit,
        true,
      )
      await log.append({ ...failed, status: 'failure' })
      throw refused(error)
    }
    return impact
  }

  /**
   * What an archive would do; nothing is kept, and no change of the policy waits for it. Throws Refusal
   * `policy.bundle`, and `policy.busy` while another bundle is looked at like this.
   */
  async impact(
    archive: Uint8Array<ArrayBuffer>,
    since: number | null,
    permit?: string,
  ): Promise<Impact> {
    if (this.#turns.looking)
      throw new Refusal('policy.busy', 'what another bundle would do is being looked at', {
        nextStep: 'ask again when that answer has come; it takes two minutes at most',
      })
    return this.#turns.look(async () =>
      this.#foreseen(await admit(this.#parts, archive, shown(permit, this.#parts.now())), since),
    )
  }

  /** What `rollback` would do. Throws as that does; waits for its turn as `upload` does. */
  goingBack(since: number | null): Promise<Impact> {
    return this.#turns.look(async () =>
      this.#foreseen((await lastGood(this.#parts)).candidate, since),
    )
  }

  async #foreseen(candidate: Candidate, since: number | null): Promise<Impact> {
    const past = await this.#past(since, candidate)
    return { ...(await this.#turns.alone(() => this.#preview(candidate))), ...past }
  }

  /** Who has agreed to the candidate with this digest by bringing it: a person, or nobody. */
  consents(digest: string): readonly string[] {
    return consents(this.#parts, digest)
  }

  /** Whether the site data in force asks for two people to activate a policy. */
  async needsSecondPerson(): Promise<boolean> {
    return await needsSecondPerson(this.#archive, this.#source, this.#parts.keys)
  }

  /**
   * Brings the candidate with this digest into force and decides every live session again; does nothing where it is in
   * force. Throws Refusal `policy.candidate`, `policy.bundle`; then what was in force stays.
   */
  activate(digest: string, by: Actor): Promise<Activated> {
    return this.#turns.alone(async () => {
      return this.standing(digest) ?? (await this.#coming(() => this.#activate(digest, by)))
    })
  }

  /** What activating this digest would do where it is in force already: nothing; undefined where it is not. */
  standing(digest: string): Activated | undefined {
    if (!stands(this.#parts, digest)) return undefined
    const { revision } = this.#parts.engine.status()
    return { revision: revision ?? '', digest, cut: [], already: true }
  }

  async #activate(digest: string, by: Actor): Promise<Activated> {
    const { slots } = this.#parts
    const uploader = uploaderOf(this.#parts, digest)
    const bytes = slots.read('candidate')
    if (bytes === null || archiveDigest(bytes) !== digest)
      throw new Refusal('policy.candidate', 'the uploaded policy is gone')
    const archive = new Uint8Array(bytes)
    const permit = shown(slots.state.waiting?.permit, this.#parts.now())
    const candidate = await admit(this.#parts, archive, permit)
    const mark = { seq: candidate.identity.seq, digest }
    const keep = (): void => slots.promote(mark, archive, permit)
    const people = [uploader, by.uid]
    return this.#enforce(candidate, archive, 'policy.activate', by, people, keep, permit?.token)
  }

  /**
   * A bundle that came by itself: brought into force, or kept as the candidate where a second person has
   * to agree. Throws Refusal as `Arrivals.take`.
   */
  take(archive: Uint8Array<ArrayBuffer>, from: string): Promise<void> {
    return this.#turns.alone(() => this.#coming(() => this.#arrivals.take(archive, from)))
  }

  /** What did not come to its end is looked at again when it comes again. */
  forgive(): void {
    this.#arrivals.forgive()
  }

  /** What was to come into force and did not: the status says why until something does. */
  async #coming<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      const cause = error instanceof Refusal ? error.cause : undefined
      if (cause instanceof PolicyError) this.#parts.engine.refused(cause.code, cause.detail)
      throw error
    }
  }

  /**
   * Asks the uploaded bundle with this digest beside the one in force: for nobody (`shadow`), or for a
   * share of people and devices (`canary`). One trial at a time; a restart ends it. Throws Refusal
   * `policy.candidate`, `policy.bundle`.
   */
  try(digest: string, mode: 'shadow' | 'canary', share: Share, by: Actor): Promise<TrialStatus> {
    return this.#turns.alone(() => this.#try(digest, mode, share, by))
  }

  async #try(
    digest: string,
    mode: 'shadow' | 'canary',
    share: Share,
    by: Actor,
  ): Promise<TrialStatus> {
    const { slots } = this.#parts
    const bytes = slots.read('candidate')
    uploaderOf(this.#parts, digest)
    if (this.#live === undefined || bytes === null || archiveDigest(bytes) !== digest)
      throw new Refusal('policy.candidate', 'the uploaded policy is gone')
    const permit = shown(slots.state.waiting?.permit, this.#parts.now())
    const found = await admit(this.#parts, new Uint8Array(bytes), permit)
    return await this.#trials.begin(found, mode, share, by)
  }

  /** How the trial fares; null where there has been none since the start. */
  trial(): ReturnType<Trials['status']> {
    return this.#trials.status()
  }

  /** The last canary that ended by itself here, before this start too; null where none has. */
  verdict(): Verdict | null {
    return this.#trials.verdict
  }

  /** A canary of this bundle ended by itself at another gateway: one that runs here ends at once, one that is being begun then. */
  async fall(digest: string, reason: string): Promise<void> {
    this.#trials.fall(digest, reason)
    await this.#turns.alone(async () => this.#trials.fall(digest, reason))
  }

  /** Ends the trial, if one runs; sessions that a canary let in are decided again. */
  endTrial(reason: string): Promise<void> {
    return this.#turns.alone(() => this.#trials.end(reason))
  }

  /**
   * Goes back to the last bundle that proved good here. Throws Refusal `policy.candidate` where there is
   * none, `policy.bundle` where it does not verify any more.
   */
  rollback(by: Actor): Promise<Activated> {
    return this.#turns.alone(() => this.#coming(() => this.#rollback(by)))
  }

  async #rollback(by: Actor): Promise<Activated> {
    const { slots, engine } = this.#parts
    const { archive, candidate } = await lastGood(this.#parts)
    return this.#enforce(candidate, archive, 'policy.rollback', by, [by.uid], () =>
      slots.retire(engine.status().bundle_digest ?? ''),
    )
  }

  async #preview(candidate: Candidate): Promise<Omit<Impact, keyof Past>> {
    const { impact, named } = await preview(candidate, this.#live, this.#parts)
    this.#named = { digest: impact.digest, sessions: named }
    return impact
  }

  #past(since: number | null, candidate: Candidate): Promise<Past> {
    return lookBack(since, candidate, this.#inForce, this.#live, this.#parts)
  }

  /** Logs, then keeps, then swaps between two decisions, then cuts what is no longer allowed. */
  async #enforce(
    candidate: Candidate,
    archive: Uint8Array<ArrayBuffer>,
    code: 'policy.activate' | 'policy.rollback',
    by: Actor,
    approvers: readonly string[],
    keep: () => void,
    permit?: string,
  ): Promise<Activated> {
    const { engine, watchdog, log, now } = this.#parts
    const { revision, digest } = candidate.identity
    const words = code === 'policy.activate' ? 'activated' : 'brought back'
    await log.append(policyEvent(this.#parts, code, candidate, words, by, approvers, permit))
    const at = performance.now()
    try {
      const swap = engine.ready(candidate)
      keep()
      swap()
    } catch (error) {
      await log.append({
        ...policyEvent(
          this.#parts,
          code,
          candidate,
          `not ${words}: ${String(error)}`,
          by,
          approvers,
          permit,
          true,
        ),
        status: 'failure',
      })
      throw refused(error)
    }
    this.#trials.overtaken(revision)
    watchdog.watch(digest)
    this.#archive = archive
    this.#inForce = candidate
    this.#source = code === 'policy.activate' ? 'active' : 'last-good'
    // Those of the change before are not those of this one, though it may not come to its own.
    this.#lastCuts = null
    this.#activatedAt = now()
    this.#settle(candidate)
    const first = this.#named?.digest === digest ? this.#named.sessions : undefined
    const connections: CutConnection[] = []
    const narrowed = (one: CutConnection) => void connections.push(one)
    const cut = (await this.#live?.withdraw({ trigger: 'policy', at, first, narrowed })) ?? []
    this.#lastCuts = cutTimes({ revision, at: this.#activatedAt }, cut, connections)
    return { revision, digest, cut, already: false }
  }

  #settle({ identity: { seq, digest } }: Candidate): void {
    const { engine, slots, report } = this.#parts
    this.#settling?.[Symbol.dispose]()
    this.#settling = settleLater(engine, slots, { seq, digest }, (error) =>
      report(error, 'the policy in force could not be kept as the last good one'),
    )
  }

  [Symbol.dispose](): void {
    this.#settling?.[Symbol.dispose]()
  }
}
