/**
 * Devices that gateways share, where each has a CA of its own: when a device is revoked, replaced or retired at one of them, its row
 * says that all of its certificates have ended, and every gateway ends its own before it gives that row to anybody. By a mark and
 * not by the time: no clock is compared. A gateway that was down meanwhile comes to it when it is asked about the device next.
 */
import { randomUUID } from 'node:crypto'
import type { RevocationReason, RevocationRow } from '#ca'
import { inTurn } from '../grants/turn.ts'
import type { Device, DeviceEnding, DeviceState, DeviceStore, Process } from './device.ts'
import { revokeDurably, type RevocationRoom } from './revoke.ts'

/** Which ending of a device this gateway has carried out last. */
export type Followed = Pick<DeviceEnding, 'mark' | 'compromised'>

/** In the file that has the certificates too: whoever goes back to an older one ends them again. */
export interface FollowedStore {
  followed(device: string): Promise<Followed | undefined>
  follow(device: string, ending: Followed): Promise<void>
}

/** Devices as gateways share them. */
export interface SharedDevices extends DeviceStore {
  /** Says that all certificates of the device have ended. Gives the device as it was before; undefined where there is none. */
  end(device: string, mark: string, reason: RevocationReason): Promise<Device | undefined>
}

export interface EndingRoom extends Pick<RevocationRoom, 'tenant' | 'store' | 'log' | 'now'> {
  readonly devices: SharedDevices
  readonly own: FollowedStore
  /** The devices with a certificate of this gateway that stands. */
  readonly certified: () => Promise<ReadonlySet<string>>
  /** Ends what stands on what has ended here. Nobody waits for it: what asks about a device may be what it ends. */
  readonly cut: (row: RevocationRow) => void
}

/** Rejects with StoreError, and with Refusal `log.unavailable` or `store.unavailable` where an ending cannot be carried out. */
export class EndingDevices implements DeviceStore {
  readonly #room: EndingRoom
  /** Marks that were carried out, by device. */
  readonly #known = new Map<string, string>()
  /** Told of every revocation once it holds: who publishes lists publishes a new one. */
  revoked: (row: RevocationRow) => void = () => {}
  constructor(room: EndingRoom) {
    this.#room = room
  }

  /** When it resolves, no certificate of this gateway counts that was issued to the device before its ending. */
  async find(id: string): Promise<Device | undefined> {
    const device = await this.#room.devices.find(id)
    if (device?.ending === undefined || this.#known.get(id) === device.ending.mark) return device
    return await inTurn(this, id, async () => {
      // Another may have come while this waited.
      const now = await this.#room.devices.find(id)
      if (now !== undefined) await this.#carryOut(now)
      return now
    })
  }

  /**
   * Has all gateways end what they issued to the device. The caller has ended what is of this one, and makes no
   * new token before this has resolved.
   */
  async end(id: string, reason: RevocationReason): Promise<void> {
    await inTurn(this, id, async () => {
      const mark = randomUUID()
      const before = await this.#room.devices.end(id, mark, reason)
      if (before === undefined) return
      // What another said in the same moment may bar keys, which the caller's reason did not.
      await this.#carryOut(before)
      const compromised = reason === 'keyCompromise' ? mark : before.ending?.compromised
      await this.#follow(id, { mark, compromised: compromised ?? null })
    })
  }

  /** Carries out what was said of these devices; without a set of all that have a certificate here. */
  async follow(devices?: ReadonlySet<string>): Promise<void> {
    for (const id of devices ?? (await this.#room.certified())) await this.find(id)
  }

  async #carryOut({ id, ending }: Device): Promise<void> {
    if (ending === undefined) return
    const { own, tenant, store, log, now, cut } = this.#room
    const done = await own.followed(id)
    if (done?.mark !== ending.mark) {
      const { mark, compromised } = ending
      const leaked = compromised !== null && compromised !== done?.compromised
      const reason = leaked ? 'keyCompromise' : ending.reason
      const reach = { reason, requestId: mark }
      const row = await revokeDurably({ tenant, store, log, now }, { device: id }, reach)
      this.revoked(row)
      cut(row)
    }
    await this.#follow(id, ending)
  }

  async #follow(id: string, { mark, compromised }: Followed): Promise<void> {
    await this.#room.own.follow(id, { mark, compromised })
    this.#known.set(id, mark)
  }

  add(device: Device): Promise<boolean> {
    return this.#room.devices.add(device)
  }
  list(): Promise<readonly Device[]> {
    return this.#room.devices.list()
  }
  move(id: string, from: readonly DeviceState[], to: DeviceState): Promise<Device | undefined> {
    return this.#room.devices.move(id, from, to)
  }
  putProcess(process: Process): Promise<void> {
    return this.#room.devices.putProcess(process)
  }
  findProcess(device: string, id: string): Promise<Process | undefined> {
    return this.#room.devices.findProcess(device, id)
  }
  processes(device: string): Promise<readonly Process[]> {
    return this.#room.devices.processes(device)
  }
}
