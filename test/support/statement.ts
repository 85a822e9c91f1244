/** What a grant says, for tests. */
import type { Statement } from '#approval'

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
