/** `/sessions/{id}/watch` and its neighbours: seeing what a session does now, answering for it, holding it. */
import { Type } from 'typebox'
import type { FastifyRequest } from 'fastify'
import { EndReason, SessionId, SessionWatch } from '#api'
import type { AdminOperation } from '#policy'
import { Refusal } from '../../problem.ts'
import type { LiveSession } from '../../sessions/live.ts'
import type { SessionRoom } from '../../sessions/room.ts'
import type { Supervision } from '../../sessions/supervise.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization, type Caller } from '../authorize.ts'
import { view } from './sessions.ts'

export interface SuperviseRoutes extends Omit<Authorization, 'api'> {
  readonly room: Pick<SessionRoom, 'live' | 'store'>
  readonly supervision: Supervision
  /** Who is behind an identity. */
  readonly personOf: (identity: string) => Promise<string>
}

const Params = Type.Object({ id: SessionId })

type Act = 'watch' | 'supervise' | 'pause' | 'resume'
const OPERATIONS = {
  watch: 'session:watch',
  supervise: 'session:supervise',
  pause: 'session:pause',
  resume: 'session:pause',
} as const satisfies Record<Act, AdminOperation>

export function superviseRoutes(api: Api, routes: SuperviseRoutes): void {
  const { room, supervision, personOf, ...guard } = routes
  const same = async (a: string, b: string): Promise<boolean> =>
    (await personOf(a)) === (await personOf(b))
  const admit = async (
    request: FastifyRequest,
    id: string,
    act: Act,
  ): Promise<{ session: LiveSession; caller: Caller }> => {
    const record = await room.store.find(id)
    const caller = await authorize({ ...guard, api }, request, OPERATIONS[act], {
      kind: 'session',
      id,
      act: `session:${act}`,
      idle: room.live.get(id)?.hold.is('operator') !== false,
      ...(record === undefined ? {} : { owner: record.identity }),
    })
    if (record === undefined) throw new Refusal('session.unknown', `no session ${id}`)
    const session = room.live.get(id)
    if (session === undefined) throw new Refusal('session.ended', 'the session has ended')
    return { session, caller }
  }
  const shown = async (session: LiveSession): Promise<SessionWatch> => {
    const record = await room.store.find(session.id)
    if (record === undefined) throw new Refusal('session.unknown', `no session ${session.id}`)
    return watchOf(session, view(record, room.live.get(session.id)))
  }
  const look = (act: 'watch' | 'supervise') =>
    api.server.post(
      `/api/v1/sessions/:id/${act}`,
      { schema: { params: Params, response: { 200: SessionWatch } } },
      async (request) => {
        const { id } = request.params as { id: string }
        const { session, caller } = await admit(request, id, act)
        if (act === 'watch') await supervision.look(session, caller)
        else await supervision.join(session, caller, same)
        return await shown(session)
      },
    )
  const hold = (act: 'pause' | 'resume') =>
    api.server.post(
      `/api/v1/sessions/:id/${act}`,
      { schema: { params: Params, body: EndReason, response: { 200: SessionWatch } } },
      async (request) => {
        const { id } = request.params as { id: string }
        const { reason } = request.body as EndReason
        const { session, caller } = await admit(request, id, act)
        if (act === 'pause') await supervision.pause(session, caller, reason)
        else await supervision.resume(session, caller, reason, same)
        return await shown(session)
      },
    )
  look('watch')
  look('supervise')
  hold('pause')
  hold('resume')
}

function watchOf(session: LiveSession, seen: SessionWatch['session']): SessionWatch {
  const { obligations, hold, supervisors, verdicts, kind } = session
  return {
    session: seen,
    held_by: [...hold.by],
    must_be_supervised: obligations.supervise,
    supervisors: [...supervisors].map(([identity, { email, since }]) => ({
      identity,
      email,
      since: Math.floor(since / 1000),
    })),
    connections: [...session.streams].map(({ source, observed }) => ({
      from: source.ip,
      exe: observed?.exe ?? null,
      sha256: observed?.sha256 ?? null,
      pid: observed?.pid ?? null,
    })),
    modbus: kind === 'modbus' ? { ...verdicts } : null,
    last_activity_at: Math.floor(session.lastActivityAt / 1000),
  }
}
