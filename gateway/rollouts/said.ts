/** What a device says of its updates, as what it came to in each rollout. docs/updates.md "On the wire". */
import type { DeviceUpdate, Rollout } from './rollout.ts'

/** All that a device says, each time. */
export interface Said {
  readonly version: string
  /** What is installed, and the Node that runs; undefined: an agent that does not say so. */
  readonly kind?: 'file' | 'executable' | null
  readonly node?: string
  readonly trial: string | null
  readonly taking: string | null
  /** Undefined: an agent that does not say when it starts one. */
  readonly starting?: string | null
  readonly outcome: { readonly rollout: string; readonly fault: string | null } | null
  readonly refused: { readonly rollout: string; readonly code: string } | null
}

/** A device that is connected and hears of updates. */
export interface Listening {
  readonly device: string
  /** Says one message on its control stream. */
  readonly say: (message: Readonly<Record<string, unknown>>) => void
}

type What = Pick<DeviceUpdate, 'rollout' | 'state' | 'code' | 'announces'>

/** `heard`: the device waits to be told that this was taken down. */
export type Change = What & { readonly heard: boolean }

/**
 * Whether a device is to leave it: what waits is taken back where the rollout is held or over, and what nobody here would
 * look for when it stays away is not started.
 */
export function isLeft({ state }: Change, rollout: Rollout | undefined): boolean {
  if (rollout === undefined) return state === 'starting'
  const waits = state === 'taking' || state === 'starting'
  return waits && rollout.state !== 'running'
}

/** What is installed on a device, and runs, as far as it says so. */
export function hasOf(
  said: Pick<Said, 'kind' | 'node'> | undefined,
): Pick<DeviceUpdate, 'kind' | 'node'> {
  const { kind, node } = said ?? {}
  return {
    ...(kind === undefined || kind === null ? {} : { kind }),
    ...(node === undefined ? {} : { node }),
  }
}

/** What of a device's words is about one rollout each. */
export function changesOf({ trial, taking, starting, outcome, refused }: Said): readonly Change[] {
  const changes: Change[] = []
  // It says both of the same, so that a gateway that knows only of taking sees it once more.
  if (taking !== null && taking !== starting) {
    const says = starting === undefined ? {} : ({ announces: true } as const)
    changes.push({ rollout: taking, state: 'taking', code: null, heard: false, ...says })
  }
  if (starting !== null && starting !== undefined)
    changes.push({ rollout: starting, state: 'starting', code: null, heard: true })
  if (trial !== null) changes.push({ rollout: trial, state: 'trial', code: null, heard: true })
  if (refused !== null) {
    const { rollout, code } = refused
    changes.push({ rollout, state: 'refused', code, heard: true })
  }
  if (outcome !== null) {
    const { rollout, fault } = outcome
    const state = fault === null ? 'updated' : 'failed'
    changes.push({ rollout, state, code: fault, heard: true })
  }
  return changes
}

/** The same, of a device that refuses an update because it runs that: by an earlier rollout, or by hand. */
export function orHadAlready(change: Change, { version }: Rollout, said: Said): What {
  const has = change.code === 'update.rollback' && said.version === version
  return has ? { ...change, state: 'updated', code: null } : change
}

/** What is kept of a device that was about to start it and waits again: it was not told in time that it was heard. */
export function waitsAgain(
  update: DeviceUpdate,
  { taking, starting }: Said,
): DeviceUpdate | undefined {
  if (update.state !== 'starting' || taking !== update.rollout || starting !== null)
    return undefined
  return { ...update, state: 'taking', announces: true }
}

/** The same of one that says nothing of it any more: it left it, or what it started did not begin. */
export function isBack(update: DeviceUpdate): DeviceUpdate | undefined {
  const had = update.state === 'starting' || (update.state === 'taking' && update.idle !== true)
  return had ? { ...update, state: 'taking', idle: true } : undefined
}
