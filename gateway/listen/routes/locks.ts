/** `/locks`: shutting somebody, something or everything out, and letting them in again. */
import { Type } from 'typebox'
import { EndReason, Lock as LockView, Locked, LockId, NAME, NewLock, Page } from '#api'
import type { Identity } from '../../identity/index.ts'
import type { Lock, LockScope } from '../../locks/lock.ts'
import type { Locks } from '../../locks/locks.ts'
import { Refusal } from '../../problem.ts'
import type { LiveSession } from '../../sessions/live.ts'
import type { Reauthorization } from '../../sessions/reevaluate.ts'
import type { DeviceStore } from '../../devices/device.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'

export interface LockRoutes extends Omit<Authorization, 'api'> {
  readonly locks: Locks
  readonly identity: Identity
  readonly devices: Pick<DeviceStore, 'find' | 'findProcess' | 'list'>
  readonly live: ReadonlyMap<string, LiveSession>
  readonly reauthorization: Reauthorization
}

export function lockRoutes(api: Api, room: LockRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/locks',
    { schema: { querystring: Page, response: { 200: pageOf(LockView) } } },
    async (request) => {
      await authorize(authorization, request, 'session:list')
      const [lifted, at, id] = readCursor('locks', [0, 0, ''], request.query) ?? []
      const begun = lifted === undefined || at === undefined || id === undefined
      const rows = await room.locks.list(
        (request.query.limit ?? USUAL) + 1,
        begun ? undefined : { lifted: lifted === 1, at, id },
      )
      return page('locks', rows, request.query, (one) => [
        one.lifted === null ? 0 : 1,
        one.at,
        one.id,
      ])
    },
  )
  api.server.post(
    '/api/v1/locks',
    { schema: { body: NewLock, response: { 201: Locked } } },
    async (request, reply) => {
      const at = performance.now()
      const { scope, reason } = request.body
      const target = await targetOf(room, scope, request.body.target)
      const call = { kind: scope, id: target, idle: room.locks.isOn(scope, target) }
      const caller = await authorize(authorization, request, 'lock:create', call)
      const lock = await room.locks.add(scope, target, { ...caller, reason })
      const cut = await cutUnder(room, lock, at, caller.subject.id)
      const known = await isKnown(room, scope, target)
      return reply.status(201).send({ lock, known, cut })
    },
  )
  api.server.post(
    '/api/v1/locks/:id/lift',
    {
      schema: { params: Type.Object({ id: LockId }), body: EndReason, response: { 200: LockView } },
    },
    async (request) => {
      const { id } = request.params
      const call = { kind: 'lock', id }
      const caller = await authorize(authorization, request, 'lock:lift', call)
      return await room.locks.lift(id, { ...caller, reason: request.body.reason })
    },
  )
}

/** Decides every session under the lock again, now that it is in force. */
async function cutUnder(room: LockRoutes, lock: Lock, at: number, by: string) {
  const zones = await zonesOf(room, lock)
  const touched = ({ subject, device, process }: LiveSession): boolean =>
    room.locks.touches(lock, {
      subject: subject.id,
      company: subject.vendor,
      device,
      process,
      zone: zones.get(device) ?? null,
    })
  const sessions = await room.reauthorization.withdraw(touched, { trigger: 'lock', at, by })
  const slowest =
    sessions.length === 0 ? null : Math.max(...sessions.map((one) => one.time_to_cut_ms))
  return { sessions: [...sessions], slowest_ms: slowest }
}

/** Where the devices stand that somebody is on now; asked only where the lock is on a zone. */
async function zonesOf(
  { live, devices }: LockRoutes,
  { scope }: Lock,
): Promise<ReadonlyMap<string, string>> {
  if (scope !== 'zone') return new Map()
  const names = [...new Set([...live.values()].map(({ device }) => device))]
  const found = await Promise.all(names.map((name) => devices.find(name)))
  return new Map(
    found.filter((device) => device !== undefined).map(({ id, zone }) => [id, zone] as const),
  )
}

const NAMED = new RegExp(NAME)

/** The target as locks name it. A person is found by their address; what is not there can be locked all the same. */
async function targetOf(
  { identity }: LockRoutes,
  scope: LockScope,
  given: string | undefined,
): Promise<string> {
  if (scope === 'everything') {
    if (given !== undefined) throw wrong('everything has no target')
    return '*'
  }
  if (given === undefined) throw wrong(`which ${scope}? the target is missing`)
  const parts = given.split('/')
  if (scope === 'process' && !(parts.length === 2 && parts.every((part) => NAMED.test(part))))
    throw wrong('a process is named as device/process')
  if (scope === 'device' && !NAMED.test(given))
    throw wrong('this is not the name of a device; a process of one is locked with scope process')
  if (scope !== 'identity' || given.includes('|')) return given
  const account = await identity.accounts.findByEmail(given)
  if (account === undefined) throw wrong('nobody signs in here with this address')
  return `${identity.issuer}|${account.sub}`
}

/** Whether what was locked is there: a slip in a name is said at once, and not seen when somebody gets in. */
async function isKnown(
  { devices, locks }: LockRoutes,
  scope: LockScope,
  target: string,
): Promise<boolean> {
  switch (scope) {
    case 'everything':
      return true
    case 'device':
      return (await devices.find(target)) !== undefined
    case 'process': {
      const [device = '', process = ''] = target.split('/')
      return (await devices.findProcess(device, process)) !== undefined
    }
    case 'zone':
      return (await devices.list()).some(({ zone }) => zone === target)
    case 'identity':
    case 'company':
      return await locks.names(scope, target)
  }
}

const wrong = (detail: string) => new Refusal('body.invalid', detail)
