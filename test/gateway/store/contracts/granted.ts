/** Grants, and approvals of them, as the contracts put them into a store. */
import { hashOf, type Statement } from '#approval'
import type { Grant } from '../../../../gateway/grants/grant.ts'
import { newId } from '../../../../gateway/ids.ts'
import { NOW } from './make.ts'

export function grant(more: Partial<Statement> = {}, rest: Partial<Grant> = {}): Grant {
  const statement: Statement = {
    v: 1,
    id: newId('g'),
    tenant: 'main.sallyport.internal',
    requester: 'iss|vera',
    vendor: 'acme',
    devices: ['press-07'],
    processes: ['plc'],
    ot_level: 1,
    not_before: NOW,
    not_after: NOW + 3600,
    max_duration_s: 600,
    reason: 'service',
    ticket: null,
    created_at: NOW,
    ...more,
  }
  return {
    statement,
    hash: hashOf(statement),
    state: 'requested',
    requester_email: 'vera@acme.example',
    approvals: [],
    approvals_asked: rest.approvals_needed ?? 1,
    approvals_needed: 1,
    first_used_at: null,
    uses: 0,
    bytes: 0,
    extension: null,
    ended: null,
    ...rest,
  }
}

export const approval = (by: string, hash: string) => ({
  by,
  email: `${by}@plant.example`,
  at: NOW + 1,
  hash,
  decision_id: newId('d'),
  signature: null,
})
