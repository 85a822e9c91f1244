/** What the log said before the store had it, where the store then does not confirm it. */
import type { AuditLog, EventInput } from '#audit'

/** What the log has said already holds when the store has it; where that fails, the log says `unkept`. */
export async function orTakenBack<T>(
  { log }: { readonly log: Pick<AuditLog, 'append'> },
  unkept: EventInput,
  keep: () => Promise<T>,
): Promise<T> {
  try {
    return await keep()
  } catch (error) {
    const untold = await log
      .append(unkept)
      .then(() => undefined)
      .catch((cause: unknown) => cause)
    // Why it has no effect is the store's to say, also where the log fails as well.
    throw untold === undefined || !(error instanceof Error)
      ? error
      : Object.assign(error, { cause: untold })
  }
}

/** How `what`, recorded with this `data`, is told that the store did not confirm. */
export function unconfirmed<D extends object>(what: string, data: D) {
  return {
    status: 'failure' as const,
    disposition: undefined,
    message: `${what} without effect, as far as is known: the store did not confirm it`,
    reason: 'store.unavailable',
    data: { ...data, effect: 'unknown' },
  }
}
