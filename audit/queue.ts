/** Events on their way to the disk: those that wait, those of the batch in flight, and when a batch is worth sending. */
import type { Appended } from './contract.ts'
import type { AuditError } from './errors.ts'
import type { Rendered } from './format/render.ts'
import type { LogLimits } from './options.ts'
import type { Spend } from './reserve.ts'

/** How long a batch may wait for its next events, how many end the wait, and after how many batches it is tried anew. */
const gatherMs = 12
const gatherEvents = 192
const gatherPause = 256
/** More callers than this that wait for each other's batch are served in two turns. */
const crowdEvents = 256

export interface Waiting {
  readonly rendered: Rendered
  readonly signNow: boolean
  /** From what it may be paid on a full disk. */
  readonly spend: Spend | null
  resolve(appended: Appended): void
  reject(error: AuditError): void
}

export class Queue {
  readonly #limits: Pick<Required<LogLimits>, 'batchEvents' | 'batchBytes'>
  readonly #wake: () => void
  #waiting: Waiting[] = []
  #flying: Waiting[] = []
  #sentAt = 0
  #gathering: { readonly from: number; over: boolean } | null = null
  #timer: NodeJS.Timeout | undefined
  #gatherAgainIn = 0
  /** Events that waited for the disk, on it or in the queue, when it was last heard of. */
  #crowd = 0

  /** `wake` is called when a batch has waited long enough for its next events. */
  constructor(limits: Pick<Required<LogLimits>, 'batchEvents' | 'batchBytes'>, wake: () => void) {
    this.#limits = limits
    this.#wake = wake
  }

  /** Events that are not yet in a batch. */
  get length(): number {
    return this.#waiting.length
  }

  /** The batch that the disk has. */
  get flying(): readonly Waiting[] {
    return this.#flying
  }

  push(one: Waiting): void {
    this.#waiting.push(one)
  }

  /**
   * Under steady load a batch waits a moment for its next events, because a sync costs the same for one and for
   * fifty. A lone event never waits, nor does one whose head is wanted at once (`hurried`, or an event's own); and where
   * waiting brings nothing, because those who would write wait for this very batch, it is not tried again for a while.
   */
  gathers(hurried: boolean): boolean {
    const haste = (): boolean => hurried || this.#waiting.some((one) => one.signNow)
    const waiting = this.#waiting.length
    const begun = this.#gathering
    if (begun !== null) {
      if (!begun.over && waiting < gatherEvents && !haste()) return true
      if (begun.over && waiting < begun.from * 1.5) this.#gatherAgainIn = gatherPause
      this.#gathering = null
      return false
    }
    if (this.#gatherAgainIn > 0) {
      this.#gatherAgainIn--
      return false
    }
    const steady = performance.now() - this.#sentAt < 2 * gatherMs && waiting > 1
    if (!steady || waiting >= gatherEvents || haste()) return false
    const gathering = { from: waiting, over: false }
    this.#gathering = gathering
    this.#timer = setTimeout(() => {
      gathering.over = true
      this.#wake()
    }, gatherMs)
    return true
  }

  /**
   * The next batch, in flight from now on. Half of a crowd at most: where all callers waited for one batch, the disk
   * would rest while they are answered, and they while it writes. `apart`: only what is paid from where its first event is.
   */
  take(apart: boolean): readonly Waiting[] {
    const { batchBytes } = this.#limits
    // Those who came since are of the crowd too, or the first of many would go in small pieces.
    const crowd = Math.max(this.#crowd, this.#waiting.length)
    const turn = crowd > crowdEvents ? Math.ceil(crowd / 2) : crowdEvents
    const batchEvents = Math.min(this.#limits.batchEvents, turn)
    let [count, bytes] = [0, 0]
    const purse = this.#waiting[0]?.spend
    for (const { rendered, spend } of this.#waiting) {
      if (count > 0 && (count >= batchEvents || bytes + rendered.bytes > batchBytes)) break
      if (apart && spend !== purse) break
      count++
      bytes += rendered.bytes
    }
    if (count < this.#waiting.length) this.#flying = this.#waiting.splice(0, count)
    else {
      this.#flying = this.#waiting
      this.#waiting = []
    }
    this.#sentAt = performance.now()
    return this.#flying
  }

  /** The batch in flight, which is durable now. */
  landed(): readonly Waiting[] {
    const flying = this.#flying
    this.#crowd = flying.length + this.#waiting.length
    this.#flying = []
    return flying
  }

  /** Nothing of the batch in flight was written: it waits before the rest, so far as `keep` says. Gives the others. */
  again(keep: (one: Waiting) => boolean): readonly Waiting[] {
    const all = this.empty()
    this.#waiting = all.filter(keep)
    return all.filter((one) => !keep(one))
  }

  /** Everything, in flight or not; nothing waits then. */
  empty(): Waiting[] {
    const all = [...this.#flying, ...this.#waiting]
    this.#flying = []
    this.#waiting = []
    return all
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
