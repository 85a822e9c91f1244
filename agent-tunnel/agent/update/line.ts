/**
 * The way to who gives out updates: what is said there, as long as there is a tunnel, and whether a start was heard. A
 * device that started an update unheard, and did not come back, would be taken for one that still waits.
 */
import type { UpdateReport } from './report.ts'

type Tell = (report: UpdateReport) => void

/** A gateway that says when it has taken a start down is waited for so long; then it is asked again. */
export const ANSWER_MS = 60_000

export class Line {
  #tell: Tell | undefined
  /** Whether the gateway says that it has taken a start down. */
  #answers = false
  #answer: ((heard: boolean) => void) | undefined

  /** There is a tunnel, and `tell` says things on it. Gives what is to be called when that one has ended. */
  up(tell: Tell | undefined, answers: boolean): () => void {
    this.#tell = tell
    this.#answers = answers
    this.#answer?.(false)
    return () => {
      // One that was replaced ends after the next is up.
      if (this.#tell === tell) this.down()
    }
  }

  down(): void {
    this.#tell = undefined
    this.#answer?.(false)
  }

  /** Whether somebody would hear. */
  get isUp(): boolean {
    return this.#tell !== undefined
  }

  say(report: UpdateReport): void {
    this.#tell?.(report)
  }

  /** The gateway says that it has taken down what is about to start. */
  answered(): void {
    this.#answer?.(true)
  }

  /**
   * Says `report`, of a start, and gives whether it was heard: of a gateway that never says so, whether it could be said.
   * `wait` resolves after so many milliseconds, or when its signal is aborted.
   */
  async starts(
    report: UpdateReport,
    wait: (ms: number, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (!this.isUp) return false
    let heard = !this.#answers
    const over = new AbortController()
    this.#answer = (yes) => {
      // The first one counts: what comes after the end of the tunnel is no answer to this.
      if (over.signal.aborted) return
      heard = yes
      over.abort()
    }
    this.say(report)
    const either = AbortSignal.any([signal, over.signal])
    if (!heard && !either.aborted) await wait(ANSWER_MS, either)
    this.#answer = undefined
    return heard && !signal.aborted
  }
}
