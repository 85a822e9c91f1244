/** What no policy can allow: checked by the host on the same input, whatever Rego said. */
import type { HostCode } from './catalogue.ts'
import type { Input, Point } from './envelope.ts'
import { POINT_NAMES } from './points.ts'

interface Invariant {
  readonly code: HostCode
  readonly points: readonly Point[]
  readonly holds: (input: Input) => boolean
}

const REACHING: readonly Point[] = ['session.open', 'session.reevaluate', 'ot.verb', 'http.request']
const PERSONAL: readonly Point[] = [...REACHING, 'grant.request', 'grant.approve', 'admin.api']

const INVARIANTS: readonly Invariant[] = [
  {
    code: 'host.tenant',
    points: [...PERSONAL, 'device.enroll', 'device.renew', 'tunnel.connect'],
    holds: ({ tenant }) => tenant !== null && tenant !== '',
  },
  {
    code: 'host.identity',
    points: PERSONAL,
    holds: ({ subject, time }) =>
      subject.id !== null &&
      subject.token_exp !== null &&
      (time.epoch_s ?? Infinity) < subject.token_exp,
  },
  {
    code: 'host.process_unregistered',
    points: REACHING,
    holds: ({ process }) => process !== null && process.id !== null,
  },
  {
    code: 'host.tunnel_peer',
    points: ['tunnel.connect'],
    holds: ({ tunnel, device }) =>
      tunnel !== null && tunnel.peer_device_id !== null && tunnel.peer_device_id === device?.id,
  },
  {
    code: 'host.approver_is_requester',
    points: ['grant.approve'],
    holds: ({ subject, approval }) => {
      const grant = approval?.grant ?? null
      if (grant === null || grant.requester === null || grant.subject === null) return false
      return subject.id !== grant.requester && subject.id !== grant.subject
    },
  },
]

const AT = Object.fromEntries(
  POINT_NAMES.map((point) => [point, INVARIANTS.filter(({ points }) => points.includes(point))]),
) as { readonly [P in Point]?: readonly Invariant[] }

/**
 * The first invariant broken, or nothing. It is asked after an allow, so that the policy's own, more
 * telling code is the one people see; a policy that forgets the rule still opens nothing.
 */
export function brokenInvariant(point: Point, input: Input): HostCode | undefined {
  const invariants = AT[point] ?? INVARIANTS
  return invariants.find(({ holds }) => !holds(input))?.code
}
