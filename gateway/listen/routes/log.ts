/** `/audit/events`: reading the log, itself an event. */
import { LogPage, LogQuery } from '#api'
import type { AuditLog, EpochedLog } from '#audit'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

export interface LogRoutes extends Omit<Authorization, 'api' | 'log'> {
  readonly log: AuditLog & Partial<Pick<EpochedLog, 'newest'>>
}

export function logRoutes(api: Api, room: LogRoutes): void {
  api.server.get(
    '/api/v1/audit/events',
    { schema: { querystring: LogQuery, response: { 200: LogPage } } },
    async (request) => {
      await authorize({ ...room, api }, request, 'audit:read')
      const { from = 0, limit = 200 } = request.query
      // One epoch, also where the log is rotated meanwhile.
      const log = room.log.newest ?? room.log
      const entries = await log.read(from, limit)
      const last = entries.at(-1)
      return {
        origin: log.origin,
        keys: [...log.vkeys],
        checkpoint: log.signed.note,
        entries: entries.map(({ idx, uid, leaf, body }) => ({
          idx,
          uid,
          leaf,
          event: JSON.parse(new TextDecoder().decode(body)) as unknown,
        })),
        next: last === undefined || entries.length < limit ? null : last.idx + 1,
      }
    },
  )
}
