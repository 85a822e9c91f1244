/** The events of rollouts: each act and turn, and each step of a device. docs/updates.md "Rollouts". */
import type { EventInput } from '#audit'
import { actorOf, srcOf } from '../events.ts'
import type { By } from './asked.ts'
import { isFailure, type DeviceUpdate, type Rollout } from './rollout.ts'

/** What a device came to. */
export function stepOf({ id, version, sha256 }: Rollout, update: DeviceUpdate): EventInput {
  const { device, state, code } = update
  return {
    code: 'device.update',
    message: `${device}: update to ${version} ${state}${code === null ? '' : ` (${code})`}`,
    status: isFailure(update) || state === 'refused' ? 'failure' : 'success',
    reason: code ?? undefined,
    device,
    data: { rollout: id, version, sha256, outcome: state },
  }
}

/** What became of a rollout; `by`: who acted, where it was a person. */
export function changeOf(
  { id, version, sha256, zone, stages, stage, reason }: Rollout,
  message: string,
  act: string,
  by?: By,
): EventInput {
  const who =
    by === undefined
      ? {}
      : { actor: actorOf(by.subject), src: srcOf(by.source), decisions: [by.decision] }
  return {
    code: 'rollout.change',
    message: `${message} (${id}): ${reason}`,
    status: 'success',
    ...who,
    reason: id,
    data: { rollout: id, act, version, sha256, zone: zone ?? undefined, percent: stages[stage] },
  }
}
