/** At most one candidate beside the policy in force: its beginning, its end, and what its end takes back. */
import { PolicyEngine } from '#policy'
import type { Candidate } from '#policy'
import type { Actor } from '#audit'
import { policyEvent } from './event.ts'
import type { Turned } from './impact.ts'
import type { Live, ServiceParts } from './parts.ts'
import type { Verdict } from './slots.ts'
import { Trial, type Share, type TrialStatus } from './trial.ts'

export class Trials {
  readonly #parts: ServiceParts
  #live: Live | undefined
  #trial: Trial | undefined
  #verdict: Verdict | null
  #candidate: Candidate | undefined

  constructor(parts: ServiceParts) {
    this.#parts = parts
    this.#verdict = parts.slots.state.verdict
  }

  /** Where candidates answer, and whom a canary's end concerns. */
  serve(live: Live): void {
    this.#live = live
  }

  /** Asks what was found beside the policy in force from now on; a trial that runs ends. Throws what the log throws. */
  async begin(
    found: Candidate,
    mode: 'shadow' | 'canary',
    share: Share,
    by: Actor,
  ): Promise<TrialStatus> {
    const { log, now, report } = this.#parts
    const live = this.#live
    const candidate = this.#beside(found)
    const { revision, digest } = found.identity
    await this.end('another trial began')
    const words = `on trial as ${mode}`
    await log.append(policyEvent(this.#parts, 'policy.upload', found, words, by, [by.uid]))
    const ended = (reason: string): void => {
      this.#judge({ digest, revision, reason, at: Math.floor(now()) })
      this.#fallen(found, reason)
    }
    const since = now()
    const trial = new Trial({ digest, revision, candidate, mode, share, since, ended, report })
    this.#trial = trial
    this.#candidate = found
    if (live !== undefined) live.decisions.trial = trial
    if (mode === 'canary') await live?.withdraw({ trigger: 'policy', at: performance.now() })
    return trial.status()
  }

  /** How the trial fares; null where there has been none since the start. */
  status(): { readonly status: TrialStatus; readonly differences: readonly Turned[] } | null {
    if (this.#trial === undefined) return null
    return { status: this.#trial.status(), differences: this.#trial.differences() }
  }

  /** Ends the trial, if one runs, and decides again what a canary let in. */
  async end(reason: string): Promise<void> {
    if (this.#trial?.status().state !== 'running') return
    this.#trial.end(reason)
    if (this.#live !== undefined) this.#live.decisions.trial = undefined
    await this.#live?.withdraw({ trigger: 'policy', at: performance.now() })
  }

  /** The last canary that ended by itself here, before this start too; null where none has. */
  get verdict(): Verdict | null {
    return this.#verdict
  }

  /** A canary of this bundle ended by itself elsewhere: so does one that runs here. Anything else goes on. */
  fall(digest: string, reason: string): void {
    const [trial, found] = [this.#trial, this.#candidate]
    if (trial === undefined || found === undefined) return
    const { state, mode, digest: ours } = trial.status()
    if (state !== 'running' || mode !== 'canary' || ours !== digest) return
    trial.end(reason)
    this.#fallen(found, reason)
  }

  /** Another policy came into force: the trial is over, and whoever brought that decides everybody again. */
  overtaken(revision: string): void {
    if (this.#live !== undefined) this.#live.decisions.trial = undefined
    this.#trial?.end(`${revision} came into force`)
  }

  /** It holds for the others though it cannot be kept for them over a restart. */
  #judge(verdict: Verdict): void {
    const { slots, report } = this.#parts
    this.#verdict = verdict
    try {
      slots.judge(verdict)
    } catch (error) {
      report(error, 'the verdict on a canary could not be kept')
    }
  }

  #fallen(found: Candidate, reason: string): void {
    if (this.#live !== undefined) this.#live.decisions.trial = undefined
    this.#back(found, reason).catch((error: unknown) =>
      this.#parts.report(error, 'the end of a policy trial'),
    )
  }

  async #back({ identity: { revision, digest } }: Candidate, reason: string): Promise<void> {
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
    const { watchdog, staleness } = this.#parts
    const engine = PolicyEngine.unavailable({
      guard: watchdog.beside,
      ...(staleness === undefined ? {} : { staleness }),
    })
    engine.adopt(candidate)
    watchdog.watchBeside(candidate.identity.digest)
    return engine
  }
}
