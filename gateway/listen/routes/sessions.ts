/** `/sessions`: opening one, seeing who is inside, ending. */
import { Type } from 'typebox'
import type { FastifyRequest } from 'fastify'
import type { AuditLog } from '#audit'
import {
  Cut,
  EndReason,
  NewSession,
  OpenedSession,
  Page,
  Session as SessionView,
  SessionId,
  SessionSocket,
} from '#api'
import { ENTER_PATH, type AppSignIns } from '../../access/apps.ts'
import type { SessionSockets } from '../../access/sockets.ts'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { LiveSession } from '../../sessions/live.ts'
import { openSession } from '../../sessions/open.ts'
import { recordingOf } from '../../sessions/start.ts'
import type { Reauthorization } from '../../sessions/reevaluate.ts'
import type { SessionRoom } from '../../sessions/room.ts'
import type { SessionRecord } from '../../sessions/session.ts'
import type { Supervision } from '../../sessions/supervise.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { page, pageOf, readCursor, USUAL } from '../cursor.ts'

export interface SessionRoutes extends Omit<Authorization, 'api'> {
  readonly room: SessionRoom
  readonly reauthorization: Reauthorization
  readonly supervision: Supervision
  readonly signIns: AppSignIns
  readonly sockets: SessionSockets
  readonly log: Pick<AuditLog, 'append'>
  /** Origin of one app: `https://<process>--<device>.<apps domain>:<port>`. */
  readonly appOrigin: (process: string, device: string) => string
}

const Params = Type.Object({ id: SessionId })

export function view(record: SessionRecord, live: LiveSession | undefined): SessionView {
  return {
    id: record.id,
    device: record.device,
    process: record.process,
    grant: record.grant,
    identity: record.identity,
    email: record.email,
    party: record.party,
    // What is not alive here carries nothing; it has ended when that is recorded, with the reason.
    state: record.ended_at !== null ? 'ended' : live === undefined ? 'ending' : 'open',
    opened_at: record.opened_at,
    expires_at: live === undefined ? record.expires_at : Math.floor(live.expiresAt / 1000),
    ended_at: record.ended_at,
    reason: record.reason,
    connections: live?.streams.size ?? record.connections,
    bytes_in: live?.bytesIn ?? record.bytes_in,
    bytes_out: live?.bytesOut ?? record.bytes_out,
    time_to_cut_ms: record.time_to_cut_ms,
  }
}

export function sessionRoutes(api: Api, routes: SessionRoutes): void {
  opening(api, routes)
  carrying(api, routes)
  reading(api, routes)
  ending(api, routes)
}

function opening(api: Api, routes: SessionRoutes): void {
  api.server.post(
    '/api/v1/sessions',
    { schema: { body: NewSession, response: { 201: OpenedSession } } },
    async (request, reply) => {
      const at = performance.now()
      const subject = await api.caller(request)
      const { device, process, grant, uses } = request.body
      const session = await openSession(routes.room, {
        subject,
        source: api.source(request),
        device,
        process,
        grant,
        uses,
      })
      routes.supervision.follow(session)
      // A change after the facts were read and before the session could be seen has not met it yet.
      const cut = await routes.reauthorization.withdraw((one) => one === session, {
        trigger: 'device',
        at,
      })
      if (cut.length > 0)
        throw new Refusal(
          'session.ended',
          'the permission was withdrawn while the session was being opened',
        )
      const now = routes.room.now()
      const url =
        session.kind === 'http'
          ? `${routes.appOrigin(process, device)}${ENTER_PATH}?ticket=${routes.signIns.ticket(session.id, now)}`
          : null
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send({
          id: session.id,
          device,
          process,
          kind: session.kind,
          grant: session.grant,
          secret: Buffer.from(session.secret).toString('base64url'),
          expires_at: Math.floor(session.end() / 1000),
          remaining_ms: Math.max(0, Math.round(session.end() - now)),
          decision_id: session.decisions[0]?.id ?? '',
          recording: recordingOf(session).recording ?? null,
          url,
        })
    },
  )
}

/** To a page: a ticket for one socket, for whoever holds the session. */
function carrying(api: Api, { room, sockets }: SessionRoutes): void {
  api.server.post(
    '/api/v1/sessions/:id/socket',
    { schema: { params: Params, response: { 201: SessionSocket } } },
    async (request, reply) => {
      const subject = await api.caller(request)
      const { id } = request.params
      const record = await room.store.find(id)
      if (record?.identity !== subject.id)
        throw new Refusal('session.unknown', `you hold no session ${id}`)
      const session = room.live.get(id)
      if (session === undefined) throw new Refusal('session.ended', 'the session has ended')
      const { url, protocols, expires_at } = sockets.offer(session)
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send({ url, protocols: [...protocols], expires_at })
    },
  )
}

function reading(api: Api, routes: SessionRoutes): void {
  const { room } = routes
  const authorization = { ...routes, api }
  api.server.get(
    '/api/v1/sessions',
    { schema: { querystring: Page, response: { 200: pageOf(SessionView) } } },
    async (request) => {
      const subject = await api.caller(request)
      const own = subject.party === 'vendor'
      await authorize(
        authorization,
        request,
        'session:list',
        own ? { kind: 'session', id: '*', owner: subject.id } : undefined,
      )
      const [ended, opened_at, id] = readCursor('sessions', [0, 0, ''], request.query) ?? []
      const begun = ended === undefined || opened_at === undefined || id === undefined
      const rows = await room.store.list({
        ...(own ? { identity: subject.id } : {}),
        ...(begun ? {} : { after: { ended: ended === 1, opened_at, id } }),
        limit: (request.query.limit ?? USUAL) + 1,
      })
      const { items, next } = page('sessions', rows, request.query, (one) => [
        one.ended_at === null ? 0 : 1,
        one.opened_at,
        one.id,
      ])
      return { items: items.map((record) => view(record, room.live.get(record.id))), next }
    },
  )

  api.server.get(
    '/api/v1/sessions/:id',
    { schema: { params: Params, response: { 200: SessionView } } },
    async (request) => {
      const { record } = await visible(api, routes, request, request.params.id)
      return view(record, room.live.get(record.id))
    },
  )
}

async function visible(api: Api, routes: SessionRoutes, request: FastifyRequest, id: string) {
  const subject = await api.caller(request)
  const record = await routes.room.store.find(id)
  if (record === undefined || (subject.party === 'vendor' && record.identity !== subject.id))
    throw new Refusal('session.unknown', `no session ${id}`)
  await authorize({ ...routes, api }, request, 'session:list', {
    kind: 'session',
    id,
    owner: record.identity,
  })
  return { record, subject }
}

function ending(api: Api, routes: SessionRoutes): void {
  const { room, reauthorization } = routes
  api.server.post(
    '/api/v1/sessions/:id/end',
    { schema: { params: Params, response: { 200: SessionView } } },
    async (request) => {
      const { record, subject } = await visible(api, routes, request, request.params.id)
      const session = room.live.get(record.id)
      if (session !== undefined && record.identity !== subject.id)
        throw new Refusal('session.ended', 'only its holder ends a session; others cut it', {
          nextStep: `sallyport cut ${record.id} --reason …`,
        })
      if (session !== undefined)
        await reauthorization.end(session, {
          reason: 'client_done',
          code: 'client.done',
          message: 'the client is done',
          by: subject.id,
        })
      return view((await room.store.find(record.id)) ?? record, undefined)
    },
  )

  api.server.post(
    '/api/v1/sessions/:id/cut',
    { schema: { params: Params, body: EndReason, response: { 200: Cut } } },
    async (request) => {
      const at = performance.now()
      const { id } = request.params
      const record = await room.store.find(id)
      const caller = await authorize({ ...routes, api }, request, 'session:terminate', {
        kind: 'session',
        id,
        idle: !room.live.has(id),
        ...(record === undefined ? {} : { owner: record.identity }),
      })
      const session = room.live.get(id)
      if (record === undefined) throw new Refusal('session.unknown', `no session ${id}`)
      if (session === undefined) throw new Refusal('session.ended', 'the session has ended')
      await routes.log.append({
        code: 'session.kill',
        message: `session cut: ${request.body.reason}`,
        status: 'success',
        disposition: 'revoked',
        actor: actorOf(caller.subject),
        src: srcOf(caller.source),
        device: session.device,
        process: session.process,
        grant: session.grant,
        session: id,
        decisions: [caller.decision],
        data: { scope: 'session', target: id },
      })
      const took = await reauthorization.end(session, {
        reason: 'killed',
        code: 'session.killed',
        message: request.body.reason,
        by: caller.subject.id,
        withdrawnAt: at,
      })
      return { sessions: [{ id, time_to_cut_ms: took ?? 0 }], slowest_ms: took }
    },
  )
}
