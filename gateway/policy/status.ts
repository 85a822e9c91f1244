/** How the policy of a node stands: what decides, what waits, what there is to go back to, how fast the last change was felt. */
import type { EngineStatus, HighWater } from '#policy'
import { hasLastGood } from './admission.ts'
import type { Passed } from './boot.ts'
import type { CutTimes } from './cuts.ts'
import type { ServiceParts, Source } from './parts.ts'
import type { SlotState } from './slots.ts'

/** What only the service knows of what is in force. */
export interface InForce {
  readonly source: Source
  /** Epoch milliseconds. */
  readonly activatedAt: number
  /** Of the last change since the start; null where there has been none, or it has not come to its cuts. */
  readonly lastCuts: CutTimes | null
}

export interface ServiceStatus extends EngineStatus {
  readonly source: Source
  readonly activated_at: number
  readonly high_water: number
  readonly candidate: { readonly digest: string; readonly by: string; readonly at: number } | null
  readonly last_good: HighWater | null
  /** Whether `rollback` has something to go back to. */
  readonly can_go_back: boolean
  readonly trusted_keys: readonly string[]
  readonly boot_failures: readonly Passed[]
  readonly last_cuts: CutTimes | null
}

/** As it is at this call; times are epoch seconds. */
export function serviceStatus(
  parts: ServiceParts,
  { source, activatedAt, lastCuts }: InForce,
): ServiceStatus {
  const { engine, slots, keys, boot } = parts
  const { state } = slots
  return {
    ...engine.status(),
    source,
    activated_at: Math.floor(activatedAt / 1000),
    high_water: state.high_water?.seq ?? 0,
    candidate: waitingOf(state.waiting),
    last_good: state.last_good,
    can_go_back: hasLastGood(parts),
    trusted_keys: [...keys.keys()],
    boot_failures: boot.passed,
    last_cuts: lastCuts,
  }
}

/** What waits, without the permit it came with. */
function waitingOf(waiting: SlotState['waiting']): ServiceStatus['candidate'] {
  if (waiting === null) return null
  const { digest, by, at } = waiting
  return { digest, by, at }
}
