/** Grants, and approvals of them, as the contracts put them into a store. */
import type { Statement } from '#approval'
import type { Grant } from '../../../../gateway/grants/grant.ts'
import { newId } from '../../../../gateway/ids.ts'
import { grantAround } from '../../grants/around.ts'
import { NOW } from './make.ts'
import { statementOf } from '../../../support/statement.ts'

export function grant(more: Partial<Statement> = {}, rest: Partial<Grant> = {}): Grant {
  const statement = statementOf(NOW, { id: newId('g'), ...more })
  return grantAround(statement, {
    state: 'requested',
    requester_email: 'vera@acme.example',
    approvals_asked: rest.approvals_needed ?? 1,
    ...rest,
  })
}

export const approval = (by: string, hash: string) => ({
  by,
  email: `${by}@plant.example`,
  at: NOW + 1,
  hash,
  decision_id: newId('d'),
  signature: null,
})
