/** Which devices are here now: one live tunnel each, what its agent said, and what it observes. */
import type { Peer } from '#ca'
import type { Observed } from '#policy'
import type { Tunnel } from '#tunnel'

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

  /**
   * Puts a tunnel in place and gives the one it replaced, which the caller closes. A tunnel that is
   * older than the one in place changes nothing.
   */
  put(presence: Presence): Placing {
    const before = this.#here.get(presence.device)
    if (before !== undefined && presence.epoch < before.epoch) return { placed: false }
    this.#here.set(presence.device, presence)
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
