/**
 * Where the people at a device have to say yes first, their question stands while they are waited for: whoever asked comes
 * back to it until it is answered, or lapses, which the gateway says. docs/agent.md "Consent".
 */

/** As the device calls it that a question is before its people and nobody has answered. */
const ASKED = 'owner.asked'
/** What the person reads meanwhile. */
export const AWAITED =
  'the people at the device have been asked whether you may come in: waiting for their answer (Ctrl-C gives up)'
/** The device holds an attempt for six seconds itself; between two of them it is let alone. */
const AGAIN_MS = 2_000
/** The longest that a question can stand (`consent_wait_s`), and a while for the way. */
const LONGEST_MS = 3_600_000 + 60_000

export interface Awaiting {
  /** The code of a refusal; undefined for whatever is none. */
  readonly codeOf: (error: unknown) => string | undefined
  /** Told once, when the first attempt found the question unanswered. */
  readonly told: () => void
  /** Takes milliseconds. What it rejects with ends the waiting. */
  readonly pause: (ms: number) => Promise<unknown>
  /** Monotonic milliseconds. */
  readonly now: () => number
}

/** What `attempt` gives once the people at the device have said yes; rejects with whatever else it rejects with. */
export async function onceAnswered<T>(
  attempt: () => Promise<T>,
  { codeOf, told, pause, now }: Awaiting,
): Promise<T> {
  let until: number | undefined
  for (;;) {
    try {
      return await attempt()
    } catch (error) {
      if (codeOf(error) !== ASKED || now() >= (until ?? Infinity)) throw error
      if (until === undefined) told()
      until ??= now() + LONGEST_MS
    }
    await pause(AGAIN_MS)
  }
}
