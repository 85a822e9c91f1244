/** Grants for tests: what one says, and one around that which is approved by whom it needs and was not used yet. */
import { hashOf, type Statement } from '#approval'
import type { Grant } from '../../../gateway/grants/grant.ts'

/** Vera of acme may use the PLC of press 07 for ten minutes of the hour from `at` (epoch seconds), but for `change`. */
export function statementOf(at: number, change: Partial<Statement> = {}): Statement {
  return {
    v: 1,
    id: 'g_1',
    tenant: 'main.sallyport.internal',
    requester: 'iss|vera',
    vendor: 'acme',
    devices: ['press-07'],
    processes: ['plc'],
    ot_level: 1,
    not_before: at,
    not_after: at + 3600,
    max_duration_s: 600,
    reason: 'service',
    ticket: null,
    created_at: at,
    ...change,
  }
}

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
