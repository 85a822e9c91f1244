/**
 * Revocation as it reaches what is open: durable first, then the sessions and tunnels that stand on
 * the certificates end, and the time from the call to the last socket is measured.
 */
import { CaError, instant, revoke } from '#ca'
import type {
  CaLog,
  RevocationIntentions,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
} from '#ca'
import { Refusal } from '../problem.ts'
import type { LiveSession } from '../sessions/live.ts'
import type { CutSession, Reauthorization } from '../sessions/reevaluate.ts'
import type { Registry } from './presence.ts'

export interface RevocationRoom {
  readonly tenant: string
  readonly store: RevocationIntentions
  readonly log: CaLog
  readonly registry: Registry
  readonly live: ReadonlyMap<string, LiveSession>
  readonly reauthorization: Pick<Reauthorization, 'end'>
  /** Told of every revocation once it holds: who publishes lists publishes a new one. */
  readonly revoked: (row: RevocationRow) => void
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

export interface Reach {
  readonly reason: RevocationReason
  /** Identity of whoever asked. */
  readonly by: string
  /** Monotonic milliseconds at which the call came in. */
  readonly at: number
  readonly requestId: string
}

export interface Revoked {
  readonly row: RevocationRow
  readonly sessions: readonly CutSession[]
  /** How many tunnels ended. */
  readonly tunnels: number
  /** From the call until the last socket was closed; 0 where none was open. */
  readonly timeToCutMs: number
}

const WHY = { code: 'peer.revoked', message: 'the certificate of the device was revoked' } as const

/**
 * Revokes, then cuts: tunnels by device, serial or issuer, and the sessions of their devices.
 * Throws Refusal `log.unavailable` (nothing was done) or `store.unavailable` (asking again is safe).
 */
export async function revokeAndCut(
  room: RevocationRoom,
  target: RevocationTarget,
  reach: Reach,
): Promise<Revoked> {
  const row = await revokeDurably(room, target, reach)
  room.revoked(row)
  return await cutRevoked(room, row, reach)
}

/**
 * Ends what is open of a revocation that holds: tunnels by its target and by each certificate it ended,
 * and the sessions of their devices. For one that was carried out late as for one just asked for.
 */
export async function cutRevoked(
  room: Pick<RevocationRoom, 'registry' | 'live' | 'reauthorization' | 'report'>,
  row: RevocationRow,
  reach: Pick<Reach, 'by' | 'at'>,
): Promise<Revoked> {
  const { target } = row
  // A compromised key ends certificates beyond the one that was named: their tunnels go too.
  const targets = [target, ...row.serials.map((serial) => ({ serial }))]
  const tunnels = [...new Set(targets.flatMap((each) => room.registry.matching(each)))]
  const devices = new Set(tunnels.map(({ device }) => device))
  if ('device' in target) devices.add(target.device)
  const sessions = [...room.live.values()].filter(({ device }) => devices.has(device))
  const [cut] = await Promise.all([
    Promise.all(sessions.map((session) => end(room, session, reach))),
    Promise.all(tunnels.map((presence) => presence.cut(WHY.code, WHY.message, reach.at))),
  ])
  const slowest = Math.max(0, ...cut.map(({ time_to_cut_ms }) => time_to_cut_ms))
  const timeToCutMs = tunnels.length === 0 ? slowest : performance.now() - reach.at
  return {
    row,
    sessions: cut,
    tunnels: tunnels.length,
    timeToCutMs: Math.round(timeToCutMs * 1_000) / 1_000,
  }
}

/** Revokes and cuts nothing: that is for the caller to do with the row. Throws as `revokeAndCut`. */
export async function revokeDurably(
  room: Pick<RevocationRoom, 'tenant' | 'store' | 'log' | 'now'>,
  target: RevocationTarget,
  { reason, requestId }: Pick<Reach, 'reason' | 'requestId'>,
): Promise<RevocationRow> {
  let intended = false
  try {
    const request = { tenant: room.tenant, reason, now: instant(room.now()), requestId }
    return await revoke(target, request, {
      store: room.store,
      log: room.log,
      intended: () => (intended = true),
    })
  } catch (cause) {
    if (!(cause instanceof CaError)) throw cause
    if (cause.code === 'log.unavailable')
      throw new Refusal(cause.code, 'the revocation could not be recorded, so nothing was done', {
        nextStep: 'look at the disk of the gateway: its log must be writable',
        cause,
      })
    if (!intended)
      throw new Refusal(
        'store.unavailable',
        'the revocation could not be kept, so nothing was done',
        {
          nextStep: 'look at the disk of the gateway: its store must be writable; then ask again',
          cause,
        },
      )
    throw new Refusal('store.unavailable', 'the store does not answer', {
      nextStep:
        'ask again; the revocation is also carried out within the hour, and when the gateway starts again',
      cause,
    })
  }
}

async function end(
  room: Pick<RevocationRoom, 'reauthorization' | 'report'>,
  session: LiveSession,
  { at, by }: Pick<Reach, 'by' | 'at'>,
): Promise<CutSession> {
  const cause = { ...WHY, reason: 'cert_revoked', by, withdrawnAt: at } as const
  const took = await room.reauthorization.end(session, cause).catch((error: unknown) => {
    room.report(error, `the end of session ${session.id} could not be recorded`)
    return session.timeToCutMs
  })
  return { id: session.id, time_to_cut_ms: took ?? 0 }
}
