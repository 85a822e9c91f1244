/** `/devices`: the inventory, tokens, quarantine, and the processes registered on each. */
import { Type } from 'typebox'
import {
  Device as DeviceView,
  DeviceState as StateChange,
  DeviceToken,
  Name,
  NewDevice,
  NewProcess,
  Process as ProcessView,
  ReplacedDevice,
  Revoke,
  RevokedDevice,
  Page,
} from '#api'
import type { CaStore } from '#ca'
import { instant } from '#ca'
import type { AuditLog } from '#audit'
import { actorOf, srcOf } from '../../events.ts'
import type { Device, DeviceState, DeviceStore, Process } from '../../devices/device.ts'
import type { EndingDevices } from '../../devices/ending.ts'
import type { Presence, Registry } from '../../devices/presence.ts'
import { moveRecorded } from '../../devices/move.ts'
import { ANOTHER_ID, decommission, replace, revokeDevice } from '../../devices/retire.ts'
import type { RevocationRoom } from '../../devices/revoke.ts'
import { deviceToken, type TokenRoom } from '../../devices/token.ts'
import { Refusal } from '../../problem.ts'
import type { Reauthorization, Withdrawal } from '../../sessions/reevaluate.ts'
import { requireZone } from '../../zone.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'
import { driftOf, type Inventories } from './baseline.ts'
import { recordWords, viewRevocation } from './certificates.ts'

export interface DeviceRoutes extends Omit<Authorization, 'api'> {
  readonly devices: DeviceStore
  readonly registry: Registry
  readonly inventories: Inventories
  readonly caStore: CaStore
  readonly tokens: TokenRoom
  readonly reauthorization: Reauthorization
  readonly revocation: RevocationRoom
  readonly ending: Pick<EndingDevices, 'end'> | undefined
  readonly log: Pick<AuditLog, 'append'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

const Params = Type.Object({ id: Name })
const ProcessParams = Type.Object({ id: Name, process: Name })

export function deviceRoutes(api: Api, room: DeviceRoutes): void {
  collection(api, room)
  states(api, room)
  endings(api, room)
  replacing(api, room)
  processes(api, room)
}

async function view(room: DeviceRoutes, device: Device): Promise<DeviceView> {
  const presence = room.registry.find(device.id)
  const [registered, drift, [certificate]] = await Promise.all([
    room.devices.processes(device.id),
    driftOf(room.inventories, device.id),
    room.caStore.listCertificates(room.tokens.tenant, {
      subject: device.id,
      profile: 'device',
      state: 'active',
      liveAt: instant(room.now()),
      limit: 1,
    }),
  ])
  return {
    id: device.id,
    zone: device.zone,
    state: device.state,
    labels: { ...device.labels },
    created_at: device.created_at,
    connected: presence !== undefined,
    connected_at: presence === undefined ? null : Math.floor(presence.since / 1000),
    island: room.registry.isCutOff(device.id),
    tls: presence?.tls ?? null,
    certificate:
      certificate === undefined
        ? null
        : { serial: certificate.serial, not_after: Math.floor(certificate.notAfter / 1000) },
    agent_version: presence?.agent.version ?? null,
    drift,
    processes: registered.map((process) => viewProcess(process, presence)),
  }
}

function viewProcess(process: Process, presence: Presence | undefined): ProcessView {
  const listener = presence?.listeners.get(process.id) ?? null
  const { exe, sha256, uid, unit, script_sha256, image } = process.expect
  return {
    id: process.id,
    device: process.device,
    kind: process.kind,
    locality: process.locality,
    port: process.port,
    expect: {
      ...(exe === undefined ? {} : { exe: [...exe] }),
      ...(sha256 === undefined ? {} : { sha256: [...sha256] }),
      ...(uid === undefined ? {} : { uid: [...uid] }),
      ...(unit === undefined ? {} : { unit: [...unit] }),
      ...(script_sha256 === undefined ? {} : { script_sha256: [...script_sha256] }),
      ...(image === undefined ? {} : { image: [...image] }),
    },
    listener:
      listener === null
        ? null
        : {
            phase: listener.phase ?? 'listener',
            exe: listener.exe,
            sha256: listener.sha256,
            uid: listener.uid,
            unit: listener.unit,
            script_sha256: listener.script_sha256,
            image: listener.image,
            pid: listener.pid,
            started_at: listener.started_at,
          },
  }
}

async function known(room: DeviceRoutes, id: string): Promise<Device> {
  const device = await room.devices.find(id)
  if (device === undefined)
    throw new Refusal('device.unknown', `no device ${id}`, {
      nextStep: 'see `sallyport device list`',
    })
  return device
}

function collection(api: Api, room: DeviceRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/devices',
    { schema: { querystring: Page, response: { 200: pageOf(DeviceView) } } },
    async (request) => {
      await authorize(authorization, request, 'device:list')
      const all = await room.devices.list()
      const { items, next } = pageIn('devices', all, request.query, ({ id }) => [id])
      return { items: await Promise.all(items.map((device) => view(room, device))), next }
    },
  )

  api.server.post(
    '/api/v1/devices',
    {
      schema: {
        body: NewDevice,
        response: { 201: Type.Object({ device: DeviceView, token: DeviceToken }) },
      },
    },
    async (request, reply) => {
      const { id, zone = 'default', labels = {} } = request.body
      await authorize(authorization, request, 'device:create', { kind: 'device', id, zone })
      requireZone(zone, room.decisions)
      const device: Device = {
        id,
        zone,
        state: 'pending',
        labels,
        created_at: Math.floor(room.now() / 1000),
      }
      if (!(await room.devices.add(device))) throw exists(await known(room, id))
      const token = await deviceToken(room.tokens, id)
      return reply.status(201).send({ device: await view(room, device), token })
    },
  )

  api.server.get(
    '/api/v1/devices/:id',
    { schema: { params: Params, response: { 200: DeviceView } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'device:show', { kind: 'device', id })
      return await view(room, await known(room, id))
    },
  )
}

function exists({ id, state }: Device): Refusal {
  if (state === 'retired')
    return new Refusal('device.exists', `a device ${id} was retired, and its id with it`, {
      nextStep: ANOTHER_ID,
    })
  return new Refusal('device.exists', `a device ${id} exists`, {
    nextStep: `a new token for it: sallyport device token ${id}`,
  })
}

/** As policy says it of a device that is in quarantine. */
const SHUT = {
  code: 'device.quarantined',
  message: 'the device was put into quarantine',
  next: undefined,
} as const

function states(api: Api, room: DeviceRoutes): void {
  const authorization = { ...room, api }
  const rows: readonly {
    verb: 'quarantine' | 'resume'
    from: readonly DeviceState[]
    to: DeviceState
  }[] = [
    { verb: 'quarantine', from: ['pending', 'active'], to: 'quarantined' },
    { verb: 'resume', from: ['quarantined'], to: 'active' },
  ]
  for (const { verb, from, to } of rows)
    api.server.post(
      `/api/v1/devices/:id/${verb}`,
      { schema: { params: Params, body: StateChange, response: { 200: DeviceView } } },
      async (request) => {
        const at = performance.now()
        const { id } = request.params as { id: string }
        const { reason } = request.body as StateChange
        const now = (await room.devices.find(id))?.state
        const caller = await authorize(authorization, request, `device:${verb}`, {
          kind: 'device',
          id,
          idle: now === undefined || !from.includes(now),
        })
        const { state } = await known(room, id)
        if (!from.includes(state))
          throw new Refusal('device.state', `the device is ${state}; it cannot be moved to ${to}`)
        const event = {
          code: `device.${verb}`,
          message: `${id}: ${reason}`,
          status: 'success',
          actor: actorOf(caller.subject),
          src: srcOf(caller.source),
          device: id,
          decisions: [caller.decision],
        } as const
        await room.log.append(event)
        const cut = async (fallen?: Withdrawal['fallen']) =>
          await room.reauthorization.withdraw((session) => session.device === id, {
            trigger: 'device',
            at,
            by: caller.subject.id,
            fallen,
          })
        const moved = await moveRecorded(room, event, { id, from, to }).catch(
          async (error: unknown) => {
            // Nobody knows whether it is shut: what runs here ends, and whoever asked asks again.
            if (to === 'quarantined') await cut(SHUT)
            throw error
          },
        )
        await cut()
        if (moved === undefined)
          throw new Refusal('device.state', `the device cannot be moved to ${to} now`)
        return await view(room, moved)
      },
    )
}

/** Taken out of service, or revoked: each revokes first, and says what was cut and how fast. */
function endings(api: Api, room: DeviceRoutes): void {
  const authorization = { ...room, api }
  api.server.post(
    '/api/v1/devices/:id/decommission',
    { schema: { params: Params, body: StateChange, response: { 200: RevokedDevice } } },
    async (request) => {
      const at = performance.now()
      const { id } = request.params
      const now = (await room.devices.find(id))?.state
      const caller = await authorize(authorization, request, 'device:retire', {
        kind: 'device',
        id,
        idle: now === undefined || now === 'retired',
      })
      const call = { at, by: caller.subject.id, requestId: request.id }
      const { device, revoked } = await decommission(room, await known(room, id), call, {
        actor: actorOf(caller.subject),
        src: srcOf(caller.source),
        decision: caller.decision,
        words: request.body.reason,
      })
      return { device: await view(room, device), revocation: viewRevocation(revoked) }
    },
  )

  api.server.post(
    '/api/v1/devices/:id/revoke',
    { schema: { params: Params, body: Revoke, response: { 200: RevokedDevice } } },
    async (request) => {
      const at = performance.now()
      const { id } = request.params
      const { reason, comment = reason } = request.body as Revoke
      const now = (await room.devices.find(id))?.state
      const ended = (now === 'revoked' || now === 'retired') && reason !== 'keyCompromise'
      const caller = await authorize(authorization, request, 'device:retire', {
        kind: 'device',
        id,
        idle: now === undefined || ended,
      })
      const before = await known(room, id)
      await recordWords({ ...room, caller }, 'device:retire', `device:${id}`, comment)
      const reach = { at, by: caller.subject.id, requestId: request.id, reason }
      const { device, revoked } = await revokeDevice(room, before, reach)
      return { device: await view(room, device), revocation: viewRevocation(revoked) }
    },
  )
}

/** The same id for another machine. */
function replacing(api: Api, room: DeviceRoutes): void {
  const authorization = { ...room, api }
  api.server.post(
    '/api/v1/devices/:id/replace',
    { schema: { params: Params, body: StateChange, response: { 201: ReplacedDevice } } },
    async (request, reply) => {
      const at = performance.now()
      const { id } = request.params
      const caller = await authorize(authorization, request, 'device:replace', {
        kind: 'device',
        id,
      })
      const before = await known(room, id)
      await recordWords({ ...room, caller }, 'device:replace', `device:${id}`, request.body.reason)
      const call = { at, by: caller.subject.id, requestId: request.id }
      const { device, token, revoked } = await replace(room, before, call)
      return reply.status(201).send({
        device: await view(room, device),
        token,
        revocation: viewRevocation(revoked),
      })
    },
  )
}

function processes(api: Api, room: DeviceRoutes): void {
  const authorization = { ...room, api }
  api.server.put(
    '/api/v1/devices/:id/processes/:process',
    { schema: { params: ProcessParams, body: NewProcess, response: { 200: ProcessView } } },
    async (request) => {
      const at = performance.now()
      const { id, process: name } = request.params
      const caller = await authorize(authorization, request, 'process:register', {
        kind: 'process',
        id: `${id}/${name}`,
      })
      await known(room, id)
      const { kind, locality, port, expect } = request.body
      if (kind === 'spawn' && locality !== undefined)
        throw new Refusal('body.invalid', 'a process of kind spawn is started on the device', {
          nextStep: 'leave the locality out',
        })
      const process: Process = {
        device: id,
        id: name,
        kind: kind as Process['kind'],
        locality: kind === 'spawn' ? 'spawned' : (locality ?? 'device'),
        port: port ?? null,
        expect,
      }
      await room.devices.putProcess(process)
      // What must answer may have changed: sessions that are open are held to the new statement.
      await room.reauthorization.withdraw(
        (session) => session.device === id && session.process === name,
        {
          trigger: 'process',
          at,
          by: caller.subject.id,
        },
      )
      return viewProcess(process, room.registry.find(id))
    },
  )
}
