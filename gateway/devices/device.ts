/** Devices and the processes registered on them, as the gateway remembers them. */
import type { RevocationReason } from '#ca'

export type DeviceState = 'pending' | 'active' | 'quarantined' | 'revoked' | 'retired'

export interface Device {
  readonly id: string
  readonly zone: string
  readonly state: DeviceState
  readonly labels: Readonly<Record<string, string>>
  /** Epoch seconds. */
  readonly created_at: number
  /** Of a device that gateways share, the last time that all of its certificates ended; ending.ts. */
  readonly ending?: DeviceEnding
}

/** That whatever was issued to a device, by whichever gateway, counts no more. */
export interface DeviceEnding {
  /** Names this one and no other. */
  readonly mark: string
  readonly reason: RevocationReason
  /** The mark of the last one whose reason was `keyCompromise`; null: none was. */
  readonly compromised: string | null
}

/** `spawn`: a program that the agent starts for each connection; all others are reached. */
export type ProcessKind = 'tcp' | 'udp' | 'http' | 'modbus' | 'ssh' | 'spawn'

/** Where a process is: on the device, started there by the agent, or on the network beside it. */
export type Locality = 'device' | 'spawned' | 'lan'

/** The streams that carry connections to a process of that kind. */
export function streamKindOf(kind: string): 'tcp' | 'udp' | 'spawn' {
  return kind === 'udp' || kind === 'spawn' ? kind : 'tcp'
}

/** How a process of that kind is used: as its streams are carried, and in a browser or by ssh where it speaks that, or may. */
export function usesOf(kind: string): readonly ('tcp' | 'udp' | 'spawn' | 'app' | 'ssh')[] {
  if (kind === 'http') return ['tcp', 'app']
  return kind === 'ssh' || kind === 'tcp' ? ['tcp', 'ssh'] : [streamKindOf(kind)]
}

/** What must answer. A key that is absent is not checked. */
export interface Expectation {
  readonly exe?: readonly string[] | undefined
  readonly sha256?: readonly string[] | undefined
  readonly uid?: readonly number[] | undefined
  readonly unit?: readonly string[] | undefined
  readonly script_sha256?: readonly string[] | undefined
  readonly image?: readonly string[] | undefined
}

export interface Process {
  readonly device: string
  readonly id: string
  readonly kind: ProcessKind
  readonly locality: Locality
  readonly port: number | null
  readonly expect: Expectation
}

/** Every method resolves when the change is durable. */
export interface DeviceStore {
  /** False where a device of that id exists. */
  add(device: Device): Promise<boolean>
  find(id: string): Promise<Device | undefined>
  list(): Promise<readonly Device[]>
  /** Undefined where there is no such device or its state is not one of `from`. */
  move(id: string, from: readonly DeviceState[], to: DeviceState): Promise<Device | undefined>
  putProcess(process: Process): Promise<void>
  findProcess(device: string, id: string): Promise<Process | undefined>
  processes(device: string): Promise<readonly Process[]>
}
