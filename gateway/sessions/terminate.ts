/** Ending a session: its connections are silent first, then the end is recorded, with how long it took. */
import type { EndReason } from '#audit'
import type { DecisionRef } from '../decisions.ts'
import { sessionOf } from '../events.ts'
import type { Goodbye, LiveSession } from './live.ts'
import type { SessionRoom } from './room.ts'
import { tellFlow } from './stats.ts'

export interface Cause extends Goodbye {
  readonly reason: EndReason
  /** Who withdrew, where somebody did. */
  readonly by?: string | undefined
  readonly decision?: DecisionRef | undefined
  /** Monotonic milliseconds at which the permission was withdrawn; absent where nothing was. */
  readonly withdrawnAt?: number | undefined
}

type Ending = Pick<SessionRoom, 'log' | 'store' | 'live' | 'ending' | 'now' | 'ended' | 'report'>

/**
 * Ends a session once; a second call waits for nothing and changes nothing. Resolves with the
 * milliseconds from withdrawal until no byte could pass, or null where nothing was withdrawn,
 * when the end is durable. Rejects where it could not be recorded; the session is cut all the same.
 */
export async function terminate(
  room: Ending,
  session: LiveSession,
  cause: Cause,
): Promise<number | null> {
  if (!session.advance('cut')) return session.timeToCutMs
  const carriers = [...session.streams].flatMap(({ carrier }) => carrier ?? [])
  carriers.push(...session.watchers)
  const cuts = await Promise.allSettled(carriers.map((carrier) => carrier.cut(cause, 'over')))
  for (const cut of cuts)
    if (cut.status === 'rejected')
      room.report(cut.reason, `a connection of session ${session.id} resisted its cut`)
  if (cause.withdrawnAt !== undefined)
    session.timeToCutMs = Math.round((performance.now() - cause.withdrawnAt) * 1000) / 1000
  if (cause.decision !== undefined) session.decided(cause.decision, room.now())
  session.advance('silent')
  // What brings a recording to its end takes time, and until its own end the log holds it for open.
  room.ending.add(session)
  room.live.delete(session.id)
  room.ended(session)
  // Cut while it was being opened: what its start becomes decides whether there is an end to record.
  await Promise.allSettled([session.recorded])
  try {
    if (session.startIdx > 0) await recordEnd(room, session, cause)
    else await session.recording?.discard()
  } finally {
    room.ending.delete(session)
    session.room.release()
    await session.share?.leave()
  }
  return session.timeToCutMs
}

async function recordEnd(room: Ending, session: LiveSession, cause: Cause): Promise<void> {
  const now = room.now()
  // Both before the end itself, which is the last word on the session, and which neither may keep from being said.
  const [root] = await Promise.all([
    session.recording?.end(cause.reason),
    tellFlow(room.log, session, now).catch((error: unknown) =>
      room.report(error, `the last traffic of session ${session.id} could not be recorded`),
    ),
  ])
  await room.log.append({
    code: 'session.end',
    message: `session to ${session.device}/${session.process} ended: ${cause.message}`,
    status: 'success',
    reason: cause.reason,
    ...(session.timeToCutMs === null ? {} : { disposition: 'revoked' as const }),
    actor: {
      uid: session.subject.id,
      name: session.subject.email,
      org: session.subject.vendor ?? undefined,
      party: session.subject.party,
    },
    ...sessionOf(session),
    decisions: session.decisions,
    data: {
      bytes_in: session.bytesIn,
      bytes_out: session.bytesOut,
      duration_ms: Math.max(0, Math.round(now - session.openedAt)),
      start_idx: session.startIdx,
      denials: session.denials,
      observed: session.observed ? ownerOf(session.observed) : null,
      decision_ids: session.decisions.map(({ id }) => id),
      time_to_cut_ms: session.timeToCutMs === null ? undefined : Math.ceil(session.timeToCutMs),
      by: cause.by,
      recording_root: root,
    },
  })
  room.ending.delete(session)
  await room.store.end({
    id: session.id,
    at: Math.floor(now / 1000),
    reason: cause.reason,
    bytes_in: session.bytesIn,
    bytes_out: session.bytesOut,
    connections: session.connections,
    time_to_cut_ms: session.timeToCutMs,
  })
}

function ownerOf(observed: NonNullable<LiveSession['observed']>) {
  const { exe, sha256, pid, started_at, uid, unit, image } = observed
  return { exe, sha256, pid, started_at, uid, unit, image, proof: observed.phase }
}
