/**
 * Which grants to write count beside the grant that a session was opened under. Pure: the instant is an argument. Policy
 * decides what they are worth; this file says which it is shown, so that none stands in for a grant that has ended.
 */
import { beginsAt, expiresAt, type Grant } from './grant.ts'

export interface Elevation {
  /** In effect now, at most `MOST_WRITES`. */
  readonly grants: readonly Grant[]
  /** When the first of them ends or another begins: epoch seconds, Infinity where nothing will. */
  readonly changesAt: number
}

export const NOT_ELEVATED: Elevation = { grants: [], changesAt: Infinity }

/**
 * Of the grants to write in `writes`, those that add to `own` at `now` (epoch seconds): while `own` itself holds, and
 * only what ends before it. One that outlasts it would be what the session stands on, and its addresses the only ones.
 */
export function elevationOf(own: Grant, writes: readonly Grant[], now: number): Elevation {
  const end = expiresAt(own)
  const usable = own.state === 'approved' || own.state === 'active'
  if (!usable || now < beginsAt(own) || now >= end) return NOT_ELEVATED
  const shorter = writes.filter(
    (grant) =>
      grant.statement.id !== own.statement.id && now < expiresAt(grant) && expiresAt(grant) < end,
  )
  const begun = (grant: Grant) => beginsAt(grant) <= now
  const grants = shorter.filter(begun)
  const changes = shorter.map((grant) => (begun(grant) ? expiresAt(grant) : beginsAt(grant)))
  return { grants, changesAt: Math.min(...changes) }
}

/**
 * Of the grants that a session under `own` stands on, those that may let a write pass. One to write that no connection
 * was opened under does not: its duration would never begin.
 */
export function inUse(grants: readonly Grant[], own: string): readonly Grant[] {
  return grants.filter(
    ({ statement, first_used_at: used }) =>
      statement.id === own || statement.ot_level < 2 || used !== null,
  )
}

/** The grant to write that names every one of these addresses of a unit, of those that were used and are not over at `now`. */
export function coveringGrant(
  grants: readonly Grant[],
  unit: number,
  { address, quantity }: { readonly address: number; readonly quantity: number },
  now: number,
): Grant | undefined {
  return grants.find(
    (grant) =>
      grant.first_used_at !== null &&
      now < expiresAt(grant) &&
      (grant.statement.ot_windows ?? []).some(
        (one) => one.unit === unit && one.from <= address && address + quantity - 1 <= one.to,
      ),
  )
}
