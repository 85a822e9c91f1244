/**
 * Grants that end by themselves: each end is recorded, with the instant it came, also where the gateway was down then.
 * docs/audit.md section "When a grant ends by itself".
 */
import type { AuditLog } from '#audit'
import { Rounds } from '../rounds.ts'
import { expiresAt, termsOf, type Grant } from './grant.ts'
import type { GrantStore } from './store.ts'
import { inTurn } from './turn.ts'

export interface ExpiryRoom {
  readonly log: Pick<AuditLog, 'append'>
  readonly store: Pick<GrantStore, 'running' | 'find' | 'apply'>
  /** Epoch milliseconds. */
  readonly now: () => number
  /** Epoch seconds by the clock of those who share the store: a gateway whose own is ahead ends nothing early for all. */
  readonly time?: (() => Promise<number>) | undefined
  /** Ends that are in the log and that the store has not taken yet, by grant: kept from look to look. */
  readonly recorded?: Map<string, number>
}

/** So many grants are looked at together; after a page that was over to its end, twice as many, up to the second number. */
const AT_ONCE = 64
const MOST_AT_ONCE = 2048
/** Looked for at least as often; sooner where an end is known to come sooner. */
const LOOK_MS = 5_000
const SOONEST_MS = 100
const BEHIND_MS = 1_000

/**
 * Records every end that has come by now, first what came first, and then marks the grant. Gives the epoch second of
 * the next end, null where none is known. Rejects with what the log or the store throws: what was recorded and not
 * marked is marked the next time, and recorded again only by a node that was started since.
 */
export async function recordEnds(room: ExpiryRoom): Promise<number | null> {
  const { store, now, time } = room
  for (let limit = AT_ONCE; ; limit = Math.min(2 * limit, MOST_AT_ONCE)) {
    const own = Math.floor(now() / 1000)
    const seconds = time === undefined ? own : Math.min(own, await time())
    const running = await store.running(limit)
    const over = running.filter((grant) => expiresAt(grant) <= seconds)
    let extended = false
    for (const { statement } of over)
      if (!(await inTurn(store, statement.id, () => recordedEnd(room, statement.id, seconds))))
        extended = true
    if (extended) continue
    const next = running[over.length]
    if (next !== undefined) return expiresAt(next)
    if (running.length < limit) return null
  }
}

/** Records the end of a grant as it is now; false where an extension was approved in time, since it was found, and it has none. */
async function recordedEnd(
  { log, store, recorded }: ExpiryRoom,
  id: string,
  seconds: number,
): Promise<boolean> {
  const grant = await store.find(id)
  if (grant === undefined || grant.ended !== null) {
    recorded?.delete(id)
    return true
  }
  if (expiresAt(grant) > seconds) return false
  const { at, words, reason } = endOf(grant)
  if (recorded?.get(id) !== at)
    await log.append({
      code: 'grant.expire',
      message: `grant ended by itself: ${words}`,
      status: 'success',
      reason,
      device: grant.statement.devices.join(','),
      process: grant.statement.processes.join(','),
      grant: id,
      data: { grant_sha256: grant.hash, ended_at: at },
    })
  recorded?.set(id, at)
  await store.apply(id, 'expire', at, 'time', words)
  recorded?.delete(id)
  return true
}

function endOf(grant: Grant): { readonly at: number; readonly words: string; reason: string } {
  const at = expiresAt(grant)
  if (grant.state === 'requested')
    return { at, reason: 'unapproved', words: 'its window was over before it was approved' }
  if (grant.first_used_at === null)
    return { at, reason: 'unused', words: 'its window was over, and it was never used' }
  return at < termsOf(grant).not_after
    ? { at, reason: 'duration_end', words: 'its time from the first use was over' }
    : { at, reason: 'window_end', words: 'its window was over' }
}

/** Records the ends as they come, from now on until it is disposed of; what cannot be recorded is told to `report`. */
export function watchEnds(
  room: ExpiryRoom & { readonly report: (error: unknown, what: string) => void },
): AsyncDisposable {
  let failing = false
  const recorded = new Map<string, number>()
  const rounds = new Rounds(async () => {
    try {
      const next = await recordEnds({ ...room, recorded })
      failing = false
      const left = next === null ? LOOK_MS : next * 1000 - room.now()
      // One that is long over by the clock of this gateway alone is over when the store's says so.
      return left > -BEHIND_MS ? Math.max(SOONEST_MS, Math.min(LOOK_MS, left)) : LOOK_MS
    } catch (error) {
      // Tried again at every look, and said once.
      if (!failing && !rounds.over) room.report(error, 'the ends of grants could not be recorded')
      failing = true
      return LOOK_MS
    }
  })
  return rounds
}
