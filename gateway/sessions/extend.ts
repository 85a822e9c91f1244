/**
 * An open session lasts as long as its grant, also when that is extended meanwhile: whoever carries it is told on both
 * ends, so that no connection ends in between.
 */
import { expiresAt, type Grant } from '../grants/grant.ts'
import type { LiveSession } from './live.ts'
import type { SessionRoom } from './room.ts'
import { encode, leaseOf, signedOpening } from './signed.ts'

/** Whether the grant has come to last longer, or shorter, than the session knows. */
export function isNews(session: LiveSession, grant: Grant): boolean {
  return (grant.extension?.hash ?? null) !== session.extension
}

/** After a decision that let it go on under `grant`: its end is the grant's, and devices and people are told of a later one. */
export function follow(room: SessionRoom, session: LiveSession, grant: Grant): void {
  if (isNews(session, grant)) {
    const longest = session.openedAt + session.obligations.max_duration_s * 1000
    session.lasts(Math.min(expiresAt(grant) * 1000, longest), grant.extension?.hash ?? null)
    session.signed = signedOpening(grant)
  }
  const end = session.end()
  if (end <= session.toldEnd) return
  session.toldEnd = end
  const remaining_ms = Math.max(0, Math.round(end - room.now()))
  const told = encode({ t: 'extended', remaining_ms })
  for (const { lease, gate, carrier } of session.streams) {
    attempt(room, session, () => lease?.(leaseOf(session, gate, room.now())))
    attempt(room, session, () => carrier?.tell?.(told))
  }
  for (const watcher of session.watchers) attempt(room, session, () => watcher.tell?.(told))
}

/** A connection that ends at this moment hears nothing, and needs nothing. */
function attempt(room: SessionRoom, session: LiveSession, tell: () => void): void {
  try {
    tell()
  } catch (error) {
    room.report(error, `a connection of session ${session.id} was not told of its new end`)
  }
}
