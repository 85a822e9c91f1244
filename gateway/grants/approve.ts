/** Approving: who may, on which statement, recorded before it holds. */
import { checkAssertion, digestOf, hashOf, type GrantSignature } from '#approval'
import type { Decision, Input, Partially } from '#policy'
import { refOf, toRefusal } from '../decisions.ts'
import { actorOf, srcOf } from '../events.ts'
import { clientFacts, deviceFacts, grantFacts, tlsFacts, type Source } from '../facts.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { recordEffect, recordShortened } from './effect.ts'
import { findGrant } from './find.ts'
import { shownState, termsOf, type Approval, type Grant } from './grant.ts'
import { orTakenBack, unconfirmed } from './kept.ts'
import type { GrantRoom } from './request.ts'
import { mayUnseal, recordAlarm } from './seal.ts'
import { inTurn } from './turn.ts'

export interface ApproveAsk {
  readonly subject: Subject
  readonly source: Source
  readonly id: string
  /** What the approver was shown. */
  readonly hash: string
  /** What the approver's passkey signed, already accepted as theirs; null: nothing. */
  readonly signature?: GrantSignature | null
}

/**
 * Adds an approval, one at a time per grant and what it extends. Recorded before it holds, as is the activation where
 * this approval is the last one needed; where the grant ends meanwhile, a further event takes it
 * back. Throws Refusal: `grant.unknown`, `grant.changed` (the hash is not this grant's),
 * `grant.person` (whoever asks has approved it before, under this or another account), `grant.state`, `policy.denied` (among others `host.approver_is_requester`), `log.unavailable`.
 */
export async function approveGrant(room: GrantRoom, ask: ApproveAsk): Promise<Grant> {
  return await inTurn(room.store, ask.id, async () => {
    const { extends: longer, unseals } = (await findGrant(room, ask.id)).statement
    const extended = longer?.grant ?? unseals?.grant
    // Its end by time, and another extension, wait: what is looked at here lasts until this is done.
    if (extended === undefined) return await approve(room, ask)
    return await inTurn(room.store, extended, () => approve(room, ask))
  })
}

/**
 * Refuses before a passkey is asked for what no passkey can change, recorded as the approval's own refusal would be;
 * the approval itself is looked at anew. Throws Refusal as `approveGrant`, but for what policy says.
 */
export async function mayBeSigned(
  room: GrantRoom,
  ask: Omit<ApproveAsk, 'signature'>,
): Promise<void> {
  const grant = await findGrant(room, ask.id)
  const now = Math.floor(room.now() / 1000)
  await stillWaits(room, ask, grant, now)
  await mayUnseal(room.store, grant, true, now)
  if (!(await asksItself(room, ask, grant))) return await countsOnce(room, ask, grant)
  const decision = decide(room, undefined)
  const event = approval(ask, grant, decision, grant.approvals.length)
  const reason = decision.denials[0]?.code
  await room.log.append({ ...event, ...REFUSED, message: 'approval refused', reason })
  throw toRefusal(decision)
}

/** The statement is the one that was shown, and still waits for approval. */
async function stillWaits(
  room: GrantRoom,
  ask: ApproveAsk,
  grant: Grant,
  now: number,
): Promise<void> {
  if (ask.hash !== grant.hash || hashOf(grant.statement) !== grant.hash)
    throw new Refusal('grant.changed', 'the approval names another statement than this grant', {
      nextStep: 'look at the grant again, then approve what you see',
    })
  const shown = shownState(grant, now)
  if (shown !== 'requested')
    throw new Refusal('grant.state', `the grant is ${shown}; it waits for no approval`)
  await stillExtends(room, grant, now)
}

async function approve(room: GrantRoom, ask: ApproveAsk): Promise<Grant> {
  const grant = await findGrant(room, ask.id)
  const now = Math.floor(room.now() / 1000)
  await stillWaits(room, ask, grant, now)
  await mayUnseal(room.store, grant, (ask.signature ?? null) !== null, now)
  signsThis(ask, grant)
  const question = await questionOf(room, ask, grant)
  const changed = room.decisions.changes()
  const decision = decide(room, question)
  if (decision.allow) await countsOnce(room, ask, grant)
  const first = decision.denials[0]
  const approvals = grant.approvals.length + (decision.allow ? 1 : 0)
  const asked = neededBy(grant, decision)
  const event = approval(ask, { ...grant, approvals_needed: asked }, decision, approvals)
  await room.log.append(
    decision.allow
      ? { ...event, message: 'approval given', status: 'success', disposition: 'approved' }
      : { ...event, ...REFUSED, message: 'approval refused', reason: first?.code },
  )
  if (!decision.allow) throw toRefusal(decision)
  const held = changed() ? await judgedAnew(room, ask, grant, question) : decision
  return await keep(room, ask, grant, { held, at: now })
}

/** The approval holds from here on, and the grant where it was the last one needed. */
async function keep(
  room: GrantRoom,
  ask: ApproveAsk,
  grant: Grant,
  { held, at }: { readonly held: Decision; readonly at: number },
): Promise<Grant> {
  const approvals = grant.approvals.length + 1
  const needed = neededBy(grant, held)
  if (approvals >= needed) {
    await recordAlarm(room.log, grant, ask.subject, approvals)
    await recordEffect(room, grant, approvals)
  }
  const given: Approval = {
    by: ask.subject.id,
    email: ask.subject.email,
    at,
    hash: ask.hash,
    decision_id: held.decision_id,
    signature: ask.signature ?? null,
  }
  const event = approval(ask, grant, held, grant.approvals.length)
  const after = await orTakenBack(room, { ...event, ...unconfirmed('approval', event.data) }, () =>
    room.store.approve(ask.id, given, needed),
  )
  if (after !== undefined) return after
  const message = 'the grant changed while it was being approved'
  await withoutEffect(room, event, {
    message,
    reason: 'grant.state',
  })
  // Its effect was recorded before the store said no.
  if (approvals >= needed) await recordShortened(room, grant)
  throw new Refusal('grant.state', message)
}

/**
 * What is worth nothing under the policy that decided has others to make up for it: it says how many are needed in all.
 * What an earlier policy wanted beyond the request binds no longer; how many break a seal was approved with it.
 */
function neededBy(grant: Grant, { allow, obligations }: Decision): number {
  const asked = allow && grant.statement.unseals === undefined
  return asked ? Math.max(grant.approvals_asked, obligations.approvals) : grant.approvals_needed
}

/** Another policy came into force while the approval was recorded: whether it counts, and for how much, is for that one to say. */
async function judgedAnew(
  room: GrantRoom,
  ask: ApproveAsk,
  grant: Grant,
  question: Question,
): Promise<Decision> {
  const decision = decide(room, question)
  if (decision.allow) return decision
  await withoutEffect(room, approval(ask, grant, decision, grant.approvals.length), {
    message: 'the policy changed meanwhile, and does not allow it',
    reason: decision.denials[0]?.code,
  })
  throw toRefusal(decision)
}

/** Takes back what the log says of an approval. */
async function withoutEffect(
  { log }: Pick<GrantRoom, 'log'>,
  event: ReturnType<typeof approval>,
  { message, reason }: { readonly message: string; readonly reason: string | undefined },
): Promise<void> {
  await log.append({
    ...event,
    ...REFUSED,
    message: `approval without effect: ${message}`,
    reason,
    data: { ...event.data, effect: 'none' },
  })
}

/** What would extend nothing any more is not approved: what is over, or lasts longer already. */
async function stillExtends(room: GrantRoom, { statement }: Grant, now: number): Promise<void> {
  if (statement.extends === undefined) return
  const extended = await findGrant(room, statement.extends.grant)
  const shown = shownState(extended, now)
  const { not_after, max_duration_s } = termsOf(extended)
  const no = (detail: string, nextStep: string) => new Refusal('grant.state', detail, { nextStep })
  if (shown !== 'approved' && shown !== 'active')
    throw no(
      `what it extends is ${shown}, and cannot be extended any more`,
      'its holder asks for a new grant',
    )
  if (statement.not_after < not_after || statement.max_duration_s < max_duration_s)
    throw no(
      'what it extends was extended by more meanwhile',
      `its holder asks anew: sallyport extend ${extended.statement.id}`,
    )
}

/** What is kept must prove by itself what it was given for: this grant, signed by its approver. */
function signsThis({ signature }: ApproveAsk, grant: Grant): void {
  if (signature === null || signature === undefined) return
  const { assertion, key, relying_party: party } = signature
  const challenge = Buffer.from(grant.hash, 'hex')
  const outcome = checkAssertion(assertion, key, {
    challenge,
    rpId: party.id,
    origins: party.origins,
  })
  if (outcome.ok) return
  throw new Refusal('grant.changed', 'the passkey signed another statement than this grant', {
    nextStep: 'look at the grant again, then approve what you see',
    denials: [{ code: outcome.code, msg: 'the passkey signed something else' }],
  })
}

/** Two accounts of one person are one approver, whatever signed them in; the refusal is recorded. */
async function countsOnce(room: GrantRoom, ask: ApproveAsk, grant: Grant): Promise<void> {
  const person = await room.personOf(ask.subject.id)
  const before = await Promise.all(grant.approvals.map(({ by }) => room.personOf(by)))
  if (!before.includes(person)) return
  const refusal = new Refusal('grant.person', 'you have approved this grant before', {
    nextStep: 'another person must approve; a second account of yours does not count',
  })
  await room.log.append({
    ...approval(ask, grant, undefined, grant.approvals.length),
    ...REFUSED,
    message: 'approval refused: this person has approved before',
    reason: refusal.code,
  })
  throw refusal
}

const REFUSED = { status: 'failure', disposition: 'unauthorized' } as const

/** What every event about an approval says. */
function approval(
  ask: ApproveAsk,
  grant: Grant,
  decision: Decision | undefined,
  approvals: number,
) {
  return {
    code: 'grant.approve' as const,
    actor: actorOf(ask.subject),
    src: srcOf(ask.source),
    device: grant.statement.devices.join(','),
    grant: ask.id,
    decisions: decision === undefined ? undefined : [refOf(decision)],
    data: {
      grant_sha256: grant.hash,
      approver_assertion_sha256:
        ask.signature === null || ask.signature === undefined
          ? undefined
          : digestOf(ask.signature.assertion),
      requester: grant.statement.requester,
      approvals,
      approvals_needed: grant.approvals_needed,
    },
  }
}

/** What policy is asked about an approval; undefined: nothing, the approver is whoever requested. */
type Question = Partially<Input> | undefined

function decide({ decisions }: Pick<GrantRoom, 'decisions'>, question: Question): Decision {
  return question === undefined
    ? decisions.refuse('host.approver_is_requester')
    : decisions.ask('grant.approve', question)
}

/** Whether who approves is who requested, by this or another account. */
async function asksItself(room: GrantRoom, ask: ApproveAsk, grant: Grant): Promise<boolean> {
  const [asks, approves] = await Promise.all(
    [grant.statement.requester, ask.subject.id].map((id) => room.personOf(id)),
  )
  return asks === approves
}

async function questionOf(room: GrantRoom, ask: ApproveAsk, grant: Grant): Promise<Question> {
  if (await asksItself(room, ask, grant)) return undefined
  const [id] = grant.statement.devices
  const device = id === undefined ? undefined : await room.devices.find(id)
  if (device === undefined)
    throw new Refusal('target.unknown', 'the device of this grant is no longer registered')
  const presence = room.registry.find(device.id)
  return {
    request_id: newId('r'),
    subject: ask.subject,
    client: clientFacts(ask.source),
    tls: tlsFacts(ask.source, presence),
    device: deviceFacts(device, presence, room.registry.isCutOff(device.id)),
    grants: [grantFacts(grant)],
    approval: {
      grant: grantFacts(grant),
      approvals: grant.approvals.map(({ by }) => by),
      signed: ask.signature !== null && ask.signature !== undefined,
    },
  }
}
