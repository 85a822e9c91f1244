/** What enrolling and renewing share: ask the policy, issue, and leave a log line for every refusal. */
import { sha256Hex } from './algorithm.ts'
import type { CertificationRequest } from './csr.ts'
import { encodeUtf8 } from './der/text.ts'
import { CaError, refuse, relying } from './errors.ts'
import type { CaDecision, CaFacts, DeviceRecord, EstConnection, EstOptions } from './est.ts'
import type { AttemptEvent } from './event.ts'
import { finish, prepare, record, resume, type IssuedRow, type IssueRequest } from './issue.ts'
import { sanOf, subjectFor } from './name.ts'
import type { EstLabel, Linking } from './label.ts'
import { covers, PENDING_MOST, PENDING_MS, type PendingRow } from './pending.ts'
import { profiles, recallSeconds } from './profile.ts'
import { base32 } from './serial.ts'
import type { CertificateRow, KeyOwner } from './store.ts'
import { instant } from './time.ts'

/** Filled in as the request is understood; what is known when it is refused goes to the log. */
export interface Attempt {
  readonly code: 'device.enroll' | 'cert.renew'
  device: string | null
  tokenId: string | null
  serial: string | null
  expiredSeconds: number
  /** The approval by a person that policy's denials were overlooked for. */
  approval: string | null
}

/** Nothing is known yet. */
export function newAttempt(code: Attempt['code']): Attempt {
  return { code, device: null, tokenId: null, serial: null, expiredSeconds: 0, approval: null }
}

/** What may be issued, once the policy agrees. */
export interface Application {
  readonly device: DeviceRecord
  readonly facts: Pick<CaFacts, 'enroll' | 'renew'>
  readonly principal: string
  readonly ask: Pick<IssueRequest, 'parent' | 'tokenId'> & {
    readonly recall: NonNullable<IssueRequest['recall']>
  }
}
/** `known`: this very request was granted before. */
export type Plan = { readonly known: CertificateRow } | Application

export interface Errand {
  readonly applicant: CertificationRequest
  /** The connection's, for a request that carries one; else null. */
  readonly binding: Uint8Array | null
  readonly label: EstLabel
  readonly connection: EstConnection
  readonly options: EstOptions
  readonly lifetimeSeconds: number
}

/**
 * Steps 6 to 10 of a CSR's life: `plan` finds out what may be asked for, the rest follows. Whatever
 * is refused on the way is logged with what `attempt` knows by then.
 */
export async function carryOut(
  attempt: Attempt,
  errand: Errand,
  plan: () => Promise<Plan>,
): Promise<IssuedRow> {
  const { options, connection } = errand
  const issuers = options.issuers()
  try {
    const planned = await plan()
    const { remoteAddress } = connection
    if ('known' in planned)
      return await finish(resume(planned.known), issuers, options, {
        now: options.now(),
        remoteAddress,
      })
    const decision = await decide(attempt, planned, errand)
    const now = options.now()
    const request = requestFor(planned, decision, errand)
    const draft = prepare(
      profiles[errand.label.profile],
      request,
      issuers.active,
      now,
      options.random,
    )
    const recorded = await record(draft, options.store)
    const before = eventOf(attempt, errand, 'allowed', null, decision)
    return await finish(recorded, issuers, options, { now, remoteAddress, before })
  } catch (error) {
    if (error instanceof CaError && error.fault === 'remote')
      await relying('log.unavailable', () => options.log(refusalOf(attempt, errand, error)))
    throw error
  }
}

async function decide(attempt: Attempt, plan: Application, errand: Errand): Promise<CaDecision> {
  const { connection, options } = errand
  const point = attempt.code === 'device.enroll' ? 'device.enroll' : 'device.renew'
  const decision = await relying('decision.unavailable', () =>
    options.decide(point, {
      request_id: connection.requestId,
      remote_address: connection.remoteAddress,
      tls_version: connection.tlsVersion,
      device: plan.device,
      ...plan.facts,
    }),
  )
  if (decision.allow) return decision
  const { denials, decision_id: decisionId, revision = null } = decision
  const detail = { denials, decisionId, revision }
  // Every denial waits for a person: the request is not refused, it is not yet granted (RFC 7030 4.2.3).
  const pending = denials.length > 0 && denials.every((denial) => denial.remedy === 'approve')
  const said = denials.map(({ code, msg }) => `${code} (${msg})`).join('; ')
  if (!pending)
    throw refuse('policy.denied', said === '' ? 'no reason was given' : said, {
      ...detail,
    })
  attempt.approval = await approval(decision, plan, errand)
  if (attempt.approval !== null) return decision
  throw refuse('policy.pending', said, { ...detail, retryAfterSeconds: 300 })
}

/**
 * The approval that a person gave this very request, by its id; null while nobody has answered.
 * Throws CaError `approval.rejected`, `rate` (too many keys of one principal wait), `store.unavailable`.
 */
async function approval(
  { denials, decision_id: decisionId }: CaDecision,
  plan: Application,
  errand: Errand,
): Promise<string | null> {
  const { connection, options, label, applicant } = errand
  const { pending } = options
  if (pending === undefined) return null
  const now = options.now()
  const wanted: PendingRow = {
    id: `e_${base32(options.random(16))}`,
    tenant: options.tenant,
    key: plan.ask.recall.key,
    principal: plan.principal,
    operation: plan.facts.renew === null ? 'simpleenroll' : 'simplereenroll',
    label: label.name,
    device: plan.device.id,
    spkiSha256: applicant.spkiSha256,
    denials,
    decisionId,
    remoteAddress: connection.remoteAddress,
    createdAt: now,
    expiresAt: instant(now + PENDING_MS),
    state: 'pending',
    decidedBy: null,
    decidedAt: null,
  }
  const row = await relying('store.unavailable', () => pending.wait(wanted, PENDING_MOST))
  if (row === 'full')
    throw refuse('rate', 'too many keys wait for an approval here already', {
      retryAfterSeconds: 3_600,
    })
  if (row.state === 'rejected')
    throw refuse('approval.rejected', `an operator said no to ${row.id}`, { denials, decisionId })
  return covers(row, denials) ? row.id : null
}

function requestFor(plan: Application, decision: CaDecision, errand: Errand): IssueRequest {
  const { applicant, connection, options, lifetimeSeconds } = errand
  const { id, serialNumber } = plan.device
  return {
    tenant: options.tenant,
    subject: id,
    name: subjectFor(id, serialNumber),
    san: sanOf(options.tenant, errand.label.profile, id),
    spki: applicant.key,
    lifetimeSeconds,
    shortened: decision.obligations,
    decisionId: decision.decision_id,
    requestId: connection.requestId,
    ...plan.ask,
  }
}

function refusalOf(attempt: Attempt, errand: Errand, error: CaError): AttemptEvent {
  const outcome = error.code === 'policy.pending' ? 'pending' : 'refused'
  return eventOf(attempt, errand, outcome, error, null)
}

function eventOf(
  attempt: Attempt,
  { applicant, connection, options }: Errand,
  outcome: 'allowed' | 'refused' | 'pending',
  error: CaError | null,
  decision: CaDecision | null,
): AttemptEvent {
  const { code, device, tokenId, serial, expiredSeconds, approval: approved } = attempt
  const common = {
    at: options.now(),
    tenant: options.tenant,
    requestId: connection.requestId,
    remoteAddress: connection.remoteAddress,
    outcome,
    device,
    spkiSha256: applicant.spkiSha256,
    reason: error?.code ?? null,
    denials: (error?.denials ?? decision?.denials ?? []).map((denial) => denial.code),
    reasons: decision?.reasons ?? [],
    decisionId: error?.decisionId ?? decision?.decision_id ?? null,
    revision: error?.revision ?? decision?.revision ?? null,
    approval: approved,
  }
  return code === 'device.enroll'
    ? { ...common, code, tokenId }
    : { ...common, code, serial, expiredSeconds }
}

/**
 * The device, if certificates are issued to it at all; what policy thinks of its state comes later.
 * Throws CaError `device.unknown`, `device.state`, `store.unavailable`.
 */
export async function requireDevice(id: string, options: EstOptions): Promise<DeviceRecord> {
  const device = await relying('store.unavailable', () => options.devices.find(id))
  if (device === undefined) throw refuse('device.unknown', 'there is no such device')
  if (device.state === 'revoked' || device.state === 'retired')
    throw refuse('device.state', `the device is ${device.state}`)
  return device
}

/** Whose the key is so far. Throws CaError `store.unavailable`. */
export async function keyOwner({ applicant, options }: Errand): Promise<KeyOwner | undefined> {
  const find = () => options.store.keyOwner(options.tenant, applicant.spkiSha256)
  return await relying('store.unavailable', find)
}

/**
 * One key, one identity, and none for a key that somebody else may hold; `asked` is the answer of `keyOwner`.
 * Throws CaError `key.bound`, `key.compromised`, `store.unavailable`.
 */
export async function refuseTakenKey(
  device: string,
  errand: Errand,
  asked = keyOwner(errand),
): Promise<void> {
  const owner = await asked
  const { applicant, options, label } = errand
  const { all, roots } = options.issuers()
  const ours = [...all, ...roots].some((issuer) => issuer.spkiSha256 === applicant.spkiSha256)
  if (ours) throw refuse('key.bound', 'the key is a key of this CA')
  if (owner !== undefined && (owner.profile !== label.profile || owner.subject !== device))
    throw refuse('key.bound', 'the key belongs to somebody else')
  if (owner?.compromised === true)
    throw refuse('key.compromised', 'a certificate with this key was revoked as compromised')
}

/** What makes two requests the same one: who asks, under which label, to do what, for which key. */
export function recallOf(principal: string, operation: string, errand: Errand) {
  const { applicant, label, lifetimeSeconds, options } = errand
  const parts = [options.tenant, principal, label.name, operation, applicant.spkiSha256]
  return {
    key: sha256Hex(encodeUtf8(JSON.stringify(parts))),
    windowSeconds: recallSeconds(lifetimeSeconds),
  }
}

/** The row this request already has, while it can be repeated. Throws CaError `store.unavailable`. */
export async function recall(
  key: string,
  device: DeviceRecord,
  options: EstOptions,
): Promise<CertificateRow | undefined> {
  const row = await relying('store.unavailable', () => options.store.recall(key, options.now()))
  // A device in quarantine gets nothing that its policy has not seen again.
  return device.state === 'quarantined' ? undefined : row
}

/** Whether this request must carry a binding: the label's word, else the server's. */
export function linkingOf({ label, options }: Pick<Errand, 'label' | 'options'>): Linking {
  return label.linking ?? options.linking ?? 'optional'
}
