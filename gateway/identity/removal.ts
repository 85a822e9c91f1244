/**
 * When a second factor was last taken off an account: what was shown by then adds no other any more, neither what is
 * begun afterwards nor what was under way. Whoever had the lost one must not put another in its place meanwhile.
 */
import { shownOf, type Shown } from './passkeys/credential.ts'
import type { OidcStore } from './store.ts'
import type { Authentication } from './subject.ts'

const MODEL = 'FactorRemoval'
/** Longer than what was shown may begin something (15 minutes), and that may be under way (5). */
const KEPT_MS = 30 * 60_000

export interface RemovalRoom {
  readonly oidcStore: Pick<OidcStore, 'upsert' | 'find' | 'skewMs'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

/** Before a factor of `sub` is taken off. */
export async function noteRemoval({ oidcStore, now }: RemovalRoom, sub: string): Promise<void> {
  const at = now()
  await oidcStore.upsert({ model: MODEL, id: sub, payload: { at }, expiresAt: at + KEPT_MS })
}

/** What is begun with what was shown, and when that was. */
export interface Begun {
  readonly shown: Shown
  /** Epoch seconds. */
  readonly shownAt: number
  /** Epoch milliseconds. */
  readonly begunAt: number
}

/** What of `authn` counts for adding a factor of `sub` now. */
export async function countedNow(
  room: RemovalRoom,
  sub: string,
  authn: Pick<Authentication, 'acr' | 'at'>,
): Promise<Begun> {
  const begun = { shown: shownOf(authn), shownAt: authn.at, begunAt: room.now() }
  return (await isOutdated(room, sub, begun)) ? { ...begun, shown: null } : begun
}

/**
 * Whether a factor was taken off since. What was shown has no finer time than a second: in that one, the asking tells. Of
 * two gateways the clocks may differ: there what was shown counts only where it was later by more than they may.
 */
export async function isOutdated(
  { oidcStore }: RemovalRoom,
  sub: string,
  { shown, shownAt, begunAt }: Begun,
): Promise<boolean> {
  if (shown === null) return false
  const payload = await oidcStore.find(MODEL, sub)
  if (payload === undefined) return false
  const at = Number(payload['at'])
  const { skewMs = 0 } = oidcStore
  if (skewMs > 0) return shownAt * 1000 <= at + skewMs
  const second = Math.floor(at / 1000)
  return second > shownAt || (second === shownAt && at >= begunAt)
}
