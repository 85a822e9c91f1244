/** Which calls a scope opens: an area of the API, to read or to change. What is in no scope no service calls. */

/** Areas that are for people: what proves who they are, and what only they may agree to. */
const READ_ONLY: ReadonlySet<string> = new Set([
  'accounts',
  'invitations',
  'idps',
  'services',
  'auditors',
])
const AREAS: ReadonlySet<string> = new Set([
  'accounts', 'audit', 'auditors', 'ca', 'certificates', 'decisions', 'devices', 'enrolments', 'grants', 'idps',
  'invitations', 'locks', 'policy', 'recordings', 'rollouts', 'services', 'sessions',
]) // prettier-ignore

/** Calls in an area that is open to services, and which they never make: to approve, to break a seal, to supervise is a person's. */
const PERSONS: ReadonlySet<string> = new Set([
  'POST /api/v1/grants/:id/approve',
  'POST /api/v1/grants/:id/approval',
  'POST /api/v1/grants/:id/unseal',
  'POST /api/v1/grants/:id/review',
  'POST /api/v1/sessions/:id/supervise',
  'POST /api/v1/accounts/:id/renew',
])

/** Who one is; and the head of the log, which whoever calls holds against the gateway. */
const EVERYBODYS: ReadonlySet<string> = new Set([
  'GET /api/v1/me',
  'GET /api/v1/audit/head',
  'POST /api/v1/audit/head',
])

export function isScope(scope: string): boolean {
  const [area = '', act] = scope.split(':')
  return AREAS.has(area) && (act === 'read' || (act === 'write' && !READ_ONLY.has(area)))
}

/** The scope that opens a call; null: every service may; undefined: none may. `route` is a method and a declared path. */
export function scopeOf(route: string): string | null | undefined {
  const [method = '', path = ''] = route.split(' ')
  const area = path.split('/')[3] ?? ''
  if (EVERYBODYS.has(route)) return null
  if (PERSONS.has(route)) return undefined
  const scope = `${area}:${method === 'GET' || method === 'HEAD' ? 'read' : 'write'}`
  return isScope(scope) ? scope : undefined
}
