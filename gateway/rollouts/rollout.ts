/**
 * A rollout: one update of the agent, given to a zone share by share. Which devices a share is, what counts as a
 * failure, and when the next share's turn comes; no store, no clock. docs/updates.md "Rollouts".
 */
import { hash } from 'node:crypto'

export type RolloutState = 'running' | 'paused' | 'aborted' | 'done'

/** Instants are epoch seconds. */
export interface Rollout {
  readonly id: string
  /** The signed text, as devices get it. */
  readonly manifest: string
  readonly version: string
  readonly sha256: string
  /** Seconds in which an agent that was started must be heard. */
  readonly health: number
  readonly not_after: number
  /** Null: all zones. */
  readonly zone: string | null
  /** Per cent of the devices, rising. */
  readonly stages: readonly number[]
  /** Which of them is on, from 0, and since when. */
  readonly stage: number
  readonly stage_at: number
  /** A stage lasts so long at least. */
  readonly soak_s: number
  /** One failure more, and it pauses by itself. */
  readonly max_failures: number
  readonly state: RolloutState
  /** Of the last change. */
  readonly reason: string
  readonly by: string
  readonly at: number
  /** When somebody last let it go on. */
  readonly resumed_at?: number
}

/** `lost`: it started the update, or one that does not say when it does was taking it, and was not seen again. */
export type UpdateState =
  | 'offered'
  | 'taking'
  | 'starting'
  | 'trial'
  | 'updated'
  | 'refused'
  | 'failed'
  | 'lost'

/** What is known of one device in one rollout. */
export interface DeviceUpdate {
  readonly rollout: string
  readonly device: string
  readonly state: UpdateState
  /** Why it was refused or failed: a code of docs/updates.md. */
  readonly code: string | null
  /** When it was last heard of, or came to its end; epoch seconds. */
  readonly at: number
  /** What is installed there, and the Node that runs, where the device says so. */
  readonly kind?: 'file' | 'executable'
  readonly node?: string
  /** A failure that somebody knew of who let the rollout go on: it does not count again. */
  readonly excused?: true
  /** It was taking it, and has said since that it is not: it left the rollout, or forgot it, and started nothing. */
  readonly idle?: true
  /** It says when it starts the update: it starts nothing before that was heard, so while it is taking it there is nothing to be lost in. */
  readonly announces?: true
}

/** Later ones do not give way to earlier ones, whatever a device says. */
const RANK: Readonly<Record<UpdateState, number>> = {
  offered: 0,
  taking: 1,
  starting: 2,
  trial: 3,
  lost: 4,
  refused: 5,
  failed: 5,
  updated: 5,
}

/** Whether nothing more is to be expected of a device. */
export function isOver({ state }: DeviceUpdate): boolean {
  return RANK[state] >= RANK.lost
}

/** Whether `next` goes on from `before`. The same again only tells that the device is still there; who was lost may be found. */
export function follows(before: DeviceUpdate | undefined, next: DeviceUpdate): boolean {
  if (before === undefined || before.state === next.state || before.state === 'lost') return true
  return RANK[next.state] > RANK[before.state]
}

/** Refusals that say nothing against the update: the device takes none at all, or has it. */
const HARMLESS: ReadonlySet<string | null> = new Set([
  'update.unpinned',
  'update.unsupported',
  'update.rollback',
])

/** Whether it counts against the rollout. */
export function isFailure({ state, code }: DeviceUpdate): boolean {
  return state === 'failed' || state === 'lost' || (state === 'refused' && !HARMLESS.has(code))
}

/** Whether it is a failure that nobody has let the rollout go on with yet. */
export function counts(update: DeviceUpdate): boolean {
  return isFailure(update) && update.excused === undefined
}

/** Whether the device takes no such update, which is nobody's fault and proves nothing. */
function isUnable(update: DeviceUpdate | undefined): boolean {
  return update?.state === 'refused' && HARMLESS.has(update.code)
}

/** Where a device stands among 10,000 in this rollout: another place in another one, so that not always the same go first. */
export function placeOf(rollout: string, device: string): number {
  return Number.parseInt(hash('sha256', `${rollout}\n${device}`, 'hex').slice(0, 12), 16) % 10_000
}

/**
 * The devices whose turn has come, of all that there are: those of the share, and one more where the share is nobody, or
 * nobody who takes the update, so that one goes first all the same. Each share holds the ones before it.
 */
export function chosenOf<Of extends { readonly id: string; readonly zone: string }>(
  rollout: Pick<Rollout, 'id' | 'zone' | 'stages' | 'stage'>,
  devices: readonly Of[],
  updates: ReadonlyMap<string, DeviceUpdate>,
): readonly Of[] {
  const unable = ({ id }: Of) => isUnable(updates.get(id))
  const chosen = devices.filter((device) => isChosen(rollout, device))
  if (!chosen.every(unable)) return chosen
  const own = devices.filter(({ zone }) => rollout.zone === null || zone === rollout.zone)
  const place = ({ id }: Of) => placeOf(rollout.id, id)
  const first = own
    .filter((device) => !unable(device))
    .toSorted((one, other) => place(one) - place(other) || (one.id < other.id ? -1 : 1))
    .slice(0, 1)
  // Who takes none is in it still: where all are like that, there is nobody to wait for.
  return [...(chosen.length > 0 ? chosen : own.filter(unable)), ...first]
}

/** Whether the device is of the share that is on. */
export function isChosen(
  { id, zone, stages, stage }: Pick<Rollout, 'id' | 'zone' | 'stages' | 'stage'>,
  device: { readonly id: string; readonly zone: string },
): boolean {
  if (zone !== null && device.zone !== zone) return false
  return placeOf(id, device.id) < (stages[stage] ?? 0) * 100
}

/** Whether there are devices that both are for. */
export function meets(one: Pick<Rollout, 'zone'>, other: Pick<Rollout, 'zone'>): boolean {
  return one.zone === null || other.zone === null || one.zone === other.zone
}

/**
 * A trial is started three times at most, and each start has its time to be healthy; between two of them the service
 * manager pauses (`RestartSec`, 5 s) and Node loads, which is the grace. One that hangs is killed 120 s after its time
 * (agent-tunnel/boot/boot.ts), and is over with that unless the disk takes no word of it: three times that, too, are
 * within the while for the way.
 */
const TRIES = 3
const GRACE_S = 15
const WAY_S = 600

/** A device that is not connected is not waited for any longer than that since it was last heard of, seconds. */
export function lostAfter({ health }: Pick<Rollout, 'health'>): number {
  return TRIES * (health + GRACE_S) + WAY_S
}

/**
 * Whether a device that is not connected is not waited for any longer. `since`: epoch seconds from which it could have
 * been heard; a rollout that was held, or a gateway that was down, is no absence.
 */
export function isLost(
  rollout: Rollout,
  update: DeviceUpdate,
  since: number,
  now: number,
): boolean {
  if (isOver(update) || update.state === 'offered' || update.idle === true) return false
  if (update.state === 'taking' && update.announces === true) return false
  return now - Math.max(update.at, rollout.resumed_at ?? 0, since) >= lostAfter(rollout)
}

/** What decides how a rollout goes on. */
export interface Standing {
  /** Every device that may get it at all: registered, in use, in the zone. */
  readonly devices: readonly { readonly id: string; readonly zone: string }[]
  readonly connected: ReadonlySet<string>
  readonly updates: ReadonlyMap<string, DeviceUpdate>
  /** Epoch seconds. */
  readonly now: number
}

export type Turn =
  | { readonly type: 'stay' }
  | { readonly type: 'pause'; readonly reason: string }
  | { readonly type: 'stage' }
  | { readonly type: 'done' }

/**
 * What is due for a rollout that runs. The next stage comes when this one has lasted, everybody of it who is connected is
 * over with it, and at least one of it runs the update: a stage that nobody was there for proves nothing. Where not one
 * device takes it, nothing is left to be proven.
 */
export function turnOf(rollout: Rollout, { devices, connected, updates, now }: Standing): Turn {
  const failed = [...updates.values()].filter(counts)
  if (failed.length > rollout.max_failures) {
    const codes = [...new Set(failed.map(({ state, code }) => code ?? state))].join(', ')
    return { type: 'pause', reason: `${failed.length} failed: ${codes}` }
  }
  if (now >= rollout.not_after) return { type: 'pause', reason: 'the update is not taken any more' }
  const chosen = chosenOf(rollout, devices, updates)
  const over = ({ id }: { readonly id: string }) => {
    const update = updates.get(id)
    return update !== undefined && isOver(update)
  }
  if (rollout.stage === rollout.stages.length - 1)
    return chosen.length > 0 && chosen.every(over) ? { type: 'done' } : { type: 'stay' }
  const settled = chosen.filter(({ id }) => connected.has(id)).every(over)
  const proven =
    chosen.some(({ id }) => updates.get(id)?.state === 'updated') ||
    (chosen.length > 0 && chosen.every(({ id }) => isUnable(updates.get(id))))
  const lasted = now - rollout.stage_at >= rollout.soak_s
  return settled && proven && lasted ? { type: 'stage' } : { type: 'stay' }
}

/** Where one stands in the list. */
export type RolloutPlace = Pick<Rollout, 'at' | 'id'>

/** What rollouts need of a store. Every method resolves when the change is durable. */
export interface RolloutStore {
  /** False where one is open, running or paused, that is for the same devices. */
  addRollout(rollout: Rollout): Promise<boolean>
  findRollout(id: string): Promise<Rollout | undefined>
  /** The newest first, behind `after`. */
  listRollouts(limit: number, after?: RolloutPlace): Promise<readonly Rollout[]>
  /** Those running or paused. */
  openRollouts(): Promise<readonly Rollout[]>
  /** Undefined where there is none, or its state is not one of `from`. */
  changeRollout(
    id: string,
    from: readonly RolloutState[],
    change: Partial<Pick<Rollout, 'state' | 'stage' | 'stage_at' | 'reason' | 'resumed_at'>>,
  ): Promise<Rollout | undefined>
  /** Replaces what is known of the device in that rollout. */
  putUpdate(update: DeviceUpdate): Promise<void>
  findUpdate(rollout: string, device: string): Promise<DeviceUpdate | undefined>
  updatesOf(rollout: string): Promise<readonly DeviceUpdate[]>
  /** By device, behind `after`. */
  listUpdates(rollout: string, limit: number, after?: string): Promise<readonly DeviceUpdate[]>
}
