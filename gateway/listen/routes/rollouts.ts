/** `/rollouts`: an update of the agent to a zone, share by share; held, let go on and ended by people. */
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import {
  EndReason,
  Name,
  NewRollout,
  Page,
  Rollout as RolloutView,
  RolloutDevice,
  RolloutId,
} from '#api'
import { Refusal } from '../../problem.ts'
import { isFailure, type DeviceUpdate, type Rollout } from '../../rollouts/rollout.ts'
import type { Rollouts } from '../../rollouts/rollouts.ts'
import type { Api } from '../api.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { takeOctets } from '../octets.ts'

export interface RolloutRoutes extends Omit<Authorization, 'api'> {
  readonly rollouts: Pick<Rollouts, 'list' | 'find' | 'updates' | 'start' | 'change' | 'takes'>
}

const MOST_BYTES = 16 * 1024 * 1024
const Params = Type.Object({ id: RolloutId })

/** Reading is `rollout:list`; beginning one and letting it go on `rollout:start`; holding and ending it `rollout:stop`. */
export function rolloutRoutes(api: Api, room: RolloutRoutes): void {
  const authorization = { ...room, api }
  reading(authorization, room)
  for (const act of ['pause', 'resume', 'abort'] as const)
    api.server.post(
      `/api/v1/rollouts/:id/${act}`,
      { schema: { params: Params, body: EndReason, response: { 200: RolloutView } } },
      async (request) => {
        const { id } = request.params
        const operation = act === 'resume' ? 'rollout:start' : 'rollout:stop'
        const idle = !(await room.rollouts.takes(id, act))
        const target = { kind: 'rollout', id, act: `rollout:${act}`, idle } as const
        const caller = await authorize(authorization, request, operation, target)
        return view(await room.rollouts.change(id, act, request.body.reason, caller))
      },
    )
  // The agent comes as octets, in this scope alone; everything else of the API takes JSON.
  void api.server.register((scoped, _options, done) => {
    starting(scoped as unknown as Api['server'], api, room)
    done()
  })
}

function reading(authorization: Authorization, room: RolloutRoutes): void {
  const { server } = authorization.api
  server.get(
    '/api/v1/rollouts',
    { schema: { querystring: Page, response: { 200: pageOf(RolloutView) } } },
    async (request) => {
      await authorize(authorization, request, 'rollout:list')
      const [at, id] = readCursor('rollouts', [0, ''], request.query) ?? []
      const begun = at === undefined || id === undefined
      const limit = (request.query.limit ?? USUAL) + 1
      const rows = await room.rollouts.list(limit, begun ? undefined : { at, id })
      return page('rollouts', rows.map(view), request.query, (one) => [one.at, one.id])
    },
  )
  server.get(
    '/api/v1/rollouts/:id',
    { schema: { params: Params, response: { 200: RolloutView } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'rollout:list', { kind: 'rollout', id })
      return view(await room.rollouts.find(id))
    },
  )
  server.get(
    '/api/v1/rollouts/:id/devices',
    { schema: { params: Params, querystring: Page, response: { 200: pageOf(RolloutDevice) } } },
    async (request) => {
      const { id } = request.params
      await authorize(authorization, request, 'rollout:list', { kind: 'rollout', id })
      await room.rollouts.find(id)
      const list = `rollouts/${id}/devices`
      const [after] = readCursor(list, [''], request.query) ?? []
      const rows = await room.rollouts.updates(id, (request.query.limit ?? USUAL) + 1, after)
      return page(list, rows.map(viewUpdate), request.query, (one) => [one.name])
    },
  )
}

function starting(server: Api['server'], api: Api, room: RolloutRoutes): void {
  const callerOf = takeOctets(server as unknown as FastifyInstance, {
    types: ['application/octet-stream'],
    limit: MOST_BYTES,
    busy: 'rollout.busy',
    admit: (request) => {
      const zone = zoneOf(request.query)
      const target = { kind: 'rollout', id: zone ?? '*', ...(zone === undefined ? {} : { zone }) }
      return authorize({ ...room, api }, request, 'rollout:start', target)
    },
  })
  server.post(
    '/api/v1/rollouts',
    { schema: { querystring: NewRollout, response: { 201: RolloutView } }, bodyLimit: MOST_BYTES },
    async (request, reply) => {
      const { zone = null, stages, ...asked } = request.query
      const shares = stages.split(',').map(Number)
      const started = await room.rollouts.start(
        { ...asked, zone, stages: shares },
        octets(request.body),
        callerOf(request),
      )
      return reply.status(201).send(view(started))
    },
  )
}

/** The zone that is asked for, before the rest of the query is looked at; undefined: all. Throws Refusal `body.invalid`. */
function zoneOf(query: unknown): string | undefined {
  const zone: unknown = Object(query)['zone']
  if (zone === undefined || Value.Check(Name, zone)) return zone
  throw new Refusal('body.invalid', 'the zone is no name of one')
}

function octets(body: unknown): Uint8Array {
  if (Buffer.isBuffer(body)) return new Uint8Array(body)
  throw new Refusal('body.invalid', 'an agent is sent as application/octet-stream')
}

function view(rollout: Rollout): RolloutView {
  const { id, version, sha256, not_after, zone, stage_at, soak_s, max_failures } = rollout
  const { state, reason, by, at, stages, stage } = rollout
  const about = { id, version, sha256, not_after, zone, soak_s, max_failures }
  const percent = stages[stage] ?? 0
  return { ...about, stages: [...stages], percent, stage_at, state, reason, by, at }
}

function viewUpdate(update: DeviceUpdate) {
  const { device, state, code, at, kind = null, node = null } = update
  return { name: device, state, failure: isFailure(update), code, kind, node, at }
}
