/** The last things done to a device's identity: taken out of service, or handed to another machine. */
import type { DeviceToken } from '#api'
import type { AuditLog, EventInput } from '#audit'
import type { DecisionRef } from '../decisions.ts'
import { Refusal } from '../problem.ts'
import type { Device, DeviceState, DeviceStore } from './device.ts'
import type { EndingDevices } from './ending.ts'
import { moveRecorded } from './move.ts'
import { revokeAndCut, type Reach, type RevocationRoom, type Revoked } from './revoke.ts'
import { deviceToken, type TokenRoom } from './token.ts'

export interface RetirementRoom {
  readonly devices: DeviceStore
  readonly revocation: RevocationRoom
  readonly tokens: TokenRoom
  readonly log: Pick<AuditLog, 'append'>
  /** Has the other gateways end what they issued to the device; absent where there are none. */
  readonly ending: Pick<EndingDevices, 'end'> | undefined
}

/** Who asked, as the event says it. */
export interface Asker {
  readonly actor: EventInput['actor']
  readonly src: EventInput['src']
  readonly decision: DecisionRef
  /** The person's own words. */
  readonly words: string
}

type Call = Omit<Reach, 'reason'>

/**
 * Takes a device out of service for good: certificates and tokens revoked, tunnels and sessions
 * cut, state `retired`. Doing it again completes what a crash left. Throws as `revokeAndCut`.
 */
export async function decommission(
  room: RetirementRoom,
  device: Device,
  call: Call,
  asker: Asker,
): Promise<{ readonly device: Device; readonly revoked: Revoked }> {
  const { id } = device
  const reach = { ...call, reason: 'cessationOfOperation' } as const
  const revoked = await endEverywhere(room, id, reach)
  const { actor, src, decision, words } = asker
  const event = {
    code: 'device.retire',
    message: `${id}: ${words}`,
    status: 'success',
    disposition: 'revoked',
    actor,
    src,
    device: id,
    decisions: [decision],
    data: {
      detail: {
        certificates: revoked.row.serials,
        tunnels: revoked.tunnels,
        sessions: revoked.sessions.map((session) => session.id),
        time_to_cut_ms: revoked.timeToCutMs,
      },
    },
  } as const
  await room.log.append(event)
  const from = ['pending', 'active', 'quarantined', 'revoked', 'retired'] as const
  const after = await moveRecorded(room, event, { id, from, to: 'retired' })
  return { device: after ?? changed(id, 'retired'), revoked }
}

/**
 * Revokes everything of a device and keeps it in the inventory; `replace` is the way back. A device
 * in quarantine stays there, so that nobody lifts one by revoking. Throws as `revokeAndCut`.
 */
export async function revokeDevice(
  room: RetirementRoom,
  device: Device,
  reach: Reach,
): Promise<{ readonly device: Device; readonly revoked: Revoked }> {
  const revoked = await endEverywhere(room, device.id, reach)
  const after = await room.devices.move(device.id, ['pending', 'active'], 'revoked')
  return { device: after ?? device, revoked }
}

/** What is left to do where an id has been retired: nothing gives it back. */
export const ANOTHER_ID = 'add the new machine under an id of its own: `sallyport device add ID`'

/**
 * Readies the identity for another machine: the old certificates and tokens are revoked, the device
 * waits under the same id, and a new one-time token is made. Throws Refusal `device.state` for a
 * retired or quarantined device, and as `revokeAndCut`.
 */
export async function replace(
  room: RetirementRoom,
  device: Device,
  call: Call,
): Promise<{ readonly device: Device; readonly token: DeviceToken; readonly revoked: Revoked }> {
  const { id, state } = device
  if (state === 'retired')
    throw new Refusal('device.state', `${id} is retired, and stays so`, {
      nextStep: ANOTHER_ID,
    })
  if (state === 'quarantined')
    throw new Refusal('device.state', `${id} is in quarantine`, {
      nextStep: `end the quarantine first: sallyport device resume ${id} --reason …`,
    })
  const reach = { ...call, reason: 'superseded' } as const
  const revoked = await endEverywhere(room, id, reach)
  const after = await moved(room, id, ['pending', 'active', 'revoked'], 'pending')
  return { device: after, token: await deviceToken(room.tokens, id), revoked }
}

/** Here at once; the others end what is of them before they use the device's row again. */
async function endEverywhere(
  { revocation, ending }: RetirementRoom,
  device: string,
  reach: Reach,
): Promise<Revoked> {
  const revoked = await revokeAndCut(revocation, { device }, reach)
  await ending?.end(device, reach.reason)
  return revoked
}

async function moved(
  room: RetirementRoom,
  id: string,
  from: readonly DeviceState[],
  to: DeviceState,
): Promise<Device> {
  const device = await room.devices.move(id, from, to)
  return device ?? changed(id, to)
}

function changed(id: string, to: DeviceState): never {
  throw new Refusal('device.state', `the device was changed meanwhile and is not ${to}`, {
    nextStep: `look at it again: sallyport device show ${id}`,
  })
}
