/** Bundles that come by themselves: nobody is there to see what one would do, so nothing is done that a person would be shown first. */
import type { Actor } from '#audit'
import { Refusal } from '../problem.ts'
import { SOURCE, unattended } from './consent.ts'
import type { Impact, ServiceParts } from './parts.ts'
import { archiveDigest } from './slots.ts'

type Archive = Uint8Array<ArrayBuffer>

/** What is done with one, each in the turn of whoever takes it. */
interface Acts {
  /** Verifies it, keeps it as the candidate, and says what it would do. */
  keep(archive: Archive, by: Actor): Promise<Pick<Impact, 'live'>>
  /** The same without keeping it. */
  foresee(archive: Archive): Promise<Pick<Impact, 'live'>>
  activate(digest: string, by: Actor): Promise<unknown>
  /** Whether a second person has to agree. */
  waits(): Promise<boolean>
}

export class Arrivals {
  readonly #parts: Pick<ServiceParts, 'slots' | 'engine'>
  readonly #acts: Acts
  /** What did not come to its end: the same octets are not looked at again unasked. */
  #looped: { readonly digest: string; readonly error: Refusal } | undefined

  constructor(parts: Pick<ServiceParts, 'slots' | 'engine'>, acts: Acts) {
    this.#parts = parts
    this.#acts = acts
  }

  /**
   * One that is in force, or that a person has uploaded, changes nothing. One that did not come to its end
   * (`bundle.loops`) is refused unseen until it is another, or `forgive` is called. Throws Refusal `policy.bundle`; and
   * `store.unavailable` where it waits because open sessions could not be looked up: nobody sees that it would cut them.
   */
  async take(archive: Archive, from: string): Promise<void> {
    const { slots, engine } = this.#parts
    const digest = archiveDigest(archive)
    const { waiting, withdrawn } = slots.state
    if (digest === engine.status().bundle_digest) return
    const waits = waiting?.digest === digest
    if (waits && !waiting.by.startsWith(SOURCE)) return
    if (this.#looped?.digest === digest) throw this.#looped.error
    if (withdrawn.includes(digest))
      throw new Refusal('policy.bundle', 'people went back from this bundle', {
        denials: [{ code: 'bundle.withdrawn', msg: 'people went back from this bundle' }],
        nextStep: 'push and activate it by hand, or serve a newer one',
      })
    const by: Actor = { uid: `${SOURCE}${from}`, party: 'service' }
    try {
      await this.#unattended(archive, by, waits)
    } catch (error) {
      if (error instanceof Refusal && error.shownCode === 'bundle.loops')
        this.#looped = { digest, error }
      throw error
    }
  }

  /** What did not come to its end is looked at again when it comes again. */
  forgive(): void {
    this.#looped = undefined
  }

  /** Kept where it does not wait yet: what was kept, and then failed to come into force, is not there to be kept again. */
  async #unattended(archive: Archive, by: Actor, waits: boolean): Promise<void> {
    const kept = waits ? undefined : await this.#acts.keep(archive, by)
    if (await this.#acts.waits()) return
    const { live } = kept ?? (await this.#acts.foresee(archive))
    if (live.unseen.length > 0) throw unattended(live.unseen.length)
    await this.#acts.activate(archiveDigest(archive), by)
  }
}
