/**
 * An open session lasts as long as its grant, also when that is extended meanwhile, and no longer binds what a connection
 * did that has gone: whoever carries it is told on both ends, so that no connection ends in between.
 */
import { expiresAt, type Grant } from '../grants/grant.ts'
import type { LiveSession, LiveStream } from './live.ts'
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
  tellEnd(room, session)
}

/** A connection is over: what it alone bound the session to is over too, and who was told an earlier end hears of the later one. */
export function leave(room: SessionRoom, session: LiveSession, stream: LiveStream): void {
  session.leave(stream)
  if (session.state === 'open') tellEnd(room, session)
}

/** Whoever was told an earlier end is told this one. */
function tellEnd(room: SessionRoom, session: LiveSession): void {
  const end = session.end()
  const remaining_ms = Math.max(0, Math.round(end - room.now()))
  const told = encode({ t: 'extended', remaining_ms })
  for (const stream of session.streams) {
    // One that is still being opened is told when it may carry; one that is being cut, never.
    const { lease, narrowed, gate, carrier } = stream
    if (lease === undefined || narrowed !== undefined || end <= stream.toldEnd) continue
    stream.toldEnd = end
    attempt(room, session, () => lease(leaseOf(session, gate, room.now())))
    attempt(room, session, () => carrier?.tell?.(told))
  }
  if (end <= session.toldEnd) return
  session.toldEnd = end
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
