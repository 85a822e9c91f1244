/**
 * What each gateway that shares a store decides by, side by side: whether that is one policy, since when not, and what to do about
 * it. Knows no store and no clock. docs/several-gateways.md.
 */
import type { GatewayPolicy, PolicyGateways } from '#api'

/** Where gateways say what they decide by. Rejects with StoreError. */
export interface GatewayPolicies {
  /** Says it for `ttlMs` from now, in place of what this gateway said before; false where `most` others are heard of. */
  say(row: GatewayPolicy, ttlMs: number, most: number): Promise<boolean>
  /** What those say whose time is not over, by name. */
  list(): Promise<readonly GatewayPolicy[]>
}

/** A difference as it is followed: since when, by a clock that nobody sets, and whether it was told. */
export interface Difference {
  readonly since: number
  readonly told: boolean
}

/** What is to be told, once each: that they have differed for too long, and that they do no more. */
export type News = 'differ' | 'alike' | null

/** How long they may differ unsaid: whoever brings a policy to one after the other needs a while. */
export const DIFFER_S = 300

/** All of them by name, so that each tells them in one order. */
export function beside(
  own: GatewayPolicy,
  others: readonly GatewayPolicy[],
): readonly GatewayPolicy[] {
  return [own, ...others].toSorted((a, b) => (a.gateway < b.gateway ? -1 : 1))
}

/** Whether what is in force is not the same archive everywhere. Where nothing is in force, that is another. */
export function differ(rows: readonly GatewayPolicy[]): boolean {
  return new Set(rows.map(({ bundle_digest: digest }) => digest)).size > 1
}

/** The difference after a look at `now`, and what of it is to be told; undefined is none. Both numbers are milliseconds. */
export function followed(
  before: Difference | undefined,
  rows: readonly GatewayPolicy[],
  now: number,
  boundMs: number,
): { readonly difference: Difference | undefined; readonly news: News } {
  if (!differ(rows)) return { difference: undefined, news: before?.told === true ? 'alike' : null }
  const { since, told } = before ?? { since: now, told: false }
  const late = !told && now - since >= boundMs
  return { difference: { since, told: told || late }, news: late ? 'differ' : null }
}

/** `gw1 site-2, gw2 builtin`: the revision of each; of two archives of one name also what they begin with. */
export function sideBySide(rows: readonly GatewayPolicy[]): string {
  const archives = new Map<string | null, Set<string | null>>()
  for (const { revision, bundle_digest: digest } of rows)
    archives.set(revision, (archives.get(revision) ?? new Set()).add(digest))
  return rows
    .map(({ gateway, revision, bundle_digest: digest }) => {
      const twice = (archives.get(revision)?.size ?? 0) > 1
      const which = twice ? ` (sha256 ${(digest ?? 'none').slice(0, 12)})` : ''
      return `${gateway} ${revision ?? 'no policy'}${which}`
    })
    .join(', ')
}

/** What to do where they differ: the newest is what the others are to come to, each in its own way, or what its own are to leave. Null where they do not. */
export function nextStepOf(rows: readonly GatewayPolicy[]): string | null {
  if (!differ(rows)) return null
  const newest = rows.reduce((one, other) => ((other.seq ?? -1) > (one.seq ?? -1) ? other : one))
  const behind = rows.filter(({ bundle_digest: digest }) => digest !== newest.bundle_digest)
  const named = (some: readonly GatewayPolicy[]) => some.map(({ gateway }) => gateway).join(', ')
  const sourced = behind.filter(({ by_itself: itself }) => itself)
  const byHand = behind.filter(({ by_itself: itself }) => !itself)
  const revision = newest.revision ?? 'a policy'
  const holders = rows.filter(({ bundle_digest: digest }) => digest === newest.bundle_digest)
  return [
    ...(byHand.length === 0
      ? []
      : [
          `push ${revision} to ${named(byHand)} and activate it there, each as docs/several-gateways.md says under "One certain gateway"`,
        ]),
    ...(sourced.length === 0
      ? []
      : [
          `${named(sourced)} takes bundles from its source by itself: sallyport policy status there says how that fares`,
        ]),
    // Which way somebody is on, the numbers do not say.
    `or, where ${revision} is being given up: sallyport policy rollback at ${named(holders)}`,
  ].join('; ')
}

/** Who a canary has been taken off trial by, and when: the same verdict is one. */
export function verdictKey({ gateway, verdict }: GatewayPolicy): string | null {
  return verdict === null ? null : `${gateway} ${verdict.digest} ${verdict.at}`
}

/** As it stands now, for whoever asks. `others` are not known where nobody could look of late. */
export function shown(
  own: GatewayPolicy,
  others: readonly GatewayPolicy[] | undefined,
  difference: { readonly since: number; readonly told: boolean } | undefined,
  lookedAt: number | null,
): PolicyGateways {
  const rows = beside(own, others ?? [])
  const apart = differ(rows)
  const known = apart ? 'differ' : 'alike'
  return {
    state: others === undefined ? 'unknown' : known,
    since: apart ? (difference?.since ?? null) : null,
    told: apart && (difference?.told ?? false),
    looked_at: lookedAt,
    next_step: nextStepOf(rows),
    items: rows.map((row) => ({ ...row, here: row.gateway === own.gateway })),
  }
}
