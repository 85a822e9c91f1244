/**
 * One connection of a session, whichever way its person came in: recorded, metered, filtered and cut alike. What differs
 * is who accepts it, and by what it is carried to them.
 */
import type { Source } from '../facts.ts'
import type { Refusal } from '../problem.ts'
import { leave } from '../sessions/extend.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { SessionRoom } from '../sessions/room.ts'
import type { OpenedStream } from '../sessions/stream.ts'
import type { Terminal } from '../sessions/terminal.ts'
import { holdSignal } from '../sessions/supervise.ts'
import { terminate, type Cause } from '../sessions/terminate.ts'
import { modbusFilter } from './modbus.ts'
import { spawnSignals } from './spawn.ts'
import { BYTE_LIMIT, splice, type Side } from './splice.ts'

/** It was withdrawn while its answer was on its way, and whoever cut it has said why. */
const ENDED = { code: 'session.ended', message: 'the session has ended' } as const

const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** The person's side of a connection. */
export interface Person {
  readonly source: Source
  /** Of a spawned program: the person's terminal, where there is one. */
  readonly terminal: Terminal | undefined
  /** Tells them that they are in, with what the device said of it (JSON), and gives what carries it. */
  readonly accept: (told: Uint8Array) => Side
  /** Called once, when no byte can pass any more. */
  readonly onEnd: () => void
}

/** Joins an opened stream to its person; resolves when both are joined, or it was withdrawn meanwhile and is cut. */
export async function carry(
  room: SessionRoom,
  session: LiveSession,
  { stream, entry, says }: OpenedStream,
  { source, terminal, accept, onEnd }: Person,
): Promise<void> {
  const tap = session.recording?.tap(source.ip, {
    ...(terminal ?? { cols: 80, rows: 24 }),
    granted: says['terminal'] === true,
  })
  entry.carrier = splice({
    client: accept(encode({ v: 1, remaining_ms: remainingMs(room, session), ...says })),
    device: stream,
    pace: session.pace,
    hold: session.hold,
    meter: (direction, bytes) => count(room, session, direction, bytes),
    signals: session.kind === 'spawn' ? spawnSignals : undefined,
    filter:
      entry.gate === undefined ? undefined : modbusFilter(room, session, entry, entry.gate, tap),
    tap,
    onEnd: () => {
      leave(room, session, entry)
      onEnd()
    },
  })
  if (session.hold.held) entry.carrier.tell?.(holdSignal(session))
  // Withdrawn while the answer was on its way: the carrier was not there to be cut.
  if (session.state !== 'open') await entry.carrier.cut(ENDED, 'over')
  if (entry.narrowed !== undefined) await entry.carrier.cut(entry.narrowed, 'goes on')
}

/** What a client is told of a refusal. */
export function toldOf(refusal: Refusal): Readonly<Record<string, string>> {
  return {
    code: refusal.shownCode,
    msg: refusal.detail,
    ...(refusal.nextStep === undefined ? {} : { next_step: refusal.nextStep }),
    ...(refusal.decisionId === undefined ? {} : { decision_id: refusal.decisionId }),
  }
}

/** What is left of the session, in whole milliseconds. */
export function remainingMs(room: SessionRoom, session: LiveSession): number {
  return Math.max(0, Math.round(session.end() - room.now()))
}

/** Of a grant that states its bytes: another session under it has no more of them. */
const SPENT = { next: 'ask for another grant: sallyport request … --bytes' } as const

/** Why these octets may not pass any more, or undefined where they may; then they are counted with their grant. */
function overOf(session: LiveSession, bytes: number): Cause | undefined {
  if (session.bytesIn + session.bytesOut + bytes > session.obligations.max_bytes)
    return { reason: 'byte_limit', ...BYTE_LIMIT, ...(session.share === undefined ? {} : SPENT) }
  const carried = session.share?.carry(bytes) ?? 'carried'
  if (carried === 'spent')
    return {
      reason: 'byte_limit',
      ...BYTE_LIMIT,
      ...SPENT,
      message: 'the grant has carried as much as it may in all its sessions',
    }
  if (carried === 'behind')
    return {
      reason: 'audit_state',
      code: 'store.unavailable',
      message: 'what the grant carries could not be counted in time',
      next: 'connect again; if it ends again, tell the platform owner that the store is slow',
    }
  return undefined
}

/** Counts what is about to pass; false where it may not, because the session has carried what it may: it ends. */
export function count(
  room: SessionRoom,
  session: LiveSession,
  direction: 'in' | 'out',
  bytes: number,
): boolean {
  const over = overOf(session, bytes)
  if (over !== undefined) {
    terminate(room, session, over).catch((error: unknown) =>
      room.report(error, `the end of session ${session.id} could not be recorded`),
    )
    return false
  }
  if (direction === 'in') session.bytesIn += bytes
  else session.bytesOut += bytes
  const now = room.now()
  session.flow.add(direction, bytes, now)
  session.lastActivityAt = now
  return true
}
