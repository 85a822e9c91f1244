/** A grant for tests, around what it says: approved by whom it needs, and not used yet. */
import { hashOf, type Statement } from '#approval'
import type { Grant } from '../../../gateway/grants/grant.ts'

export function grantAround(statement: Statement, more: Partial<Grant> = {}): Grant {
  return {
    statement,
    hash: hashOf(statement),
    state: 'approved',
    requester_email: null,
    approvals: [],
    approvals_asked: 1,
    approvals_needed: 1,
    first_used_at: null,
    uses: 0,
    bytes: 0,
    extension: null,
    ended: null,
    ...more,
  }
}
