/** `/enrolments`: requests for a certificate that wait for a person, and the person's answer. */
import { Type } from 'typebox'
import { Enrolment, EnrolmentAnswer, EnrolmentId, Page } from '#api'
import { DECIDED_MS, instant, type PendingRow, type PendingStore } from '#ca'
import { actorOf, srcOf } from '../../events.ts'
import { Refusal } from '../../problem.ts'
import type { Api } from '../api.ts'
import { authorize, type Authorization } from '../authorize.ts'
import { pageIn, pageOf } from '../cursor.ts'

export interface EnrolmentRoutes extends Omit<Authorization, 'api'> {
  readonly tenant: string
  readonly pending: PendingStore
  /** Epoch milliseconds. */
  readonly now: () => number
}

const seconds = (at: number): number => Math.floor(at / 1_000)

function view(row: PendingRow): Enrolment {
  return {
    id: row.id,
    device: row.device,
    operation: row.operation,
    label: row.label,
    principal: row.principal,
    spki_sha256: row.spkiSha256,
    denials: row.denials.map(({ code, msg }) => ({ code, msg })),
    from: row.remoteAddress,
    decision_id: row.decisionId,
    created_at: seconds(row.createdAt),
    expires_at: seconds(row.expiresAt),
    state: row.state,
    decided_by: row.decidedBy,
  }
}

function unknown(): Refusal {
  return new Refusal('enrolment.unknown', 'no such request waits for an answer', {
    nextStep: 'see `sallyport device pending`',
  })
}

export function enrolmentRoutes(api: Api, room: EnrolmentRoutes): void {
  const authorization = { ...room, api }
  api.server.get(
    '/api/v1/enrolments',
    { schema: { querystring: Page, response: { 200: pageOf(Enrolment) } } },
    async (request) => {
      await authorize(authorization, request, 'device:list')
      const rows = await room.pending.list(room.tenant, instant(room.now()))
      const keyOf = ({ createdAt, id }: PendingRow) => [createdAt, id]
      const { items, next } = pageIn('enrolments', rows, request.query, keyOf, 'down')
      return { items: items.map(view), next }
    },
  )
  answers(api, room)
}

function answers(api: Api, room: EnrolmentRoutes): void {
  const authorization = { ...room, api }
  for (const [verb, state] of [
    ['approve', 'approved'],
    ['reject', 'rejected'],
  ] as const)
    api.server.post(
      `/api/v1/enrolments/:id/${verb}`,
      {
        schema: {
          params: Type.Object({ id: EnrolmentId }),
          body: EnrolmentAnswer,
          response: { 200: Enrolment },
        },
      },
      async (request) => {
        const { id } = request.params as { id: string }
        const { reason } = request.body as EnrolmentAnswer
        const { tenant, pending } = room
        // Letting a device in is what creating one is; the log names the request, and so the key.
        const caller = await authorize(authorization, request, 'device:create', {
          kind: 'enrolment',
          id,
        })
        const found = await pending.find(tenant, id, instant(room.now()))
        if (found?.state !== 'pending') throw unknown()
        await room.log.append({
          code: 'admin.call',
          message: `enrolment ${id} of ${found.device} ${state}: ${reason}`,
          status: 'success',
          disposition: 'allowed',
          actor: actorOf(caller.subject),
          src: srcOf(caller.source),
          device: found.device,
          decisions: [caller.decision],
          data: { operation: `enrolment:${verb}`, verb: 'update', entity: `enrolment:${id}` },
        })
        const at = instant(room.now())
        const by = caller.subject.id
        const expiresAt = instant(at + DECIDED_MS)
        const decided = await pending.decide(tenant, id, { state, by, at, expiresAt })
        if (decided === undefined) throw unknown()
        return view(decided)
      },
    )
}
