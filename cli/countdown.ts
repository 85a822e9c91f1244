/** What is left of a session, told before its end; begun anew when its grant is extended. */

/** What is left when these many milliseconds remain is told once each. */
const COUNTDOWN_MS = [300_000, 60_000, 30_000, 10_000, 5_000] as const
/** The gateway ends a session on time and says why; this long after it, silence is the answer. */
const OVERTIME_MS = 2_000

interface Told {
  readonly left: (ms: number) => void
  /** The end has come, and nobody has said so. */
  readonly over: () => void
}

export class Countdown {
  readonly #told: Told
  #timers: NodeJS.Timeout[] = []

  /** `remaining` milliseconds from now. */
  constructor(remaining: number, told: Told) {
    this.#told = told
    this.restart(remaining)
  }

  restart(remaining: number): void {
    this.stop()
    for (const left of COUNTDOWN_MS)
      if (remaining > left)
        this.#timers.push(setTimeout(() => this.#told.left(left), remaining - left))
    this.#timers.push(setTimeout(() => this.#told.over(), remaining + OVERTIME_MS))
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers = []
  }
}
