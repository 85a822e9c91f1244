/** A refusal as a value: closed code, sentence, next step; one table gives each code its HTTP status. */
import type { Denial, Problem } from '#api'
import type { Decision, Denial as PolicyDenial } from '#policy'

/** Codes of the gateway itself. Denials of policy come from its own catalogue and are always 403. */
export const problems = {
  'body.invalid': { status: 400, title: 'The request body is not what this call takes' },
  'body.too_large': { status: 413, title: 'The request body is too large' },
  'cursor.invalid': { status: 400, title: 'The list has no such page' },
  'route.unknown': { status: 404, title: 'There is no such call' },
  'method.unknown': { status: 405, title: 'This call does not take that method' },
  'rate.identity': { status: 429, title: 'You ask too often' },
  'rate.source': { status: 429, title: 'Too many calls came from your address' },
  'idempotency.key': { status: 400, title: 'The key of this write is not one' },
  'idempotency.other': { status: 422, title: 'The key of this write was used for another' },
  'idempotency.running': { status: 409, title: 'The same write is being done' },
  'idempotency.unknown': { status: 409, title: 'Whether this was done nobody knows' },
  'idempotency.told': { status: 409, title: 'This was done, and told once' },
  'idempotency.full': { status: 429, title: 'Too many writes with a key' },
  'token.unknown': { status: 404, title: 'There is no such token' },
  'token.state': { status: 409, title: 'The token is not in a state that allows this' },
  'token.used': { status: 409, title: 'The token was used already' },
  'token.missing': { status: 401, title: 'Sign in first' },
  'identity.refused': { status: 401, title: 'The sign-in was not accepted' },
  'policy.denied': { status: 403, title: 'Policy does not allow this' },
  'policy.bundle': { status: 422, title: 'The policy bundle was refused' },
  'policy.candidate': { status: 409, title: 'There is no such policy to activate' },
  'policy.nothing_good': { status: 409, title: 'There is no policy to go back to' },
  'policy.busy': { status: 429, title: 'Another bundle is being looked at' },
  'policy.mask': {
    status: 503,
    title: 'The decision log cannot be masked, so none of it is handed out',
  },
  'policy.source': { status: 409, title: 'No source of bundles is configured' },
  'policy.trial': { status: 404, title: 'No policy is or was on trial' },
  'decision.limit': { status: 429, title: 'Too many decisions were asked about' },
  'decision.unknown': { status: 404, title: 'There is no such decision' },
  'bootstrap.refused': { status: 403, title: 'The bootstrap token was not accepted' },
  'account.exists': { status: 409, title: 'An account with this address exists' },
  'account.unknown': { status: 404, title: 'There is no such account' },
  'account.state': { status: 409, title: 'The account cannot be changed like this' },
  'invitation.unknown': { status: 404, title: 'There is no such invitation' },
  'invitation.state': { status: 409, title: 'The invitation cannot be made or withdrawn' },
  'service.unknown': { status: 404, title: 'There is no such service' },
  'service.state': { status: 409, title: 'The service cannot be entered or revoked' },
  'service.scope': { status: 403, title: 'This is not for this service' },
  'lock.unknown': { status: 404, title: 'There is no such lock' },
  'lock.own': { status: 403, title: 'Nobody lifts a lock that is on themselves' },
  'lock.person': { status: 409, title: 'Nobody here can tell who this is' },
  'lock.last_admin': { status: 409, title: 'This is the last who may administer' },
  'lock.full': { status: 409, title: 'There are as many locks as there can be' },
  'passkey.unknown': { status: 404, title: 'There is no such passkey' },
  'passkey.state': { status: 409, title: 'The passkeys of this account do not allow this' },
  'passkey.refused': { status: 403, title: 'The passkey was not accepted' },
  'totp.unknown': { status: 404, title: 'There is no authenticator app' },
  'totp.state': { status: 409, title: 'This account can have no authenticator app like this' },
  'totp.refused': { status: 403, title: 'The authenticator app was not accepted' },
  'ceremony.unknown': { status: 404, title: 'There is no such question to a passkey or an app' },
  'ceremony.limit': { status: 429, title: 'Passkeys or codes were asked for too often' },
  'idp.unknown': { status: 404, title: 'There is no such provider' },
  'idp.taken': { status: 409, title: 'The provider stands in the way of another' },
  'idp.invalid': { status: 400, title: 'The provider cannot be entered' },
  'idp.unreachable': { status: 503, title: 'The provider does not answer' },
  'account.invalid': { status: 400, title: 'The account cannot be made' },
  'device.exists': { status: 409, title: 'A device of this id exists' },
  'device.unknown': { status: 404, title: 'There is no such device' },
  'device.state': { status: 409, title: 'The device is not in a state that allows this' },
  'baseline.unseen': { status: 409, title: 'The device has not told what it exposes' },
  'baseline.changed': { status: 409, title: 'This is not the inventory that was shown' },
  'enrolment.unknown': { status: 404, title: 'No such enrolment waits for an answer' },
  'zone.unknown': { status: 409, title: 'Policy describes no such zone' },
  'device.offline': { status: 503, title: 'The device is not connected' },
  'issuer.unknown': { status: 404, title: 'There is no such issuing CA' },
  'issuer.active': { status: 409, title: 'This issuing CA is in use' },
  'issuer.next': { status: 409, title: 'This issuing CA is to be used' },
  'certificate.unknown': { status: 404, title: 'There is no such certificate' },
  'process.kind': { status: 409, title: 'The process is not used like this' },
  'target.unknown': { status: 404, title: 'There is no such device or process' },
  'grant.unknown': { status: 404, title: 'There is no such grant' },
  'grant.state': { status: 409, title: 'The grant is not in a state that allows this' },
  'grant.person': { status: 409, title: 'One person counts once' },
  'grant.changed': { status: 409, title: 'This is not the grant that was shown' },
  'grant.addresses': { status: 400, title: 'These addresses cannot be granted' },
  'ticket.invalid': { status: 400, title: 'The ticket is not one' },
  'ticket.unavailable': { status: 503, title: 'The ticket system does not answer' },
  'grant.seal': { status: 400, title: 'The grant cannot be sealed like this' },
  'grant.counts': { status: 400, title: 'Uses and bytes of this grant cannot be limited' },
  'grant.used_up': { status: 403, title: 'The grant has been used as often as it may' },
  'grant.limit': { status: 429, title: 'There are as many such grants as there can be' },
  'grant.narrowed': { status: 409, title: 'The session may do less than a moment ago' },
  'grant.window': { status: 400, title: 'The window of the grant is not one' },
  'session.unknown': { status: 404, title: 'There is no such session' },
  'session.ended': { status: 409, title: 'The session has ended' },
  'session.supervisor': { status: 403, title: 'This person cannot supervise the session' },
  'session.proof': { status: 401, title: 'This connection does not hold the session' },
  'session.limit': { status: 429, title: 'Too many connections in this session' },
  'socket.ticket': { status: 401, title: 'This page has no ticket to the session' },
  'socket.kind': { status: 409, title: 'The process is not carried to a page' },
  'socket.window': { status: 400, title: 'The window of the terminal is not one' },
  'app.ticket': { status: 401, title: 'This link has been used or is too old' },
  'app.cookie': { status: 401, title: 'No session is open in this browser' },
  'app.foreign': { status: 403, title: 'This request came from another site' },
  'app.kind': { status: 404, title: 'This process is not a web application' },
  'app.target': { status: 400, title: 'The address of this request is not a plain path' },
  'app.upstream': { status: 502, title: 'The application on the device did not answer' },
  'app.upgrade': { status: 400, title: 'The connection cannot be upgraded like this' },
  'app.protocol': { status: 502, title: 'The application answered an upgrade in a wrong way' },
  'target.refused': { status: 502, title: 'The device could not reach the process' },
  'tile.unknown': { status: 404, title: 'The log has no such part' },
  'witness.refused': { status: 401, title: 'This is no witness known here' },
  'witness.other_log': { status: 409, title: 'The log here is not the one this witness follows' },
  'witness.conflict': { status: 409, title: 'The log is not what a witness holds' },
  'prune.unset': { status: 409, title: 'The gateway knows no archive of its log' },
  'prune.busy': { status: 409, title: 'The log is being pruned' },
  'rotate.busy': { status: 409, title: 'The log is being rotated' },
  'recording.unavailable': {
    status: 503,
    title: 'The session must be recorded, and cannot be',
  },
  'recording.unknown': { status: 404, title: 'There is no such recording' },
  'auditor.exists': { status: 409, title: 'The auditor cannot be added' },
  'auditor.unknown': { status: 404, title: 'There is no such auditor' },
  'auditor.test': { status: 403, title: 'The key has not been shown to open anything' },
  'rollout.unknown': { status: 404, title: 'There is no such rollout' },
  'rollout.state': { status: 409, title: 'The rollout is not in a state that allows this' },
  'rollout.standing': { status: 409, title: 'Another rollout stands in the way' },
  'rollout.busy': { status: 429, title: 'Another agent is being received' },
  'rollout.manifest': { status: 400, title: 'This is no update that could be taken' },
  'rollout.agent': { status: 400, title: 'The agent is not what its manifest names' },
  'rollout.stages': { status: 400, title: 'The stages of a rollout rise' },
  'log.unavailable': { status: 503, title: 'Nothing can be recorded, so nothing is done' },
  'store.unavailable': { status: 503, title: 'The store does not answer' },
  'node.stopping': { status: 503, title: 'The gateway is going down' },
  'node.fault': { status: 500, title: 'The gateway failed; this is not your mistake' },
} as const satisfies Record<string, { readonly status: number; readonly title: string }>

export type ProblemCode = keyof typeof problems

/** Thrown where a request ends; caught where it came in. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: ProblemCode
  readonly detail: string
  readonly nextStep: string | undefined
  readonly decisionId: string | undefined
  /** Of the bundle that decided; undefined where policy was not asked. */
  readonly revision: string | undefined
  readonly denials: readonly Denial[]
  constructor(
    code: ProblemCode,
    detail: string,
    more: {
      readonly nextStep?: string | undefined
      readonly decisionId?: string | undefined
      readonly revision?: string | undefined
      readonly denials?: readonly Denial[]
      readonly cause?: unknown
    } = {},
  ) {
    super(`${code}: ${detail}`, more.cause === undefined ? undefined : { cause: more.cause })
    this.code = code
    this.detail = detail
    this.nextStep = more.nextStep
    this.decisionId = more.decisionId
    this.revision = more.revision
    this.denials = more.denials ?? []
  }

  /** The code a person should look at: the first denial's where policy said no. */
  get shownCode(): string {
    return this.denials[0]?.code ?? this.code
  }
}

/** What policy said, as the refusal of whatever was asked. */
export function denied(
  decision: Decision,
  nextSteps: (denial: PolicyDenial) => string | undefined,
): Refusal {
  const denials = decision.denials.map((denial) => {
    const { code, msg, remedy } = denial
    const next_step = nextSteps(denial)
    return {
      code,
      msg,
      ...(remedy === undefined ? {} : { remedy }),
      ...(next_step === undefined ? {} : { next_step }),
    }
  })
  const first = denials[0]
  return new Refusal('policy.denied', first?.msg ?? 'no rule allows this', {
    nextStep: denials.find((denial) => denial.next_step !== undefined)?.next_step,
    decisionId: decision.decision_id,
    revision: decision.layer === 'host' ? undefined : (decision.revision ?? undefined),
    denials,
  })
}

/** RFC 9457 body of a refusal. `requestId` finds it in the log. */
export function toProblem(refusal: Refusal, requestId: string): Problem {
  const { status, title } = problems[refusal.code]
  return {
    type: 'about:blank',
    title,
    status,
    code: refusal.shownCode,
    detail: refusal.detail,
    ...(refusal.nextStep === undefined ? {} : { next_step: refusal.nextStep }),
    request_id: requestId,
    ...(refusal.decisionId === undefined ? {} : { decision_id: refusal.decisionId }),
    ...(refusal.denials.length === 0 ? {} : { denials: [...refusal.denials] }),
  }
}
