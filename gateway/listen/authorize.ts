/** One administrative call: who, what, on what; decided by `admin.api`, recorded where it changes something. */
import type { FastifyRequest } from 'fastify'
import type { AuditLog } from '#audit'
import { adminCall, type AdminOperation } from '#policy'
import { refOf, toRefusal, type DecisionRef, type Decisions } from '../decisions.ts'
import { actorOf, srcOf } from '../events.ts'
import { clientFacts, type Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import type { Api } from './api.ts'

export interface Caller {
  readonly subject: Subject
  readonly source: Source
  readonly decision: DecisionRef
}

export interface CallTarget {
  readonly kind: string
  readonly id: string
  readonly zone?: string
  /** Identity that owns the thing: vendors may see and end what is theirs. */
  readonly owner?: string
  /** What the event calls the act, where the operation that policy is asked about covers several. */
  readonly act?: `${string}:${string}`
  /** Of a call that takes access away: there is nothing to take. It is answered as ever, and not without end. */
  readonly idle?: boolean
}

export interface Authorization {
  readonly api: Api
  readonly decisions: Decisions
  readonly log: Pick<AuditLog, 'append'>
}

/** How `admin.call` names what an operation does. */
function verbOf(operation: string): string {
  const verb = operation.slice(operation.indexOf(':') + 1)
  if (verb === 'create' || verb === 'register' || verb === 'add') return 'create'
  if (verb === 'list' || verb === 'show' || verb === 'read') return 'read'
  return 'update'
}

/**
 * Authenticates the caller and asks `admin.api`. A refused call and an allowed one that changes
 * something are recorded before this resolves; so is every reading of the log. Throws Refusal:
 * `identity.refused`, `policy.denied`, `rate.identity`, and `log.unavailable` through the API's error handler.
 */
export async function authorize(
  { api, decisions, log }: Authorization,
  request: FastifyRequest,
  operation: AdminOperation,
  target?: CallTarget,
  /** Identities whose consent this call carries beside the caller's. */
  consents: readonly string[] = [],
): Promise<Caller> {
  const subject = await api.caller(request)
  const source = api.source(request)
  const call = adminCall(operation, target)
  const decision = decisions.ask('admin.api', {
    request_id: request.id,
    subject,
    client: clientFacts(source),
    admin: call,
    ...(consents.length === 0 ? {} : { approval: { approvals: [...consents] } }),
  })
  const ref = refOf(decision)
  const act = target?.act ?? operation
  if (!decision.allow) api.refusing(request, subject)
  else if (target?.idle === true) api.idling(request, subject)
  if (!decision.allow || call.mutating || operation === 'audit:read')
    await log.append({
      code: 'admin.call',
      message: `${act}${target === undefined ? '' : ` ${target.kind} ${target.id}`} ${decision.allow ? 'allowed' : 'refused'}`,
      status: decision.allow ? 'success' : 'failure',
      disposition: decision.allow ? 'allowed' : 'unauthorized',
      reason: decision.allow ? undefined : decision.denials[0]?.code,
      actor: actorOf(subject),
      src: srcOf(source),
      decisions: [ref],
      data: {
        operation: act,
        verb: verbOf(act),
        path: request.routeOptions.url,
        entity: target === undefined ? undefined : `${target.kind}:${target.id}`,
      },
    })
  if (!decision.allow) throw toRefusal(decision)
  return { subject, source, decision: ref }
}

/** Who does something about accounts, and from where, as the events of it say. */
export function doneBy(by: {
  readonly subject: { readonly id: string; readonly party: string }
  readonly source: { readonly ip: string | null }
}): { readonly id: string; readonly source: string | null; readonly party?: 'staff' | 'vendor' } {
  const { id, party } = by.subject
  const person = party === 'staff' || party === 'vendor'
  return { id, source: by.source.ip, ...(person ? { party } : {}) }
}
