/** A device's change of state, recorded before it holds: where it then does not, the log says so behind it. */
import type { AuditLog, EventInput } from '#audit'
import { orTakenBack, unconfirmed } from '../grants/kept.ts'
import type { Device, DeviceState, DeviceStore } from './device.ts'

/** An event about the change, of success: what the log has said of it by now. */
export type MoveEvent = EventInput & {
  readonly code: 'device.quarantine' | 'device.resume' | 'device.retire'
}

/**
 * Undefined where the device is not there or in none of the states `from`, which the log then says, with `effect` `none`.
 * Rejects as the store does, behind a failure with `effect` `unknown`.
 */
export async function moveRecorded(
  room: { readonly devices: Pick<DeviceStore, 'move'>; readonly log: Pick<AuditLog, 'append'> },
  event: MoveEvent,
  { id, from, to }: { id: string; from: readonly DeviceState[]; to: DeviceState },
): Promise<Device | undefined> {
  const data = { ...event.data }
  const unkept = { ...event, ...unconfirmed(event.message ?? event.code, data) } as EventInput
  const moved = await orTakenBack(room, unkept, () => room.devices.move(id, from, to))
  if (moved === undefined)
    await room.log.append({
      ...event,
      status: 'failure',
      disposition: undefined,
      message: `without effect, the device was changed meanwhile: ${event.message ?? event.code}`,
      reason: 'device.state',
      data: { ...data, effect: 'none' },
    } as EventInput)
  return moved
}
