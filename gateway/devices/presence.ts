/** Which devices are here now: one live tunnel each, what its agent said, and what it observes. */
import type { Peer, RevocationTarget } from '#ca'
import type { Observed } from '#policy'
import type { Tunnel } from '#tunnel'
import type { Looks } from './looks.ts'

export interface DeviceTls {
  readonly version: string
  readonly cipher: string
  /** As the device says: only the side that dials can see the group. */
  readonly group: string | null
  readonly pq: boolean
}

/** What owns each target's listening socket, as last reported; null where it could not be seen. */
export type Listeners = ReadonlyMap<string, Observed | null>

export interface Presence {
  readonly device: string
  readonly tunnel: Tunnel
  readonly peer: Peer
  readonly tls: DeviceTls
  readonly agent: { readonly version: string; readonly version_int: number }
  /** Counts up per tunnel on this node; a larger one is the newer. */
  readonly epoch: number
  /** Epoch milliseconds. */
  readonly since: number
  readonly listeners: Listeners
  /** Has the device look again who listens. */
  readonly looks: Pick<Looks, 'ask'>
  /**
   * Ends the tunnel because its permission was withdrawn at `withdrawnAt` (monotonic milliseconds):
   * it is told why, and its socket is gone soon whether it listens or not. Resolves when it is.
   */
  cut(code: string, message: string, withdrawnAt: number): Promise<void>
  /** When that was; undefined while nothing was withdrawn. */
  withdrawnAt(): number | undefined
}

/** What came of putting a tunnel in place; one that came late is not in place, and its caller closes it. */
type Placing =
  | { readonly placed: true; readonly replaced: Presence | undefined }
  | { readonly placed: false }

export interface PresenceChange {
  readonly kind: 'up' | 'down' | 'listeners'
  readonly presence: Presence
}

/** The node's registry of tunnels. A newer tunnel of a device takes over from the older one. */
export class Registry {
  readonly #here = new Map<string, Presence>()
  /** Devices by what their tunnel was admitted with; a revocation must not search. */
  readonly #bySerial = new Map<string, Set<string>>()
  readonly #byIssuer = new Map<string, Set<string>>()
  readonly #cutOff = new Set<string>()
  readonly #watchers = new Set<(change: PresenceChange) => void>()

  get size(): number {
    return this.#here.size
  }

  find(device: string): Presence | undefined {
    return this.#here.get(device)
  }

  all(): readonly Presence[] {
    return [...this.#here.values()]
  }

  /** Whether the owner of a device cut it off, as it said when it left; until it is back. */
  isCutOff(device: string): boolean {
    return this.#cutOff.has(device)
  }

  /** Remembers that; a device that has a tunnel again is not cut off. */
  cutOff(device: string): void {
    if (!this.#here.has(device)) this.#cutOff.add(device)
  }

  /** The tunnels that a revocation ends. */
  matching(target: RevocationTarget): readonly Presence[] {
    const devices =
      'device' in target
        ? [target.device]
        : 'serial' in target
          ? this.#bySerial.get(target.serial)
          : this.#byIssuer.get(target.issuer)
    return [...(devices ?? [])].flatMap((device) => this.#here.get(device) ?? [])
  }

  #index({ device, peer }: Presence): void {
    join(this.#bySerial, peer.serial, device)
    join(this.#byIssuer, peer.issuer, device)
  }

  #unindex({ device, peer }: Presence): void {
    leave(this.#bySerial, peer.serial, device)
    leave(this.#byIssuer, peer.issuer, device)
  }

  /**
   * Puts a tunnel in place and gives the one it replaced, which the caller closes. A tunnel that is
   * older than the one in place changes nothing.
   */
  put(presence: Presence): Placing {
    const before = this.#here.get(presence.device)
    if (before !== undefined && presence.epoch < before.epoch) return { placed: false }
    if (before !== undefined) this.#unindex(before)
    this.#here.set(presence.device, presence)
    this.#cutOff.delete(presence.device)
    this.#index(presence)
    this.#tell({ kind: 'up', presence })
    return { placed: true, replaced: before }
  }

  /** Takes over newer listener facts, unless the tunnel that reports them has been replaced. */
  report(device: string, tunnel: Tunnel, listeners: Listeners): void {
    const before = this.#here.get(device)
    if (before === undefined || before.tunnel !== tunnel) return
    const presence = { ...before, listeners }
    this.#here.set(device, presence)
    this.#tell({ kind: 'listeners', presence })
  }

  /** Forgets a tunnel that has ended, unless a newer one has taken its place. */
  remove(device: string, tunnel: Tunnel): Presence | undefined {
    const before = this.#here.get(device)
    if (before === undefined || before.tunnel !== tunnel) return undefined
    this.#here.delete(device)
    this.#unindex(before)
    this.#tell({ kind: 'down', presence: before })
    return before
  }

  onChange(watcher: (change: PresenceChange) => void): void {
    this.#watchers.add(watcher)
  }

  #tell(change: PresenceChange): void {
    for (const watcher of this.#watchers) watcher(change)
  }
}

type Index = Map<string, Set<string>>

function join(index: Index, key: string, device: string): void {
  const devices = index.get(key)
  if (devices === undefined) index.set(key, new Set([device]))
  else devices.add(device)
}

function leave(index: Index, key: string, device: string): void {
  const devices = index.get(key)
  devices?.delete(device)
  if (devices?.size === 0) index.delete(key)
}
