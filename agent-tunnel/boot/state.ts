/**
 * Which agent a device starts: the installed one, one that came as an update and proved healthy, or one on trial. A
 * table of what may become of that, without a file or a clock. docs/updates.md "On the device".
 */
import { rankOf, readVersion } from '#update'

/** An agent that came as an update: which one, by its octets. */
export interface Kept {
  readonly version: string
  readonly sha256: string
}

/** One that has still to reach the gateway. */
export interface Trial extends Kept {
  readonly rollout: string
  /** Seconds in which it must. */
  readonly health: number
  /** How often it was started. */
  readonly starts: number
}

/** Why an update that was taken does not run. Closed: docs/updates.md. */
export type TrialFault =
  | 'update.unhealthy'
  | 'update.hung'
  | 'update.crashed'
  | 'update.version'
  | 'update.damaged'

/** What became of an update, until the gateway has heard it. */
export interface Outcome {
  readonly rollout: string
  readonly version: string
  /** Null: it runs, and is healthy. */
  readonly fault: TrialFault | null
}

export interface BootState {
  readonly v: 1
  /** Null: the installed agent runs. */
  readonly current: Kept | null
  /** What ran before, for when the file of `current` is damaged. */
  readonly previous: Kept | null
  readonly trial: Trial | null
  /** The newest version that was ever healthy here. */
  readonly floor: string
  readonly outcome: Outcome | null
}

/** An update may be started so often before it has reached the gateway: power goes, too. */
export const MOST_STARTS = 3

/** A device that has had no update yet. */
export function freshState(installed: string): BootState {
  return { v: 1, current: null, previous: null, trial: null, floor: installed, outcome: null }
}

/** Puts an update on trial with the next start. */
export function beginTrial(state: BootState, trial: Omit<Trial, 'starts'>): BootState {
  return { ...state, trial: { ...trial, starts: 0 }, outcome: null }
}

/** The update on trial was to start and did not, because nothing could be written then: that was a start, too. */
export function repeatTrial(state: BootState): BootState {
  const { trial } = state
  return trial === null ? state : { ...state, trial: { ...trial, starts: trial.starts + 1 } }
}

/** The update on trial is healthy: it is what starts from now on. */
export function confirmTrial(state: BootState): BootState {
  const { trial, current } = state
  if (trial === null) return state
  const { version, sha256, rollout } = trial
  return {
    ...state,
    current: { version, sha256 },
    previous: current,
    trial: null,
    floor: newer(state.floor, version),
    outcome: { rollout, version, fault: null },
  }
}

/** The update on trial is not: what ran before it starts again. */
export function failTrial(state: BootState, fault: TrialFault): BootState {
  const { trial } = state
  if (trial === null) return state
  const { rollout, version } = trial
  return { ...state, trial: null, outcome: { rollout, version, fault } }
}

/** The gateway has heard what became of the update of `rollout`. */
export function heardOutcome(state: BootState, rollout: string): BootState {
  return state.outcome?.rollout === rollout ? { ...state, outcome: null } : state
}

/** What a start does: with which agent (null: the installed one), and what is remembered of that first. */
export interface Start {
  readonly state: BootState
  readonly run: Kept | null
}

/** The next start, of a machine where `installed` is installed; `late`: the one on trial was ended because it hung. */
export function nextStart(
  before: BootState,
  { installed, late }: { readonly installed: string; readonly late: boolean },
): Start {
  const state = withoutOlder(before, installed)
  const { trial, current } = state
  if (trial === null) return { state, run: current }
  if (late) return nextStart(failTrial(state, 'update.hung'), { installed, late: false })
  if (trial.starts >= MOST_STARTS)
    return nextStart(failTrial(state, 'update.crashed'), { installed, late })
  const { version, sha256 } = trial
  return {
    state: { ...state, trial: { ...trial, starts: trial.starts + 1 } },
    run: { version, sha256 },
  }
}

/** The file of what was to start is not what the owner signed: something else must start. */
export function withoutDamaged(state: BootState, { sha256 }: Kept): BootState {
  if (state.trial?.sha256 === sha256) return failTrial(state, 'update.damaged')
  if (state.current?.sha256 !== sha256) return state
  const previous = state.previous?.sha256 === sha256 ? null : state.previous
  return { ...state, current: previous, previous: null }
}

/** Who installs a newer agent than the updates that came wants that one. */
function withoutOlder(state: BootState, installed: string): BootState {
  const keep = <T extends Kept>(kept: T | null): T | null =>
    kept !== null && rankOf(kept.version) > rankOf(installed) ? kept : null
  const { current, previous, trial } = state
  return {
    ...state,
    current: keep(current),
    previous: keep(previous),
    trial: keep(trial),
    floor: newer(state.floor, installed),
  }
}

function newer(one: string, other: string): string {
  return rankOf(one) >= rankOf(other) ? one : other
}

/** Reads the text of a state; undefined for what is none. */
export function readState(text: string): BootState | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const { v, current, previous, trial, floor, outcome } = fieldsOf(value)
  const whole =
    v === 1 &&
    isVersion(floor) &&
    (current === null || isKept(current)) &&
    (previous === null || isKept(previous)) &&
    (trial === null || isTrial(trial)) &&
    (outcome === null || isOutcome(outcome))
  return whole ? { v, current, previous, trial, floor, outcome } : undefined
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function isVersion(value: unknown): value is string {
  return typeof value === 'string' && readVersion(value) !== undefined
}

function isKept(value: unknown): value is Kept {
  const { version, sha256 } = fieldsOf(value)
  return isVersion(version) && typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)
}

function isTrial(value: unknown): value is Trial {
  const { rollout, health, starts } = fieldsOf(value)
  const counts = [health, starts].every((one) => Number.isSafeInteger(one) && Number(one) >= 0)
  return isKept(value) && typeof rollout === 'string' && counts
}

const FAULTS: ReadonlySet<unknown> = new Set<TrialFault>([
  'update.unhealthy',
  'update.hung',
  'update.crashed',
  'update.version',
  'update.damaged',
])

function isOutcome(value: unknown): value is Outcome {
  const { rollout, version, fault } = fieldsOf(value)
  return typeof rollout === 'string' && isVersion(version) && (fault === null || FAULTS.has(fault))
}
