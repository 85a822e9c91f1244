/**
 * Waiting for the state itself. What is given here is not how long something may take, but when a test gives up on
 * what never comes: a machine that is ten times slower, with other tests beside, still gets there.
 */
const PATIENCE_MS = 60_000

/** Far more rounds than any loop of a test needs. */
const MOST_ROUNDS = 100_000

/**
 * Rounds of a loop that gives no other turn to this process: while it goes round no limit of a test is kept, and one
 * that never ends would be the end of the whole run. Throws instead, with what it was waiting for.
 */
export function* rounds(what: string): Generator<number> {
  for (let round = 0; round < MOST_ROUNDS; round++) yield round
  throw new Error(`went round in vain: ${what}`)
}

/** Polls until `check` gives something; a condition that never comes is named in the error. */
export async function until<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const value = await check()
    if (value !== undefined && value !== false) return value
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Polls until `check` no longer throws, and gives what it gave; throws what it threw last. */
export async function holds<T>(check: () => T | Promise<T>): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      return await check()
    } catch (error) {
      if (performance.now() > deadline) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** The promise, or an error that names what did not come. */
export async function soon<T>(what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), PATIENCE_MS)
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
