/** `/grants`: asking, approving, rejecting, revoking, giving back. */
import { Type } from 'typebox'
import {
  Approve,
  EndReason,
  EndedGrant,
  Grant as GrantView,
  GrantId,
  NewExtension,
  NewGrant,
  SignedGrant,
  Page,
} from '#api'
import { approveGrant } from '../../grants/approve.ts'
import { requestExtension } from '../../grants/extend.ts'
import { findGrant } from '../../grants/find.ts'
import { shownState, type Grant } from '../../grants/grant.ts'
import { requestGrant } from '../../grants/request.ts'
import type { Subject } from '../../identity/index.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'
import { takesEffect, withdraw, type GrantEffects } from './grant-effect.ts'
import { grantView, signedGrant } from './grant-view.ts'

export interface GrantRoutes extends Omit<Authorization, 'api'>, GrantEffects {}

const Params = Type.Object({ id: GrantId })

export function grantRoutes(api: Api, room: GrantRoutes): void {
  reading(api, room)
  asking(api, room)
  ending(api, room)
}

function reading(api: Api, room: GrantRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.get(
    '/api/v1/grants',
    { schema: { querystring: Page, response: { 200: pageOf(GrantView) } } },
    async (request) => {
      const subject = await api.caller(request)
      // Vendors list their own; the decision is asked with them as the owner of what they will see.
      const own = subject.party === 'vendor'
      await authorize(
        authorization,
        request,
        'grant:list',
        own ? { kind: 'grant', id: '*', owner: subject.id } : undefined,
      )
      const [created_at, id] = readCursor('grants', [0, ''], request.query) ?? []
      const rows = await room.grants.store.list({
        ...(own ? { requester: subject.id } : {}),
        ...(created_at === undefined || id === undefined ? {} : { after: { created_at, id } }),
        limit: (request.query.limit ?? USUAL) + 1,
      })
      const { items, next } = page('grants', rows, request.query, ({ statement: one }) => [
        one.created_at,
        one.id,
      ])
      return { items: items.map((grant) => grantView(room.grants, grant)), next }
    },
  )

  server.get(
    '/api/v1/grants/:id',
    { schema: { params: Params, response: { 200: GrantView } } },
    async (request) => {
      const { grant } = await visible(api, room, request.params.id, request)
      return grantView(room.grants, grant)
    },
  )

  server.get(
    '/api/v1/grants/:id/signed',
    { schema: { params: Params, response: { 200: SignedGrant } } },
    async (request) => {
      const { grant } = await visible(api, room, request.params.id, request)
      return signedGrant(grant)
    },
  )
}

/** A vendor is told of another's grant exactly what they are told of one that does not exist. */
async function known(
  api: Api,
  room: GrantRoutes,
  id: string,
  request: Parameters<Api['caller']>[0],
): Promise<{ grant: Grant; subject: Subject }> {
  const subject = await api.caller(request)
  const grant = await findGrant(room.grants, id)
  if (subject.party === 'vendor' && grant.statement.requester !== subject.id)
    throw new Refusal('grant.unknown', `no grant ${id}`)
  return { grant, subject }
}

/** The grant, if the caller may see it; recorded where policy refuses. Throws Refusal `grant.unknown`, `policy.denied`. */
export async function visible(
  api: Api,
  room: GrantRoutes,
  id: string,
  request: Parameters<Api['caller']>[0],
): Promise<{ grant: Grant; subject: Subject }> {
  const found = await known(api, room, id, request)
  await authorize({ ...room, api }, request, 'grant:show', {
    kind: 'grant',
    id,
    owner: found.grant.statement.requester,
  })
  return found
}

function asking(api: Api, room: GrantRoutes): void {
  const { server } = api
  server.post(
    '/api/v1/grants',
    { schema: { body: NewGrant, response: { 201: GrantView } } },
    async (request, reply) => {
      const at = performance.now()
      const subject = await api.caller(request)
      const { ot_level = 1, ...ask } = request.body
      const grant = await requestGrant(room.grants, {
        ...ask,
        ot_level,
        subject,
        source: api.source(request),
      })
      await takesEffect(room, grant, at)
      return reply.status(201).send(grantView(room.grants, grant))
    },
  )

  server.post(
    '/api/v1/grants/:id/extension',
    { schema: { params: Params, body: NewExtension, response: { 201: GrantView } } },
    async (request, reply) => {
      const at = performance.now()
      const { grant, subject } = await visible(api, room, request.params.id, request)
      const source = api.source(request)
      const asked = await requestExtension(room.grants, { ...request.body, subject, source, grant })
      await takesEffect(room, asked, at)
      return reply.status(201).send(grantView(room.grants, asked))
    },
  )

  server.post(
    '/api/v1/grants/:id/approve',
    { schema: { params: Params, body: Approve, response: { 200: GrantView } } },
    async (request) => {
      const at = performance.now()
      const { subject } = await visible(api, room, request.params.id, request)
      const grant = await approveGrant(room.grants, {
        subject,
        source: api.source(request),
        id: request.params.id,
        hash: request.body.hash,
      })
      await takesEffect(room, grant, at)
      return grantView(room.grants, grant)
    },
  )
}

function ending(api: Api, room: GrantRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.post(
    '/api/v1/grants/:id/revoke',
    { schema: { params: Params, body: EndReason, response: { 200: EndedGrant } } },
    async (request) => {
      const at = performance.now()
      const { grant } = await known(api, room, request.params.id, request)
      const caller = await authorize(authorization, request, 'grant:revoke', target(room, grant))
      return await withdraw(room, {
        ...caller,
        grant,
        ending: 'revoke',
        reason: request.body.reason,
        at,
      })
    },
  )

  server.post(
    '/api/v1/grants/:id/reject',
    { schema: { params: Params, body: EndReason, response: { 200: GrantView } } },
    async (request) => {
      const at = performance.now()
      const { grant } = await known(api, room, request.params.id, request)
      const of = { ...target(room, grant), idle: grant.state !== 'requested' }
      const caller = await authorize(authorization, request, 'grant:revoke', of)
      if (grant.state !== 'requested')
        throw new Refusal(
          'grant.state',
          `the grant is ${grant.state}; it can be revoked, not rejected`,
        )
      const ended = await withdraw(room, {
        ...caller,
        grant,
        ending: 'reject',
        reason: request.body.reason,
        at,
      })
      return ended.grant
    },
  )

  server.post(
    '/api/v1/grants/:id/done',
    { schema: { params: Params, response: { 200: EndedGrant } } },
    async (request) => {
      const at = performance.now()
      const { grant, subject } = await visible(api, room, request.params.id, request)
      if (grant.statement.requester !== subject.id)
        throw new Refusal('grant.state', 'only its holder gives a grant back; others revoke it', {
          nextStep: `sallyport revoke ${request.params.id}`,
        })
      const source = api.source(request)
      return await withdraw(room, { grant, subject, source, ending: 'burn', reason: 'done', at })
    },
  )
}

const STANDING: ReadonlySet<string> = new Set(['requested', 'approved', 'active'])

function target({ grants }: GrantRoutes, grant: Grant) {
  const { id, requester: owner } = grant.statement
  const state = shownState(grant, Math.floor(grants.now() / 1000))
  return { kind: 'grant', id, owner, idle: !STANDING.has(state) }
}
