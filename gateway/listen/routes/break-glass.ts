/** `/grants/{id}/unseal` and `/review`, `/break-glass`: breaking a seal, and what comes after. */
import { Type } from 'typebox'
import {
  BreakGlass as GlassView,
  CloseReview,
  Grant as GrantView,
  GrantId,
  NewUnsealing,
  Page,
} from '#api'
import {
  closeReview,
  placeOf,
  type Review,
  type ReviewPlace,
  type ReviewStore,
} from '../../grants/review.ts'
import { requestUnsealing } from '../../grants/seal.ts'
import type { Grant } from '../../grants/grant.ts'
import type { Api } from '../api.ts'
import { authorize } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'
import { grantView } from './grant-view.ts'
import { visible, type GrantRoutes } from './grants.ts'

export interface GlassRoutes extends GrantRoutes {
  readonly reviews: ReviewStore
}

const Params = Type.Object({ id: GrantId })

function glassView(
  review: Review,
  { statement, approvals, requester_email: email }: Grant,
): GlassView {
  const { grant, opened_at, due_at, closed } = review
  return {
    grant,
    sealed: statement.unseals?.grant ?? '',
    device: statement.devices[0] ?? '',
    processes: [...statement.processes],
    holder: email ?? statement.requester,
    reason: statement.reason,
    opened_by: approvals.map((one) => one.email ?? one.by),
    opened_at,
    due_at,
    closed,
  }
}

export function breakGlassRoutes(api: Api, room: GlassRoutes): void {
  const { server } = api
  const authorization = { ...room, api }
  server.post(
    '/api/v1/grants/:id/unseal',
    { schema: { params: Params, body: NewUnsealing, response: { 201: GrantView } } },
    async (request, reply) => {
      const { grant, subject } = await visible(api, room, request.params.id, request)
      const source = api.source(request)
      const asked = await requestUnsealing(room.grants, { ...request.body, subject, source, grant })
      room.changed()
      return reply.status(201).send(grantView(room.grants, asked))
    },
  )
  server.post(
    '/api/v1/grants/:id/review',
    { schema: { params: Params, body: CloseReview, response: { 200: GlassView } } },
    async (request) => {
      const { grant } = await visible(api, room, request.params.id, request)
      const { id, requester } = grant.statement
      const target = { kind: 'grant', id, owner: requester, act: 'grant:review' } as const
      const caller = await authorize(authorization, request, 'grant:revoke', target)
      const { note } = request.body
      const ask = { ...caller, grant, note }
      const review = await closeReview({ ...room.grants, reviews: room.reviews }, ask)
      await room.glass.refresh()
      return glassView(review, grant)
    },
  )
  server.get(
    '/api/v1/break-glass',
    { schema: { querystring: Page, response: { 200: pageOf(GlassView) } } },
    async (request) => {
      await authorize(authorization, request, 'grant:list')
      const { query } = request
      const after = readCursor('break-glass', [0, 0, ''] as ReviewPlace, query)
      const rows = await room.reviews.listReviews((query.limit ?? USUAL) + 1, after)
      const { items: reviews, next } = page('break-glass', rows, query, placeOf)
      const grants = await Promise.all(reviews.map(({ grant }) => room.grants.store.find(grant)))
      const items = reviews.flatMap((review, at) => {
        const grant = grants[at]
        return grant === undefined ? [] : [glassView(review, grant)]
      })
      return { items, next }
    },
  )
}
