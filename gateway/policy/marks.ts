/**
 * The high-water mark as the node's own log remembers it: whoever removes state.json, or puts an old one
 * back, does not make an older bundle acceptable. Every start and every activation writes the mark.
 */
import {
  AuditError,
  epochOf,
  joinOf,
  readerOf,
  verifyLog,
  type AuditLog,
  type EndedEpoch,
} from '#audit'
import type { HighWater } from '#policy'

const WINDOW = 4096
const CODES: ReadonlySet<string> = new Set(['policy.activate', 'policy.rollback'])

interface Body {
  readonly unmapped: {
    readonly sallyport: { readonly high_water?: unknown; readonly high_water_sha256?: unknown }
  }
}

/** The mark in one event's body; undefined for an event of another kind, null where it had none. */
function markIn(body: Uint8Array): HighWater | null | undefined {
  if (!CODES.has(joinOf(body)?.code ?? '')) return undefined
  const { sallyport } = (JSON.parse(new TextDecoder().decode(body)) as Body).unmapped
  const { high_water: seq, high_water_sha256: digest } = sallyport
  return Number.isSafeInteger(seq) && typeof digest === 'string'
    ? { seq: Number(seq), digest }
    : null
}

/**
 * The last mark in the log, searched from its end, through its earlier epochs (`ended`, the newest first) where the newest
 * has none yet: it is the highest, because each is written as the largest of what was known. Gives no mark or one. Throws
 * AuditError log.rollback where an epoch that may have one is not here, or is not what was signed, and what reading
 * throws: a log that cannot be read must not open the way back.
 */
export async function loggedMarks(
  log: Pick<AuditLog, 'read' | 'size' | 'origin'>,
  ended: readonly EndedEpoch[] = [],
): Promise<HighWater[]> {
  const own = await marksIn(log)
  if (own !== undefined) return own
  let { origin } = log
  for (const one of ended) {
    await demandProven(one)
    const marks = await marksIn(readerOf(one))
    if (marks !== undefined) return marks
    ;({ origin } = one)
  }
  if ((epochOf(origin) ?? 1) > 1)
    throw new AuditError(
      'log.rollback',
      `${origin} goes on from an epoch that is not here and may hold the newest mark of the policy: put its folder back for one start`,
    )
  return []
}

/** Opening the log has read the newest epoch alone: of one before it any event may have been changed or taken out. */
async function demandProven({ directory, origin, vkeys, last }: EndedEpoch): Promise<void> {
  const verdict = await verifyLog({ directory, verifierKeys: vkeys, held: [last.note] })
  if (verdict.outcome === 'proven') return
  throw new AuditError(
    'log.rollback',
    `${origin}, which may hold the newest mark of the policy, is ${verdict.outcome}: ${verdict.why ?? ''}`,
  )
}

async function marksIn(log: Pick<AuditLog, 'read' | 'size'>): Promise<HighWater[] | undefined> {
  for (let end = log.size; end > 0; end -= WINDOW) {
    const mark = await lastMark(log, Math.max(0, end - WINDOW), end)
    if (mark !== undefined) return mark === null ? [] : [mark]
  }
  return undefined
}

/** The last mark among the events of a range, which comes in as many pages as its bytes take. */
async function lastMark(
  log: Pick<AuditLog, 'read'>,
  from: number,
  end: number,
): Promise<HighWater | null | undefined> {
  let last: HighWater | null | undefined
  for (let at = from; at < end;) {
    const entries = await log.read(at, end - at)
    const newest = entries.at(-1)
    if (newest === undefined) throw new Error(`the log ends before event ${at}`)
    for (const { body } of entries) {
      const mark = markIn(body)
      if (mark !== undefined) last = mark
    }
    // Of a pruned log the first page begins where the log does.
    at = newest.idx + 1
  }
  return last
}
