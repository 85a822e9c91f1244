/** What is on disk before a session is there: its decision, its use, its recording, its start. */
import { windowsInWords } from '#approval'
import type { Decision } from '#policy'
import { actorOf, sessionOf, srcOf } from '../events.ts'
import type { Grant } from '../grants/grant.ts'
import { Refusal } from '../problem.ts'
import { formatOf } from '../recordings/taps.ts'
import { storeRefusal } from '../store-refusal.ts'
import { StoreError } from '../store/sqlite/thread.ts'
import type { LiveSession } from './live.ts'
import { giveNotice } from './notice.ts'
import { noRoom, refused, type OpenRequest } from './refuse.ts'
import type { SessionRoom } from './room.ts'
import { terminate } from './terminate.ts'
import { countUse } from './uses.ts'

/** What a session is opened under. */
export interface Permission {
  readonly grant: Grant
  readonly decision: Decision
}

/** Events of a session: its start, a minute's count now and then, its end. */
const EVENT_BYTES = 64 * 1024

/** Room for what a session will write, before it writes anything. */
async function roomFor(room: SessionRoom, request: OpenRequest): Promise<{ release(): void }> {
  try {
    return room.log.admit(EVENT_BYTES)
  } catch (cause) {
    throw await refused(room, request, noRoom(cause))
  }
}

/** From here on a withdrawal sees the session; if one came meanwhile, nothing was opened. */
export async function record(
  room: SessionRoom,
  request: OpenRequest,
  session: LiveSession,
  permission: Permission,
): Promise<void> {
  session.room = await roomFor(room, request)
  room.live.set(session.id, session)
  session.recorded = start(room, session, permission)
  try {
    await session.recorded
  } catch (error) {
    room.live.delete(session.id)
    session.room.release()
    await session.share?.leave()
    if (session.startIdx === 0) await session.recording?.discard()
    // Its start may be in the log: then so is its end.
    if (session.startIdx > 0)
      await terminate(room, session, {
        reason: 'killed',
        code: 'node.fault',
        message: 'the session could not be stored',
      })
    if (error instanceof Refusal) throw await refused(room, request, error)
    if (error instanceof StoreError) throw await refused(room, request, storeRefusal(error))
    throw new Refusal(
      'log.unavailable',
      'the session could not be recorded, so it was not opened',
      { cause: error },
    )
  }
  if (!session.advance('recorded'))
    throw new Refusal(
      'session.ended',
      'the permission was withdrawn while the session was being opened',
    )
}

/** The decision with its whole input is on disk before the session is (policy brief, section 11). */
async function kept(room: SessionRoom, decision: Decision): Promise<void> {
  try {
    await room.decisions.recorded(decision)
  } catch (cause) {
    throw new Refusal(
      'log.unavailable',
      'the decision could not be recorded, so nothing was opened',
      {
        cause,
        nextStep: 'tell the platform owner: the disk of the gateway needs room',
      },
    )
  }
}

async function start(
  room: SessionRoom,
  session: LiveSession,
  { grant, decision }: Permission,
): Promise<void> {
  if (session.obligations.record) await beginRecording(room, session)
  await kept(room, decision)
  const facts = {
    actor: actorOf(session.subject),
    src: srcOf(session.source),
    ...sessionOf(session),
    ticket: grant.statement.ticket ?? undefined,
    decisions: session.decisions,
  }
  await countUse(room, session, grant, facts)
  if (session.obligations.notify)
    await giveNotice(room.log, session, { ...facts, why: grant.statement.reason })
  const started = await room.log.append({
    code: 'session.start',
    message: `session to ${session.device}/${session.process} opened${session.consent === null ? '' : `, and ${session.consent.by} consented on the device`}`,
    status: 'success',
    disposition: 'allowed',
    ...facts,
    data: {
      party: session.subject.party,
      kind: session.kind,
      remaining_ms: Math.max(0, Math.round(session.expiresAt - room.now())),
      obligations: { ...session.obligations, ot_windows: windowsIn(session) },
      ...recordingOf(session),
    },
  })
  session.startIdx = started.idx
  await room.store.add(toRecord(session))
}

/** Event data is flat: a list that must hold is its windows in words. */
function windowsIn({ obligations }: LiveSession): string[] {
  return obligations.ot_windows.map(windowsInWords)
}

/** Room for the recording, and those who can open it, before anything says that the session is open. */
async function beginRecording(room: SessionRoom, session: LiveSession): Promise<void> {
  const { id, device, process, grant, kind, obligations } = session
  if (formatOf(kind) === 'flow') return
  const asked = { id, device, process, grant, kind, maxBytes: obligations.max_bytes }
  session.recording = await room.recordings.admit(asked, () => {
    terminate(room, session, {
      reason: 'recording_failed',
      code: 'recording.failed',
      message: 'the session must be recorded, and cannot be any more',
    }).catch((error: unknown) =>
      room.report(error, `the end of session ${id} could not be recorded`),
    )
  })
}

/** What its start, and the person who opened it, are told of the recording that policy asked for. */
export function recordingOf({ obligations, recording }: LiveSession): {
  readonly recording?: string
  readonly recipients?: readonly string[]
} {
  if (!obligations.record) return {}
  if (recording === undefined) return { recording: 'flow' }
  return { recording: recording.format, recipients: recording.recipients }
}

function toRecord(session: LiveSession) {
  return {
    id: session.id,
    grant: session.grant,
    device: session.device,
    process: session.process,
    kind: session.kind,
    identity: session.subject.id,
    email: session.subject.email,
    party: session.subject.party,
    opened_at: Math.floor(session.openedAt / 1000),
    expires_at: Math.floor(session.expiresAt / 1000),
    ended_at: null,
    reason: null,
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
  }
}
