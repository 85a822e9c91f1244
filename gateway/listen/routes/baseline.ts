/** `/devices/:id/baseline`: what a device exposes, what of it a person accepted, and how they differ. */
import { Type } from 'typebox'
import { AcceptBaseline, DeviceBaseline, Name } from '#api'
import type { Difference as DifferenceView, Exposed as ExposedView } from '#api'
import type { InventoryWatch } from '../../devices/drift.ts'
import { differences, hasDrift } from '../../devices/inventory.ts'
import type { Baseline, Exposed, KeptInventory } from '../../devices/inventory.ts'
import type { DeviceStore } from '../../devices/device.ts'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

/** What is known of the devices' inventories. */
export type Inventories = Pick<InventoryWatch, 'current' | 'baseline'>

export interface BaselineRoutes extends Omit<Authorization, 'api'> {
  readonly devices: Pick<DeviceStore, 'find'>
  readonly inventories: Inventories & Pick<InventoryWatch, 'accept'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

const Params = Type.Object({ id: Name })

/** Whether a device exposes other than was accepted; null where nothing was. */
export async function driftOf(store: Inventories, device: string): Promise<boolean | null> {
  const [current, accepted] = await Promise.all([store.current(device), store.baseline(device)])
  if (accepted === undefined) return null
  return hasDrift(differences(accepted.processes, current?.processes ?? []))
}

/** GET shows; POST accepts what was shown, named by its hash: `baseline.unseen`, `baseline.changed`. */
export function baselineRoutes(api: Api, room: BaselineRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/devices/:id/baseline',
    { schema: { params: Params, response: { 200: DeviceBaseline } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'device:show', { kind: 'device', id })
      await known(room, id)
      return await view(room, id)
    },
  )
  api.server.post(
    '/api/v1/devices/:id/baseline',
    { schema: { params: Params, body: AcceptBaseline, response: { 200: DeviceBaseline } } },
    async (request) => {
      const { id } = request.params
      const { hash, reason } = request.body
      // Whoever may say what must answer may say that what answers is right.
      const target = { kind: 'device', id }
      const caller = await authorize(authorization, request, 'process:register', target)
      await known(room, id)
      const current = await room.inventories.current(id)
      if (current === undefined)
        throw new Refusal('baseline.unseen', `${id} has not told what it exposes`, {
          nextStep: 'start its agent; it tells when it connects',
        })
      if (current.hash !== hash) throw changed(id)
      await room.log.append({
        code: 'device.inventory',
        message: `${id}: what it exposes is accepted as its baseline${reason === undefined ? '' : `: ${reason}`}`,
        status: 'success',
        actor: actorOf(caller.subject),
        src: srcOf(caller.source),
        device: id,
        decisions: [caller.decision],
        data: { baseline: { hash, processes: current.processes.length }, drift: false },
      })
      const { processes } = current
      const at = Math.floor(room.now() / 1000)
      await room.inventories.accept(id, { hash, processes, at, by: caller.subject.id })
      return await view(room, id)
    },
  )
}

async function known({ devices }: BaselineRoutes, id: string): Promise<void> {
  if ((await devices.find(id)) === undefined)
    throw new Refusal('device.unknown', `no device ${id}`, {
      nextStep: 'see `sallyport device list`',
    })
}

function changed(id: string): Refusal {
  return new Refusal('baseline.changed', `what ${id} exposes is not what was shown any more`, {
    nextStep: `look again: sallyport device baseline diff ${id}`,
  })
}

async function view({ inventories }: BaselineRoutes, device: string): Promise<DeviceBaseline> {
  const [current, accepted] = await Promise.all([
    inventories.current(device),
    inventories.baseline(device),
  ])
  const found =
    accepted === undefined ? [] : differences(accepted.processes, current?.processes ?? [])
  return {
    device,
    accepted: accepted === undefined ? null : viewAccepted(accepted),
    current: current === undefined ? null : viewCurrent(current),
    differences: found.map((one): DifferenceView => ({ ...one })),
    drift: accepted === undefined ? null : hasDrift(found),
  }
}

function viewAccepted({ hash, at, by, processes }: Baseline) {
  return { hash, at, by, processes: processes.map(viewExposed) }
}

function viewCurrent({ hash, at, unreadable, processes }: KeptInventory) {
  return { hash, at, unreadable, processes: processes.map(viewExposed) }
}

function viewExposed({ process, kind, programs, listens }: Exposed): ExposedView {
  return {
    process,
    kind,
    programs: programs.map((program) => ({ ...program })),
    listens: listens === null ? null : [...listens],
  }
}
