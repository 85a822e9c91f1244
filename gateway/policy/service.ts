/**
 * The policy of a node over its life: what it starts with, what waits to be activated, what is in
 * force. Verified at every step and at every start; a failure keeps what decides.
 */
import { loadBundle, PolicyEngine, PolicyError } from '#policy'
import type {
  Candidate,
  Decision,
  EngineStatus,
  HighWater,
  Input,
  LoadOptions,
  Partially,
  PolicyCode,
} from '#policy'
import type { Actor, AuditLog } from '#audit'
import type { Decisions } from '../decisions.ts'
import { Refusal } from '../problem.ts'
import type { CutSession, WouldEnd, Withdrawal } from '../sessions/reevaluate.ts'
import { Asker } from './asker.ts'
import type { Passed } from './boot.ts'
import { cutPreview, type CutPreview, type Replay, type Turned } from './impact.ts'
import { look, settleLater, type PolicyParts } from './open.ts'
import { archiveDigest, type SlotState, type UsedPermit } from './slots.ts'
import { Trial, type Share, type TrialStatus } from './trial.ts'

export interface ServiceParts extends PolicyParts {
  /** The archive this release was built with. */
  readonly builtin: Uint8Array<ArrayBuffer>
  readonly log: Pick<AuditLog, 'append'>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** What live sessions answer to; known once the node can have any. */
export interface Live {
  readonly decisions: Pick<Decisions, 'question' | 'trial'>
  /** Past decisions from a time on (epoch milliseconds) under both policies. */
  readonly replay: (from: number, inForce: Candidate, candidate: Candidate) => Promise<Replay>
  preview(
    decide: (questions: readonly Partially<Input>[]) => Promise<readonly Decision[]>,
  ): Promise<readonly WouldEnd[]>
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

/** How an upload that no person brought is signed in the log. */
const SOURCE = 'source '

type Source = 'active' | 'last-good' | 'builtin' | 'none'

export class PolicyService implements Disposable {
  readonly #parts: ServiceParts
  #live: Live | undefined
  #archive: Uint8Array<ArrayBuffer>
  #inForce: Candidate | null
  #source: Source
  #activatedAt: number
  #settling: Disposable | undefined
  #trial: Trial | undefined
  /** Whom the last preview of a bundle named: they are decided first when it comes into force. */
  #named: { readonly digest: string; readonly sessions: ReadonlySet<string> } | undefined
  /** One change of the policy at a time: each begins on what the one before left. */
  #turn: Promise<unknown> = Promise.resolve()

  /** Looks into the past that are under way or wait; no change of the policy waits for one. */
  #looking = 0
  #looks: Promise<unknown> = Promise.resolve()

  private constructor(parts: ServiceParts) {
    this.#parts = parts
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

  /** Does `work` when every change before it is through, whether that worked or not. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work)
    this.#turn = mine.catch(() => undefined)
    return mine
  }

  /** The same for what takes long and changes nothing, so that nothing that changes something waits behind it. */
  #look<T>(work: () => Promise<T>): Promise<T> {
    this.#looking++
    const mine = this.#looks.then(work, work)
    this.#looks = mine.catch(() => undefined).then(() => this.#looking--)
    return mine
  }

  /** From here on sessions can be asked about and cut. */
  serve(live: Live): void {
    this.#live = live
  }

  status(): EngineStatus & {
    readonly source: Source
    readonly activated_at: number
    readonly high_water: number
    readonly candidate: { readonly digest: string; readonly by: string; readonly at: number } | null
    readonly last_good: boolean
    readonly trusted_keys: readonly string[]
    readonly boot_failures: readonly Passed[]
  } {
    const { engine, slots, keys, boot } = this.#parts
    const { state } = slots
    return {
      ...engine.status(),
      source: this.#source,
      activated_at: Math.floor(this.#activatedAt / 1000),
      high_water: state.high_water?.seq ?? 0,
      candidate: waitingOf(state.waiting),
      last_good: state.last_good !== null,
      trusted_keys: [...keys.keys()],
      boot_failures: boot.passed,
    }
  }

  /** The archive in force. */
  archive(): Uint8Array<ArrayBuffer> {
    return this.#archive
  }

  /**
   * Verifies an archive and keeps it as the candidate; an older one takes a downgrade permit. Gives what it
   * would do. Throws Refusal `policy.bundle` with the bundle's own code.
   */
  async upload(
    archive: Uint8Array<ArrayBuffer>,
    by: Actor,
    since: number | null,
    permit?: string,
  ): Promise<Impact> {
    const look = async (): Promise<Replay | null> =>
      this.#past(since, await this.#examine(archive, this.#shown(permit)))
    const past = since === null ? null : await this.#look(look)
    const impact = await this.#alone(() => this.#upload(archive, by, permit))
    return { ...impact, past }
  }

  async #upload(
    archive: Uint8Array<ArrayBuffer>,
    by: Actor,
    permit?: string,
  ): Promise<Omit<Impact, 'past'>> {
    const { slots, now, log } = this.#parts
    const candidate = await this.#examine(archive, this.#shown(permit))
    const impact = await this.#preview(candidate)
    await log.append(this.#event('policy.upload', candidate, 'uploaded', by, [by.uid], permit))
    try {
      slots.stage(archive, by.uid, Math.floor(now() / 1000), permit)
    } catch (error) {
      const failed = this.#event('policy.upload', candidate, 'not kept', by, [by.uid], permit, true)
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
    if (this.#looking > 0)
      throw new Refusal('policy.busy', 'what another bundle would do is being looked at', {
        nextStep: 'ask again when that answer has come; it takes two minutes at most',
      })
    return this.#look(async () =>
      this.#foreseen(await this.#examine(archive, this.#shown(permit)), since),
    )
  }

  /** What `rollback` would do. Throws as that does; waits for its turn as `upload` does. */
  goingBack(since: number | null): Promise<Impact> {
    return this.#look(async () => this.#foreseen((await this.#lastGood()).candidate, since))
  }

  async #foreseen(candidate: Candidate, since: number | null): Promise<Impact> {
    const past = await this.#past(since, candidate)
    return { ...(await this.#alone(() => this.#preview(candidate))), past }
  }

  /** A downgrade permit as it is shown now. */
  #shown(token: string | undefined): UsedPermit | null {
    return token === undefined ? null : { token, now: Math.floor(this.#parts.now() / 1000) }
  }

  /** Who has agreed to the candidate with this digest by bringing it: a person, or nobody. */
  consents(digest: string): readonly string[] {
    const by = this.uploader(digest)
    return by.startsWith(SOURCE) ? [] : [by]
  }

  /** Who uploaded the candidate with this digest. Throws Refusal `policy.candidate`. */
  uploader(digest: string): string {
    const { slots, engine } = this.#parts
    const { waiting } = slots.state
    if (waiting?.digest === digest) return waiting.by
    if (engine.status().bundle_digest === digest)
      throw new Refusal('policy.candidate', 'the policy with this digest is in force already')
    throw new Refusal('policy.candidate', 'no uploaded policy has this digest', {
      nextStep: 'see what waits: sallyport policy status',
    })
  }

  /**
   * Brings the candidate with this digest into force and decides every live session again. Throws
   * Refusal `policy.candidate`, `policy.bundle`; then what was in force stays.
   */
  activate(digest: string, by: Actor): Promise<Activated> {
    return this.#alone(() => this.#activate(digest, by))
  }

  async #activate(digest: string, by: Actor): Promise<Activated> {
    const { slots } = this.#parts
    const uploader = this.uploader(digest)
    const bytes = slots.read('candidate')
    if (bytes === null || archiveDigest(bytes) !== digest)
      throw new Refusal('policy.candidate', 'the uploaded policy is gone')
    const archive = new Uint8Array(bytes)
    const permit = this.#shown(slots.state.waiting?.permit)
    const candidate = await this.#examine(archive, permit)
    const mark = { seq: candidate.identity.seq, digest }
    const keep = (): void => slots.promote(mark, archive, permit)
    const people = [uploader, by.uid]
    return this.#enforce(candidate, archive, 'policy.activate', by, people, keep, permit?.token)
  }

  /**
   * A bundle that came by itself: brought into force, or kept as the candidate where a second person has
   * to agree. One that is in force or waits already changes nothing. Throws Refusal `policy.bundle`.
   */
  take(archive: Uint8Array<ArrayBuffer>, from: string): Promise<void> {
    return this.#alone(async () => {
      const { slots, engine } = this.#parts
      const digest = archiveDigest(archive)
      const { waiting, withdrawn } = slots.state
      if (digest === engine.status().bundle_digest || digest === waiting?.digest) return
      if (withdrawn.includes(digest))
        throw new Refusal('policy.bundle', 'people went back from this bundle', {
          denials: [{ code: 'bundle.withdrawn', msg: 'people went back from this bundle' }],
          nextStep: 'push and activate it by hand, or serve a newer one',
        })
      const by: Actor = { uid: `${SOURCE}${from}`, party: 'service' }
      await this.#upload(archive, by)
      if (!(await this.needsSecondPerson())) await this.#activate(digest, by)
    })
  }

  /**
   * Whether the site data in force asks for two people to activate a policy. Where nothing is in force
   * nobody knows what the site wanted, and it does.
   */
  async needsSecondPerson(): Promise<boolean> {
    if (this.#source === 'none') return true
    const trust = this.#source === 'builtin' ? 'builtin' : this.#parts.keys
    const { data } = await loadBundle(this.#archive, { trust, highWater: null })
    const { site } = data as { site?: { settings?: { second_person?: unknown } } }
    const named = site?.settings?.second_person
    return !Array.isArray(named) || named.includes('policy:push')
  }

  /**
   * Asks the uploaded bundle with this digest beside the one in force: for nobody (`shadow`), or for a
   * share of people and devices (`canary`). One trial at a time; a restart ends it. Throws Refusal
   * `policy.candidate`, `policy.bundle`.
   */
  try(digest: string, mode: 'shadow' | 'canary', share: Share, by: Actor): Promise<TrialStatus> {
    return this.#alone(() => this.#try(digest, mode, share, by))
  }

  async #try(
    digest: string,
    mode: 'shadow' | 'canary',
    share: Share,
    by: Actor,
  ): Promise<TrialStatus> {
    const { slots, log, now, report } = this.#parts
    const live = this.#live
    const bytes = slots.read('candidate')
    this.uploader(digest)
    if (live === undefined || bytes === null || archiveDigest(bytes) !== digest)
      throw new Refusal('policy.candidate', 'the uploaded policy is gone')
    const permit = this.#shown(slots.state.waiting?.permit)
    const found = await this.#examine(new Uint8Array(bytes), permit)
    const candidate = this.#beside(found)
    const { revision } = found.identity
    await this.#endTrial('another trial began')
    await log.append(this.#event('policy.upload', found, `on trial as ${mode}`, by, [by.uid]))
    const ended = (reason: string): void => {
      live.decisions.trial = undefined
      this.#backFromTrial(found, reason).catch((error: unknown) =>
        report(error, 'the end of a policy trial'),
      )
    }
    this.#trial = new Trial({
      digest,
      revision,
      candidate,
      mode,
      share,
      since: now(),
      ended,
      report,
    })
    live.decisions.trial = this.#trial
    if (mode === 'canary') await live.withdraw({ trigger: 'policy', at: performance.now() })
    return this.#trial.status()
  }

  /** How the trial fares; null where there has been none since the start. */
  trial(): { readonly status: TrialStatus; readonly differences: readonly Turned[] } | null {
    if (this.#trial === undefined) return null
    return { status: this.#trial.status(), differences: this.#trial.differences() }
  }

  /** Ends the trial, if one runs; sessions that a canary let in are decided again. */
  endTrial(reason: string): Promise<void> {
    return this.#alone(() => this.#endTrial(reason))
  }

  async #endTrial(reason: string): Promise<void> {
    if (this.#trial?.status().state !== 'running') return
    this.#trial.end(reason)
    if (this.#live !== undefined) this.#live.decisions.trial = undefined
    await this.#live?.withdraw({ trigger: 'policy', at: performance.now() })
  }

  async #backFromTrial(
    { identity: { revision, digest } }: Candidate,
    reason: string,
  ): Promise<void> {
    try {
      await this.#parts.log.append({
        code: 'policy.rollback',
        message: `policy ${revision} taken off trial: ${reason}`,
        status: 'success',
        data: { revision, bundle_sha256: digest },
      })
    } finally {
      // What only the candidate let in is decided again even where that could not be recorded: it takes access, and gives none.
      await this.#live?.withdraw({ trigger: 'policy', at: performance.now() })
    }
  }

  /** An engine that decides beside the one in force; what loops in it is blamed on its own bundle. */
  #beside(candidate: Candidate): PolicyEngine {
    const { watchdog } = this.#parts
    const engine = PolicyEngine.unavailable({ guard: watchdog.beside })
    engine.adopt(candidate)
    watchdog.watchBeside(candidate.identity.digest)
    return engine
  }

  /**
   * Goes back to the last bundle that proved good here. Throws Refusal `policy.candidate` where there is
   * none, `policy.bundle` where it does not verify any more.
   */
  rollback(by: Actor): Promise<Activated> {
    return this.#alone(() => this.#rollback(by))
  }

  async #rollback(by: Actor): Promise<Activated> {
    const { slots, engine } = this.#parts
    const { archive, candidate } = await this.#lastGood()
    return this.#enforce(candidate, archive, 'policy.rollback', by, [by.uid], () =>
      slots.retire(engine.status().bundle_digest ?? ''),
    )
  }

  /** What there is to go back to. */
  async #lastGood(): Promise<{
    readonly archive: Uint8Array<ArrayBuffer>
    readonly candidate: Candidate
  }> {
    const { slots, engine } = this.#parts
    const { last_good: good } = slots.state
    const bytes = slots.read('last-good')
    if (good === null || bytes === null || archiveDigest(bytes) !== good.digest)
      throw new Refusal('policy.nothing_good', 'no earlier policy has proved good on this node', {
        nextStep:
          'one proves good by deciding for ten minutes without an error; until then sign the rules you want with a higher --seq and push them',
      })
    if (good.digest === engine.status().bundle_digest)
      throw new Refusal('policy.nothing_good', 'the last good policy is the one in force', {
        nextStep: 'an older one comes back with a permit: sallyport policy permit --help',
      })
    const archive = new Uint8Array(bytes)
    return { archive, candidate: await this.#examine(archive, null, good) }
  }

  /** Verified, compiled, and its own vectors decided, in a thread of its own. */
  async #examine(
    archive: Uint8Array<ArrayBuffer>,
    permit: UsedPermit | null = null,
    highWater: LoadOptions['highWater'] = this.#parts.slots.state.high_water,
  ): Promise<Candidate> {
    const { slots, keys } = this.#parts
    if (slots.state.poisoned.includes(archiveDigest(archive)))
      throw refused(new PolicyError('bundle.poisoned', 'an evaluation under it did not end'))
    try {
      return await look(archive, { trust: keys, highWater, ...(permit === null ? {} : { permit }) })
    } catch (error) {
      throw refused(error)
    }
  }

  /** What it would do to the sessions that are open; asked in a thread of its own. Throws Refusal `policy.bundle`. */
  async #preview(candidate: Candidate): Promise<Omit<Impact, 'past'>> {
    const { revision, seq, digest } = candidate.identity
    const live = this.#live
    if (live === undefined) return { revision, seq, digest, live: { sessions: 0, cut: [] } }
    await using asker = new Asker(candidate)
    let sessions = 0
    const at = this.#parts.now()
    try {
      await asker.prove(Math.floor(at / 1000))
      const found = await live.preview((questions) => {
        sessions++
        const inputs = questions.map((facts) =>
          live.decisions.question('session.reevaluate', facts, at),
        )
        return asker.ask('session.reevaluate', inputs)
      })
      this.#named = { digest, sessions: new Set(found.map(({ session }) => session.id)) }
      return { revision, seq, digest, live: { sessions, cut: cutPreview(found) } }
    } catch (error) {
      throw refused(error)
    }
  }

  /** Nothing can be said of the past where nothing is in force. Throws Refusal `policy.bundle`. */
  async #past(since: number | null, candidate: Candidate): Promise<Replay | null> {
    if (since === null || this.#live === undefined || this.#inForce === null) return null
    try {
      return await this.#live.replay(since, this.#inForce, candidate)
    } catch (error) {
      throw refused(error)
    }
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
    await log.append(this.#event(code, candidate, words, by, approvers, permit))
    const at = performance.now()
    try {
      keep()
      engine.adopt(candidate)
    } catch (error) {
      await log.append({
        ...this.#event(
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
    if (this.#live !== undefined) this.#live.decisions.trial = undefined
    this.#trial?.end(`${revision} came into force`)
    watchdog.watch(digest)
    this.#archive = archive
    this.#inForce = candidate
    this.#source = code === 'policy.activate' ? 'active' : 'last-good'
    this.#activatedAt = now()
    this.#settle(candidate)
    const first = this.#named?.digest === digest ? this.#named.sessions : undefined
    const cut = (await this.#live?.withdraw({ trigger: 'policy', at, first })) ?? []
    return { revision, digest, cut }
  }

  #settle({ identity: { seq, digest } }: Candidate): void {
    const { engine, slots, report } = this.#parts
    this.#settling?.[Symbol.dispose]()
    this.#settling = settleLater(engine, slots, { seq, digest }, (error) =>
      report(error, 'the policy in force could not be kept as the last good one'),
    )
  }

  #event(
    code: 'policy.upload' | 'policy.activate' | 'policy.rollback',
    { identity: { revision, digest, seq } }: Candidate,
    words: string,
    by: Actor,
    approvers: readonly string[],
    permit?: string,
    failed = false,
  ): Parameters<AuditLog['append']>[0] {
    const previous = this.#parts.engine.status().revision
    const { slots } = this.#parts
    const raised = code === 'policy.activate' && !failed
    const after = raised ? slots.markWith({ seq, digest }) : slots.state.high_water
    return {
      code,
      message: `policy ${revision} ${words}`,
      actor: by,
      status: 'success',
      data: {
        revision,
        bundle_sha256: digest,
        seq,
        ...markData(after),
        ...(permit === undefined ? {} : { permit_sha256: archiveDigest(Buffer.from(permit)) }),
        ...(previous === null ? {} : { previous }),
        approvers: [...approvers],
      },
    }
  }

  [Symbol.dispose](): void {
    this.#settling?.[Symbol.dispose]()
  }
}

/** The high-water mark as an event carries it: marks.ts reads it at the next start. */
function markData(mark: HighWater | null): { high_water?: number; high_water_sha256?: string } {
  return mark === null ? {} : { high_water: mark.seq, high_water_sha256: mark.digest }
}

/** What waits, without the permit it came with. */
function waitingOf(
  waiting: SlotState['waiting'],
): { readonly digest: string; readonly by: string; readonly at: number } | null {
  if (waiting === null) return null
  const { digest, by, at } = waiting
  return { digest, by, at }
}

/** What whoever signed or runs the gateway can do about a refused bundle. */
const REFUSED_NEXT: Readonly<Partial<Record<PolicyCode, string>>> = {
  'bundle.unsigned': 'sign it: sallyport policy sign',
  'bundle.key':
    'name its public key under policy.trust in the configuration of the gateway and start that again, or sign with a key that sallyport policy status lists',
  'bundle.signature':
    'it was changed after it was signed, or by another key: fetch or sign it again',
  'bundle.files': 'it was changed after it was signed: fetch or sign it again',
  'bundle.rollback':
    'sign it with a higher --seq than the highest ever in force (sallyport policy status), or write a permit: sallyport policy permit --help',
  'bundle.permit': 'write another: sallyport policy permit --help',
  'bundle.poisoned': 'mend the rule that does not end, and sign with a higher --seq',
  'bundle.loops': 'mend the rule that does not end, and sign with a higher --seq',
  'module.entrypoint': 'build it with this release: sallyport policy sign',
  'module.builtin':
    'use the builtins of capabilities.json alone: sallyport policy check names the place',
  'module.eval': 'build it with this release: sallyport policy sign',
  'data.schema': 'mend site.json: every key of schema/site.json is required; then sign again',
  'smoke.failed': 'sallyport policy test shows it too; mend the rule or vectors/, then sign again',
}

function refused(error: unknown): unknown {
  if (error instanceof Error && 'syscall' in error)
    return new Refusal(
      'log.unavailable',
      'the policy could not be kept on the disk of the gateway',
      {
        cause: error,
        nextStep: 'make room there, and do it again; what was in force still decides',
      },
    )
  if (!(error instanceof PolicyError)) return error
  return new Refusal('policy.bundle', `the bundle was refused: ${error.code} ${error.detail}`, {
    cause: error,
    denials: [{ code: error.code, msg: error.detail }],
    nextStep: `${REFUSED_NEXT[error.code] ?? 'docs/policy.md lists the codes'}; what was in force still decides`,
  })
}
