/**
 * What an allow still binds its bearer to: one row per key, with the default that holds where the
 * policy said nothing (strict, never unlimited) and what a value must be. What several rules say is merged by the
 * library (sallyport/lib.rego), before it is read, completed and held under the ceilings; what several whole decisions
 * say of one session is merged here, by the same rules.
 */

/** Addresses `from`..`to` of one Modbus unit, both inclusive. */
export interface ObligedWindow {
  readonly unit: number
  readonly from: number
  readonly to: number
}

export interface Obligations {
  /** Seconds. For device.enroll and device.renew: the certificate's lifetime. */
  readonly max_duration_s: number
  /** Epoch seconds; never later than decision time + max_duration_s. */
  readonly not_after: number
  readonly idle_timeout_s: number
  readonly reeval_after_s: number
  readonly max_bandwidth_bps: number
  readonly max_bytes: number
  readonly max_streams: number
  /** 0 none, 1 read, 2 write. */
  readonly ot_level: number
  /** How many people beside the requester must approve. */
  readonly approvals: number
  readonly record: boolean
  readonly justification: boolean
  readonly supervise: boolean
  readonly notify: boolean
  /** Ask `ot.verb` for every operation, reads included. */
  readonly ot_each: boolean
  /** The processes reachable. null only at tunnel.connect: the registered ones, each session decided on its own. */
  readonly processes: readonly string[] | null
  /** HTTP methods. */
  readonly methods: readonly string[]
  /** Every inner list must hold for an address; within one, any window may. [] restricts nothing. */
  readonly ot_windows: ReadonlyArray<readonly ObligedWindow[]>
}

type Kind = 'count' | 'flag' | 'names' | 'windows'
/** How two values become one, as the library calls it. */
type Merge = 'min' | 'max' | 'or' | 'both' | 'all'

interface Row {
  readonly kind: Kind
  readonly merge: Merge
  /** What holds where the policy said nothing. */
  readonly absent: number | boolean | readonly string[] | null
  /** The highest number a policy may reach, whatever it says. */
  readonly ceiling?: number
}

const DAY = 86_400

export const OBLIGATIONS = {
  max_duration_s: { kind: 'count', merge: 'min', absent: 3600, ceiling: 31 * DAY },
  not_after: { kind: 'count', merge: 'min', absent: null },
  idle_timeout_s: { kind: 'count', merge: 'min', absent: 900, ceiling: 4 * 3600 },
  reeval_after_s: { kind: 'count', merge: 'min', absent: 300, ceiling: 900 },
  max_bandwidth_bps: { kind: 'count', merge: 'min', absent: 10_000_000, ceiling: 1_000_000_000 },
  max_bytes: { kind: 'count', merge: 'min', absent: 256 * 1024 * 1024, ceiling: 64 * 1024 ** 3 },
  max_streams: { kind: 'count', merge: 'min', absent: 8, ceiling: 256 },
  ot_level: { kind: 'count', merge: 'min', absent: 1, ceiling: 2 },
  approvals: { kind: 'count', merge: 'max', absent: 1 },
  record: { kind: 'flag', merge: 'or', absent: true },
  justification: { kind: 'flag', merge: 'or', absent: true },
  supervise: { kind: 'flag', merge: 'or', absent: true },
  notify: { kind: 'flag', merge: 'or', absent: true },
  ot_each: { kind: 'flag', merge: 'or', absent: true },
  processes: { kind: 'names', merge: 'both', absent: [] },
  methods: { kind: 'names', merge: 'both', absent: ['GET', 'HEAD'] },
  ot_windows: { kind: 'windows', merge: 'all', absent: [] },
} as const satisfies Record<keyof Obligations, Row>

export type ObligationKey = keyof typeof OBLIGATIONS

/** An obligation of which one decision leaves less than another. */
export interface Tightened {
  readonly name: ObligationKey
  readonly before: Obligations[ObligationKey]
  readonly after: Obligations[ObligationKey]
}

/** Asked when somebody asks for access or opens; they bind nothing that is open. */
const AT_THE_DOOR: ReadonlySet<ObligationKey> = new Set(['approvals', 'justification'])

/**
 * What `after` leaves an open session less of than `before`: a smaller number, a duty that was none, a name or a list
 * of addresses that is gone or was not there. In the order of the keys; [] where it is bound to no more.
 */
export function tightened(before: Obligations, after: Obligations): readonly Tightened[] {
  const names = (Object.keys(OBLIGATIONS) as ObligationKey[]).filter((n) => !AT_THE_DOOR.has(n))
  return names
    .filter((name) => isLess(name, before, after))
    .map((name) => ({ name, before: before[name], after: after[name] }))
}

function isLess(name: ObligationKey, before: Obligations, after: Obligations): boolean {
  const { kind } = OBLIGATIONS[name]
  if (kind === 'count') return Number(after[name]) < Number(before[name])
  if (kind === 'flag') return after[name] === true && before[name] === false
  if (name === 'ot_windows') return limits(after).some((list) => !limits(before).includes(list))
  const [had, has] = [before[name], after[name]] as (readonly string[] | null)[]
  if (has === null || has === undefined) return false
  return had === null || had === undefined || had.some((one) => !has.includes(one))
}

/** Each list is one more limit, whatever the order. */
function limits({ ot_windows }: Obligations): string[] {
  return ot_windows.map((list) => JSON.stringify(list))
}

/**
 * What holds where several decisions stand at once: of each obligation the strictest that any of them states. Takes at
 * least one; of one it is that.
 */
export function strictest(first: Obligations, ...others: readonly Obligations[]): Obligations {
  // Of most sessions one decision stands, and thousands may be decided again at once.
  if (others.length === 0) return first
  const all = [first, ...others]
  const names = Object.keys(OBLIGATIONS) as ObligationKey[]
  const entries = names.map((name) => [name, merged(name, all)] as const)
  return { ...first, ...Object.fromEntries(entries) }
}

function merged(name: ObligationKey, all: readonly Obligations[]): unknown {
  switch (OBLIGATIONS[name].merge) {
    case 'min':
      return Math.min(...all.map((one) => Number(one[name])))
    case 'max':
      return Math.max(...all.map((one) => Number(one[name])))
    case 'or':
      return all.some((one) => one[name] === true)
    case 'both':
      return common(all.map((one) => one[name] as readonly string[] | null))
    case 'all':
      return everyList(all)
  }
}

/** The names that each has; null is all of them. */
function common(lists: readonly (readonly string[] | null)[]): readonly string[] | null {
  const named = lists.filter((list) => list !== null)
  const [first, ...rest] = named
  return first?.filter((name) => rest.every((list) => list.includes(name))) ?? null
}

/** Each list once: all must hold. */
function everyList(all: readonly Obligations[]): Obligations['ot_windows'] {
  const lists = all.flatMap(({ ot_windows: windows }) => windows)
  return [...new Map(lists.map((list) => [JSON.stringify(list), list])).values()]
}
