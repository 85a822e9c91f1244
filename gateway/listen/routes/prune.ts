/** `/audit/prune`: letting go of old events of the running node's log, into the archive that its configuration names. */
import { PruneLog, PruneStatus } from '#api'
import { actorOf } from '../../events.ts'
import type { Retention } from '../../retention.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

export interface PruneRoutes extends Omit<Authorization, 'api'> {
  readonly retention: Retention
}

export function pruneRoutes(api: Api, { retention, ...guard }: PruneRoutes): void {
  const target = (): { readonly kind: string; readonly id: string } => ({
    kind: 'log',
    id: retention.origin,
  })
  api.server.get(
    '/api/v1/audit/prune',
    { schema: { response: { 200: PruneStatus } } },
    async (request) => {
      await authorize({ ...guard, api }, request, 'audit:read', target())
      return retention.status
    },
  )
  api.server.post(
    '/api/v1/audit/prune',
    { schema: { body: PruneLog, response: { 202: PruneStatus } } },
    async (request, reply) => {
      const { subject } = await authorize({ ...guard, api }, request, 'audit:prune', target())
      const { before, dry } = request.body
      const by = actorOf(subject)
      return reply.status(202).send(retention.begin({ before: before * 1000, dry, by }))
    },
  )
}
