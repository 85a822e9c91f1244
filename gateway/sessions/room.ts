/** What deciding about sessions needs: the stores, who is here, the log, policy and identity. */
import type { AuditLog } from '#audit'
import type { Peer, Stranger } from '#ca'
import type { Input, Observed, Partially, Trigger } from '#policy'
import type { Decisions } from '../decisions.ts'
import type { Device, DeviceStore, Process } from '../devices/device.ts'
import type { Presence, Registry } from '../devices/presence.ts'
import {
  clientFacts,
  deviceFacts,
  glassFacts,
  processFacts,
  standingFacts,
  tlsFacts,
  type Source,
} from '../facts.ts'
import { elevationOf, NOT_ELEVATED, type Elevation } from '../grants/elevation.ts'
import type { Grant } from '../grants/grant.ts'
import { during } from '../grants/window.ts'
import type { GrantStore } from '../grants/store.ts'
import type { Identity, Subject } from '../identity/index.ts'
import type { Recordings } from '../recordings/recordings.ts'
import type { Allotments } from './allotment.ts'
import type { Consent, Questions } from './consent.ts'
import type { LiveSession } from './live.ts'
import type { SessionStore } from './session.ts'

export interface SessionRoom {
  readonly log: Pick<AuditLog, 'append' | 'state' | 'admit'>
  readonly store: SessionStore
  readonly grants: GrantStore
  readonly devices: DeviceStore
  readonly registry: Registry
  readonly decisions: Decisions
  readonly identity: Pick<Identity, 'current' | 'loginOf'>
  readonly live: Map<string, LiveSession>
  /** Silent, and their end is not in the log yet: heartbeats name them still. */
  readonly ending: Set<LiveSession>
  readonly recordings: Pick<Recordings, 'admit'>
  /** What people at devices are being asked. */
  readonly questions: Questions
  /** What the sessions of grants that limit their octets may still carry. */
  readonly allotments: Allotments
  /** Whether the certificate a tunnel was admitted with still holds: read from the store, each time. */
  readonly stands: (peer: Peer) => Promise<Peer | Stranger>
  /** Epoch milliseconds. */
  readonly now: () => number
  /** Told once of every session whose connections are silent. */
  readonly ended: (session: LiveSession) => void
  /** Told of failures that have no caller to go to. */
  readonly report: (error: unknown, what: string) => void
}

/** The thing that is asked for, as it stands now. */
export interface Target {
  readonly device: Device
  readonly process: Process
  readonly presence: Presence | undefined
  /** Its owner has cut it off. */
  readonly island: boolean
}

export async function findTarget(
  room: Pick<SessionRoom, 'devices' | 'registry'>,
  device: string,
  process: string,
): Promise<Target | undefined> {
  const [found, registered] = await Promise.all([
    room.devices.find(device),
    room.devices.findProcess(device, process),
  ])
  if (found === undefined || registered === undefined) return undefined
  return {
    device: found,
    process: registered,
    presence: room.registry.find(device),
    island: room.registry.isCutOff(device),
  }
}

/** The grant as it stands now: of one whose window comes back, the one that is open or opens next. */
export async function findStanding(
  room: Pick<SessionRoom, 'grants' | 'now'>,
  id: string,
): Promise<Grant | undefined> {
  const grant = await room.grants.find(id)
  return grant === undefined ? undefined : during(grant, Math.floor(room.now() / 1000))
}

/**
 * The grants to write that a session of `subject` under `own` is decided on as well. Only a Modbus session can be held
 * to what they say, so for others nobody asks.
 */
export async function findElevation(
  room: Pick<SessionRoom, 'grants' | 'now'>,
  of: {
    readonly subject: { readonly id: string }
    readonly device: string
    readonly process: string
    readonly kind: string
  },
  own: Grant,
): Promise<Elevation> {
  if (of.kind !== 'modbus') return NOT_ELEVATED
  const now = Math.floor(room.now() / 1000)
  const { device, process } = of
  const requester = of.subject.id
  const writes = await room.grants.writes({ requester, device, process, now })
  return elevationOf(
    own,
    writes.map((grant) => during(grant, now)),
    now,
  )
}

/** The thing that is asked for, and who at the device has said yes to that; null: nobody. */
export type Asked = Target & { readonly consent: Consent | null }

/** The question `session.open` and `session.reevaluate` share. */
export function sessionFacts(
  subject: Subject,
  source: Source,
  target: Asked,
  grants: readonly Grant[],
  observed: Observed | null,
): Partially<Input> {
  return {
    subject: { ...subject, break_glass: glassFacts(grants[0]) },
    client: clientFacts(source),
    tls: tlsFacts(source, target.presence),
    device: {
      ...deviceFacts(target.device, target.presence, target.island),
      consent: target.consent,
    },
    process: processFacts(target.process, observed),
    grants: grants.flatMap(standingFacts),
  }
}

/** The session itself, as the points that decide on an open one see it. */
export function openedFacts(
  session: LiveSession,
  trigger: Trigger | null,
): NonNullable<Partially<Input['session']>> {
  return {
    id: session.id,
    opened_at: Math.floor(session.openedAt / 1000),
    bytes_in: session.bytesIn,
    bytes_out: session.bytesOut,
    last_activity_at: Math.floor(session.lastActivityAt / 1000),
    decision_id: session.decisions.at(-1)?.id ?? null,
    trigger,
  }
}
