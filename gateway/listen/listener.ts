/** What the tunnel end of the one port works on; the node gives it at its start. */
import type { AuditLog } from '#audit'
import type { CaStore, Issuers } from '#ca'
import type { Openings } from '../access/openings.ts'
import type { Decisions } from '../decisions.ts'
import type { DeviceStore } from '../devices/device.ts'
import type { InventoryWatch } from '../devices/drift.ts'
import type { Registry } from '../devices/presence.ts'
import type { Rollouts } from '../rollouts/rollouts.ts'
import type { Reauthorization } from '../sessions/reevaluate.ts'
import type { SessionRoom } from '../sessions/room.ts'
import type { WitnessRoom } from '../witnesses.ts'
import type { Allowance } from './allowance.ts'
import type { Quiet } from './quiet.ts'

export interface TunnelListener {
  readonly tenant: string
  readonly gateway: string
  readonly issuers: () => Issuers
  readonly caStore: CaStore
  readonly devices: DeviceStore
  readonly registry: Registry
  /** Told of what each device exposes. */
  readonly inventories: Pick<InventoryWatch, 'seen'>
  readonly decisions: Decisions
  readonly log: Pick<AuditLog, 'append'>
  /** The log as it is shown to devices, which are its witnesses. */
  readonly witnesses: Pick<WitnessRoom, 'show' | 'accuse' | 'origin'>
  readonly room: SessionRoom
  readonly reauthorization: Reauthorization
  /** Gives out updates, and hears what became of them. */
  readonly rollouts: Pick<Rollouts, 'heard' | 'left'>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
  /**
   * Told of connections that were refused, for the node's own log; `suppressed` is how many like it
   * were not told since the last.
   */
  readonly refused: (code: string, from: string, detail: string, suppressed: number) => void
  /** How often one device may come, and one session. */
  readonly allowance: Allowance
  readonly sessions: Allowance
  /** In whose turn clients' connections are opened. */
  readonly openings: Openings
  /** Somebody at this address is a device of this node. */
  readonly proven: (address: string) => void
  /** Holds back what strangers repeat, by code and source. */
  readonly quiet: Quiet
}
