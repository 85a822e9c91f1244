/** What people ask of rollouts, and why not. */
import { hash } from 'node:crypto'
import { MOST_BUNDLE_BYTES, readManifest, type Update } from '#update'
import type { DecisionRef } from '../decisions.ts'
import type { Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { Refusal } from '../problem.ts'
import type { Rollout, RolloutState } from './rollout.ts'

/** Who acts. */
export interface By {
  readonly subject: Subject
  readonly source: Source
  readonly decision: DecisionRef
}

/** What somebody asks for with an agent. */
export interface NewRollout {
  readonly manifest: string
  readonly zone: string | null
  readonly stages: readonly number[]
  readonly soak_s: number
  readonly max_failures: number
  readonly reason: string
}

/** From which states, and to which. */
export const ACTS: Readonly<
  Record<
    'pause' | 'resume' | 'abort',
    { readonly from: readonly RolloutState[]; readonly to: RolloutState }
  >
> = {
  pause: { from: ['running'], to: 'paused' },
  resume: { from: ['paused'], to: 'running' },
  abort: { from: ['running', 'paused'], to: 'aborted' },
}

/** Throws Refusal `rollout.state` where no device would take it any more. `now`: epoch seconds. */
export function mayGoOn({ not_after }: Pick<Rollout, 'not_after'>, now: number): void {
  if (now < not_after) return
  throw new Refusal('rollout.state', 'the update is not taken any more', {
    nextStep: 'abort it; sign the agent again with `sallyport rollout sign` and start that',
  })
}

export function standing(): Refusal {
  return new Refusal('rollout.standing', 'a rollout to these devices is open already', {
    nextStep: 'see `sallyport rollout status`; abort that one first',
  })
}

export function unknown(id: string): Refusal {
  return new Refusal('rollout.unknown', `no rollout ${id}`, {
    nextStep: 'see `sallyport rollout status`',
  })
}

/**
 * What a manifest says, if it is one of these octets and still to be taken. Whose signature it is only devices know.
 * `now`: epoch seconds. Throws Refusal `rollout.manifest`, `rollout.agent`.
 */
export function updateOf(manifest: string, bundle: Uint8Array, now: number): Update {
  const read = readManifest(manifest)
  if (read === undefined || read.update.notAfter <= now)
    throw new Refusal(
      'rollout.manifest',
      read === undefined ? 'this is no manifest' : 'it is over',
      {
        nextStep: 'make one: sallyport rollout sign',
      },
    )
  const { size, sha256 } = read.update
  const same = bundle.length === size && hash('sha256', bundle, 'hex') === sha256
  if (bundle.length > MOST_BUNDLE_BYTES || !same)
    throw new Refusal('rollout.agent', 'the agent is not the one that the manifest names', {
      nextStep: 'see which it is: sallyport rollout verify',
    })
  return read.update
}
