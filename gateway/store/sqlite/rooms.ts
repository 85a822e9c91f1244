/** The tables a node keeps: one row per room, its migrations and its operations. Runs in the worker. */
import type { DatabaseSync } from 'node:sqlite'
import { caRoom } from './ca/room.ts'
import { answersRoom } from './answers.ts'
import { auditorsRoom } from './auditors.ts'
import { devicesRoom } from './devices.ts'
import { directoryRoom } from './directory.ts'
import { enrolmentsRoom } from './enrolments.ts'
import { inventoriesRoom } from './inventories.ts'
import { grantsRoom } from './grants.ts'
import { invitationsRoom } from './invitations.ts'
import { locksRoom } from './locks.ts'
import { noticesRoom } from './notices.ts'
import { passkeysRoom } from './passkeys.ts'
import { rolloutsRoom } from './rollouts.ts'
import { servicesRoom } from './services.ts'
import { sessionsRoom } from './sessions.ts'
import { totpRoom } from './totp.ts'
import { identityRoom, oidcRoom } from './identity.ts'

/** What an operation takes and gives crosses a thread, so it is structured-clone data. */
export type Operation = (db: DatabaseSync, args: never) => unknown

export interface Room {
  /** Statements in order; index + 1 is the version of the room's schema. Never edit one that landed. */
  readonly migrations: readonly string[]
  /** Each runs inside a transaction; a throw rolls back that operation alone. */
  readonly operations: Readonly<Record<string, Operation>>
}

export const rooms = {
  answers: answersRoom,
  auditors: auditorsRoom,
  ca: caRoom,
  devices: devicesRoom,
  directory: directoryRoom,
  enrolments: enrolmentsRoom,
  grants: grantsRoom,
  inventories: inventoriesRoom,
  invitations: invitationsRoom,
  locks: locksRoom,
  notices: noticesRoom,
  passkeys: passkeysRoom,
  rollouts: rolloutsRoom,
  services: servicesRoom,
  sessions: sessionsRoom,
  totp: totpRoom,
  identity: identityRoom,
  oidc: oidcRoom,
} as const satisfies Record<string, Room>

export type Rooms = typeof rooms
