/** `/audit/rotate`: new keys for the running node's log. Who asks is decided and recorded in the epoch that ends, before it does. */
import { RotateLog, RotationStatus } from '#api'
import { actorOf } from '../../events.ts'
import type { Rotation } from '../../rotation.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'

export interface RotateRoutes extends Omit<Authorization, 'api'> {
  readonly rotation: Rotation
}

export function rotateRoutes(api: Api, { rotation, ...guard }: RotateRoutes): void {
  const target = (): { readonly kind: string; readonly id: string } => ({
    kind: 'log',
    id: rotation.origin,
  })
  api.server.get(
    '/api/v1/audit/rotate',
    { schema: { response: { 200: RotationStatus } } },
    async (request) => {
      await authorize({ ...guard, api }, request, 'audit:read', target())
      return rotation.status
    },
  )
  api.server.post(
    '/api/v1/audit/rotate',
    { schema: { body: RotateLog, response: { 202: RotationStatus } } },
    async (request, reply) => {
      const { subject } = await authorize({ ...guard, api }, request, 'audit:rotate', target())
      return reply.status(202).send(rotation.begin(actorOf(subject)))
    },
  )
}
