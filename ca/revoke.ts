/**
 * Revocation: intended on disk, logged, then a durable row with its own epoch; everyone who admits
 * peers reads those rows. A crash in between leaves an intention, and the next start carries it out.
 */
import { relying } from './errors.ts'
import type { CaLog } from './event.ts'
import type {
  CaStore,
  RevocationIntentions,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
} from './store.ts'
import { instant, type Instant } from './time.ts'

/** What revoking needs of its surroundings. */
export interface RevocationDesk {
  readonly store: RevocationIntentions
  readonly log: CaLog
  /** Told of each row that `resumeRevocations` and `revokeLapsed` add, once it holds: who admits peers cuts. */
  readonly carriedOut?: (row: RevocationRow) => Promise<void>
  /** Told once what `revoke` was asked for is on disk: until then its failure means that nothing was done. */
  readonly intended?: () => void
}

/**
 * An issuer whose key is in strange hands is `cACompromise`. `keyCompromise` is said of the certificates
 * that end, and bars their keys for ever: those of devices, which nobody has but they.
 */
function reasonFor(target: RevocationTarget, reason: RevocationReason): RevocationReason {
  return 'issuer' in target && reason === 'keyCompromise' ? 'cACompromise' : reason
}

/**
 * Ends one certificate, all of a device, or all of an issuer. When it resolves, `verifyPeer` and
 * `stillStands` refuse them; the row's epoch and serials are what to cut. Revoking what ended
 * before adds a row without serials. Throws CaError `log.unavailable` (nothing was done),
 * `store.unavailable` (nothing was done, or once `intended` was told: a later `resumeRevocations` may carry it out).
 */
export async function revoke(
  target: RevocationTarget,
  request: {
    readonly tenant: string
    readonly reason: RevocationReason
    readonly now: Instant
    readonly requestId?: string
  },
  desk: RevocationDesk,
): Promise<RevocationRow> {
  const { tenant, now: at, requestId = null } = request
  const reason = reasonFor(target, request.reason)
  const id = await relying('store.unavailable', () =>
    desk.store.intendRevocation(tenant, { target, reason, at }),
  )
  desk.intended?.()
  try {
    await announce(desk, { tenant, target, reason, at, requestId, resumed: false })
  } catch (error) {
    // What nobody could record is not done, now or at the next start.
    await relying('store.unavailable', () => desk.store.dropRevocation(tenant, id))
    throw error
  }
  return await relying('store.unavailable', () => desk.store.redeemRevocation(tenant, id))
}

async function announce(
  { log }: RevocationDesk,
  event: {
    readonly tenant: string
    readonly target: RevocationTarget
    readonly reason: RevocationReason
    readonly at: Instant
    readonly requestId: string | null
    readonly resumed: boolean
  },
): Promise<void> {
  await relying('log.unavailable', () =>
    log({ code: 'cert.revoke', remoteAddress: null, ...event }),
  )
}

/**
 * Carries out what a crash, or a store that failed, left intended. Each is logged again, as
 * resumed, and with the reason that holds today (see `reasonFor`) where an older version intended
 * another. Gives the rows in order. Throws as `revoke`; what came before stands, and was told to `carriedOut`.
 */
export async function resumeRevocations(
  tenant: string,
  now: Instant,
  desk: RevocationDesk,
): Promise<readonly RevocationRow[]> {
  const open = await relying('store.unavailable', () => desk.store.openRevocations(tenant))
  const rows: RevocationRow[] = []
  for (const intended of open) {
    const { id, target, reason } = await withReason(tenant, intended, desk)
    await announce(desk, { tenant, target, reason, at: now, requestId: null, resumed: true })
    const row = await relying('store.unavailable', () => desk.store.redeemRevocation(tenant, id))
    rows.push(row)
    await desk.carriedOut?.(row)
  }
  return rows
}

type Open = Awaited<ReturnType<RevocationIntentions['openRevocations']>>[number]

/** The intention under a reason that may be. The new one is there before the old one goes: one of them is carried out. */
async function withReason(
  tenant: string,
  intended: Open,
  { store }: RevocationDesk,
): Promise<Open> {
  const { id, target, at } = intended
  const reason = reasonFor(target, intended.reason)
  if (reason === intended.reason) return intended
  return await relying('store.unavailable', async () => {
    const next = await store.intendRevocation(tenant, { target, reason, at })
    await store.dropRevocation(tenant, id)
    return { id: next, target, reason, at }
  })
}

/** A signing that takes longer than this after its record has failed. */
const SIGNING_MS = 600_000

/**
 * Revokes intentions that nobody can take up any more: past their window the stored bytes are not
 * signed again, yet a signature may exist, so the serial joins the CRL (brief, section 1).
 * Gives the serials. Throws as `revoke`.
 */
export async function revokeLapsed(
  tenant: string,
  now: Instant,
  desk: RevocationDesk & { readonly store: Pick<CaStore, 'openIntentions'> },
): Promise<readonly string[]> {
  const open = await relying('store.unavailable', () => desk.store.openIntentions(tenant))
  const lapsed = open.filter(
    ({ recallUntil, recordedAt }) => now >= instant(Math.max(recallUntil, recordedAt + SIGNING_MS)),
  )
  const ended: string[] = []
  for (const { serial } of lapsed) {
    const request = { tenant, reason: 'unspecified', now } as const
    const row = await revoke({ serial }, request, desk)
    ended.push(...row.serials)
    await desk.carriedOut?.(row)
  }
  return ended
}
