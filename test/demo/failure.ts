/** What a step says when it did not do what it says. */

export class StepFailed extends Error {
  override readonly name = 'StepFailed'
  readonly expected: string
  readonly seen: string
  constructor(expected: string, seen: string) {
    super(`expected ${expected}; saw ${seen}`)
    this.expected = expected
    this.seen = seen
  }
}

/** Throws StepFailed unless `holds`. `seen` is only made into text when needed. */
export function expect(holds: boolean, expected: string, seen: unknown): asserts holds {
  if (!holds) throw new StepFailed(expected, describe(seen))
}

/** Any value on one line, not too long. */
export function describe(seen: unknown): string {
  const text = typeof seen === 'string' ? seen : (JSON.stringify(seen) ?? String(seen))
  const line = text.trim().replaceAll(/\s*\n\s*/g, ' | ')
  return line.length > 900 ? `${line.slice(0, 900)}…` : line
}

/**
 * Asks `probe` until it answers; resolves with its first answer that is not undefined.
 * Throws StepFailed after `ms` milliseconds, with the last thing `probe` threw or gave.
 */
export async function until<T>(
  expected: string,
  ms: number,
  probe: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const end = performance.now() + ms
  let last = 'nothing'
  for (;;) {
    try {
      const answer = await probe()
      if (answer !== undefined) return answer
    } catch (error) {
      last = error instanceof Error ? error.message : String(error)
    }
    if (performance.now() > end)
      throw new StepFailed(`${expected} within ${(ms / 1000).toFixed(0)} s`, describe(last))
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
