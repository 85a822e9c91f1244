/** What a device says of its updates: all of it, each time, so that the last one that was heard is enough. */
import type { Outcome, TrialFault } from '#boot'
import type { UpdateFault } from '#update'

/** Why an update that was offered is not taken. Closed: docs/updates.md. */
export type RefusalCode = UpdateFault | 'update.unsupported' | 'update.unfetched' | 'update.unkept'

export interface UpdateRefusal {
  readonly rollout: string
  readonly code: RefusalCode
  /** For people. */
  readonly detail: string
}

export interface UpdateReport {
  readonly type: 'update'
  readonly version: string
  /** What is installed here: a file for a Node beside it, or an executable that holds one; null where it is neither. */
  readonly kind: 'file' | 'executable' | null
  /** The Node that runs. */
  readonly node: string
  /** Ids of the keys that are pinned; none: this device takes no update. */
  readonly keys: readonly string[]
  /** The rollout of the update that runs and has still to be confirmed. */
  readonly trial: string | null
  /** The rollout of the update that is being fetched, or waits until nobody is connected. */
  readonly taking: string | null
  /** The same rollout, once its update is to start next: this agent ends when that was heard. */
  readonly starting: string | null
  /** What became of one that was started. */
  readonly outcome:
    | (Pick<Outcome, 'rollout' | 'version'> & { readonly fault: TrialFault | null })
    | null
  /** What was not taken last. */
  readonly refused: UpdateRefusal | null
}
