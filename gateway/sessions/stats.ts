/** The flow records of all sessions, told to the log each minute and at each end. */
import { sessionOf } from '../events.ts'
import type { LiveSession } from './live.ts'
import { sumOf } from './flow.ts'
import type { SessionRoom } from './room.ts'

const EACH_MS = 60_000

/** Records what passed through a session since the last time; nothing where nothing did. */
export async function tellFlow(
  log: SessionRoom['log'],
  session: LiveSession,
  now: number,
): Promise<void> {
  const passed = session.flow.take(now)
  if (passed === undefined) return
  const { buckets, duration_ms } = passed
  await log.append({
    code: 'session.stats',
    message: `traffic of the session to ${session.device}/${session.process}`,
    status: 'success',
    ...sessionOf(session),
    data: { ...sumOf(buckets), duration_ms, buckets },
  })
}

/** Tells of every live session each minute, until it is disposed of. */
export function watchFlows(room: Pick<SessionRoom, 'log' | 'live' | 'now' | 'report'>): Disposable {
  const timer = setInterval(() => {
    for (const session of room.live.values()) {
      // Before its start is in the log it carries nothing.
      if (session.state !== 'open') continue
      tellFlow(room.log, session, room.now()).catch((error: unknown) =>
        room.report(error, `the traffic of session ${session.id} could not be recorded`),
      )
    }
  }, EACH_MS)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}
