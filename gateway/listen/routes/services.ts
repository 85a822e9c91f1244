/** `/services`: programs that call in their own name; entered, listed, revoked. */
import { Type } from 'typebox'
import { NewService, Page, Service, ServiceId } from '#api'
import type { Identity, ServiceRow } from '../../identity/index.ts'
import type { Api } from '../api.ts'
import { authorize, doneBy, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'
import { toRefusal } from './people.ts'

export interface ServiceRoutes extends Omit<Authorization, 'api'> {
  readonly identity: Pick<Identity, 'services'>
  /** Epoch milliseconds. */
  readonly now: () => number
}

const seconds = (ms: number): number => Math.floor(ms / 1000)

function view(row: ServiceRow, now: number): Service {
  const { id, name, vendor, roles, groups, scopes, thumbprint, by } = row
  const { createdAt, expiresAt, revokedAt, usedAt } = row
  return {
    id,
    name,
    vendor,
    roles: [...roles],
    groups: [...groups],
    scopes: [...scopes],
    key: thumbprint,
    state: revokedAt !== null ? 'revoked' : expiresAt <= now ? 'expired' : 'open',
    by,
    created_at: seconds(createdAt),
    expires_at: seconds(expiresAt),
    revoked_at: revokedAt === null ? null : seconds(revokedAt),
    used_at: usedAt === null ? null : seconds(usedAt),
  }
}

const rethrow = (error: unknown): never => {
  throw toRefusal(error)
}
const Empty = Type.Object({}, { additionalProperties: false })

export function serviceRoutes(api: Api, room: ServiceRoutes): void {
  const authorization = { ...room, api }
  const { server } = api
  const { services } = room.identity
  server.get(
    '/api/v1/services',
    { schema: { querystring: Page, response: { 200: pageOf(Service) } } },
    async (request) => {
      await authorize(authorization, request, 'account:list')
      const all = await services.list()
      const keyOf = (row: ServiceRow) => [row.createdAt, row.id]
      const { items, next } = pageIn('services', all, request.query, keyOf, 'down')
      return { items: items.map((row) => view(row, room.now())), next }
    },
  )
  server.post(
    '/api/v1/services',
    { schema: { body: NewService, response: { 201: Service } } },
    async (request, reply) => {
      const { vendor, groups, stands_s: standsSeconds, ...rest } = request.body
      const target = { kind: 'service', id: rest.name, act: 'service:create' } as const
      const caller = await authorize(authorization, request, 'account:create', target)
      const asked = { ...rest, vendor: vendor ?? null, groups: groups ?? [], standsSeconds }
      const row = await services.add(asked, doneBy(caller)).catch(rethrow)
      return reply.status(201).send(view(row, room.now()))
    },
  )
  server.post(
    '/api/v1/services/:id/revoke',
    { schema: { params: Type.Object({ id: ServiceId }), body: Empty, response: { 200: Service } } },
    async (request) => {
      const { id } = request.params
      const idle = (await services.find(id))?.revokedAt !== null
      const target = { kind: 'service', id, act: 'service:revoke', idle } as const
      const caller = await authorize(authorization, request, 'account:disable', target)
      return view(await services.revoke(id, doneBy(caller)).catch(rethrow), room.now())
    },
  )
}
