/** What this gateway can hold a session to. */
import type { Obligations } from '#policy'

/**
 * The first obligation of an allow that nobody here enforces, or undefined. Such an allow is
 * refused: a promise in the log that was not kept is worse than a no.
 */
export function unsupported(obligations: Obligations): string | undefined {
  if (obligations.record) return 'record'
  if (obligations.supervise) return 'supervise'
  if (obligations.notify) return 'notify'
  if (obligations.ot_each) return 'ot_each'
  return undefined
}
