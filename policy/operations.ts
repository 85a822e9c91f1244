/** Every administrative operation `admin.api` is asked about, and whether it changes anything. */

export const ADMIN_OPERATIONS = {
  'account:change': { mutating: true },
  'account:create': { mutating: true },
  'account:disable': { mutating: true },
  'account:list': { mutating: false },
  'audit:prune': { mutating: true },
  'audit:read': { mutating: false },
  'audit:rotate': { mutating: true },
  'auditor:change': { mutating: true },
  'auditor:list': { mutating: false },
  'ca:read': { mutating: false },
  'device:create': { mutating: true },
  'device:list': { mutating: false },
  'device:quarantine': { mutating: true },
  'device:replace': { mutating: true },
  'device:resume': { mutating: true },
  'device:retire': { mutating: true },
  'device:show': { mutating: false },
  'grant:list': { mutating: false },
  'grant:revoke': { mutating: true },
  'grant:show': { mutating: false },
  'idp:change': { mutating: true },
  'idp:list': { mutating: false },
  'lock:create': { mutating: true },
  'lock:lift': { mutating: true },
  'log:read': { mutating: false },
  'policy:push': { mutating: true },
  'policy:read': { mutating: false },
  'policy:rollback': { mutating: true },
  'policy:upload': { mutating: true },
  'process:list': { mutating: false },
  'process:register': { mutating: true },
  'recording:list': { mutating: false },
  'recording:read': { mutating: false },
  'rollout:list': { mutating: false },
  'rollout:start': { mutating: true },
  'rollout:stop': { mutating: true },
  'session:list': { mutating: false },
  'session:pause': { mutating: true },
  'session:supervise': { mutating: false },
  'session:terminate': { mutating: true },
  'session:watch': { mutating: false },
  'token:create': { mutating: true },
} as const satisfies Record<`${string}:${string}`, { readonly mutating: boolean }>

export type AdminOperation = keyof typeof ADMIN_OPERATIONS

/** The roles the default policy knows; the gateway fills `subject.roles` from the account. */
export const ROLES = ['admin', 'engineer', 'operator', 'auditor', 'vendor'] as const
export type Role = (typeof ROLES)[number]

/**
 * What `admin` in the input says of an operation.
 * `target` may be left out for calls on a whole collection; `owner` decides what a vendor may see or
 * end, and for a list says whose (`{ kind: 'grant', id: '*', owner }`).
 */
export function adminCall(
  operation: AdminOperation,
  target?: { kind: string; id: string; zone?: string; owner?: string },
): {
  operation: AdminOperation
  mutating: boolean
  target: { kind: string; id: string; zone: string | null; owner: string | null } | null
} {
  const { mutating } = ADMIN_OPERATIONS[operation]
  if (target === undefined) return { operation, mutating, target: null }
  const { kind, id, zone = null, owner = null } = target
  return { operation, mutating, target: { kind, id, zone, owner } }
}
