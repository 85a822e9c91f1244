/**
 * The octets that all sessions of one grant may carry. They are set aside in the store before they pass, so that a crash
 * never makes them more; what was set aside and not carried is given back when the last session ends.
 */
import type { Grant } from '../grants/grant.ts'
import type { GrantStore } from '../grants/store.ts'

/** `spent`: nothing is left. `behind`: more may be left, and the store has not set it aside in time. */
export type Carried = 'carried' | 'spent' | 'behind'

/** What has been set aside and carried, as numbers alone. */
export class Allotment {
  #unused = 0
  #dry = false

  /** Set aside, and not carried yet. */
  get unused(): number {
    return this.#unused
  }

  /** The whole of `bytes` passes, or none of it. */
  carry(bytes: number): Carried {
    if (bytes > this.#unused) return this.#dry ? 'spent' : 'behind'
    this.#unused -= bytes
    return 'carried'
  }

  /** Whether it is time to set aside another `portion`: what is left is less than half of one. */
  wants(portion: number): boolean {
    return !this.#dry && this.#unused < portion / 2
  }

  /** `taken` of the `wanted` were still there. */
  took(wanted: number, taken: number): void {
    this.#unused += taken
    if (taken < wanted) this.#dry = true
  }
}

/** What one session has of it. */
export interface Share {
  /** Counts octets that are about to pass. */
  carry(bytes: number): Carried
  /** The session carries nothing any more; waits for the store. A second call does nothing. */
  leave(): Promise<void>
}

interface Open {
  readonly allotment: Allotment
  users: number
  asking: boolean
  /** Monotonic milliseconds before which the store is not asked again, and how long that was waited for; 0: it did not fail. */
  again: number
  waited: number
}

const LEAST_PORTION = 1024 * 1024
/** At the session's full rate a portion lasts for so many seconds of one direction. */
const PORTION_S = 8

/** An answer that was lost may have set a portion aside for nobody: it is asked again after a while, each time after twice as long. */
const WAIT_MS = 1_000
const MOST_WAIT_MS = 60_000

/** How much is set aside at a time for a session of that rate: the store is far faster than half of it passes. */
export function portionOf(bitsPerSecond: number): number {
  return Math.max(LEAST_PORTION, Math.floor((bitsPerSecond / 8) * PORTION_S))
}

const unasked = (): Open => {
  return { allotment: new Allotment(), users: 0, asking: false, again: 0, waited: 0 }
}

/** Of every grant that states a limit and has a session open. */
export class Allotments {
  readonly #store: Pick<GrantStore, 'takeBytes' | 'returnBytes'>
  readonly #report: (error: unknown, what: string) => void
  readonly #monotonic: () => number
  readonly #open = new Map<string, Open>()

  /** `monotonic` gives milliseconds. */
  constructor(
    store: Pick<GrantStore, 'takeBytes' | 'returnBytes'>,
    report: (error: unknown, what: string) => void,
    monotonic: () => number = () => performance.now(),
  ) {
    this.#monotonic = monotonic
    this.#store = store
    this.#report = report
  }

  /** Octets that are set aside for open sessions of this grant and were not carried. */
  spare(grant: string): number {
    return this.#open.get(grant)?.allotment.unused ?? 0
  }

  /** A share for one more session; undefined where nothing is left. Throws what the store throws. */
  async share({ statement: { id } }: Grant, portion: number): Promise<Share | undefined> {
    const open = this.#open.get(id) ?? unasked()
    this.#open.set(id, open)
    open.users++
    try {
      if (open.allotment.unused === 0) await this.#more(id, open, portion)
    } catch (error) {
      await this.#leave(id, open)
      throw error
    }
    if (open.allotment.unused === 0) {
      await this.#leave(id, open)
      return undefined
    }
    let left: Promise<void> | undefined
    return {
      carry: (bytes) => {
        const carried = open.allotment.carry(bytes)
        if (!open.asking && open.allotment.wants(portion)) this.#ahead(id, open, portion)
        return carried
      },
      leave: () => (left ??= this.#leave(id, open)),
    }
  }

  /** Without waiting, and not right after the store failed: what is left meanwhile is enough, or the session ends. */
  #ahead(id: string, open: Open, portion: number): void {
    if (this.#monotonic() < open.again) return
    open.asking = true
    this.#more(id, open, portion)
      .then(() => (open.waited = 0))
      .catch((error: unknown) => {
        if (open.waited === 0)
          this.#report(error, `what grant ${id} may carry could not be set aside`)
        open.waited = Math.min(Math.max(WAIT_MS, 2 * open.waited), MOST_WAIT_MS)
        open.again = this.#monotonic() + open.waited
      })
      .finally(() => (open.asking = false))
  }

  async #more(id: string, open: Open, portion: number): Promise<void> {
    const taken = await this.#store.takeBytes(id, portion)
    // Nobody is left who could carry it.
    if (open.users === 0) await this.#store.returnBytes(id, taken)
    else open.allotment.took(portion, taken)
  }

  async #leave(id: string, open: Open): Promise<void> {
    if (--open.users > 0) return
    if (this.#open.get(id) === open) this.#open.delete(id)
    const { unused } = open.allotment
    if (unused === 0) return
    // Where it cannot be given back it stays counted: never too little.
    await this.#store
      .returnBytes(id, unused)
      .catch((error: unknown) =>
        this.#report(error, `what grant ${id} did not carry could not be given back`),
      )
  }
}
